//! The words for what a history may lead to: all of them must be seen.

use blackhole_node::decide::{RemarkKind, StopReason};

/// Every kind of remark; together the histories must lead to each of them.
pub const REMARKS: [&str; 30] = [
    "Starting",
    "Ready",
    "StartFailed",
    "Ended",
    "Restarting",
    "Unhealthy",
    "Starved",
    "Memory",
    "Stopping",
    "Killing",
    "Unkillable",
    "LeftOvers",
    "Failed",
    "Stopped",
    "Announced",
    "Retired",
    "Replanned",
    "With",
    "Succeeded",
    "EndedAll",
    "BegunAnew",
    "Extended",
    "Hung",
    "InAShutdown",
    "ServicesChanged",
    "NeedsChanged",
    "OwnAccord",
    "Watchdog",
    "LimitsRefused",
    "Undone",
];

pub fn word(kind: &RemarkKind) -> &'static str {
    match kind {
        RemarkKind::Starting => "Starting",
        RemarkKind::Ready { .. } => "Ready",
        RemarkKind::StartFailed(_) => "StartFailed",
        RemarkKind::Ended(_) => "Ended",
        RemarkKind::Restarting { .. } => "Restarting",
        RemarkKind::Unhealthy { .. } => "Unhealthy",
        RemarkKind::Starved => "Starved",
        RemarkKind::Memory(_) => "Memory",
        RemarkKind::LimitsRefused(_) => "LimitsRefused",
        RemarkKind::Stopping(_) => "Stopping",
        RemarkKind::Killing => "Killing",
        RemarkKind::Unkillable => "Unkillable",
        RemarkKind::LeftOvers => "LeftOvers",
        RemarkKind::Failed(_) => "Failed",
        RemarkKind::Stopped => "Stopped",
        RemarkKind::Retired => "Retired",
    }
}

/// Reasons that no other remark tells of.
pub fn word_of_reason(reason: &StopReason) -> Option<&'static str> {
    match reason {
        StopReason::Replanned => Some("Replanned"),
        StopReason::With(_) => Some("With"),
        StopReason::OwnAccord => Some("OwnAccord"),
        StopReason::Watchdog => Some("Watchdog"),
        StopReason::Operator
        | StopReason::Shutdown
        | StopReason::StartTimeout
        | StopReason::Unhealthy(_) => None,
    }
}
