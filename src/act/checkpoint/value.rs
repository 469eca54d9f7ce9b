//! The values that a checkpoint holds, those that are read from one, and the errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::frame::FrameError;
use crate::act::binary::Binary;
use crate::act::fd_names::CheckpointSlot;
use crate::config::RuntimeOverrides;
use crate::decide::SavedNode;
use crate::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use crate::units::{Pid, RunId};

/// What the next orchestrator has to know and cannot find out.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Of two of the same node, the one with the higher number is newer.
    pub sequence: u64,
    pub boot: String,
    pub state: State,
    pub runs: BTreeMap<RunId, SavedRun>,
}

/// The part of a checkpoint that the supervise loop knows.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// How many orchestrators there were, with the one that writes.
    pub generation: u32,
    /// The reading of the monotonic clock at `Tick::ZERO`.
    pub began_at: Duration,
    /// The configuration in force, as text that gives it again.
    pub config: String,
    /// What an operator changed beside the configuration.
    pub overrides: RuntimeOverrides,
    pub node: SavedNode,
}

/// What is saved of a run beside its descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRun {
    pub pid: Pid,
    pub cpu_before: Duration,
    pub oom_kills_before: u64,
    /// The binary of a built-in service. `None`: it is none, or its binary is not known.
    pub binary: Option<Arc<Binary>>,
}

/// What was read of a former orchestrator's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Former {
    pub(in crate::act) sequence: u64,
    /// The slot it was read from.
    pub(in crate::act) slot: Option<CheckpointSlot>,
    pub generation: u32,
    /// `None`: it is not known. The ticks of `node` are zero then, and the node's clock begins now.
    pub began_at: Option<Duration>,
    /// `None`: it is not known; the file is loaded instead.
    pub config: Option<String>,
    pub overrides: RuntimeOverrides,
    pub node: SavedNode,
    pub runs: BTreeMap<RunId, SavedRun>,
    pub known: Known,
    /// What was missing or not understood, in words; empty: everything was read.
    pub remarks: Vec<String>,
}

/// How much of the instances is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Instances,
    /// Some could not be read; there may be runs of others.
    SomeInstances,
    /// Nothing but the descriptors.
    Descriptors,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("it cannot be read: {0}")]
    Read(#[from] crate::linux::Error),
    #[error("it is damaged: {0}")]
    Frame(#[from] FrameError),
    #[error("it is not understood: {0}")]
    Content(#[from] prost::DecodeError),
    #[error("it is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is not understood: {0}")]
    Name(#[from] crate::units::NameError),
    #[error("it is in form {found}, which this version does not read")]
    Form { found: u32 },
    #[error("it is of another boot")]
    Boot,
}

/// The default rules of the configuration. For instances that are being retired: all others have
/// rules from the configuration.
pub fn default_rules() -> Rules {
    Rules {
        needs: Vec::new(),
        restart_with: Vec::new(),
        readiness: Readiness::Started,
        restart: RestartRules {
            policy: RestartPolicy::Always,
            max_restarts: 5,
            window: Duration::from_secs(300),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
        },
        start_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(10),
        drain: Duration::ZERO,
        watchdog: None,
        unhealthy_threshold: 3,
    }
}
