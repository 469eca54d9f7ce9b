//! The descriptors that the node passed at the start, by name, as `sd_listen_fds(3)` describes:
//! `LISTEN_FDS` descriptors from 3 on, meant for the process `LISTEN_PID`, named `LISTEN_FDNAMES`.
#![allow(unsafe_code, reason = "numbers from the environment become owned descriptors here")]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// `SD_LISTEN_FDS_START`
const FIRST: RawFd = 3;
/// The most descriptors that a service takes.
const MOST: RawFd = 256;
/// The most descriptors that the node takes from its service manager.
const STORED_MOST: RawFd = 1 << 16;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why the passed descriptors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListenFdsError {
    #[error(
        "`service NAME` is started by the node itself; run `blackhole-node` instead \
         ({0} is not set)"
    )]
    NotStartedByNode(&'static str),
    #[error(
        "`service NAME` is started by the node itself; run `blackhole-node` instead \
         (LISTEN_PID is {found:?}, this process is {own})"
    )]
    OtherProcess { found: String, own: u32 },
    #[error("LISTEN_FDS is {0:?}: it must be a number from 1 to {MOST}")]
    Count(String),
    #[error("LISTEN_FDS is {0:?}: it must be a number from 0 to {STORED_MOST}")]
    StoredCount(String),
    #[error("LISTEN_FDNAMES has {names} names for {count} descriptors")]
    NameCount { names: usize, count: RawFd },
    #[error("LISTEN_FDNAMES has an empty name at place {0}")]
    NoName(usize),
    #[error("LISTEN_FDNAMES names {0:?} twice")]
    TwiceNamed(String),
    #[error("descriptor {number} ({name:?}) was announced but is not open: {source}")]
    NotOpen { number: RawFd, name: String, source: io::Error },
    #[error("cannot keep descriptor {name:?} from further programs: {source}")]
    CloseOnExec { name: String, source: io::Error },
    #[error("the passed descriptors were taken already")]
    Taken,
}

/// Takes the passed descriptors; each is closed on exec from now on. Works once in a process.
pub fn take() -> Result<BTreeMap<String, OwnedFd>, ListenFdsError> {
    let variable =
        |name: &'static str| env::var(name).map_err(|_| ListenFdsError::NotStartedByNode(name));
    let names = announced(
        &variable("LISTEN_PID")?,
        &variable("LISTEN_FDS")?,
        &variable("LISTEN_FDNAMES")?,
        std::process::id(),
    )?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(ListenFdsError::Taken);
    }
    (FIRST..).zip(names).map(|(number, name)| own(number, &name).map(|fd| (name, fd))).collect()
}

/// What the service manager's fd store has kept for the node (`FDSTORE=1` of `sd_notify(3)`), with
/// the names they were given; names may repeat. Nothing where nothing is announced to this process.
pub fn take_stored() -> Result<Vec<(String, OwnedFd)>, ListenFdsError> {
    let variable = |name| env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(Vec::new());
    }
    let names = stored_names(&variable("LISTEN_FDS"), &variable("LISTEN_FDNAMES"))?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(ListenFdsError::Taken);
    }
    (FIRST..).zip(names).map(|(number, name)| own(number, &name).map(|fd| (name, fd))).collect()
}

fn stored_names(count: &str, names: &str) -> Result<Vec<String>, ListenFdsError> {
    let number = count.parse().ok().filter(|count| (0..=STORED_MOST).contains(count));
    let count: RawFd = number.ok_or_else(|| ListenFdsError::StoredCount(count.to_owned()))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    if RawFd::try_from(names.len()) != Ok(count) {
        return Err(ListenFdsError::NameCount { names: names.len(), count });
    }
    Ok(names)
}

/// The names of the descriptors, in the order of their numbers.
fn announced(pid: &str, count: &str, names: &str, own: u32) -> Result<Vec<String>, ListenFdsError> {
    if pid.parse() != Ok(own) {
        return Err(ListenFdsError::OtherProcess { found: pid.to_owned(), own });
    }
    let number = count.parse().ok().filter(|count| (1..=MOST).contains(count));
    let count: RawFd = number.ok_or_else(|| ListenFdsError::Count(count.to_owned()))?;
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    if RawFd::try_from(names.len()) != Ok(count) {
        return Err(ListenFdsError::NameCount { names: names.len(), count });
    }
    for (place, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(ListenFdsError::NoName(place));
        }
        if names[..place].contains(name) {
            return Err(ListenFdsError::TwiceNamed(name.clone()));
        }
    }
    Ok(names)
}

