//! The machines that there are.

use std::fmt;
use std::str::FromStr;

/// A Debian release, and with it a generation of systemd and of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// systemd 252, Linux 6.1.
    Bookworm,
    /// systemd 257, Linux 6.12.
    Trixie,
}

impl Release {
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// Debian's own name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|release| release.name() == text);
        found.ok_or_else(|| format!("there is no machine {text:?}; there are bookworm and trixie"))
    }
}
