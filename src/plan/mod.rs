//! From a configuration to what is to be run: instances, their rules, sockets and launch facts.
//! Does no I/O; paths are computed, never looked at.

mod build;
mod launch;
mod rules;

pub use build::{InstancePlan, Plan, SocketId, SocketPlace};
pub use launch::{
    Channel, LaunchPlan, Limit, LimitKind, MARK, NotifyPlan, Passed, Program, SEARCH_PATH, Settings,
};
pub use rules::{NotifyAccess, Readiness, RestartPolicy, RestartRules, Rules};
