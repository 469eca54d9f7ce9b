//! What can happen: the only way into the state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::{LimitLayers, Rules};
use crate::units::{ByteSize, ExitStatus, InstanceId, Pid, RunId, Signal};

/// Names one change of limits; never used twice in the life of an orchestrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeId(pub u64);

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time went on: what is due at or before now is done.
    Tick,
    Command(Command),
    News {
        run: RunId,
        news: News,
    },
}

/// What an operator asks for. Instances that the node does not have are passed over.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Also starts what they need.
    Start(BTreeSet<InstanceId>),
    Stop(BTreeSet<InstanceId>),
    Restart(BTreeSet<InstanceId>),
    Replan(Replan),
    /// The limits of instances of one service, which are undone where a run cannot follow.
    SetLimits(BTreeMap<InstanceId, LimitLayers>),
    Shutdown(Urgency),
}

/// A new plan takes the place of the one in force. What is not in it any more is stopped and
/// retired; what is new in it is wanted up.
#[derive(Debug, Clone, PartialEq)]
pub struct Replan {
    /// Of every instance that is to be there.
    pub rules: BTreeMap<InstanceId, Rules>,
    /// Of those that are named; the others keep theirs, or have none.
    pub limits: BTreeMap<InstanceId, LimitLayers>,
    /// Those whose run, if they have one, does not fit the new plan.
    pub relaunch: BTreeSet<InstanceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// In reverse order of dependencies, each with its grace.
    Orderly,
    /// Everything is killed at once.
    Now,
}

/// What is learnt about one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The process exists; its program may not be executed yet.
    Spawned {
        pid: Pid,
    },
    /// No process came to be.
    SpawnFailed(SpawnFailure),
    /// The program was executed.
    Executed,
    /// The process exists, could not execute its program, and is ending.
    ExecFailed(SpawnFailure),
    /// Its TCP port accepts connections.
    PortOpen,
    Checked(Check),
    Notice(Notice),
    Memory(Memory),
    /// Answers `ReadUsage` and `Reclaim`.
    Usage {
        change: ChangeId,
        usage: Usage,
    },
    /// Answers `SetLimits`: the kernel has them.
    LimitsSet {
        change: ChangeId,
    },
    LimitsRefused {
        change: ChangeId,
        refusal: LimitsRefusal,
    },
    /// The first process ended and was reaped.
    Exited {
        facts: ExitFacts,
        group: GroupState,
    },
    /// No process of the run is left.
    GroupEmpty,
}

/// Why nothing was started, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure(pub String);

/// The outcome of one health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Healthy,
    Failed(String),
    /// It did not answer, but it was given no processor time to answer with, or we ourselves were
    /// late: nothing is learnt.
    Starved,
}

/// What the processes of a run use, and what the kernel holds them to; none: it cannot tell, or
/// there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub memory: Option<ByteSize>,
    pub memory_max: Option<ByteSize>,
    pub memory_high: Option<ByteSize>,
}

/// Why a run does not have the limits that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitsRefusal {
    /// The memory in use cannot be reclaimed; the kernel would kill for the limit.
    MemoryStays {
        target: ByteSize,
        used: ByteSize,
        /// What holds instead.
        limit: Option<ByteSize>,
    },
    /// In words for the operator.
    Kernel(String),
    NoAnswer {
        within: Duration,
    },
}

/// Whether the run gets the memory it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Memory {
    #[default]
    Enough,
    /// Its own limits hold it back.
    Short,
}

/// What a service says through its notify socket (sd_notify(3)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Ready,
    Stopping,
    Watchdog,
    WatchdogTrigger,
    ExtendTimeout(Duration),
    Status(String),
}

/// What the kernel tells at the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitFacts {
    pub status: ExitStatus,
    /// How many processes of the run the kernel killed for want of memory.
    pub oom_kills: u64,
}

impl ExitFacts {
    /// Whether its end was that of a process killed for want of memory. Of an end that nobody saw
    /// the group's count is all that is known.
    pub fn is_oom(&self) -> bool {
        let killed = match self.status {
            ExitStatus::Signal { number, .. } => number == Signal::KILL,
            ExitStatus::Unseen => true,
            ExitStatus::Code(_) => false,
        };
        killed && self.oom_kills > 0
    }
}

/// Whether processes of the run are left after its first one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    Populated,
}
