//! The one value that holds all supervision state. Owned by one task, changed only by `step`.

use std::collections::BTreeMap;

use super::effect::{Effect, Remark, RemarkKind};
use super::event::ChangeId;
use super::instance_limits::LimitsChange;
use super::instances::Instances;
use super::rng::Rng;
use crate::plan::{LimitLayers, Rules};
use crate::units::{InstanceId, RunId, Tick};

pub use super::instance::{Instance, Membership, Wanted};

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub(super) instances: Instances,
    /// Which instance a live run belongs to: the inverse of `Phase::run`.
    pub(super) runs: BTreeMap<RunId, InstanceId>,
    pub(super) next_run: RunId,
    /// The changes of limits that some run does not have yet.
    pub(super) limit_changes: BTreeMap<ChangeId, LimitsChange>,
    pub(super) next_change: ChangeId,
    pub(super) rng: Rng,
    pub(super) goal: Goal,
    pub(super) announced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Run,
    Shutdown,
}

/// What a plan says of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub rules: Rules,
    pub limits: LimitLayers,
}

impl From<Rules> for Planned {
    /// Without limits.
    fn from(rules: Rules) -> Self {
        Self { rules, limits: LimitLayers::default() }
    }
}

impl Node {
    /// Every instance wanted up and waiting; nothing happens before the first `step`.
    pub fn new(
        planned: impl IntoIterator<Item = (InstanceId, impl Into<Planned>)>,
        seed: u64,
    ) -> Self {
        let mut instances = Instances::default();
        for (id, planned) in planned {
            let Planned { rules, limits } = planned.into();
            instances.insert(id, Instance::new(rules, limits));
        }
        Self {
            instances,
            runs: BTreeMap::new(),
            next_run: RunId::FIRST,
            limit_changes: BTreeMap::new(),
            next_change: ChangeId(1),
            rng: Rng::seeded(seed),
            goal: Goal::Run,
            announced: false,
        }
    }

    pub fn instances(&self) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        self.instances.iter()
    }

    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// Whether it was told that every service reached what it can reach.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// The instance whose live run this is.
    pub fn owner(&self, run: RunId) -> Option<&InstanceId> {
        self.runs.get(&run)
    }

    /// The next time at which a `Tick` is due.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.instances.next_deadline()
    }
}

/// The effects of one step, in the order in which they are to be done.
#[derive(Debug, Default)]
pub(super) struct Effects(pub(super) Vec<Effect>);

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub(super) fn note(&mut self, id: &InstanceId, run: Option<RunId>, kind: RemarkKind) {
        self.0.push(Effect::Note(Remark { instance: id.clone(), run, kind }));
    }
}
