//! What the instances may use, and how a change of it comes to hold for a run. Memory in use is
//! brought down before the kernel is given a limit that it would kill for; what an operator set and
//! a run cannot be brought to is undone. Knows no file of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::effect::{Effect, RemarkKind};
use super::event::{ChangeId, LimitsRefusal, Usage};
use super::instance_limits::{LimitsChange, MemoryLimits, Step, UnderWay, Undo};
use super::node::{Effects, Instance, Node};
use super::phase::Phase;
use crate::plan::{GroupLimits, LimitLayers};
use crate::units::{ByteSize, InstanceId, RunId, ServiceName, Tick};

/// How often it is tried to bring memory down, and the pause between two tries.
pub(super) const TRIES: u32 = 50;
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long the kernel may take for one step of a change.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(60);

impl Node {
    /// Whether runs of the service do not have all of their limits yet.
    pub fn limits_are_changing(&self, service: &ServiceName) -> bool {
        let changing = |change: &LimitsChange| {
            change.pending.iter().any(|instance| instance.service == *service)
        };
        self.limit_changes.values().any(changing)
    }

    /// A plan says something else by now than what an operator's change took the place of.
    fn never_undo(&mut self, id: &InstanceId) {
        for undo in self.limit_changes.values_mut().filter_map(|change| change.undo.as_mut()) {
            undo.former.remove(id);
        }
    }

    fn begin_change(&mut self, undo: Option<Undo>) -> ChangeId {
        let change = self.next_change;
        self.next_change = ChangeId(change.0 + 1);
        self.limit_changes.insert(change, LimitsChange { pending: BTreeSet::new(), undo });
        change
    }
}

/// An operator set the limits of these instances, which are all of one service.
pub(super) fn set_limits(
    node: &mut Node,
    layers: BTreeMap<InstanceId, LimitLayers>,
    now: Tick,
    out: &mut Effects,
) {
    let Some(service) = layers.keys().next().map(|id| id.service.clone()) else { return };
    let former = |id: &InstanceId| Some((id.clone(), node.instances.get(id)?.limits.layers));
    let former = layers.keys().filter_map(former).map(|(id, layers)| (id, layers.operator));
    let undo = Undo { service, former: former.collect() };
    let change = node.begin_change(Some(undo));
    forgive(node, layers.keys());
    follow(node, change, layers, now, out);
}

/// A new plan says what the limits of these instances are.
pub(super) fn replan_limits(
    node: &mut Node,
    layers: BTreeMap<InstanceId, LimitLayers>,
    now: Tick,
    out: &mut Effects,
) {
    let differs = |id: &InstanceId, layers: &LimitLayers| {
        node.instances.get(id).is_some_and(|instance| instance.limits.layers != *layers)
    };
    let mut layers = layers;
    layers.retain(|id, layers| differs(id, layers));
    if layers.is_empty() {
        return;
    }
    for id in layers.keys() {
        node.never_undo(id);
    }
    let change = node.begin_change(None);
    forgive(node, layers.keys());
    follow(node, change, layers, now, out);
}

fn forgive<'i>(node: &mut Node, ids: impl Iterator<Item = &'i InstanceId>) {
    for id in ids {
        if let Some(instance) = node.instances.get_mut(id) {
            instance.limits.refusal = None;
        }
    }
}

/// Runs that a former orchestrator started may have other limits than they are to have.
pub(super) fn confirm_limits(
    node: &mut Node,
    ids: impl IntoIterator<Item = InstanceId>,
    now: Tick,
    out: &mut Effects,
) {
    let change = node.begin_change(None);
    for id in ids {
        begin(node, &id, change, now, out);
    }
    drop_if_settled(node, change);
}

fn follow(
    node: &mut Node,
    change: ChangeId,
    layers: BTreeMap<InstanceId, LimitLayers>,
    now: Tick,
    out: &mut Effects,
) {
    for (id, layers) in layers {
        let Some(instance) = node.instances.get_mut(&id) else { continue };
        let before = instance.limits.in_force();
        instance.limits.layers = layers;
        if instance.limits.in_force() != before {
            begin(node, &id, change, now, out);
        }
    }
    drop_if_settled(node, change);
}

/// An instance without a process needs nothing: its next run begins with its limits.
fn begin(node: &mut Node, id: &InstanceId, change: ChangeId, now: Tick, out: &mut Effects) {
    let former = lowered_from(node, id);
    leave_change(node, id);
    let Some(instance) = node.instances.get_mut(id) else { return };
    let Some(run) = run_with_process(instance) else { return };
    let limits = instance.limits.in_force();
    let step = if limits.memory.is_some() {
        out.push(Effect::ReadUsage { run, change });
        Step::Measuring
    } else {
        out.push(Effect::SetLimits { run, change, limits });
        Step::Setting { refusal: None }
    };
    let deadline = now + STEP_TIMEOUT;
    instance.limits.under_way = Some(UnderWay { change, former, step, deadline });
    if let Some(change) = node.limit_changes.get_mut(&change) {
        change.pending.insert(id.clone());
    }
}

