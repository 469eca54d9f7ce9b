//! The stop sequence: drain, TERM, KILL of the whole group.

use std::time::Duration;

use super::effect::{Effect, RemarkKind};
use super::node::{Effects, Instance};
use super::phase::{Blame, Phase, StopReason, StopStep};
use crate::units::{InstanceId, RunId, Signal, Tick};

/// How long the kernel may take to carry out a SIGKILL before we say so and try again.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the stop sequence for a run that is starting or ready; does nothing in any other phase.
pub(super) fn begin_stop(
    id: &InstanceId,
    instance: &mut Instance,
    reason: StopReason,
    now: Tick,
    out: &mut Effects,
) {
    let drains = matches!(instance.phase, Phase::Ready { .. }) && !instance.rules.drain.is_zero();
    let stop_step = match reason.blame() {
        Blame::Itself => StopStep::OwnAccord,
        Blame::Nobody if drains => StopStep::Drain,
        Blame::Nobody | Blame::Fault => StopStep::Term,
    };
    enter_stop_sequence(id, instance, reason, stop_step, now, out);
}

/// No grace: a run that is starting or ready is killed now.
pub(super) fn kill_now(id: &InstanceId, instance: &mut Instance, now: Tick, out: &mut Effects) {
    enter_stop_sequence(id, instance, StopReason::Shutdown, StopStep::Kill, now, out);
    let Phase::Stopping { run, stop_step, deadline, .. } = &mut instance.phase else { return };
    if *stop_step < StopStep::Kill {
        *stop_step = StopStep::Kill;
        *deadline = now + KILL_PATIENCE;
        out.push(Effect::KillGroup { run: *run });
    }
}

fn enter_stop_sequence(
    id: &InstanceId,
    instance: &mut Instance,
    reason: StopReason,
    stop_step: StopStep,
    now: Tick,
    out: &mut Effects,
) {
    let (run, pid, spawned, ready) = match instance.phase {
        Phase::Starting { run, since, pid, .. } => (run, pid, since, None),
        Phase::Ready { run, pid, spawned, since, .. } => (run, Some(pid), spawned, Some(since)),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Stopping { .. }
        | Phase::Clearing { .. }
        | Phase::Backoff { .. }
        | Phase::Failed(_) => return,
    };
    out.note(id, Some(run), RemarkKind::Stopping(reason.clone()));
    let patience = match stop_step {
        StopStep::Drain => instance.rules.drain,
        StopStep::OwnAccord => instance.rules.stop_timeout,
        StopStep::Term => {
            out.push(term(run, &reason));
            instance.rules.stop_timeout
        }
        StopStep::Kill | StopStep::Unkillable => {
            out.push(Effect::KillGroup { run });
            KILL_PATIENCE
        }
    };
    let deadline = now + patience;
    instance.phase = Phase::Stopping { run, pid, spawned, ready, stop_step, reason, deadline };
}

/// How a run is told to go. One that missed its watchdog's time leaves a core, as under systemd.
pub(super) fn term(run: RunId, reason: &StopReason) -> Effect {
    let signal = if *reason == StopReason::Watchdog { Signal::ABRT } else { Signal::TERM };
    Effect::Signal { run, signal }
}

/// The patience of the present stop step is over: takes the next one.
pub(super) fn next_stop_step(
    id: &InstanceId,
    instance: &mut Instance,
    now: Tick,
    out: &mut Effects,
) {
    let stop_timeout = instance.rules.stop_timeout;
    let Phase::Stopping { run, stop_step, deadline, .. } = &mut instance.phase else { return };
    let run = *run;
    match *stop_step {
        StopStep::OwnAccord | StopStep::Drain => {
            *stop_step = StopStep::Term;
            *deadline = now + stop_timeout;
            out.push(Effect::Signal { run, signal: Signal::TERM });
        }
        StopStep::Term => {
            *stop_step = StopStep::Kill;
            *deadline = now + KILL_PATIENCE;
            out.note(id, Some(run), RemarkKind::Killing);
            out.push(Effect::KillGroup { run });
        }
        StopStep::Kill | StopStep::Unkillable => {
            if *stop_step == StopStep::Kill {
                out.note(id, Some(run), RemarkKind::Unkillable);
            }
            *stop_step = StopStep::Unkillable;
            *deadline = now + KILL_PATIENCE;
            out.push(Effect::KillGroup { run });
        }
    }
}
