//! The state on its way from one orchestrator to the next: what is saved of it, and how it goes on
//! from there with what the kernel still has. Knows nothing of where it is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::effect::Effect;
use super::event::{ChangeId, ExitFacts, GroupState, Memory};
use super::instance_limits::InstanceLimits;
use super::instances::Instances;
use super::invariants::LONGEST;
use super::limits::confirm_limits;
use super::node::{Effects, Goal, Instance, Membership, Node, Planned, Wanted};
use super::order::advance;
use super::phase::{Ended, Phase, StopStep};
use super::replan::first_of_service;
use super::rng::Rng;
use super::settle::{exited, settle};
use super::stop::{KILL_PATIENCE, term};
use crate::plan::Rules;
use crate::units::{ExitStatus, InstanceId, Pid, RunId, Tick};

/// What was said while nobody listened is heard within this time; no deadline ends before it.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// More runs than can begin, and end without a trace, after the state was saved: their numbers are
/// passed over.
const UNSAVED_RUNS: u64 = 1000;

/// Nothing is counted so far; what says so was not written by a node.
const COUNT_MOST: u64 = 1 << 62;

/// All of a [`Node`] that the next orchestrator cannot learn from the kernel or from the services.
/// Ticks in it are those of the orchestrator that saved it: its clock goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedNode {
    pub instances: BTreeMap<InstanceId, SavedInstance>,
    pub next_run: RunId,
    pub rng: Rng,
    pub goal: Goal,
    pub recency: Recency,
}

/// Whether it is the last that was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recency {
    Newest,
    /// What was saved after it cannot be read. Who was starting then may have said long ago that it
    /// is ready, to somebody who heard it: nobody waits for that a second time.
    Outdated,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SavedInstance {
    pub rules: Rules,
    pub wanted: Wanted,
    pub membership: Membership,
    /// None: it is not known. A run that is adopted counts as ready then.
    pub phase: Option<Phase>,
    pub attempt: u32,
    pub recent: VecDeque<Tick>,
    pub restarts: u64,
    pub last: Option<Ended>,
}

impl Node {
    /// Two of the same value mean that nothing happened in between that has to be saved: health
    /// checks and watchdog messages that went well do not show in it.
    pub fn saved(&self) -> SavedNode {
        let saved = |(id, instance): (&InstanceId, &Instance)| (id.clone(), instance.saved());
        SavedNode {
            instances: self.instances.iter().map(saved).collect(),
            next_run: self.next_run,
            rng: self.rng.clone(),
            goal: self.goal,
            recency: Recency::Newest,
        }
    }
}

impl Instance {
    fn saved(&self) -> SavedInstance {
        let mut phase = self.phase.clone();
        if let Phase::Ready { strikes, watchdog, .. } = &mut phase {
            *strikes = 0;
            *watchdog = None;
        }
        SavedInstance {
            rules: self.rules.clone(),
            wanted: self.wanted,
            membership: self.membership,
            phase: Some(phase),
            attempt: self.attempt,
            recent: self.recent.clone(),
            restarts: self.restarts,
            last: self.last.clone(),
        }
    }
}

impl SavedNode {
    /// Whether it was stopping as a whole.
    pub fn is_ending(&self) -> bool {
        self.goal == Goal::Shutdown
    }

    /// What a [`Node`] cannot be is made what does least harm: it may have been written by another
    /// version, or not be what was written.
    fn mended(mut self, now: Tick) -> Self {
        let mut known = BTreeSet::new();
        for saved in self.instances.values_mut() {
            let run = saved.phase.as_ref().and_then(Phase::run);
            let is_sound = run.is_none_or(|run| run.0 < COUNT_MOST && known.insert(run));
            let waits_to_be_ready = matches!(saved.phase, Some(Phase::Starting { .. }));
            if !is_sound || (self.recency == Recency::Outdated && waits_to_be_ready) {
                saved.phase = None;
            }
            saved.mend(self.goal, now);
        }
        let after_all = known.last().map_or(RunId::FIRST, |run| run.next());
        let is_sound = self.next_run.0 < COUNT_MOST;
        self.next_run = if is_sound { self.next_run.max(after_all) } else { after_all };
        self
    }
}

