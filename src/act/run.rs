//! One run of an instance, from its spawn or adoption until it is forgotten: what the orchestrator
//! holds of it, and what the observers are given. Values only.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::binary::Binary;
use crate::linux::connection_broker::ConnectionBroker;
use crate::linux::members::Members;
use crate::linux::notify::NotifySocket;
use crate::linux::pidfd::Pidfd;
use crate::linux::spawn::ExecReport;
use crate::units::{InstanceId, Pid};

/// A run that was spawned and is not forgotten.
#[derive(Debug)]
pub struct LiveRun {
    pub instance: InstanceId,
    pub pid: Pid,
    pub pidfd: Arc<Pidfd>,
    pub members: Members,
    /// Processor time that its group had used before the run began.
    pub cpu_before: Duration,
    /// How many processes of its group the OOM killer had ended before the run began.
    pub oom_kills_before: u64,
    /// The binary of a built-in service. `None`: it is none, or was started by a version that did
    /// not save it.
    pub binary: Option<Arc<Binary>>,
    pub(super) notify_path: Option<PathBuf>,
    pub(super) notify: Option<Arc<NotifySocket>>,
    pub(super) status: Option<Arc<ConnectionBroker>>,
    pub(super) group: GroupUse,
}

/// Linux kills a process that is cloned into a group that was killed before (see `Group::kill`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupUse {
    Fresh,
    /// It was killed, or may have been by a former orchestrator: the next run needs a new group.
    Spent,
}

/// What the observers of a run need, after its spawn or adoption.
#[derive(Debug)]
pub struct StartedRun {
    pub pid: Pid,
    pub pidfd: Arc<Pidfd>,
    pub members: Members,
    pub origin: RunOrigin,
    /// How many processes of its group the OOM killer had ended before the run began.
    pub oom_kills_before: u64,
    pub stdout: Pipe,
    pub stderr: Pipe,
    pub notify: Option<Arc<NotifySocket>>,
    /// The orchestrator's end of the connection broker, for a service that is given the status
    /// feed.
    pub status: Option<Arc<ConnectionBroker>>,
    /// Processes that were in its group before the spawn, and were killed.
    pub intruders: Vec<Pid>,
}

/// The orchestrator's end of a pipe into which a run writes its log.
#[derive(Debug)]
pub struct Pipe {
    pub fd: OwnedFd,
    /// The beginning of a line that was read and has not ended.
    pub rest: Vec<u8>,
    /// How many parts of that line were given out before.
    pub parts: u32,
    /// Shared memory for lines that were read and are not delivered; `None`: they are only in this
    /// process.
    pub spool: Option<OwnedFd>,
}

impl From<OwnedFd> for Pipe {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, rest: Vec::new(), parts: 0, spool: None }
    }
}

/// The main process of a run that is not registered yet.
pub(super) struct MainProcess {
    pub(super) pid: Pid,
    pub(super) pidfd: Pidfd,
    pub(super) cpu_before: Duration,
    pub(super) oom_kills_before: u64,
    pub(super) binary: Option<Arc<Binary>>,
    pub(super) notify_path: Option<PathBuf>,
    pub(super) notify: Option<Arc<NotifySocket>>,
    pub(super) status: Option<Arc<ConnectionBroker>>,
    pub(super) group: GroupUse,
}

/// How the orchestrator came by a run.
#[derive(Debug)]
pub enum RunOrigin {
    /// Tells whether its program was executed.
    Spawned(ExecReport),
    /// A former orchestrator started it.
    Adopted,
}
