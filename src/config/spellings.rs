//! The words of the keys that take one of several: read by the sections, written by `show`.

use super::model::{
    Backoff, LogFormat, LogTarget, NotifyAccess, ResourceLimits, RestartPolicy, Tier,
};
use crate::units::Level;

pub(super) const RESTART_POLICIES: [(&str, RestartPolicy); 3] = [
    ("always", RestartPolicy::Always),
    ("on_failure", RestartPolicy::OnFailure),
    ("never", RestartPolicy::Never),
];

pub(super) const BACKOFFS: [(&str, Backoff); 2] =
    [("exponential", Backoff::Exponential), ("constant", Backoff::Constant)];

pub(super) const TIERS: [(&str, Tier); 4] = [
    ("core", Tier::Core),
    ("production", Tier::Production),
    ("standard", Tier::Standard),
    ("best_effort", Tier::BestEffort),
];

pub(super) const LEVELS: [(&str, Level); 5] = {
    let [a, b, c, d, e] = Level::ALL;
    [(a.as_str(), a), (b.as_str(), b), (c.as_str(), c), (d.as_str(), d), (e.as_str(), e)]
};

pub(super) const LOG_TARGETS: [(&str, LogTarget); 3] =
    [("auto", LogTarget::Auto), ("journald", LogTarget::Journald), ("console", LogTarget::Console)];

pub(super) const RESOURCE_LIMITS: [(&str, ResourceLimits); 2] =
    [("best_effort", ResourceLimits::BestEffort), ("required", ResourceLimits::Required)];

pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];

pub(super) const NOTIFY_ACCESS: [(&str, NotifyAccess); 2] =
    [("main", NotifyAccess::Main), ("all", NotifyAccess::All)];