impl SavedInstance {
    fn mend(&mut self, goal: Goal, now: Tick) {
        if goal == Goal::Shutdown || self.membership == Membership::Retiring {
            self.wanted = Wanted::Down;
        }
        self.restarts = self.restarts.min(COUNT_MOST);
        let backoff_max = self.rules.restart.backoff_max.min(LONGEST / 2);
        match &mut self.phase {
            // It is to run again when that ends.
            Some(Phase::Stopping { .. } | Phase::Clearing { .. }) => return,
            Some(Phase::Starting { deadline, .. }) => *deadline = (*deadline).min(now + LONGEST),
            Some(Phase::Backoff { until, .. }) => *until = (*until).min(now + backoff_max * 2),
            Some(Phase::Stopped | Phase::Waiting | Phase::Ready { .. } | Phase::Failed(_))
            | None => {}
        }
        if self.wanted == Wanted::Restart {
            self.wanted = Wanted::Up;
        }
    }
}

/// A run that is ours again: its first process, alive or not, and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedRun {
    pub run: RunId,
    pub pid: Pid,
}

/// Goes on where the former orchestrator stopped, wherever in its work that was.
///
/// `planned` is the plan by which it lived. A run that is not `adopted` is over, and nobody saw its
/// end; one that began after the state was saved is starting, and one of which it is not known how
/// far it had come is ready. What a former effect was to bring about is asked for again.
pub fn resume(
    saved: SavedNode,
    planned: &BTreeMap<InstanceId, Planned>,
    adopted: &BTreeMap<InstanceId, AdoptedRun>,
    now: Tick,
) -> (Node, Vec<Effect>) {
    let saved = saved.mended(now);
    let first_unsaved = saved.next_run;
    let after_adopted = adopted.values().map(|adopted| adopted.run.next()).max();
    let mut node = Node {
        instances: Instances::default(),
        runs: BTreeMap::new(),
        next_run: RunId(after_adopted.unwrap_or(first_unsaved).max(first_unsaved).0 + UNSAVED_RUNS),
        rng: saved.rng,
        goal: saved.goal,
        limit_changes: BTreeMap::new(),
        next_change: ChangeId(1),
        announced: false,
    };
    let mut out = Effects::default();
    for (id, saved_instance) in saved.instances {
        let known = saved_instance.phase.is_some();
        let mut instance = saved_instance.into_instance(planned.get(&id));
        let sibling = first_of_service(&id, planned).map(|planned| &planned.rules);
        instance.take_needs_of(sibling);
        match adopted.get(&id) {
            Some(adopted) if instance.phase.run() == Some(adopted.run) => {
                go_on(&mut instance, adopted.pid, now, &mut out);
            }
            Some(adopted) if !known => count_as_ready(&mut instance, adopted, now),
            Some(adopted) if adopted.run >= first_unsaved => match saved.recency {
                Recency::Newest => begin_later(&mut instance, adopted, now),
                Recency::Outdated => count_as_ready(&mut instance, adopted, now),
            },
            // Of an earlier run what was to be forgotten may be left.
            Some(_) | None => {
                end_unseen(&id, &mut instance, now, (node.goal, &mut node.rng, &mut out))
            }
        }
        if let Some(run) = instance.phase.run() {
            node.runs.insert(run, id.clone());
        }
        node.instances.insert(id, instance);
    }
    for (id, Planned { rules, limits }) in planned {
        if !node.instances.contains_key(id) {
            node.instances.insert(id.clone(), Instance::new(rules.clone(), *limits));
        }
    }
    confirm_limits(&mut node, adopted.keys().cloned(), now, &mut out);
    advance(&mut node, now, &mut out);
    debug_assert_eq!(super::invariants::broken_invariant(&node, now), None);
    (node, out.0)
}

impl SavedInstance {
    fn into_instance(self, planned: Option<&Planned>) -> Instance {
        let (membership, wanted) = match planned {
            Some(_) => (self.membership, self.wanted),
            None => (Membership::Retiring, Wanted::Down),
        };
        let Planned { rules, limits } =
            planned.cloned().unwrap_or_else(|| Planned::from(self.rules));
        let phase = self.phase.unwrap_or(match wanted {
            Wanted::Up | Wanted::Restart => Phase::Waiting,
            Wanted::Down => Phase::Stopped,
        });
        let limit = usize::try_from(rules.restart.max_restarts).unwrap_or(usize::MAX);
        let mut recent = self.recent;
        recent.drain(..recent.len().saturating_sub(limit));
        Instance {
            rules,
            limits: InstanceLimits::new(limits),
            wanted,
            membership,
            phase,
            attempt: self.attempt,
            recent,
            restarts: self.restarts,
            last: self.last,
            status_text: String::new(),
            last_check: None,
            memory: Memory::Enough,
        }
    }
}

