//! How the table and the details write a phase and an age.

use std::time::Duration;

use super::super::console::Colour;
use crate::rpc::pb::node::{InstancePhase, NodePhase};
use crate::units::human_duration;

/// The colour of an instance's phase.
pub(in crate::cli) fn colour(phase: Option<InstancePhase>) -> Colour {
    match phase {
        Some(InstancePhase::Ready) => Colour::Good,
        Some(
            InstancePhase::Starting
            | InstancePhase::Backoff
            | InstancePhase::Waiting
            | InstancePhase::Stopping,
        ) => Colour::Changing,
        Some(InstancePhase::Failed) => Colour::Bad,
        Some(InstancePhase::Stopped | InstancePhase::Unspecified) | None => Colour::None,
    }
}

/// The colour of the node's phase.
pub(super) fn colour_of_node(phase: Option<NodePhase>) -> Colour {
    match phase {
        Some(NodePhase::Ready) => Colour::Good,
        Some(NodePhase::Starting | NodePhase::Stopping | NodePhase::Degraded) => Colour::Changing,
        Some(NodePhase::Unspecified) | None => Colour::None,
    }
}

/// Whole seconds: a status is older than a tenth when it is read.
pub(super) fn uptime(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    if whole == 0 { "0s".to_owned() } else { human_duration(Duration::from_secs(whole)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_is_whole_seconds_and_never_nonsense() {
        assert_eq!(uptime(0.4), "0s");
        assert_eq!(uptime(4.9), "4s");
        assert_eq!(uptime(88_500.7), "24h 35m");
        assert_eq!(uptime(-1.0), "0s");
        assert_eq!(uptime(f64::NAN), "0s");
    }
}
