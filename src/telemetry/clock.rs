//! The clocks of the log plane, and the time of a record as text. No other file of the log plane
//! reads a clock.

use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::units::Tick;

/// The two clocks that logs need: a wall clock for records, a monotonic one for rates.
pub trait Clock: Debug + Send + Sync {
    fn wall(&self) -> SystemTime;
    /// Monotonic: only differences mean something.
    fn tick(&self) -> Tick;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn tick(&self) -> Tick {
        Tick(self.start.elapsed())
    }
}

/// The last microsecond of the year 9999, the last that RFC 3339 can write.
const LATEST_US: u64 = 253_402_300_799_999_999;

/// The wall-clock time of a record, formatted once for all lines of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    text: [u8; 27],
    unix_us: i64,
}

impl Stamp {
    /// Times outside the years 1970 to 9999 become the nearest time inside.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(LATEST_US).min(LATEST_US);
        let mut text = *b"1970-01-01T00:00:00.000000Z";
        let shown = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros));
        write!(text.as_mut_slice(), "{shown}").expect("27 bytes hold every year up to 9999");
        Self { text, unix_us: i64::try_from(micros).unwrap_or(i64::MAX) }
    }

    /// RFC 3339 in UTC with microseconds: `2024-01-15T10:30:00.000000Z`.
    pub fn rfc3339(&self) -> &[u8] {
        &self.text
    }

    /// `10:30:00.000`, UTC.
    pub fn time_of_day(&self) -> &[u8] {
        &self.text[11..23]
    }

    pub fn unix_us(&self) -> i64 {
        self.unix_us
    }
}

#[cfg(test)]
pub mod fixed {
    //! A clock that stands still until it is told.

    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Default)]
    pub struct FixedClock(Mutex<Duration>);

    impl FixedClock {
        pub fn new() -> Arc<Self> {
            Arc::new(Self::default())
        }

        pub fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    impl Clock for FixedClock {
        /// 2024-01-15T10:30:00Z and what it was advanced by.
        fn wall(&self) -> SystemTime {
            UNIX_EPOCH + Duration::from_secs(1_705_314_600) + *self.0.lock().unwrap()
        }

        fn tick(&self) -> Tick {
            Tick(*self.0.lock().unwrap())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_says() {
        let stamp = Stamp::of(UNIX_EPOCH + Duration::from_micros(1_705_314_600_042_007));
        assert_eq!(stamp.rfc3339(), b"2024-01-15T10:30:00.042007Z");
        assert_eq!(stamp.time_of_day(), b"10:30:00.042");
        assert_eq!(stamp.unix_us(), 1_705_314_600_042_007);
    }

    #[test]
    fn impossible_times_become_the_nearest_possible() {
        let early = Stamp::of(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(early.rfc3339(), b"1970-01-01T00:00:00.000000Z");
        let late = Stamp::of(UNIX_EPOCH + Duration::from_secs(400_000_000_000));
        assert_eq!(late.rfc3339(), b"9999-12-31T23:59:59.999999Z");
    }
}
