//! What the instances may use, written into their groups and read back.

use super::error::ActError;
use crate::linux::cgroupfs::Group;
use crate::plan::{GroupLimit, GroupLimits, Plan};
use crate::units::ByteSize;

/// One limit as it is wanted and as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitInForce {
    pub wanted: GroupLimit,
    /// None: nothing enforces it on this host.
    pub set: Option<String>,
}

impl LimitInForce {
    pub fn is_met(&self) -> bool {
        self.set.as_ref().is_some_and(|set| self.wanted.is_met_by(set))
    }
}

/// Writes what the group's controllers can enforce. A controller that is missing here is named
/// among the node's degradations; one that refuses means no start.
pub(super) fn set(group: &Group, limits: &GroupLimits) -> Result<(), ActError> {
    for limit in limits.files() {
        if group.read_optional(limit.file).map_err(ActError::Group)?.is_some() {
            write(group, limit.file, &limit.value)?;
        }
    }
    Ok(())
}

pub(super) fn write(group: &Group, file: &'static str, value: &str) -> Result<(), ActError> {
    let refused = |reason| ActError::Limit { file, value: value.to_owned(), reason };
    group.write(file, value).map_err(refused)
}

/// What the kernel shows now.
pub(super) fn in_force(group: Option<&Group>, limits: &GroupLimits) -> Vec<LimitInForce> {
    let set = |file| group.and_then(|group| group.read_optional(file).ok().flatten());
    let shown = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let each = |wanted: GroupLimit| LimitInForce { set: set(wanted.file).map(shown), wanted };
    limits.files().into_iter().map(each).collect()
}

/// No group's memory is safer than that of the group around it: `services` is given what all its
/// instances together are to keep.
pub(super) fn protect(services: &Group, plan: &Plan) -> Result<(), ActError> {
    let sum = |size: fn(&GroupLimits) -> Option<ByteSize>| {
        let all = plan.instances.values().filter_map(|instance| size(&instance.limits));
        all.fold(0_u64, |sum, size| sum.saturating_add(size.0)).to_string()
    };
    for (file, sum) in [
        ("memory.min", sum(|limits| limits.memory_min)),
        ("memory.low", sum(|limits| limits.memory_low)),
    ] {
        if services.read_optional(file).map_err(ActError::Group)?.is_some() {
            write(services, file, &sum)?;
        }
    }
    Ok(())
}