/// The memory limits before the change that is under way lowered them, if it has: the next change
/// finds them so.
fn lowered_from(node: &Node, id: &InstanceId) -> Option<MemoryLimits> {
    let under_way = node.instances.get(id)?.limits.under_way.as_ref()?;
    under_way.former
}

fn run_with_process(instance: &Instance) -> Option<RunId> {
    match instance.phase {
        Phase::Starting { run, .. } | Phase::Ready { run, .. } | Phase::Stopping { run, .. } => {
            Some(run)
        }
        Phase::Stopped
        | Phase::Waiting
        | Phase::Clearing { .. }
        | Phase::Backoff { .. }
        | Phase::Failed(_) => None,
    }
}

/// A run without a process needs no limits any more.
pub(super) fn leave_if_ended(node: &mut Node, id: &InstanceId) {
    let has_process = |i: &Instance| run_with_process(i).is_some();
    if !node.instances.get(id).is_some_and(has_process) {
        leave_change(node, id);
    }
}

/// Its run has them, is over, or follows another change.
fn leave_change(node: &mut Node, id: &InstanceId) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    let Some(UnderWay { change, .. }) = instance.limits.under_way.take() else { return };
    if let Some(record) = node.limit_changes.get_mut(&change) {
        record.pending.remove(id);
    }
    drop_if_settled(node, change);
}

fn drop_if_settled(node: &mut Node, change: ChangeId) {
    if node.limit_changes.get(&change).is_some_and(|change| change.pending.is_empty()) {
        node.limit_changes.remove(&change);
    }
}

/// What the group of the run uses, and which memory limits the kernel holds it to.
pub(super) fn on_usage(
    node: &mut Node,
    id: &InstanceId,
    change: ChangeId,
    usage: Usage,
    now: Tick,
    out: &mut Effects,
) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    let (run, limits) = (instance.phase.run(), instance.limits.in_force());
    let under_way = instance.limits.under_way.as_mut().filter(|it| it.change == change);
    let (Some(run), Some(under_way)) = (run, under_way) else { return };
    let tries = match under_way.step {
        Step::Measuring => {
            let measured = MemoryLimits { max: usage.memory_max, high: usage.memory_high };
            under_way.former.get_or_insert(measured);
            0
        }
        Step::Reclaiming { tries } => tries,
        Step::Pausing { .. } | Step::Setting { .. } => return,
    };
    let target = limits.memory.unwrap_or(ByteSize(u64::MAX));
    match (surplus(usage.memory, target), tries) {
        (0, _) => {
            out.push(Effect::SetLimits { run, change, limits });
            under_way.step = Step::Setting { refusal: None };
            under_way.deadline = now + STEP_TIMEOUT;
        }
        (bytes, 0) => {
            out.push(Effect::Reclaim { run, change, high: below(target), bytes });
            under_way.step = Step::Reclaiming { tries: 1 };
            under_way.deadline = now + STEP_TIMEOUT;
        }
        (bytes, tries) if tries < TRIES => {
            under_way.step = Step::Pausing { tries, bytes };
            under_way.deadline = now + PAUSE;
        }
        (_, _) => {
            let used = usage.memory.unwrap_or(ByteSize(0));
            let limit = under_way.former.unwrap_or_default().max;
            let refusal = LimitsRefusal::MemoryStays { target, used, limit };
            keep_memory_limits(run, limits, under_way, refusal, now, out);
        }
    }
}

/// All but the memory limits is set; those are what the kernel held the run to before.
fn keep_memory_limits(
    run: RunId,
    limits: GroupLimits,
    under_way: &mut UnderWay,
    refusal: LimitsRefusal,
    now: Tick,
    out: &mut Effects,
) {
    let MemoryLimits { max, high } = under_way.former.unwrap_or_default();
    let limits = GroupLimits { memory: max, memory_high: high, ..limits };
    out.push(Effect::SetLimits { run, change: under_way.change, limits });
    under_way.step = Step::Setting { refusal: Some(refusal) };
    under_way.deadline = now + STEP_TIMEOUT;
}

/// The kernel has what the last `SetLimits` of this change asked for.
pub(super) fn on_limits_set(
    node: &mut Node,
    id: &InstanceId,
    change: ChangeId,
    now: Tick,
    out: &mut Effects,
) {
    let under_way = node.instances.get(id).and_then(|i| i.limits.under_way.as_ref());
    match under_way.filter(|it| it.change == change).map(|it| &it.step) {
        Some(Step::Setting { refusal: Some(refusal) }) => {
            let refusal = refusal.clone();
            give_up(node, id, refusal, now, out);
        }
        Some(Step::Setting { refusal: None }) => leave_change(node, id),
        Some(Step::Measuring | Step::Reclaiming { .. } | Step::Pausing { .. }) | None => {}
    }
}

