//! The one error of this room: which operation failed on which object, and the kernel's reason.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use landlock::RulesetError;
use rustix::io::Errno;

use crate::linux::spawn::SpawnMethod;
use crate::units::{Pid, Signal};

/// What the kernel refused, or said that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {object}: {}", words(reason))]
    System { operation: &'static str, object: String, reason: io::Error },
    #[error("{file} holds {found:?}, not {expected}")]
    Content { file: String, expected: &'static str, found: String },
    #[error("clone a process for {program} ({method}): {}", words(reason))]
    Clone { program: String, method: SpawnMethod, reason: io::Error },
    #[error("{operation} {object}: {reason}")]
    Sandbox { operation: &'static str, object: String, reason: Box<RulesetError> },
    #[error("{program} cannot keep {names}: this process has not got that itself")]
    NoCapability { program: String, names: String },
    #[error("{program} cannot be started without arguments: the first is its own name")]
    NoArguments { program: String },
    #[error("{signal} cannot be sent: only signals 1 to 31 can")]
    Signal { signal: Signal },
    #[error("{name:?} is not the name of a file or group inside a cgroup")]
    GroupName { name: String },
    #[error("another process listens on {}", path.display())]
    AddressInUse { path: PathBuf },
    #[error("{} is locked by {}", path.display(), holder_words(*holder))]
    Locked { path: PathBuf, holder: Option<Pid> },
}

impl Error {
    /// The kernel's error number, where the kernel refused something.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { reason, .. } | Self::Clone { reason, .. } => reason.raw_os_error(),
            Self::Content { .. }
            | Self::Sandbox { .. }
            | Self::NoCapability { .. }
            | Self::NoArguments { .. }
            | Self::Signal { .. }
            | Self::GroupName { .. }
            | Self::AddressInUse { .. }
            | Self::Locked { .. } => None,
        }
    }
}

impl Error {
    /// Whether permission was missing (EACCES, EPERM).
    pub fn is_denied(&self) -> bool {
        let denied = [Errno::ACCESS, Errno::PERM].map(Errno::raw_os_error);
        self.errno().is_some_and(|errno| denied.contains(&errno))
    }
}

/// For `map_err`: `operation` is a verb phrase, `object` what it was done to.
pub(super) fn failed<E: Into<io::Error>>(
    operation: &'static str,
    object: impl Display,
) -> impl FnOnce(E) -> Error {
    move |reason| Error::System { operation, object: object.to_string(), reason: reason.into() }
}

/// The reason as people write it, without Rust's "(os error 2)".
pub(super) fn words(reason: &io::Error) -> String {
    let text = reason.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn holder_words(holder: Option<Pid>) -> String {
    match holder {
        Some(pid) => format!("process {pid}"),
        None => "a process that has just released it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_operation_the_object_and_the_reason() {
        let refused = failed("open", "/x")(io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(refused.to_string(), "open /x: No such file or directory");
        assert_eq!(refused.errno(), Some(libc::ENOENT));
    }
}
