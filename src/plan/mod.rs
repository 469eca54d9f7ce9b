//! From a configuration to what is to be run: instances, their rules, sockets and launch facts; and
//! what differs between two of these. Does no I/O; paths are computed, never looked at.

mod build;
mod diff;
mod launch;
mod rules;

pub use build::{InstancePlan, Plan, SocketId, SocketPlace};
pub use diff::Changes;
pub use launch::{
    Channel, LaunchPlan, Limit, LimitKind, MARK, NotifyPlan, Passed, Program, SEARCH_PATH, Settings,
};
pub use rules::{HealthChecks, NotifyAccess, Readiness, RestartPolicy, RestartRules, Rules};
