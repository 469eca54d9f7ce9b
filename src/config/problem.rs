//! What is wrong with a configuration and where, in the words an operator reads. Knows no key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The most characters of a value or of a key that a problem repeats.
const SHOWN_MAX: usize = 60;

/// Where a key or a value was written. Ordered as the sources are laid over each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: it holds when nothing is written.
    Default,
    /// Line and column count from 1, the column in characters.
    File { path: Arc<Path>, line: usize, column: usize },
    /// `--set KEY=VALUE`; `order` counts them from 0.
    Set { order: usize, key: String },
    /// An option of its own, such as `--data-dir`.
    Option(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Set { order: _, key } => write!(f, "--set {}", shorten(key)),
            Self::Option(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, or, as a remark, one thing that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// The key with its sections, such as `api.http_port`; empty: the text itself is at fault.
    pub key: String,
    /// The value as it was written.
    pub value: Option<String>,
    pub what: String,
    /// What may be written instead.
    pub allowed: Option<String>,
    /// What was probably meant.
    pub meant: Option<String>,
}

impl Problem {
    pub(super) fn new(place: &Place, key: &str, what: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            key: shorten(key),
            value: None,
            what: what.into(),
            allowed: None,
            meant: None,
        }
    }

    pub(super) fn value(mut self, value: impl fmt::Display) -> Self {
        self.value = Some(shorten(&value.to_string()));
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn meant(mut self, meant: Option<String>) -> Self {
        self.meant = meant;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.value {
            Some(value) => write!(f, "{} = {value}: ", self.key)?,
            None if self.key.is_empty() => {}
            None => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.what)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(meant) = &self.meant {
            write!(f, "; did you mean {meant}?")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// At most 60 characters of `text`, on one line.
fn shorten(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_MAX)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The known name that looks most like `name`, if any looks like it at all.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.chars().nth(SHOWN_MAX).is_some() {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_was_written() {
        let place = Place::File { path: Path::new("node.toml").into(), line: 3, column: 9 };
        let problem =
            Problem::new(&place, "a\nb", "no good").value(format!("x\n{}", "y".repeat(99)));
        let shown = problem.to_string();
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.starts_with("node.toml:3:9: a\\nb = x\\nyyy"), "{shown}");
        assert!(shown.contains("y…: no good"), "{shown}");
    }

    #[test]
    fn only_a_name_that_looks_alike_is_proposed() {
        let known = ["interval", "timeout", "unhealthy_threshold"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("timout"), Some("timeout"));
        assert_eq!(near("intreval"), Some("interval"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(&"t".repeat(100_000)), None);
    }
}
