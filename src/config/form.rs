//! What may be written for a key, as far as its value's own form goes. Each reader of a value
//! declares it; the JSON schema is made of these. Knows no key.

use crate::units::ByteSize;

/// The form of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// Keys of its own; which ones, their own readers say.
    Section,
    /// Names and values of environment variables.
    Variables,
    Flag,
    /// A whole number within these bounds.
    Whole {
        least: i64,
        most: i64,
    },
    /// A text that this regular expression finds something in; at most so many characters.
    Text {
        pattern: &'static str,
        most: usize,
    },
    /// A text with units; its bounds are the reader's business.
    Duration,
    /// A text with a unit, or bytes.
    Size {
        least: ByteSize,
        most: ByteSize,
    },
    /// A number of processors, as a number or a text.
    Cores,
    Choice(Vec<&'static str>),
    Path,
    List {
        of: Box<Form>,
        least: usize,
        most: usize,
    },
    /// What the inner form takes, in a key that has to be there.
    Needed(Box<Form>),
    /// What the inner form takes, or "none".
    OrNone(Box<Form>),
}

impl Form {
    pub(super) const fn text(pattern: &'static str, most: usize) -> Self {
        Self::Text { pattern, most }
    }

    pub(super) fn list(of: Self) -> Self {
        Self::List { of: Box::new(of), least: 0, most: usize::MAX }
    }
}
