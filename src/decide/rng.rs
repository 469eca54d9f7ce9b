//! Randomness as a value: seeded once, part of the state, so a history is (seed, events).

/// SplitMix64 (Steele, Lea, Flood 2014). Good enough to spread restarts; not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// What it is seeded with to go on as this one does.
    pub fn state(&self) -> u64 {
        self.0
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Even over `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the authors' program gives for the seed 1234567.
    #[test]
    fn it_is_split_mix_64() {
        let mut rng = Rng::seeded(1_234_567);
        let drawn = [0; 3].map(|_| rng.draw());
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
        assert_eq!(Rng::seeded(rng.state()), rng, "it goes on as it was");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        assert!((0..100).any(|_| rng.below(2) == 1));
    }
}
