//! What an instance may use, written into its group.

use super::error::ActError;
use crate::linux::cgroupfs::Group;
use crate::plan::InstancePlan;

/// Writes what the group's controllers can enforce. A controller that is missing here is named
/// among the node's degradations; one that refuses means no start.
pub(super) fn set(group: &Group, plan: &InstancePlan) -> Result<(), ActError> {
    for (file, value) in plan.group_limits() {
        if group.read_optional(file).map_err(ActError::Group)?.is_none() {
            continue;
        }
        group.write(file, &value).map_err(|reason| ActError::Limit {
            file,
            value: value.clone(),
            reason,
        })?;
    }
    Ok(())
}