fn go_on(instance: &mut Instance, first: Pid, now: Tick, out: &mut Effects) {
    let Rules { watchdog: patience, stop_timeout, drain, .. } = instance.rules;
    match &mut instance.phase {
        Phase::Starting { pid, deadline, .. } => {
            *pid = Some(first);
            *deadline = (*deadline).max(now + CATCHING_UP);
        }
        Phase::Ready { pid, watchdog, .. } => {
            *pid = first;
            *watchdog = patience.map(|patience| now + patience.max(CATCHING_UP));
        }
        Phase::Stopping { run, pid, stop_step, reason, deadline, .. } => {
            *pid = Some(first);
            let patience = match stop_step {
                StopStep::OwnAccord => stop_timeout,
                StopStep::Drain => drain,
                StopStep::Term => {
                    out.push(term(*run, reason));
                    stop_timeout
                }
                StopStep::Kill | StopStep::Unkillable => {
                    out.push(Effect::KillGroup { run: *run });
                    KILL_PATIENCE
                }
            };
            *deadline = now + patience;
        }
        Phase::Clearing { run, deadline, .. } => {
            *deadline = now + KILL_PATIENCE;
            out.push(Effect::Clear { run: *run });
        }
        Phase::Stopped | Phase::Waiting | Phase::Backoff { .. } | Phase::Failed(_) => {}
    }
}

/// It was started after the state was saved: whatever was before it is over.
fn begin_later(instance: &mut Instance, adopted: &AdoptedRun, now: Tick) {
    let AdoptedRun { run, pid } = *adopted;
    let deadline = now + instance.rules.start_timeout.max(CATCHING_UP);
    instance.phase =
        Phase::Starting { run, since: now, pid: Some(pid), exec_failure: None, deadline };
    if instance.wanted == Wanted::Restart {
        instance.wanted = Wanted::Up;
    }
}

/// It runs, and nobody knows how far it had come: whatever is started or stopped by a mistake is
/// worse than to take it for ready.
fn count_as_ready(instance: &mut Instance, adopted: &AdoptedRun, now: Tick) {
    let AdoptedRun { run, pid } = *adopted;
    let (spawned, since) = (now, now);
    instance.phase = Phase::Ready { run, pid, spawned, since, strikes: 0, watchdog: None };
    if instance.wanted == Wanted::Restart {
        instance.wanted = Wanted::Up;
    }
    go_on(instance, pid, now, &mut Effects::default());
}

