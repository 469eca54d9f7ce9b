//! The state on its way from one orchestrator to the next: what is saved of it, and how it goes on
//! from there with what the kernel still has. Knows nothing of where it is kept.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::event::{ChangeId, ExitFacts, GroupState, Memory};
use super::instance_limits::InstanceLimits;
use super::instances::Instances;
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

/// All of a [`Node`] that the next orchestrator cannot learn from the kernel or from the services.
/// Ticks in it are those of the orchestrator that saved it: its clock goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedNode {
    instances: BTreeMap<InstanceId, SavedInstance>,
    next_run: RunId,
    #[serde(rename = "chance")]
    rng: Rng,
    goal: Goal,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedInstance {
    rules: Rules,
    wanted: Wanted,
    #[serde(rename = "tenure")]
    membership: Membership,
    phase: Phase,
    attempt: u32,
    recent: VecDeque<Tick>,
    restarts: u64,
    last: Option<Ended>,
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
            phase,
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
}

/// A run that is ours again: its first process, alive or not, and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedRun {
    pub run: RunId,
    pub pid: Pid,
}

/// Goes on where the former orchestrator stopped, wherever in its work that was.
///
/// `planned` is the plan by which it lived. A run that is not `adopted` is over, and nobody
/// saw its end; one that began after the state was saved is starting. What a former effect was to
/// bring about is asked for again.
pub fn resume(
    saved: SavedNode,
    planned: &BTreeMap<InstanceId, Planned>,
    adopted: &BTreeMap<InstanceId, AdoptedRun>,
    now: Tick,
) -> (Node, Vec<Effect>) {
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
    for (id, saved) in saved.instances {
        let mut instance = saved.into_instance(planned.get(&id));
        let sibling = first_of_service(&id, planned).map(|planned| &planned.rules);
        instance.take_needs_of(sibling);
        match adopted.get(&id) {
            Some(adopted) if instance.phase.run() == Some(adopted.run) => {
                go_on(&mut instance, adopted.pid, now, &mut out);
            }
            Some(adopted) if adopted.run >= first_unsaved => {
                begin_later(&mut instance, adopted, now)
            }
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
        let limit = usize::try_from(rules.restart.max_restarts).unwrap_or(usize::MAX);
        let mut recent = self.recent;
        recent.drain(..recent.len().saturating_sub(limit));
        Instance {
            rules,
            limits: InstanceLimits::new(limits),
            wanted,
            membership,
            phase: self.phase,
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
        Phase::Ready { watchdog, .. } => {
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
