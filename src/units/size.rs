//! Amounts of memory and of processor.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("write a size such as 512MiB, 2GB or 1048576 ({0})")]
    Size(String),
    #[error("write a number of processors from 0.01 to 1024, such as 0.5 or 2")]
    Cpu,
}

/// A number of bytes. `2GB` is 2,000,000,000 and `2GiB` is 2,147,483,648, as the SI and IEC say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let parsed: bytesize::ByteSize = text.trim().parse().map_err(SizeError::Size)?;
        Ok(Self(parsed.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    /// `1.2GiB`, or whole units where they are exact: `512MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let Some((unit, factor)) = UNITS.iter().find(|(_, factor)| self.0 >= *factor) else {
            return f.pad(&format!("{}B", self.0));
        };
        if self.0.is_multiple_of(*factor) {
            return f.pad(&format!("{}{unit}", self.0 / factor));
        }
        let tenths = u128::from(self.0) * 10 / u128::from(*factor);
        f.pad(&format!("{}.{}{unit}", tenths / 10, tenths % 10))
    }
}

/// A share of the machine's processors, in thousandths of one: `0.5` is 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuShare(u32);

impl CpuShare {
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// From thousandths of a processor, 10..=1,024,000.
    pub fn from_millis(millis: u32) -> Result<Self, SizeError> {
        if (10..=1_024_000).contains(&millis) { Ok(Self(millis)) } else { Err(SizeError::Cpu) }
    }
}

impl FromStr for CpuShare {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
            return Err(SizeError::Cpu);
        }
        let whole: u32 = whole.parse().map_err(|_| SizeError::Cpu)?;
        let part: u32 = format!("{part:0<3}").parse().map_err(|_| SizeError::Cpu)?;
        let millis = whole.checked_mul(1000).and_then(|w| w.checked_add(part));
        Self::from_millis(millis.ok_or(SizeError::Cpu)?)
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{part:03}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_si_and_iec() {
        let bytes = |t: &str| t.parse::<ByteSize>().map(|b| b.0);
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert!(bytes("-1MB").is_err() && bytes("lots").is_err() && bytes("").is_err());
    }

    #[test]
    fn a_size_prints_as_an_operator_would_write_it() {
        let show = |b: u64| ByteSize(b).to_string();
        assert_eq!(show(512 << 20), "512MiB");
        assert_eq!(show((3 << 30) + (1 << 29)), "3.5GiB");
        assert_eq!(show(999), "999B");
        assert_eq!(show(0), "0B");
    }

    #[test]
    fn a_share_is_exact_and_bounded() {
        let millis = |t: &str| t.parse::<CpuShare>().map(CpuShare::millis);
        assert_eq!(millis("0.5"), Ok(500));
        assert_eq!(millis("2"), Ok(2000));
        assert_eq!(millis("0.01"), Ok(10));
        for wrong in ["0", "-1", "0.0001", "1e3", "", ".5", "99999999999"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
        assert_eq!(CpuShare::from_millis(1250).unwrap().to_string(), "1.25");
    }
}
