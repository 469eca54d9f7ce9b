//! `--since`: a point in time as an operator writes it.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::units::parse_duration;

const WRITE: &str = "write how long ago, such as 10m, or a time such as 2026-01-02T03:04:05Z, \
                     2026-01-02T03:04:05+02:00 or \"2026-01-02 03:04:05\" (UTC)";

/// How far back to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At(SystemTime),
}

impl Since {
    /// Microseconds since 1970. 0, which the node takes for "no bound", for times before that.
    pub fn unix_us(self, now: SystemTime) -> i64 {
        let point = match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
            Self::At(point) => point,
        };
        let since_epoch = point.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let (local, offset) = split_offset(text.trim()).unwrap_or((text.trim(), Offset::UTC));
        let time = humantime::parse_rfc3339_weak(local).map_err(|_| WRITE.to_owned())?;
        let utc = match offset {
            Offset::East(ahead) => time.checked_sub(ahead),
            Offset::West(behind) => time.checked_add(behind),
        };
        utc.map(Self::At).ok_or_else(|| WRITE.to_owned())
    }
}

/// How far a clock is from UTC.
enum Offset {
    East(Duration),
    West(Duration),
}

impl Offset {
    const UTC: Self = Self::East(Duration::ZERO);
}

/// The time and the offset behind it: `+02:00` (RFC 3339, `time-numoffset`).
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    if !local.contains(':') || ![hours, minutes].iter().all(|part| is_two_digits(part)) {
        return None;
    }
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let distance = Duration::from_secs(hours * 3600 + minutes * 60);
    match offset.as_bytes()[0] {
        b'+' => Some((local, Offset::East(distance))),
        b'-' => Some((local, Offset::West(distance))),
        _ => None,
    }
}

fn is_two_digits(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Result<Since, String> {
        Ok(Since::At(UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    #[test]
    fn a_duration_means_that_long_ago() {
        let since: Since = "10m".parse().unwrap();
        assert_eq!(since, Since::Ago(Duration::from_secs(600)));
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(since.unix_us(now), 400_000_000);
    }

    #[test]
    fn a_time_is_taken_in_every_usual_spelling() {
        assert_eq!("2026-01-02T03:04:05Z".parse(), at(1_767_323_045));
        assert_eq!("2026-01-02 03:04:05".parse(), at(1_767_323_045));
        assert_eq!("2026-01-02T03:04:05+00:00".parse(), at(1_767_323_045));
        assert_eq!("2026-01-02T05:04:05+02:00".parse(), at(1_767_323_045));
        assert_eq!("2026-01-01T21:34:05-05:30".parse(), at(1_767_323_045));
        let half = UNIX_EPOCH + Duration::from_millis(1_767_323_045_500);
        assert_eq!("2026-01-02T03:04:05.5Z".parse(), Ok(Since::At(half)));
    }

    #[test]
    fn a_time_before_1970_is_no_bound() {
        let long_ago: Since = "100years".parse().unwrap();
        assert_eq!(long_ago.unix_us(UNIX_EPOCH + Duration::from_secs(5)), 0);
        let before = Since::At(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.unix_us(UNIX_EPOCH), 0);
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        let wrong = [
            "",
            "10",
            "yesterday",
            "2026-01-02",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05+99:00",
            "2026-01-02T03:04:05+2:00",
            "2026-01-02T03:04:05ü00:00",
            "+02:00",
            "ü+02:00",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Since>(), Err(WRITE.to_owned()), "{text}");
        }
    }
}
