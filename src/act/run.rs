//! One run of an instance, from its spawn or adoption until it is forgotten: what the orchestrator
//! holds of it, and what it gives to the observers. Values only.

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
    /// Processor time that its group had used before it began.
    pub cpu_before: Duration,
    /// How many of its group the kernel had killed for want of memory before it began.
    pub oom_kills_before: u64,
    /// What a built-in service runs. None: it is none, or started before this was saved.
    pub binary: Option<Arc<Binary>>,
    pub(super) notify_path: Option<PathBuf>,
    pub(super) notify: Option<Arc<NotifySocket>>,
    pub(super) status: Option<Arc<ConnectionBroker>>,
    pub(super) group: GroupUse,
}

/// Linux kills whatever is cloned into a group that was killed before (see `Group::kill`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupUse {
    Fresh,
    /// It was killed, or may have been by an orchestrator before us: not for another run.
    Spent,
}

/// What a fresh process brings with it, for the observers.
#[derive(Debug)]
pub struct StartedRun {
    pub pid: Pid,
    pub pidfd: Arc<Pidfd>,
    pub members: Members,
    pub origin: RunOrigin,
    /// How many of its group the kernel had killed for want of memory before it began.
    pub oom_kills_before: u64,
    pub stdout: Pipe,
    pub stderr: Pipe,
    pub notify: Option<Arc<NotifySocket>>,
    /// Our end of the line on which it asks for connections to the status, where it has one.
    pub status: Option<Arc<ConnectionBroker>>,
    /// Processes that were in its group before it, and were killed.
    pub intruders: Vec<Pid>,
}

/// Our end of a pipe into which a run writes.
#[derive(Debug)]
pub struct Pipe {
    pub fd: OwnedFd,
    /// What was read before of a line that has not ended.
    pub rest: Vec<u8>,
    /// Parts of that line that were given out before.
    pub parts: u32,
    /// Shared memory for what is read, until it has got out; none: it is in this process alone.
    pub spool: Option<OwnedFd>,
}

impl From<OwnedFd> for Pipe {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, rest: Vec::new(), parts: 0, spool: None }
    }
}

/// The process of a run that is not among the live ones yet.
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

/// How a process came to us.
#[derive(Debug)]
pub enum RunOrigin {
    /// Whether its program was executed is told here.
    Spawned(ExecReport),
    /// A former orchestrator started it.
    Adopted,
}
