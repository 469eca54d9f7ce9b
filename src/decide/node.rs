//! The one value that holds all supervision state. Owned by one task, changed only by `step`.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Remark, RemarkKind};
use super::event::{ChangeId, Memory};
use super::instance_limits::{InstanceLimits, LimitsChange};
use super::phase::{Ended, Phase};
use super::rng::Rng;
use crate::plan::{LimitLayers, Rules};
use crate::units::{InstanceId, RunId, Tick};

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub(super) instances: BTreeMap<InstanceId, Instance>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    Run,
    Shutdown,
}

/// One instance: what it should do, where it stands, and its past as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub rules: Rules,
    pub limits: InstanceLimits,
    pub wanted: Wanted,
    pub membership: Membership,
    pub phase: Phase,
    /// Restarts in a row without a stable run between them; sets the next delay.
    pub attempt: u32,
    /// When counted restarts were decided, oldest first, none older than the window.
    pub recent: VecDeque<Tick>,
    /// Starts that followed an end nobody asked for, since the node began.
    pub restarts: u64,
    pub last: Option<Ended>,
    /// What the service last said of itself (`STATUS=`).
    pub status_text: String,
    pub last_check: Option<(Tick, bool)>,
    /// Of the present run.
    pub memory: Memory,
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

/// Whether the instance is part of the plan in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    Planned,
    /// It is stopped, and removed as soon as it rests. Nobody waits for it.
    Retiring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    Up,
    /// Up, and the run that is ending is followed by another whatever its policy says: an operator
    /// or a new plan asked for it.
    Restart,
    Down,
}

impl Node {
    /// Every instance wanted up and waiting; nothing happens before the first `step`.
    pub fn new(
        planned: impl IntoIterator<Item = (InstanceId, impl Into<Planned>)>,
        seed: u64,
    ) -> Self {
        let planned = planned.into_iter();
        let instances = planned.map(|(id, planned)| (id, Instance::new(planned.into()))).collect();
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
        let deadlines = |i: &Instance| [i.phase.deadline(), i.limits.deadline()];
        self.instances.values().flat_map(deadlines).flatten().min()
    }
}

impl Instance {
    pub(super) fn new(planned: Planned) -> Self {
        Self {
            rules: planned.rules,
            limits: InstanceLimits::new(planned.limits),
            wanted: Wanted::Up,
            membership: Membership::Planned,
            phase: Phase::Waiting,
            attempt: 0,
            recent: VecDeque::new(),
            restarts: 0,
            last: None,
            status_text: String::new(),
            last_check: None,
            memory: Memory::default(),
        }
    }

    /// An operator's start: what went wrong before no longer counts.
    pub(super) fn forgive(&mut self) {
        self.attempt = 0;
        self.recent.clear();
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
