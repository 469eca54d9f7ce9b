//! The rate limit of a service's lines, and when notices tell of dropped ones. Pure: the time is an
//! argument.

use std::time::Duration;

use crate::units::Tick;

/// Credit counts billionths of a line, so that no rate and no interval is rounded away.
const LINE: u64 = 1_000_000_000;

/// The longest time until a notice tells of dropped lines, and the shortest between two notices.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket: `burst` lines at once, `rate` lines a second in the long run.
#[derive(Debug)]
pub struct Bucket {
    rate: u32,
    burst: u32,
    credit: u64,
    filled: Tick,
}

impl Bucket {
    /// A full bucket. `rate` 0: no limit. `burst` counts as at least 1.
    pub fn new(rate: u32, burst: u32, now: Tick) -> Self {
        let burst = burst.max(1);
        Self { rate, burst, credit: u64::from(burst) * LINE, filled: now }
    }

    /// Changes the limits; a bucket whose limits differ is full again.
    pub fn set(&mut self, rate: u32, burst: u32, now: Tick) {
        if (self.rate, self.burst) != (rate, burst.max(1)) {
            *self = Self::new(rate, burst, now);
        }
    }

    pub fn refill(&mut self, now: Tick) {
        let gained = now.since(self.filled).as_nanos().saturating_mul(self.rate.into());
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_add(gained).min(u64::from(self.burst) * LINE);
        self.filled = self.filled.max(now);
    }

    /// Takes a line's credit; false: the line is to be dropped.
    pub fn take(&mut self) -> bool {
        if self.rate == 0 {
            return true;
        }
        let left = self.credit.checked_sub(LINE);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }
}

/// Dropped lines that no notice has told of.
#[derive(Debug, Default)]
pub struct UntoldDrops {
    lines: u64,
    since: Option<Tick>,
    said: Option<Tick>,
}

impl UntoldDrops {
    /// With lines that were dropped before this process began.
    pub fn inherited(lines: u64, now: Tick) -> Self {
        Self { lines, since: (lines > 0).then_some(now), said: None }
    }

    /// How many lines no notice has told of.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn drop_one(&mut self, now: Tick) {
        self.lines += 1;
        self.since.get_or_insert(now);
    }

    /// How many lines to tell of before the next line passes, if any.
    pub fn before_a_line(&mut self, now: Tick) -> Option<u64> {
        let rested = self.said.is_none_or(|said| now.since(said) >= NOTICE_INTERVAL);
        if rested { self.take(now) } else { None }
    }

    /// How many lines to tell of because a notice is overdue, if any.
    pub fn overdue(&mut self, now: Tick) -> Option<u64> {
        if self.waits_for(now)?.is_zero() { self.take(now) } else { None }
    }

    /// How many lines to tell of now, whenever the last notice was.
    pub fn take(&mut self, now: Tick) -> Option<u64> {
        self.since.take()?;
        self.said = Some(now);
        Some(std::mem::take(&mut self.lines))
    }

    /// How long until a notice is overdue; `None`: there is nothing to tell.
    pub fn waits_for(&self, now: Tick) -> Option<Duration> {
        self.since.map(|since| NOTICE_INTERVAL.saturating_sub(now.since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bucket: &mut Bucket, tries: u32, now: Tick) -> usize {
        bucket.refill(now);
        (0..tries).filter(|_| bucket.take()).count()
    }

    #[test]
    fn the_burst_passes_at_once_and_then_the_rate_exactly() {
        let mut bucket = Bucket::new(3, 10, Tick::ZERO);
        assert_eq!(passed(&mut bucket, 100, Tick::ZERO), 10);
        let in_a_minute: usize =
            (1..=60_000).map(|ms| passed(&mut bucket, 5, Tick::from_millis(ms))).sum();
        assert_eq!(in_a_minute, 180);
    }

    #[test]
    fn credit_does_not_grow_beyond_the_burst_or_while_time_goes_back() {
        let mut bucket = Bucket::new(1000, 5, Tick::ZERO);
        assert_eq!(passed(&mut bucket, 100, Tick::from_millis(3_600_000)), 5);
        assert_eq!(passed(&mut bucket, 100, Tick::ZERO), 0);
        assert_eq!(passed(&mut bucket, 100, Tick::from_millis(3_600_000)), 0);
    }

    #[test]
    fn rate_zero_is_no_limit_and_extremes_do_not_overflow() {
        let mut open = Bucket::new(0, 0, Tick::ZERO);
        assert_eq!(passed(&mut open, 1000, Tick::ZERO), 1000);
        let mut wide = Bucket::new(u32::MAX, u32::MAX, Tick::ZERO);
        assert_eq!(passed(&mut wide, 1000, Tick(Duration::MAX)), 1000);
    }

    #[test]
    fn other_limits_begin_with_a_full_bucket_and_the_same_change_nothing() {
        let mut bucket = Bucket::new(1, 100, Tick::ZERO);
        bucket.set(1, 2, Tick::ZERO);
        assert_eq!(passed(&mut bucket, 100, Tick::ZERO), 2);
        bucket.set(1, 2, Tick::ZERO);
        assert_eq!(passed(&mut bucket, 100, Tick::ZERO), 0);
    }

    #[test]
    fn a_notice_comes_when_the_flow_resumes_but_at_most_once_a_second() {
        let mut unsaid = UntoldDrops::default();
        assert_eq!(unsaid.before_a_line(Tick::ZERO), None);
        unsaid.drop_one(Tick::ZERO);
        unsaid.drop_one(Tick::ZERO);
        assert_eq!(unsaid.before_a_line(Tick::from_millis(10)), Some(2));
        unsaid.drop_one(Tick::from_millis(20));
        assert_eq!(unsaid.before_a_line(Tick::from_millis(30)), None);
        assert_eq!(unsaid.before_a_line(Tick::from_millis(1010)), Some(1));
    }

    #[test]
    fn dropped_lines_stay_unsaid_for_a_second_at_most() {
        let mut unsaid = UntoldDrops::default();
        assert_eq!(unsaid.waits_for(Tick::ZERO), None);
        unsaid.drop_one(Tick::from_millis(500));
        unsaid.drop_one(Tick::from_millis(900));
        let waits = unsaid.waits_for(Tick::from_millis(900));
        assert_eq!(waits, Some(Duration::from_millis(600)));
        assert_eq!(unsaid.overdue(Tick::from_millis(1499)), None);
        assert_eq!(unsaid.overdue(Tick::from_millis(1500)), Some(2));
        assert_eq!(unsaid.overdue(Tick::from_millis(9000)), None);
    }
}
