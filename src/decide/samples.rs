//! Rules for the core's own tests: the defaults of the configuration, ready when started.

use std::time::Duration;

use crate::plan::{Readiness, RestartPolicy, RestartRules, Rules};

pub(super) fn rules(needs: &[&str]) -> Rules {
    Rules {
        needs: needs.iter().map(|name| name.parse().unwrap()).collect(),
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
