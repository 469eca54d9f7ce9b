//! From a configuration to what is to be run: instances, their rules, sockets and launch facts; and
//! what differs between two of these. Does no I/O; paths are computed, never looked at.

mod build;
mod diff;
mod launch;
mod limits;
mod rules;
mod sockets;
#[cfg(test)]
mod tests;

pub use build::{InstancePlan, Plan};
pub use diff::Changes;
pub use launch::{
    Channel, HardLimit, LaunchPlan, Limit, LimitKind, MARK, NotifyPlan, Passed, Program,
    RUNTIME_FOLDERS, SEARCH_PATH, SandboxPlan, Settings,
};
pub use limits::{GroupLimit, GroupLimits, LimitLayer, LimitLayers};
pub use rules::{HealthChecks, NotifyAccess, Readiness, RestartPolicy, RestartRules, Rules};
pub use sockets::{ApiPort, SocketId, SocketPlace};
