//! The end of a run, and what follows it.

use super::effect::{Effect, RemarkKind};
use super::event::{ExitFacts, GroupState, Memory, SpawnFailure};
use super::node::{Effects, Goal, Instance, Wanted};
use super::phase::{Ended, Ending, Phase, StopReason};
use super::restart::{Next, after};
use super::rng::Rng;
use super::stop::KILL_PATIENCE;
use crate::units::{InstanceId, Pid, RunId, Tick};

/// The first process of the run is gone.
pub(super) fn exited(
    id: &InstanceId,
    instance: &mut Instance,
    facts: ExitFacts,
    group: GroupState,
    now: Tick,
    (goal, rng, out): (Goal, &mut Rng, &mut Effects),
) {
    let Some(ended) = ended_run(&instance.phase, facts, now) else { return };
    match group {
        GroupState::Empty => settle(id, instance, ended, now, (goal, rng, out)),
        GroupState::Populated => {
            let run = ended.run;
            out.note(id, Some(run), RemarkKind::LeftOvers);
            out.push(Effect::Clear { run });
            instance.phase = Phase::Clearing { run, ended, deadline: now + KILL_PATIENCE };
        }
    }
}

/// No process came to be.
pub(super) fn never_started(
    id: &InstanceId,
    instance: &mut Instance,
    failure: SpawnFailure,
    now: Tick,
    context: (Goal, &mut Rng, &mut Effects),
) {
    let (run, since, asked) = match &instance.phase {
        Phase::Starting { run, since, .. } => (*run, *since, None),
        Phase::Stopping { run, spawned, reason, .. } => (*run, *spawned, Some(reason.clone())),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Ready { .. }
        | Phase::Clearing { .. }
        | Phase::Backoff { .. }
        | Phase::Failed(_) => return,
    };
    context.2.note(id, Some(run), RemarkKind::StartFailed(failure.clone()));
    let ended = Ended {
        run,
        pid: None,
        at: now,
        how: Ending::NeverStarted(failure),
        asked,
        lasted: now.since(since),
        ready_for: None,
    };
    settle(id, instance, ended, now, context);
}

/// Nothing of the run is left: rest, start again, or give up.
pub(super) fn settle(
    id: &InstanceId,
    instance: &mut Instance,
    ended: Ended,
    now: Tick,
    (goal, rng, out): (Goal, &mut Rng, &mut Effects),
) {
    let run = Some(ended.run);
    out.note(id, run, RemarkKind::Ended(ended.clone()));
    out.push(Effect::Forget { run: ended.run });
    let next = if goal == Goal::Shutdown { Next::Rest } else { after(instance, &ended, now, rng) };
    instance.last = Some(ended);
    instance.memory = Memory::default();
    match next {
        Next::Rest => {
            instance.phase = Phase::Stopped;
            out.note(id, run, RemarkKind::Stopped);
        }
        Next::Restart => {
            // Asked for once: what ends after this follows its policy again.
            instance.wanted = Wanted::Up;
            instance.phase = Phase::Waiting;
        }
        Next::AtOnce => {
            instance.restarts += 1;
            instance.phase = Phase::Waiting;
        }
        Next::After { delay, attempt } => {
            instance.restarts += 1;
            out.note(id, run, RemarkKind::Restarting { delay, attempt });
            instance.phase = if delay.is_zero() {
                Phase::Waiting
            } else {
                Phase::Backoff { until: now + delay, attempt }
            };
        }
        Next::GiveUp(reason) => {
            out.note(id, run, RemarkKind::Failed(reason.clone()));
            instance.phase = Phase::Failed(reason);
        }
    }
}

struct Running {
    run: RunId,
    pid: Option<Pid>,
    spawned: Tick,
    ready: Option<Tick>,
    asked: Option<StopReason>,
    exec_failure: Option<SpawnFailure>,
}

fn ended_run(phase: &Phase, facts: ExitFacts, now: Tick) -> Option<Ended> {
    let running = match phase {
        Phase::Starting { run, since, pid, exec_failure, .. } => Running {
            run: *run,
            pid: *pid,
            spawned: *since,
            ready: None,
            asked: None,
            exec_failure: exec_failure.clone(),
        },
        Phase::Ready { run, pid, spawned, since, .. } => Running {
            run: *run,
            pid: Some(*pid),
            spawned: *spawned,
            ready: Some(*since),
            asked: None,
            exec_failure: None,
        },
        Phase::Stopping { run, pid, spawned, ready, reason, .. } => Running {
            run: *run,
            pid: *pid,
            spawned: *spawned,
            ready: *ready,
            asked: Some(reason.clone()),
            exec_failure: None,
        },
        Phase::Stopped
        | Phase::Waiting
        | Phase::Clearing { .. }
        | Phase::Backoff { .. }
        | Phase::Failed(_) => return None,
    };
    let how = match running.exec_failure {
        Some(failure) => Ending::NeverStarted(failure),
        None => Ending::Exited(facts),
    };
    Some(Ended {
        run: running.run,
        pid: running.pid,
        at: now,
        how,
        asked: running.asked,
        lasted: now.since(running.spawned),
        ready_for: running.ready.map(|since| now.since(since)),
    })
}