/// Takes ownership of a descriptor that was open when this program was executed.
pub(super) fn own(number: RawFd, name: &str) -> Result<OwnedFd, ListenFdsError> {
    // SAFETY: F_GETFD takes no further argument and changes nothing, whatever the number is.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        let source = io::Error::last_os_error();
        return Err(ListenFdsError::NotOpen { number, name: name.to_owned(), source });
    }
    // SAFETY: it is open (above), was passed to this process by the node, which keeps no other use
    // for it here, and `take` runs once, before anything else opens or owns descriptors.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_setfd(&fd, FdFlags::CLOEXEC) {
        Ok(()) => Ok(fd),
        Err(error) => {
            Err(ListenFdsError::CloseOnExec { name: name.to_owned(), source: error.into() })
        }
    }
}

/// For tests: starts processes the way the node does.
#[cfg(test)]
pub mod testing {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::io::fcntl_dupfd_cloexec;

    use super::*;

    /// A command that runs `program` with its arguments, and with the descriptors passed by name.
    pub fn passing(passed: &[(&str, OwnedFd)], program: &[&str]) -> Command {
        // Only a shell can put its own process id into the environment of what it becomes.
        #[allow(clippy::disallowed_methods, reason = "a test's own child, not one of the node's")]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).args(program);
        let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        // Far above the numbers that they get, so that none overwrites another.
        let high: Vec<OwnedFd> =
            passed.iter().map(|(_, fd)| fcntl_dupfd_cloexec(fd, 100).unwrap()).collect();
        let place = move || {
            for (number, fd) in (FIRST..).zip(&high) {
                // SAFETY: dup2 is async-signal-safe and concerns the child's descriptors only.
                if unsafe { libc::dup2(fd.as_raw_fd(), number) } == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure only calls dup2, on numbers made before.
        unsafe { command.pre_exec(place) };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pid: &str, count: &str, names: &str) -> Result<Vec<String>, String> {
        announced(pid, count, names, 42).map_err(|error| error.to_string())
    }

    #[test]
    fn names_follow_the_numbers() {
        let names = told("42", "3", "grpc:shared:sheet").unwrap();
        assert_eq!(names, ["grpc", "shared", "sheet"]);
    }

    #[test]
    fn another_process_id_says_who_starts_services() {
        let error = told("41", "1", "grpc").unwrap_err();
        assert!(error.contains("run `blackhole-node` instead"), "{error}");
        assert!(error.contains("\"41\"") && error.contains("42"), "{error}");
        assert!(told("", "1", "grpc").is_err() && told("-42", "1", "grpc").is_err());
    }

    #[test]
    fn counts_and_names_are_bounded_and_agree() {
        for wrong in ["0", "-1", "257", "x", "", "99999999999999999999"] {
            assert!(told("42", wrong, "grpc").unwrap_err().contains("1 to 256"), "{wrong}");
        }
        assert!(told("42", "2", "grpc").unwrap_err().contains("1 names for 2"));
        assert!(told("42", "2", "grpc:").unwrap_err().contains("empty name at place 1"));
        assert!(told("42", "3", "a:b:a").unwrap_err().contains("\"a\" twice"));
    }

    #[test]
    fn what_was_kept_may_share_a_name_and_be_nothing() {
        assert_eq!(stored_names("3", "listener:out:out").unwrap(), ["listener", "out", "out"]);
        assert_eq!(stored_names("0", "").unwrap(), [""; 0]);
        for wrong in ["", "-1", "x", "65537"] {
            assert!(
                stored_names(wrong, "a").unwrap_err().to_string().contains("0 to 65536"),
                "{wrong}"
            );
        }
        assert!(stored_names("2", "a").unwrap_err().to_string().contains("1 names for 2"));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let error = own(1_000_000, "grpc").unwrap_err().to_string();
        assert!(error.contains("1000000") && error.contains("\"grpc\""), "{error}");
    }
}
