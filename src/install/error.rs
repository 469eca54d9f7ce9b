//! Why nothing was installed or removed.

use std::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot {doing} {}: {}{}", path.display(), words(reason), advice(reason))]
    File { doing: &'static str, path: PathBuf, reason: io::Error },
    #[error("{} leads out of {} by a symbolic link", path.display(), root.display())]
    LeadsOut { path: PathBuf, root: PathBuf },
    #[error("another install is at work in {}", root.display())]
    Busy { root: PathBuf },
    #[error("nothing was changed:{}", list(conflicts))]
    Conflicts { conflicts: Vec<Conflict> },
    #[error("{} is no manifest of an install: {problem}", path.display())]
    Manifest { path: PathBuf, problem: String },
    #[error("nothing is installed there: {} is missing", manifest.display())]
    NotInstalled { manifest: PathBuf },
    #[error("blackhole.service is in use; first: {command}")]
    InUse { command: String },
    #[error("{command}: {problem}")]
    Command { command: String, problem: String },
    #[error("{cause}\nand this could not be undone:{}", list(left))]
    NotUndone { cause: Box<Self>, left: Vec<String> },
}

impl InstallError {
    /// Whether another user would be let.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::File { reason, .. } => reason.kind() == io::ErrorKind::PermissionDenied,
            Self::NotUndone { cause, .. } => cause.is_denied(),
            Self::LeadsOut { .. }
            | Self::Busy { .. }
            | Self::Conflicts { .. }
            | Self::Manifest { .. }
            | Self::NotInstalled { .. }
            | Self::InUse { .. }
            | Self::Command { .. } => false,
        }
    }
}

/// A place that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another package's file, or one that was put there by hand.
    NotOurs { path: String },
    /// It was installed, and changed since.
    Changed { path: String },
    /// A folder, a link, a device.
    NoFile { path: String },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs { path } => {
                write!(f, "/{path} is there and was not installed by us; --force replaces it")
            }
            Self::Changed { path } => {
                write!(f, "/{path} was changed since it was installed; --force replaces it")
            }
            Self::NoFile { path } => write!(f, "/{path} is there and is no regular file"),
        }
    }
}

fn list(parts: &[impl fmt::Display]) -> String {
    parts.iter().map(|part| format!("\n  {part}")).collect()
}

/// As people write it, without Rust's "(os error 2)".
fn words(reason: &io::Error) -> String {
    let text = reason.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_owned())
}

fn advice(reason: &io::Error) -> &'static str {
    if reason.kind() == io::ErrorKind::PermissionDenied {
        "; run it as root, or name another place by --root DIR"
    } else {
        ""
    }
}
