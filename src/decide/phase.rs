//! Where an instance stands. States carry their data: what cannot be cannot be written.

use std::fmt;
use std::time::Duration;

use super::event::{ExitFacts, SpawnFailure};
use crate::units::{ExitStatus, Pid, RunId, ServiceName, Signal, Tick, human_duration};

#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// No run, and none is wanted or due.
    Stopped,
    /// Is to run as soon as what it needs is ready.
    Waiting,
    Starting {
        run: RunId,
        since: Tick,
        pid: Option<Pid>,
        exec_failure: Option<SpawnFailure>,
        deadline: Tick,
    },
    Ready {
        run: RunId,
        pid: Pid,
        spawned: Tick,
        since: Tick,
        strikes: u32,
        watchdog: Option<Tick>,
    },
    Stopping {
        run: RunId,
        pid: Option<Pid>,
        spawned: Tick,
        /// When it had become ready, if it had.
        ready: Option<Tick>,
        stop_step: StopStep,
        reason: StopReason,
        deadline: Tick,
    },
    /// The first process is gone, others of its group are being ended.
    Clearing {
        run: RunId,
        ended: Ended,
        deadline: Tick,
    },
    Backoff {
        until: Tick,
        attempt: u32,
    },
    Failed(GiveUpReason),
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopStep {
    /// It said `STOPPING=1` itself.
    OwnAccord,
    /// Effects of service; no signal sent yet.
    Drain,
    Term,
    Kill,
    /// Killed, and still there.
    Unkillable,
}

/// Who or what asked for the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    Operator,
    Shutdown,
    OwnAccord,
    StartTimeout,
    Unhealthy(String),
    Watchdog,
    /// The plan it was started by is not in force any more.
    Replanned,
    /// A service it restarts with was restarted.
    With(ServiceName),
}

/// Why a run is not to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Somebody wanted it so: the run has done nothing wrong and gets its drain.
    Nobody,
    /// It goes by itself.
    Itself,
    /// It does not do what it is there for.
    Fault,
}

impl StopReason {
    pub fn blame(&self) -> Blame {
        match self {
            Self::Operator | Self::Shutdown | Self::Replanned | Self::With(_) => Blame::Nobody,
            Self::OwnAccord => Blame::Itself,
            Self::StartTimeout | Self::Unhealthy(_) | Self::Watchdog => Blame::Fault,
        }
    }
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub run: RunId,
    pub pid: Option<Pid>,
    pub at: Tick,
    pub how: Ending,
    pub asked: Option<StopReason>,
    /// From the spawn to the end.
    pub lasted: Duration,
    /// From ready to the end; none: it never was ready.
    pub ready_for: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Exited(ExitFacts),
    NeverStarted(SpawnFailure),
}

/// Why no further start is tried.
#[derive(Debug, Clone, PartialEq)]
pub enum GiveUpReason {
    TooManyRestarts {
        restarts: u32,
        window: Duration,
        last: Ended,
    },
    /// It failed and its policy is `never`.
    NotRestarted {
        last: Ended,
    },
}

impl Phase {
    /// The run that is under way, if any.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Starting { run, .. }
            | Self::Ready { run, .. }
            | Self::Stopping { run, .. }
            | Self::Clearing { run, .. } => Some(*run),
            Self::Stopped | Self::Waiting | Self::Backoff { .. } | Self::Failed(_) => None,
        }
    }

    /// When something must happen even if nothing is heard.
    pub fn deadline(&self) -> Option<Tick> {
        match self {
            Self::Starting { deadline, .. }
            | Self::Stopping { deadline, .. }
            | Self::Clearing { deadline, .. }
            | Self::Backoff { until: deadline, .. } => Some(*deadline),
            Self::Ready { watchdog, .. } => *watchdog,
            Self::Stopped | Self::Waiting | Self::Failed(_) => None,
        }
    }

    /// No process, and none will come by itself.
    pub fn is_at_rest(&self) -> bool {
        match self {
            Self::Stopped | Self::Failed(_) => true,
            Self::Waiting
            | Self::Starting { .. }
            | Self::Ready { .. }
            | Self::Stopping { .. }
            | Self::Clearing { .. }
            | Self::Backoff { .. } => false,
        }
    }

    /// The word an operator reads.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Stopping { .. } | Self::Clearing { .. } => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Failed(_) => "failed",
        }
    }
}

impl Ended {
    /// Whether the service did what it was there for: exit code 0, or one of the signals by which
    /// a daemon is told to go (SIGHUP, SIGINT, SIGTERM, SIGPIPE: what systemd.service(5) counts as
    /// a clean exit), unless the node itself had to end it.
    pub fn is_success(&self) -> bool {
        const PIPE: Signal = Signal(13);
        let blame = self.asked.as_ref().map(StopReason::blame);
        match self.how {
            _ if blame == Some(Blame::Fault) => false,
            Ending::NeverStarted(_) => false,
            Ending::Exited(facts) if facts.oom_kills > 0 => false,
            Ending::Exited(facts) => match facts.status {
                ExitStatus::Code(code) => code == 0,
                ExitStatus::Signal { number, .. } => {
                    [Signal::HUP, Signal::INT, Signal::TERM, PIPE].contains(&number)
                }
                ExitStatus::Unseen => false,
            },
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("asked by the operator"),
            Self::Shutdown => f.write_str("the node stops"),
            Self::OwnAccord => f.write_str("of its own accord"),
            Self::StartTimeout => f.write_str("not ready within its start timeout"),
            Self::Unhealthy(why) => write!(f, "unhealthy: {why}"),
            Self::Watchdog => f.write_str("its watchdog message did not come"),
            Self::Replanned => f.write_str("its configuration changed"),
            Self::With(service) => write!(f, "{service} was restarted"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            Ending::NeverStarted(failure) => f.write_str(&failure.0)?,
            Ending::Exited(facts) if facts.is_oom() => {
                write!(f, "OomKilled: out of memory ({})", facts.status)?;
            }
            Ending::Exited(facts) if facts.oom_kills > 0 => {
                let killed = facts.oom_kills;
                write!(f, "{}, {killed} of its processes killed for want of memory", facts.status)?;
            }
            Ending::Exited(facts) => write!(f, "{}", facts.status)?,
        }
        match &self.asked {
            Some(reason) => write!(f, " ({reason})"),
            None if self.ready_for.is_none() && matches!(self.how, Ending::Exited(_)) => {
                write!(f, " after {}, before it was ready", human_duration(self.lasted))
            }
            None if matches!(self.how, Ending::Exited(_)) => {
                write!(f, " after {}", human_duration(self.lasted))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRestarts { restarts, window, last } => {
                let window = human_duration(*window);
                write!(f, "{restarts} restarts within {window}; last: {last}")
            }
            Self::NotRestarted { last } => write!(f, "{last}; its restart policy is never"),
        }
    }
}