/// Nothing is left of its run, if it had one. A start that had not come so far is made again.
fn end_unseen(
    id: &InstanceId,
    instance: &mut Instance,
    now: Tick,
    context: (Goal, &mut Rng, &mut Effects),
) {
    match &instance.phase {
        Phase::Starting { .. } => instance.phase = Phase::Waiting,
        Phase::Ready { .. } | Phase::Stopping { .. } => {
            let facts = ExitFacts { status: ExitStatus::Unseen, oom_kills: 0 };
            exited(id, instance, facts, GroupState::Empty, now, context);
        }
        Phase::Clearing { ended, .. } => {
            let ended = ended.clone();
            settle(id, instance, ended, now, context);
        }
        Phase::Stopped | Phase::Waiting | Phase::Backoff { .. } | Phase::Failed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::invariants::broken_invariant;
    use super::super::samples;
    use super::*;
    use crate::decide::{Announcement, Ending, StopReason};
    use crate::plan::LimitLayers;
    use crate::units::Signal;

    const NOW: Tick = Tick::from_millis(1_000_000);

    const NOTHING: [(InstanceId, Planned); 0] = [];

    fn id() -> InstanceId {
        "web-0".parse().unwrap()
    }

    fn starting(run: u64) -> Option<Phase> {
        let (since, deadline) = (Tick::ZERO, Tick::from_millis(10));
        Some(Phase::Starting { run: RunId(run), since, pid: None, exec_failure: None, deadline })
    }

    fn instance(phase: Option<Phase>) -> SavedInstance {
        SavedInstance {
            phase,
            ..Instance::new(samples::rules(&[]), LimitLayers::default()).saved()
        }
    }

    fn node(instances: impl IntoIterator<Item = (InstanceId, SavedInstance)>) -> SavedNode {
        let instances = instances.into_iter().collect();
        SavedNode { instances, next_run: RunId(7), ..Node::new(NOTHING, 1).saved() }
    }

    /// With this run of `web-0` there; everything is planned.
    fn resumed(saved: SavedNode, run: Option<u64>) -> (Node, Vec<Effect>) {
        let rules =
            saved.instances.keys().map(|id| (id.clone(), samples::rules(&[]).into())).collect();
        let adopted = run.map(|run| (id(), AdoptedRun { run: RunId(run), pid: Pid(42) }));
        let (node, effects) = resume(saved, &rules, &adopted.into_iter().collect(), NOW);
        assert_eq!(broken_invariant(&node, NOW), None);
        (node, effects)
    }

    fn phase_after(phase: Option<Phase>, recency: Recency, run: Option<u64>) -> Phase {
        let saved = SavedNode { recency, ..node([(id(), instance(phase))]) };
        resumed(saved, run).0.instance(&id()).unwrap().phase.clone()
    }

    fn ready(run: u64) -> Phase {
        let (run, pid) = (RunId(run), Pid(42));
        Phase::Ready { run, pid, spawned: NOW, since: NOW, strikes: 0, watchdog: None }
    }

    #[test]
    fn who_was_starting_in_an_outdated_state_counts_as_ready() {
        for run in [3, 7, 9] {
            let now = phase_after(starting(3), Recency::Newest, Some(run));
            assert!(matches!(now, Phase::Starting { pid: Some(Pid(42)), .. }), "{now:?}");
            assert_eq!(now.run(), Some(RunId(run)));
            assert!(now.deadline() >= Some(NOW + CATCHING_UP), "{now:?}");
            assert_eq!(phase_after(starting(3), Recency::Outdated, Some(run)), ready(run));
        }
        assert_eq!(phase_after(Some(Phase::Stopped), Recency::Outdated, Some(9)), ready(9));
        let left = phase_after(Some(Phase::Stopped), Recency::Outdated, Some(3));
        assert_eq!(left, Phase::Stopped, "it was over when that was saved");
    }

    #[test]
    fn a_run_whose_phase_is_not_known_counts_as_ready_and_none_is_started() {
        for recency in [Recency::Newest, Recency::Outdated] {
            assert_eq!(phase_after(None, recency, Some(3)), ready(3));
            let begun = phase_after(None, recency, None);
            assert!(matches!(begun, Phase::Starting { run, .. } if run.0 > 7), "{begun:?}");
        }
        let mut stopped = instance(None);
        stopped.wanted = Wanted::Down;
        let (node, _) = resumed(node([(id(), stopped)]), None);
        assert_eq!(node.instance(&id()).unwrap().phase, Phase::Stopped);
    }

    #[test]
    fn what_a_node_cannot_be_is_made_what_it_can() {
        let other: InstanceId = "web-1".parse().unwrap();
        let twice = node([(id(), instance(starting(3))), (other.clone(), instance(starting(3)))]);
        let (now, _) = resumed(twice, Some(3));
        assert_eq!(now.owner(RunId(3)), Some(&id()));
        assert_ne!(now.instance(&other).unwrap().phase.run(), Some(RunId(3)));
        let too_far = Tick(Duration::MAX);
        let backoff = Phase::Backoff { until: too_far, attempt: u32::MAX };
        let mut wrong = instance(Some(backoff));
        (wrong.wanted, wrong.restarts, wrong.attempt) = (Wanted::Restart, u64::MAX, u32::MAX);
        wrong.recent = (0..100).map(Tick::from_millis).collect();
        let (now, _) = resumed(node([(id(), wrong)]), None);
        let instance = now.instance(&id()).unwrap();
        assert_eq!(instance.wanted, Wanted::Up);
        let patience = instance.phase.deadline().unwrap().since(NOW);
        assert!(patience <= instance.rules.restart.backoff_max * 2, "{patience:?}");
        for run in [0, u64::MAX] {
            let mut numbered = node([(id(), self::instance(starting(run)))]);
            numbered.next_run = RunId(run);
            resumed(numbered, Some(3));
        }
    }

    #[test]
    fn what_is_planned_and_was_not_saved_begins_and_nothing_else_comes_up() {
        let saved = node([]);
        assert!(!saved.is_ending());
        let (now, effects) = resume(
            saved,
            &BTreeMap::from([(id(), samples::rules(&[]).into())]),
            &BTreeMap::new(),
            NOW,
        );
        assert!(matches!(now.instance(&id()).unwrap().phase, Phase::Starting { .. }));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
        let ending = SavedNode { goal: Goal::Shutdown, ..node([(id(), instance(starting(3)))]) };
        assert!(ending.is_ending());
        let (now, effects) = resumed(ending, Some(3));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::SetLimits { .. })));
        assert_eq!(now.instance(&id()).unwrap().phase.word(), "stopping");
    }

    #[test]
    fn a_watchdog_message_is_nothing_that_has_to_be_saved() {
        let watched = |watchdog| Phase::Ready {
            run: RunId(3),
            pid: Pid(42),
            spawned: NOW,
            since: NOW,
            strikes: u32::from(watchdog == Some(NOW)),
            watchdog,
        };
        let saved = [None, Some(NOW)].map(|watchdog| {
            let mut whole = Instance::new(samples::rules(&[]), LimitLayers::default());
            whole.phase = watched(watchdog);
            whole.saved()
        });
        assert_eq!(saved[0], saved[1]);
    }

    #[test]
    fn no_deadline_of_a_former_clock_is_without_end() {
        let too_far = Tick(Duration::MAX);
        let (since, pid) = (Tick::ZERO, None);
        let phase =
            Phase::Starting { run: RunId(3), since, pid, exec_failure: None, deadline: too_far };
        let now = phase_after(Some(phase), Recency::Newest, Some(3));
        assert_eq!(now.deadline(), Some(NOW + LONGEST));
        let backoff = Phase::Backoff { until: too_far, attempt: 3 };
        let now = phase_after(Some(backoff), Recency::Newest, None);
        assert_eq!(now.deadline(), Some(NOW + samples::rules(&[]).restart.backoff_max * 2));
        let mut counted = instance(None);
        counted.restarts = u64::MAX;
        let (now, _) = resumed(node([(id(), counted)]), None);
        assert_eq!(now.instance(&id()).unwrap().restarts, COUNT_MOST);
    }

    fn stopping(stop_step: StopStep) -> Phase {
        let (run, spawned, reason) = (RunId(3), Tick::ZERO, StopReason::Operator);
        let (pid, ready, deadline) = (None, None, NOW);
        Phase::Stopping { run, pid, spawned, ready, stop_step, reason, deadline }
    }

    #[test]
    fn what_was_to_end_a_run_is_done_again_for_the_process_that_is_there() {
        let run = RunId(3);
        let facts = ExitFacts { status: ExitStatus::Code(1), oom_kills: 0 };
        let (spawned, since, pid) = (NOW, NOW, Pid(1));
        let former = Phase::Ready { run, pid, spawned, since, strikes: 0, watchdog: None };
        assert_eq!(phase_after(Some(former), Recency::Newest, Some(3)), ready(3));
        let gone = node([(id(), instance(Some(ready(3))))]);
        let (gone, _) = resumed(gone, None);
        let ended = gone.instance(&id()).unwrap().last.clone().unwrap();
        let unseen = ExitFacts { status: ExitStatus::Unseen, ..facts };
        assert_eq!(ended.how, Ending::Exited(unseen), "nobody saw that it was killed");
        let term = Effect::Signal { run, signal: Signal::TERM };
        let clearing = Phase::Clearing { run, ended, deadline: NOW };
        let again = [
            (stopping(StopStep::Term), term),
            (stopping(StopStep::Kill), Effect::KillGroup { run }),
            (stopping(StopStep::Unkillable), Effect::KillGroup { run }),
            (clearing, Effect::Clear { run }),
        ];
        for (phase, effect) in again {
            let (now, effects) = resumed(node([(id(), instance(Some(phase)))]), Some(3));
            assert_eq!(effects.iter().filter(|done| **done == effect).count(), 1, "{effect:?}");
            let instance = now.instance(&id()).unwrap();
            let pid = Some(Pid(42)).filter(|_| !matches!(effect, Effect::Clear { .. }));
            assert_eq!(instance.pid(), pid);
        }
    }

    #[test]
    fn a_run_that_is_not_wanted_is_not_wanted_by_going_on_with_it() {
        for (phase, run) in [(Some(Phase::Stopped), 9), (None, 3)] {
            let mut unwanted = instance(phase);
            unwanted.wanted = Wanted::Down;
            let (now, _) = resumed(node([(id(), unwanted)]), Some(run));
            let now = now.instance(&id()).unwrap();
            assert_eq!((now.wanted, now.phase.word()), (Wanted::Down, "stopping"));
        }
    }

    #[test]
    fn numbers_of_runs_go_on_after_the_last_and_readiness_is_announced_again() {
        let other: InstanceId = "web-1".parse().unwrap();
        let both = [id(), other.clone()].map(|id| (id, samples::rules(&[]).into())).into();
        let pid = Pid(42);
        let adopted = [(id(), RunId(5000)), (other, RunId(8))];
        let adopted = adopted.map(|(id, run)| (id, AdoptedRun { run, pid })).into();
        let saved = node([(id(), instance(None)), ("web-1".parse().unwrap(), instance(None))]);
        let (now, effects) = resume(saved, &both, &adopted, NOW);
        assert!(now.next_run > RunId(5000));
        assert!(effects.contains(&Effect::Announce(Announcement::Ready)));
    }
}
