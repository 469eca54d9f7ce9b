//! The names (`FDNAME=`) of the descriptors that outlive the orchestrator: in the service manager's
//! fd store, and in an exec handover. Knows nothing of what is done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::linux::fds;
use crate::rpc::pb::node::HistoryRecord;
use crate::units::{InstanceId, RunId};

/// The longest name that a service manager takes (`FDNAME=`, sd_notify(3)).
const NAME_MOST: usize = 255;
/// The longest list of names that were not stored, in bytes.
const LIST_MOST: u64 = 16 << 20;

/// What a stored descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FdName {
    /// The checkpoint. Two slots take turns, so that there is always a whole one.
    Checkpoint(CheckpointForm, CheckpointSlot),
    /// The history of the instances (`why`).
    History,
    /// The listener of the control socket.
    Control,
    /// A listener. Its address tells which one; the number only makes the name unique.
    Listener(u64),
    Run(RunFd, InstanceId, RunId),
    /// Descriptors that the instance stored under this name (`FDSTORE=1`).
    Stored(InstanceId, String),
    /// Names, one a line, of descriptors that are handed over and are not in the service manager's
    /// store. Part of an exec handover only; never stored.
    NotStored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckpointSlot {
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

/// The form of a checkpoint; it is part of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckpointForm {
    /// JSON, the form of the version before this one, which looks for it by this name.
    Json,
    /// That of `checkpoint.proto`.
    Proto,
}

impl CheckpointForm {
    pub const ALL: [Self; 2] = [Self::Proto, Self::Json];
}

/// A checkpoint that was found among the inherited descriptors.
#[derive(Debug)]
pub(super) struct KeptCheckpoint {
    pub(super) form: CheckpointForm,
    pub(super) slot: CheckpointSlot,
    pub(super) fd: OwnedFd,
}

/// A descriptor of which each run has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunFd {
    Pidfd,
    Stdout,
    Stderr,
    /// Its notify socket.
    Notify,
    /// The orchestrator's end of the connection broker by which the run gets connections to the
    /// status feed.
    StatusBroker,
    /// The beginning of a line on standard output that has not ended. Part of an exec handover
    /// only; never stored.
    StdoutRest,
    StderrRest,
    /// The spool of standard output: what was read and is not delivered yet.
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

    /// The descriptors that belong to the pipe of a log: the rest of a line, and the spool.
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
            Self::Checkpoint(form, slot) => {
                let word = match form {
                    CheckpointForm::Json => "checkpoint",
                    CheckpointForm::Proto => "state",
                };
                let number = match slot {
                    CheckpointSlot::Zero => 0,
                    CheckpointSlot::One => 1,
                };
                write!(f, "{word}.{number}")
            }
            Self::History => f.write_str("history"),
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
    /// `None`: the text is no name of ours.
    fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        match (kind, rest) {
            ("checkpoint", slot) => return Self::checkpoint(CheckpointForm::Json, slot),
            ("state", slot) => return Self::checkpoint(CheckpointForm::Proto, slot),
            ("history", "") => return Some(Self::History),
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

    fn checkpoint(form: CheckpointForm, slot: &str) -> Option<Self> {
        match slot {
            "0" => Some(Self::Checkpoint(form, CheckpointSlot::Zero)),
            "1" => Some(Self::Checkpoint(form, CheckpointSlot::One)),
            _ => None,
        }
    }

    /// Whether a service manager accepts the name.
    pub(super) fn is_valid(&self) -> bool {
        let name = self.to_string();
        name.len() <= NAME_MOST && name.bytes().all(|b| b != b':' && (b' '..0x7f).contains(&b))
    }
}

/// The descriptors that a former orchestrator left to us, sorted by what they are.
#[derive(Debug, Default)]
pub struct InheritedFds {
    pub(super) checkpoints: Vec<KeptCheckpoint>,
    pub(super) history: Option<OwnedFd>,
    /// The records of the history that the former orchestrator left.
    pub recorded: Vec<HistoryRecord>,
    pub control: Option<OwnedFd>,
    pub(super) listeners: Vec<(u64, OwnedFd)>,
    pub(super) runs: BTreeMap<(InstanceId, RunId), BTreeMap<RunFd, OwnedFd>>,
    pub(super) stored: Vec<(InstanceId, String, OwnedFd)>,
    /// Names of descriptors that were handed over and are not in the service manager's store.
    pub(super) not_stored: BTreeSet<FdName>,
    /// Names that are not ours. Their descriptors are closed.
    pub unknown: Vec<String>,
}

impl InheritedFds {
    pub fn sort(kept: Vec<(String, OwnedFd)>) -> Self {
        let mut all = Self::default();
        for (name, fd) in kept {
            match FdName::parse(&name) {
                Some(FdName::Checkpoint(form, slot)) => {
                    all.checkpoints.push(KeptCheckpoint { form, slot, fd });
                }
                Some(FdName::History) => all.history = Some(fd),
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

    /// The runs of which all descriptors are there that an adoption needs, with their pidfds. Of
    /// one instance, later runs come after earlier ones.
    pub(super) fn whole_runs(&self) -> impl Iterator<Item = (&InstanceId, RunId, &OwnedFd)> {
        self.runs.iter().filter_map(|((id, run), parts)| {
            let whole = [RunFd::Stdout, RunFd::Stderr].iter().all(|part| parts.contains_key(part));
            Some((id, *run, parts.get(&RunFd::Pidfd).filter(|_| whole)?))
        })
    }

    /// The checkpoints that the service manager has.
    pub(super) fn take_checkpoints(&mut self) -> Vec<KeptCheckpoint> {
        let mut all = std::mem::take(&mut self.checkpoints);
        all.retain(|kept| !self.not_stored.contains(&FdName::Checkpoint(kept.form, kept.slot)));
        all
    }

    /// The history, if the service manager has it.
    pub(super) fn take_history(&mut self) -> Option<OwnedFd> {
        self.history.take().filter(|_| !self.not_stored.contains(&FdName::History))
    }

    /// The inherited descriptors with their names, except for those with a reserved place.
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

/// A list that cannot be read counts as empty: everything is taken for stored.
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
            FdName::Checkpoint(CheckpointForm::Json, CheckpointSlot::Zero),
            FdName::Checkpoint(CheckpointForm::Json, CheckpointSlot::One),
            FdName::Checkpoint(CheckpointForm::Proto, CheckpointSlot::Zero),
            FdName::Checkpoint(CheckpointForm::Proto, CheckpointSlot::One),
            FdName::History,
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
        for strange in
            ["", "out", "out.web-0", "out.web-0.x", "x.web-0.1", "checkpoint.2", "a:b", "state"]
        {
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