pub(super) fn on_limits_refused(
    node: &mut Node,
    id: &InstanceId,
    change: ChangeId,
    refusal: LimitsRefusal,
    now: Tick,
    out: &mut Effects,
) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    let (run, limits) = (instance.phase.run(), instance.limits.in_force());
    let under_way = instance.limits.under_way.as_mut().filter(|it| it.change == change);
    let (Some(run), Some(under_way)) = (run, under_way) else { return };
    match under_way.step {
        // `memory.high` was lowered to bring memory down.
        Step::Reclaiming { .. } | Step::Pausing { .. } => {
            keep_memory_limits(run, limits, under_way, refusal, now, out);
        }
        Step::Measuring | Step::Setting { .. } => give_up(node, id, refusal, now, out),
    }
}

/// Of the instances for which something is due at or before now.
pub(super) fn on_tick(node: &mut Node, due: BTreeSet<InstanceId>, now: Tick, out: &mut Effects) {
    let is_due = |i: &Instance| i.limits.deadline().is_some_and(|deadline| deadline <= now);
    for id in due {
        // The undoing of another one's may have begun a change for this one too.
        if !node.instances.get(&id).is_some_and(is_due) {
            continue;
        }
        if !reclaim_again(node, &id, now, out) {
            give_up(node, &id, LimitsRefusal::NoAnswer { within: STEP_TIMEOUT }, now, out);
        }
    }
}

/// The next try, if a pause is over.
fn reclaim_again(node: &mut Node, id: &InstanceId, now: Tick, out: &mut Effects) -> bool {
    let Some(instance) = node.instances.get_mut(id) else { return false };
    let target = instance.limits.in_force().memory.unwrap_or(ByteSize(u64::MAX));
    let (run, under_way) = (instance.phase.run(), instance.limits.under_way.as_mut());
    let (Some(run), Some(under_way)) = (run, under_way) else { return false };
    let Step::Pausing { tries, bytes } = under_way.step else { return false };
    let (change, high) = (under_way.change, below(target));
    out.push(Effect::Reclaim { run, change, high, bytes });
    under_way.step = Step::Reclaiming { tries: tries + 1 };
    under_way.deadline = now + STEP_TIMEOUT;
    true
}

/// The run cannot be brought to its limits: what an operator set is undone for all it was set for.
fn give_up(node: &mut Node, id: &InstanceId, refusal: LimitsRefusal, now: Tick, out: &mut Effects) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    out.note(id, instance.phase.run(), RemarkKind::LimitsRefused(refusal.clone()));
    instance.limits.refusal = Some(refusal);
    let record = instance.limits.change().and_then(|change| node.limit_changes.get_mut(&change));
    let undo = record.and_then(|record| record.undo.take());
    leave_change(node, id);
    let Some(Undo { service, former }) = undo.filter(|undo| !undo.former.is_empty()) else {
        return;
    };
    out.push(Effect::UndoSetLimits { service });
    let layers = former.into_iter().filter_map(|(id, operator)| {
        let file = node.instances.get(&id)?.limits.layers.file;
        Some((id, LimitLayers { file, operator }))
    });
    let layers: BTreeMap<InstanceId, LimitLayers> = layers.collect();
    let change = node.begin_change(None);
    follow(node, change, layers, now, out);
}

/// Processes go on allocating between our measurement and the kernel's.
pub(super) fn margin(target: ByteSize) -> u64 {
    (target.0 / 16).clamp(ByteSize::mib(1).0.min(target.0 / 4), ByteSize::mib(64).0)
}

/// What memory in use is brought below for a limit of `target`.
fn below(target: ByteSize) -> ByteSize {
    ByteSize(target.0 - margin(target))
}

/// So many bytes of what is used are too much for a limit of `target`. What cannot be measured is
/// not limited.
pub(super) fn surplus(used: Option<ByteSize>, target: ByteSize) -> u64 {
    used.map_or(0, |used| used.0.saturating_sub(below(target).0))
}

/// What does not hold of the changes that are under way.
pub(super) fn broken_invariant(node: &Node) -> Option<String> {
    for (id, instance) in node.instances.iter() {
        let Some(change) = instance.limits.change() else { continue };
        if run_with_process(instance).is_none() {
            return Some(format!("limits of {id} change, and it has no process"));
        }
        let record = node.limit_changes.get(&change);
        if !record.is_some_and(|record| record.pending.contains(id)) {
            return Some(format!("limits of {id} change by a change that is over"));
        }
    }
    let pending = node
        .limit_changes
        .iter()
        .flat_map(|(change, record)| record.pending.iter().map(move |id| (*change, id)));
    for (change, id) in pending {
        if node.instances.get(id).and_then(|i| i.limits.change()) != Some(change) {
            return Some(format!("a change of limits waits for {id} in vain"));
        }
    }
    let idle = node.limit_changes.values().any(|record| record.pending.is_empty());
    idle.then(|| "a change of limits waits for nobody".to_owned())
}

impl fmt::Display for LimitsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryStays { target, used, limit } => {
                let limit = limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
                write!(f, "its memory does not come down to {target}: it uses {used}, ")?;
                write!(f, "so its limit stays {limit}")
            }
            Self::Kernel(why) => f.write_str(why),
            Self::NoAnswer { within } => {
                let within = crate::units::human_duration(*within);
                write!(f, "the kernel has not taken its limits within {within}")
            }
        }
    }
}
