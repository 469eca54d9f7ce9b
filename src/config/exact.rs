//! Sizes and durations in words that are read back to the same value.

use std::time::Duration;

use crate::units::ByteSize;

/// In the unit in which it is exact.
pub(super) fn exact_size(size: ByteSize) -> String {
    let shown = size.to_string();
    let is_exact = shown.parse() == Ok(size);
    if is_exact { shown } else { format!("{}B", size.0) }
}

/// Exact to the nanosecond, and no unit that is zero: `1h 30m`.
pub(super) fn exact_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("days", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanos) in UNITS {
        if rest >= nanos {
            parts.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::parse_duration;

    #[test]
    fn durations_and_sizes_are_shown_exactly() {
        for nanos in
            [0, 1, 999, 1_500_000, 61_000_000_000, 86_400_000_000_001, 31_536_000_000_000_000]
        {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&exact_duration(duration)), Ok(duration));
        }
        assert_eq!(exact_duration(Duration::from_secs(5400)), "1h 30m");
        assert_eq!(exact_size(ByteSize::mib(512)), "512MiB");
        assert_eq!(exact_size(ByteSize((1 << 20) + 1)), "1048577B");
    }
}
