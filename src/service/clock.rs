//! The wall clock as the services write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now, in microseconds since 1970; negative before it.
pub fn unix_us() -> i64 {
    of(SystemTime::now())
}

/// The time of a file, likewise.
pub fn of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}
