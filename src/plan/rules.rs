//! What the core must know of an instance to decide about it: no paths, no commands.

use std::time::Duration;

use crate::units::ServiceName;

pub use crate::config::{HealthChecks, NotifyAccess, Readiness, RestartPolicy};

/// The rules one instance lives by.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Services that must be ready before this one starts, and rest after it.
    pub needs: Vec<ServiceName>,
    /// Services after whose restart this one is restarted too.
    pub restart_with: Vec<ServiceName>,
    pub readiness: Readiness,
    pub restart: RestartRules,
    pub start_timeout: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// Out of service, but running, before SIGTERM.
    pub drain: Duration,
    pub watchdog: Option<Duration>,
    /// Failed health checks in a row that end a run.
    pub unhealthy_threshold: u32,
}

/// When, how soon and how often a service is started again.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartRules {
    pub policy: RestartPolicy,
    pub max_restarts: u32,
    pub window: Duration,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    pub stable_after: Duration,
}
