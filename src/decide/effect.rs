//! What is to be done: the only way out of the core.

use std::time::Duration;

use super::event::{ChangeId, LimitsRefusal, Memory, SpawnFailure};
use super::phase::{Ended, GiveUpReason, StopReason};
use crate::plan::GroupLimits;
use crate::units::{ByteSize, InstanceId, Pid, RunId, ServiceName, Signal};

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answered by `Spawned` or `SpawnFailed`.
    Spawn {
        instance: InstanceId,
        run: RunId,
        limits: GroupLimits,
    },
    /// To the run's first process.
    Signal {
        run: RunId,
        signal: Signal,
    },
    /// SIGKILL to every process of the run.
    KillGroup {
        run: RunId,
    },
    /// As `KillGroup`, and answered by `GroupEmpty` when nothing is left.
    Clear {
        run: RunId,
    },
    /// The run is over: release what was held for it.
    Forget {
        run: RunId,
    },
    /// The instance is no longer part of the plan and has no process: release what is its own.
    Retire {
        instance: InstanceId,
    },
    /// Answered by `Usage`.
    ReadUsage {
        run: RunId,
        change: ChangeId,
    },
    /// Slows the run down from `high` on and takes so many bytes from it; answered by `Usage`.
    Reclaim {
        run: RunId,
        change: ChangeId,
        high: ByteSize,
        bytes: u64,
    },
    /// Answered by `LimitsSet` or `LimitsRefused`.
    SetLimits {
        run: RunId,
        change: ChangeId,
        limits: GroupLimits,
    },
    /// What an operator set last for the service is not in force any more; what was before is.
    UndoSetLimits {
        service: ServiceName,
    },
    Announce(Announcement),
    /// For the log and for `why`.
    Note(Remark),
}

/// What the outside (service manager, operator) is told of the node as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// Every service reached what it can reach; once in a life.
    Ready,
    Stopping,
    /// Nothing runs any more: the node may end.
    Stopped,
}

/// Something an operator may want to read later.
#[derive(Debug, Clone, PartialEq)]
pub struct Remark {
    pub instance: InstanceId,
    pub run: Option<RunId>,
    pub kind: RemarkKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RemarkKind {
    Starting,
    Ready {
        pid: Pid,
        after: Duration,
    },
    StartFailed(SpawnFailure),
    Ended(Ended),
    Restarting {
        delay: Duration,
        attempt: u32,
    },
    Unhealthy {
        why: String,
        strikes: u32,
        threshold: u32,
    },
    /// A check went unanswered for want of processor time and does not count.
    Starved,
    Memory(Memory),
    LimitsRefused(LimitsRefusal),
    Stopping(StopReason),
    /// SIGTERM was not enough within the grace.
    Killing,
    /// SIGKILL was not enough: a process hangs in the kernel.
    Unkillable,
    /// Processes were left when the first one ended.
    LeftOvers,
    Failed(GiveUpReason),
    Stopped,
    /// It is no longer part of the plan.
    Retired,
}
