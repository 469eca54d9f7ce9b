//! What the instances may use, written into their groups and read back.

use std::sync::Arc;
use std::time::Duration;

use super::error::ActError;
use crate::linux::cgroupfs::Group;
use crate::plan::{GroupLimit, GroupLimits, Plan};
use crate::units::ByteSize;

/// The files that bring memory in use down.
const OF_MEMORY: [&str; 2] = ["memory.max", "memory.high"];

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
    set_all_but(group, limits, &[])
}

/// The same for a group in use: what would make the kernel kill is left for a `LimitChange`.
pub(super) fn set_what_fits(group: &Group, limits: &GroupLimits) -> Result<(), ActError> {
    let used = group.memory_current().map_err(ActError::Group)?;
    let fits = |target| used.is_none_or(|used| round(used, target) == Round::Done);
    if limits.memory.is_none_or(fits) {
        set(group, limits)
    } else {
        set_all_but(group, limits, &OF_MEMORY)
    }
}

fn set_all_but(group: &Group, limits: &GroupLimits, kept: &[&str]) -> Result<(), ActError> {
    for limit in limits.files().into_iter().filter(|limit| !kept.contains(&limit.file)) {
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

/// What brings a running instance to the limits of the plan in force, as fast as its memory comes
/// down. It may take its time and block its thread: it is not for the node's loop.
#[derive(Debug)]
pub struct LimitChange {
    pub(super) group: Arc<Group>,
    pub(super) limits: GroupLimits,
}

/// Whether to go on after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    Over,
    /// Another change takes the place of this one.
    Cancelled,
}

/// How long memory may take to come down, and how often that is looked at.
const ROUNDS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);

impl LimitChange {
    /// All of it; where the memory in use does not come down, all but that: the kernel would kill
    /// for a `memory.max` that is less. `pause` waits for the given time.
    pub fn carry_out(&self, pause: impl FnMut(Duration) -> Pause) -> Result<(), ActError> {
        let lowered = match self.limits.memory {
            Some(target) => make_room(&self.group, target, pause),
            None => Ok(()),
        };
        let done = match lowered {
            Ok(()) => set(&self.group, &self.limits),
            Err(stays @ ActError::MemoryStays { .. }) => {
                set_all_but(&self.group, &self.limits, &OF_MEMORY).and(Err(stays))
            }
            Err(error) => Err(error),
        };
        match done {
            // The run is over, and its group gone; the next begins with the new limits.
            Err(ActError::Group(gone) | ActError::Limit { reason: gone, .. })
                if matches!(gone.errno(), Some(libc::ENOENT | libc::ENODEV)) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// What the next round of bringing memory down is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// There is room below the target.
    Done,
    /// So many bytes are too much.
    Reclaim(u64),
}

/// Processes go on allocating between our look and the kernel's.
fn margin(target: ByteSize) -> u64 {
    (target.0 / 16).clamp(ByteSize::mib(1).0.min(target.0 / 4), ByteSize::mib(64).0)
}

fn round(used: ByteSize, target: ByteSize) -> Round {
    let wanted = target.0 - margin(target);
    if used.0 <= wanted { Round::Done } else { Round::Reclaim(used.0 - wanted) }
}

/// Brings the memory in use below `target` without killing: `memory.high` slows the service down
/// and takes from it what it does not use. Restores that where it is not enough.
fn make_room(
    group: &Group,
    target: ByteSize,
    mut pause: impl FnMut(Duration) -> Pause,
) -> Result<(), ActError> {
    let Some(mut used) = group.memory_current().map_err(ActError::Group)? else { return Ok(()) };
    let former_high = group.read("memory.high").map_err(ActError::Group)?;
    for number in 0..ROUNDS {
        let Round::Reclaim(bytes) = round(used, target) else { return Ok(()) };
        if number == 0 {
            write(group, "memory.high", &(target.0 - margin(target)).to_string())?;
        } else if pause(BETWEEN) == Pause::Cancelled {
            return Err(ActError::Superseded);
        }
        // Linux before 5.19 has no such file; EAGAIN: it was not all there.
        let _tried = group.write("memory.reclaim", &bytes.to_string());
        used = group.memory_current().map_err(ActError::Group)?.unwrap_or(ByteSize(0));
    }
    write(group, "memory.high", former_high.trim())?;
    let limit = group.read("memory.max").map_err(ActError::Group)?;
    Err(ActError::MemoryStays { target, used, limit: limit.trim().to_owned() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_down_to_a_margin_below_the_limit() {
        let mib = ByteSize::mib;
        assert_eq!(round(mib(60), mib(64)), Round::Done);
        assert_eq!(round(mib(61), mib(64)), Round::Reclaim(mib(1).0));
        assert_eq!(round(mib(100), mib(64)), Round::Reclaim(mib(40).0));
        assert_eq!(round(mib(8), mib(8)), Round::Reclaim(mib(1).0));
        assert_eq!(margin(mib(1)), mib(1).0 / 4);
        assert_eq!(margin(ByteSize::gib(64)), mib(64).0);
        assert_eq!(round(ByteSize(0), ByteSize(0)), Round::Done);
    }
}
