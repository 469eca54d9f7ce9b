//! Where a verb writes, and how text becomes safe and coloured there. Knows no verb.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

/// The two outputs of a verb.
pub struct Console<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    pub paint: Paint,
    pub kind: Kind,
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("paint", &self.paint)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What is behind standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Terminal,
    Stream,
}

impl Kind {
    pub fn of_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Terminal } else { Self::Stream }
    }
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Coloured,
    Plain,
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Good,
    Changing,
    Bad,
    None,
}

impl Paint {
    /// Colours on a terminal only, and not where `NO_COLOR` is set to anything (no-color.org).
    pub fn on(kind: Kind) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match kind {
            Kind::Terminal if !refused => Self::Coloured,
            Kind::Terminal | Kind::Stream => Self::Plain,
        }
    }

    pub fn apply(self, colour: Colour, text: &str) -> String {
        let number = match (self, colour) {
            (Self::Plain, _) | (_, Colour::None) => return text.to_owned(),
            (Self::Coloured, Colour::Good) => 32,
            (Self::Coloured, Colour::Changing) => 33,
            (Self::Coloured, Colour::Bad) => 31,
        };
        format!("\x1b[{number}m{text}\x1b[0m")
    }
}

/// One line without control characters: what services say of themselves must not move the cursor
/// of the operator's terminal or look like a second line.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// RFC 3339 in UTC, to the microsecond; times that it cannot write become its first or last one.
pub fn rfc3339(unix_us: i64) -> String {
    /// 9999-12-31T23:59:59Z
    const LAST: u64 = 253_402_300_799_000_000;
    let micros = u64::try_from(unix_us).unwrap_or(0).min(LAST);
    let time = UNIX_EPOCH + Duration::from_micros(micros);
    let mut text = String::new();
    write!(text, "{}", humantime::format_rfc3339_micros(time))
        .expect("humantime writes every time up to the year 9999");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\td\u{9b}"), "a\\u{1b}[2Jb\\nc\td\\u{9b}");
        assert_eq!(printable("grün"), "grün");
    }

    #[test]
    fn plain_paint_adds_nothing() {
        assert_eq!(Paint::Plain.apply(Colour::Bad, "failed"), "failed");
        assert_eq!(Paint::Coloured.apply(Colour::None, "x"), "x");
        assert_eq!(Paint::Coloured.apply(Colour::Bad, "failed"), "\x1b[31mfailed\x1b[0m");
    }

    #[test]
    fn every_number_is_some_time() {
        assert_eq!(rfc3339(1_705_314_600_000_000), "2024-01-15T10:30:00.000000Z");
        assert_eq!(rfc3339(i64::MIN), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.000000Z");
    }
}
