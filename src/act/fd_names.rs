//! The names (`FDNAME=`) of the descriptors that outlive the orchestrator: in the service manager's
//! fd store, and on the way to the program that we become. Knows nothing of what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::linux::fds;
use crate::units::{InstanceId, RunId};

/// The longest name that a service manager takes (`FDNAME=`, sd_notify(3)).
const NAME_MOST: usize = 255;
/// Of the list of names that were not stored, in bytes.
const LIST_MOST: u64 = 16 << 20;

/// What a stored descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FdName {
    /// The checkpoint. Two slots take turns, so that there is always a whole one.
    Checkpoint(CheckpointSlot),
    /// The listener of the control socket.
    Control,
    /// A listener; which one its address tells. The number makes its name its own.
    Listener(u64),
    Run(RunFd, InstanceId, RunId),
    /// What the instance stored with us under this name.
    Stored(InstanceId, String),
    /// Names, one a line, of what is handed over and is not in the service manager's store. Only
    /// handed over, never kept.
    NotStored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum CheckpointSlot {
    #[default]
    Zero,
    One,
}

impl CheckpointSlot {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }
}

/// A descriptor of which every run has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunFd {
    Pidfd,
    Stdout,
    Stderr,
    /// Its notify socket.
    Notify,
    /// Our end of the broker that gives it connections to the status feed.
    StatusBroker,
    /// What was read of a line on its standard output that has not ended. Only handed over, never
    /// kept.
    StdoutRest,
    StderrRest,
    /// What was read of its standard output and has not got out yet.
    StdoutSpool,
    StderrSpool,
}

impl RunFd {
    pub(super) const ALL: [(Self, &str); 9] = [
        (Self::Pidfd, "pid"),
        (Self::Stdout, "out"),
        (Self::Stderr, "err"),
        (Self::Notify, "notify"),
        (Self::StatusBroker, "status"),
        (Self::StdoutRest, "out-rest"),
        (Self::StderrRest, "err-rest"),
        (Self::StdoutSpool, "out-spool"),
        (Self::StderrSpool, "err-spool"),
    ];

    /// What goes with the pipe of a log: the rest of a line, and the spool.
    pub(super) fn companions(self) -> Option<(Self, Self)> {
        match self {
            Self::Stdout => Some((Self::StdoutRest, Self::StdoutSpool)),
            Self::Stderr => Some((Self::StderrRest, Self::StderrSpool)),
            Self::Pidfd
            | Self::Notify
            | Self::StatusBroker
            | Self::StdoutRest
            | Self::StderrRest
            | Self::StdoutSpool
            | Self::StderrSpool => None,
        }
    }
}

impl fmt::Display for FdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(CheckpointSlot::Zero) => f.write_str("checkpoint.0"),
            Self::Checkpoint(CheckpointSlot::One) => f.write_str("checkpoint.1"),
            Self::Control => f.write_str("control"),
            Self::NotStored => f.write_str("not-stored"),
            Self::Listener(number) => write!(f, "listener.{number}"),
            Self::Run(part, id, run) => {
                let word = RunFd::ALL.iter().find(|(one, _)| one == part).map_or("", |(_, w)| w);
                write!(f, "{word}.{id}.{run}")
            }
            Self::Stored(id, name) => write!(f, "stored.{id}.{name}"),
        }
    }
}

impl FdName {
    /// None: no such name is ever given.
    fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        match (kind, rest) {
            ("checkpoint", "0") => return Some(Self::Checkpoint(CheckpointSlot::Zero)),
            ("checkpoint", "1") => return Some(Self::Checkpoint(CheckpointSlot::One)),
            ("control", "") => return Some(Self::Control),
            ("not-stored", "") => return Some(Self::NotStored),
            ("listener", number) => return number.parse().ok().map(Self::Listener),
            _ => {}
        }
        let (id, rest) = rest.split_once('.')?;
        let id = id.parse().ok()?;
        if kind == "stored" {
            return Some(Self::Stored(id, rest.to_owned()));
        }
        let part = RunFd::ALL.iter().find(|(_, word)| *word == kind)?.0;
        Some(Self::Run(part, id, RunId(rest.parse().ok()?)))
    }

    /// Whether its name is one that a service manager keeps.
    pub(super) fn is_valid(&self) -> bool {
        let name = self.to_string();
        name.len() <= NAME_MOST && name.bytes().all(|b| b != b':' && (b' '..0x7f).contains(&b))
    }
}

