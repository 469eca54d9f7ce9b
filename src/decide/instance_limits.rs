//! The limits of an instance as state: by who says them, and the change that is under way.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{ChangeId, LimitsRefusal};
use crate::plan::{GroupLimits, LimitLayer, LimitLayers};
use crate::units::{ByteSize, InstanceId, ServiceName, Tick};

/// The limits of one instance, and the change of its run that is under way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InstanceLimits {
    pub(super) layers: LimitLayers,
    pub(super) under_way: Option<UnderWay>,
    /// Why the last change that was asked for is not in force.
    pub(super) refusal: Option<LimitsRefusal>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct UnderWay {
    pub(super) change: ChangeId,
    /// What the kernel held it to before anything was changed; none: not measured yet.
    pub(super) former: Option<MemoryLimits>,
    pub(super) step: Step,
    pub(super) deadline: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MemoryLimits {
    pub(super) max: Option<ByteSize>,
    pub(super) high: Option<ByteSize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Waits for the first `Usage`.
    Measuring,
    /// Memory is being reclaimed for the nth time; waits for `Usage`.
    Reclaiming { tries: u32 },
    /// Reclaims so many bytes when the deadline is there.
    Pausing { tries: u32, bytes: u64 },
    /// Waits for `LimitsSet`. With a refusal: all but the memory limits, which stay.
    Setting { refusal: Option<LimitsRefusal> },
}

/// One change of the limits of some instances.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LimitsChange {
    /// Those whose runs do not have them yet.
    pub(super) pending: BTreeSet<InstanceId>,
    pub(super) undo: Option<Undo>,
}

/// What is done when a run cannot be brought to what an operator set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Undo {
    pub(super) service: ServiceName,
    pub(super) former: BTreeMap<InstanceId, LimitLayer>,
}

impl InstanceLimits {
    pub(super) fn new(layers: LimitLayers) -> Self {
        Self { layers, under_way: None, refusal: None }
    }

    /// By who says them.
    pub fn layers(&self) -> LimitLayers {
        self.layers
    }

    /// What the kernel is to enforce.
    pub fn in_force(&self) -> GroupLimits {
        self.layers.in_force()
    }

    /// When the change that is under way goes on even if nothing is heard.
    pub fn deadline(&self) -> Option<Tick> {
        self.under_way.as_ref().map(|under_way| under_way.deadline)
    }

    /// Why the last change that was asked for is not in force, if it is not.
    pub fn refusal(&self) -> Option<&LimitsRefusal> {
        self.refusal.as_ref()
    }

    /// The change that its run does not have yet.
    pub fn change(&self) -> Option<ChangeId> {
        self.under_way.as_ref().map(|under_way| under_way.change)
    }
}
