//! Seeded chance: the same seed gives the same victims, gaps and orders.

/// xorshift64*
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to `limit` - 1; 0 where there is no limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11).checked_rem(limit).unwrap_or(0)
    }

    /// The numbers below `count` in some order.
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        for end in (1..count).rev() {
            let other = usize::try_from(self.below(end as u64 + 1)).unwrap_or(end);
            all.swap(end, other);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_number_once_and_a_seed_repeats_it() {
        let order = Chance::seeded(7).order(10);
        assert_eq!(order, Chance::seeded(7).order(10));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(order, sorted);
    }
}