/// The descriptors that a former orchestrator left to us, sorted by what they are.
#[derive(Debug, Default)]
pub struct InheritedFds {
    pub(super) checkpoints: Vec<OwnedFd>,
    pub control: Option<OwnedFd>,
    pub(super) listeners: Vec<(u64, OwnedFd)>,
    pub(super) runs: BTreeMap<(InstanceId, RunId), BTreeMap<RunFd, OwnedFd>>,
    pub(super) stored: Vec<(InstanceId, String, OwnedFd)>,
    /// Those of them that the service manager's store does not have.
    pub(super) not_stored: BTreeSet<FdName>,
    /// Names that are none of ours. Their descriptors are closed.
    pub unknown: Vec<String>,
}

impl InheritedFds {
    pub fn sort(kept: Vec<(String, OwnedFd)>) -> Self {
        let mut all = Self::default();
        for (name, fd) in kept {
            match FdName::parse(&name) {
                Some(FdName::Checkpoint(_)) => all.checkpoints.push(fd),
                Some(FdName::Control) => all.control = Some(fd),
                Some(FdName::Listener(number)) => all.listeners.push((number, fd)),
                Some(FdName::Run(part, id, run)) => {
                    all.runs.entry((id, run)).or_default().insert(part, fd);
                }
                Some(FdName::Stored(id, name)) => all.stored.push((id, name, fd)),
                Some(FdName::NotStored) => all.not_stored = listed(&fd),
                None => all.unknown.push(name),
            }
        }
        all
    }

    /// What a service manager keeps, but for checkpoints and the control socket.
    pub(super) fn named(&self) -> impl Iterator<Item = (FdName, BorrowedFd<'_>)> {
        let listeners = self.listeners.iter().map(|(n, fd)| (FdName::Listener(*n), fd.as_fd()));
        let runs = self.runs.iter().flat_map(|((id, run), parts)| {
            parts.iter().map(|(part, fd)| (FdName::Run(*part, id.clone(), *run), fd.as_fd()))
        });
        let stored = self.stored.iter();
        let stored =
            stored.map(|(id, name, fd)| (FdName::Stored(id.clone(), name.clone()), fd.as_fd()));
        listeners.chain(runs).chain(stored)
    }
}

/// A list that cannot be read lists nothing: what it was to name is taken for stored.
fn listed(list: &OwnedFd) -> BTreeSet<FdName> {
    let bytes = fds::read_whole(list, LIST_MOST).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter_map(FdName::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_was_written() {
        let id: InstanceId = "my-web-12".parse().unwrap();
        let mut all = vec![
            FdName::Checkpoint(CheckpointSlot::Zero),
            FdName::Checkpoint(CheckpointSlot::One),
            FdName::Control,
            FdName::NotStored,
            FdName::Listener(7),
            FdName::Stored(id.clone(), "a.name with.dots".to_owned()),
        ];
        all.extend(RunFd::ALL.map(|(part, _)| FdName::Run(part, id.clone(), RunId(42))));
        for one in all {
            assert_eq!(FdName::parse(&one.to_string()), Some(one.clone()));
            assert!(one.is_valid(), "{one}");
        }
        for strange in ["", "out", "out.web-0", "out.web-0.x", "x.web-0.1", "checkpoint.2", "a:b"] {
            assert_eq!(FdName::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_name_that_no_manager_takes_is_known_before() {
        let id: InstanceId = "web-0".parse().unwrap();
        for name in ["x".repeat(250), "a:b".to_owned(), "ü".to_owned()] {
            assert!(!FdName::Stored(id.clone(), name).is_valid());
        }
    }
}
