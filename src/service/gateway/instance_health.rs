//! The health of an instance on `/health`, from its status.

use serde::Serialize;

use crate::rpc::pb::node::{InstanceHealth as Checked, InstancePhase as Phase, InstanceStatus};

/// The `status` of an instance or of a service, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceHealth {
    Healthy,
    /// It serves, slowed down by its limits.
    Degraded,
    /// On purpose: an instance that stopped otherwise is restarted or failed.
    Stopped,
    Stopping,
    Starting,
    Restarting,
    Unhealthy,
    Failed,
}

impl InstanceHealth {
    pub fn of(instance: &InstanceStatus) -> Self {
        match instance.known_phase() {
            Some(Phase::Ready) => match instance.known_health() {
                Some(Checked::Unhealthy) => Self::Unhealthy,
                Some(Checked::Degraded) => Self::Degraded,
                Some(Checked::Healthy | Checked::Unknown | Checked::Unspecified) | None => {
                    Self::Healthy
                }
            },
            Some(Phase::Stopped) => Self::Stopped,
            Some(Phase::Waiting | Phase::Starting) => Self::Starting,
            Some(Phase::Stopping) => Self::Stopping,
            Some(Phase::Backoff) => Self::Restarting,
            Some(Phase::Failed) => Self::Failed,
            Some(Phase::Unspecified) | None => Self::Unhealthy,
        }
    }

    /// Whether it answers requests.
    pub fn serves(self) -> bool {
        self <= Self::Degraded
    }

    /// Whether the node counts as healthy with an instance of this health.
    pub fn is_wanted(self) -> bool {
        self <= Self::Stopped
    }

    /// Why `instance`, which has this health, is not healthy; `None` if it is.
    pub fn reason(self, instance: &InstanceStatus) -> Option<String> {
        let plain = match self {
            Self::Healthy => return None,
            Self::Unhealthy if instance.known_phase().is_none() => {
                return Some(format!("this gateway does not know the phase {:?}", instance.phase));
            }
            Self::Degraded => "its limits slow it down",
            Self::Stopped => "it was stopped",
            Self::Stopping => "it is stopping",
            Self::Starting => "it is not ready yet",
            Self::Restarting => "it waits for its restart",
            Self::Unhealthy => "its health checks fail",
            Self::Failed => "it failed",
        };
        let told = &instance.reason;
        Some(if told.is_empty() { plain.to_owned() } else { told.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(phase: &str, health: &str) -> InstanceStatus {
        InstanceStatus { phase: phase.into(), health: health.into(), ..InstanceStatus::default() }
    }

    #[test]
    fn every_phase_has_its_condition() {
        let of = |phase, health| InstanceHealth::of(&instance(phase, health));
        assert_eq!(of("ready", "healthy"), InstanceHealth::Healthy);
        assert_eq!(of("ready", "unknown"), InstanceHealth::Healthy);
        assert_eq!(of("ready", "unhealthy"), InstanceHealth::Unhealthy);
        assert_eq!(of("ready", "degraded"), InstanceHealth::Degraded);
        assert_eq!(of("starting", "unknown"), InstanceHealth::Starting);
        assert_eq!(of("waiting", "unknown"), InstanceHealth::Starting);
        assert_eq!(of("stopping", "healthy"), InstanceHealth::Stopping);
        assert_eq!(of("backoff", "unhealthy"), InstanceHealth::Restarting);
        assert_eq!(of("failed", "unhealthy"), InstanceHealth::Failed);
        assert_eq!(of("stopped", "unknown"), InstanceHealth::Stopped);
        assert_eq!(of("hibernating", "healthy"), InstanceHealth::Unhealthy);
    }

    #[test]
    fn what_is_not_healthy_always_has_a_reason() {
        for phase in ["stopped", "waiting", "starting", "stopping", "backoff", "failed", "new"] {
            let silent = instance(phase, "unknown");
            assert_ne!(InstanceHealth::of(&silent).reason(&silent).unwrap(), "", "{phase}");
        }
        let told = InstanceStatus { reason: "exit code 1".into(), ..instance("failed", "") };
        assert_eq!(InstanceHealth::of(&told).reason(&told).as_deref(), Some("exit code 1"));
        let fine = InstanceStatus { reason: "last run: SIGKILL".into(), ..instance("ready", "") };
        assert_eq!(InstanceHealth::of(&fine).reason(&fine), None);
    }
}
