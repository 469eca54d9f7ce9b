//! Time as the core sees it: a point on a clock that only goes forward.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, measured from the start of the node on the monotonic clock. Setting the wall
/// clock does not move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub Duration);

impl Tick {
    pub const ZERO: Self = Self(Duration::ZERO);

    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Tick {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("write a duration with its unit, such as 250ms, 5s or 1h 30m")]
    Form,
    #[error("a duration is not negative")]
    Negative,
    #[error("the duration is longer than any clock goes")]
    TooLong,
}

/// Reads `5s`, `250ms`, `1h 30m`. An integer without a unit is refused: nobody can tell what it is.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    humantime::parse_duration(text).map_err(|error| {
        let positive =
            text.strip_prefix('-').is_some_and(|rest| humantime::parse_duration(rest).is_ok());
        if positive {
            DurationError::Negative
        } else if error == humantime::DurationError::NumberOverflow {
            DurationError::TooLong
        } else {
            DurationError::Form
        }
    })
}

/// At most two units, none that is zero: `1m 5s`, `24h 35m`, `42ms`.
pub fn human_duration(d: Duration) -> String {
    let (millis, secs) = (d.subsec_millis(), d.as_secs());
    match secs {
        0 if millis == 0 => format!("{}us", d.subsec_micros()),
        0 => format!("{millis}ms"),
        1..60 if millis >= 100 && secs < 10 => format!("{secs}.{}s", millis / 100),
        1..60 => format!("{secs}s"),
        60..3600 => pair(secs / 60, "m", secs % 60, "s"),
        3600..172_800 => pair(secs / 3600, "h", secs % 3600 / 60, "m"),
        _ => pair(secs / 86_400, "d", secs % 86_400 / 3600, "h"),
    }
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        return format!("{large}{large_unit}");
    }
    format!("{large}{large_unit} {small}{small_unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_at_most_two_units() {
        let show = |ms: u64| human_duration(Duration::from_millis(ms));
        assert_eq!(show(42), "42ms");
        assert_eq!(show(1_250), "1.2s");
        assert_eq!(show(65_000), "1m 5s");
        assert_eq!(show(88_500_000), "24h 35m");
        assert_eq!(show(3_600_000), "1h");
        assert_eq!(human_duration(Duration::from_micros(7)), "7us");
    }

    #[test]
    fn a_bare_number_is_not_a_duration() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(parse_duration("5").is_err());
        assert_eq!(parse_duration("-5s"), Err(DurationError::Negative));
        assert_eq!(parse_duration("-5"), Err(DurationError::Form));
        assert_eq!(parse_duration("99999999999999999999s"), Err(DurationError::TooLong));
    }

    #[test]
    fn since_never_goes_below_zero() {
        assert_eq!(Tick::from_millis(5).since(Tick::from_millis(9)), Duration::ZERO);
    }
}
