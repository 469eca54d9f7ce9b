//! The stop ladder: drain, TERM, KILL of the whole group.

use std::time::Duration;

use super::effect::{Effect, RemarkKind};
use super::node::{Instance, Out};
use super::phase::{Blame, Phase, Rung, StopReason};
use crate::units::{InstanceId, RunId, Signal, Tick};

/// How long the kernel may take to carry out a SIGKILL before we say so and try again.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the ladder for a run that is starting or ready; does nothing in any other phase.
pub(super) fn begin_stop(
    id: &InstanceId,
    instance: &mut Instance,
    reason: StopReason,
    now: Tick,
    out: &mut Out,
) {
    let drains = matches!(instance.phase, Phase::Ready { .. }) && !instance.rules.drain.is_zero();
    let rung = match reason.blame() {
        Blame::Itself => Rung::OwnAccord,
        Blame::Nobody if drains => Rung::Drain,
        Blame::Nobody | Blame::Fault => Rung::Term,
    };
    enter_ladder(id, instance, reason, rung, now, out);
}

/// No grace: a run that is starting or ready is killed now.
pub(super) fn kill_now(id: &InstanceId, instance: &mut Instance, now: Tick, out: &mut Out) {
    enter_ladder(id, instance, StopReason::Shutdown, Rung::Kill, now, out);
    let Phase::Stopping { run, rung, deadline, .. } = &mut instance.phase else { return };
    if *rung < Rung::Kill {
        *rung = Rung::Kill;
        *deadline = now + KILL_PATIENCE;
        out.push(Effect::KillGroup { run: *run });
    }
}

fn enter_ladder(
    id: &InstanceId,
    instance: &mut Instance,
    reason: StopReason,
    rung: Rung,
    now: Tick,
    out: &mut Out,
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
    let patience = match rung {
        Rung::Drain => instance.rules.drain,
        Rung::OwnAccord => instance.rules.stop_timeout,
        Rung::Term => {
            out.push(term(run, &reason));
            instance.rules.stop_timeout
        }
        Rung::Kill | Rung::Unkillable => {
            out.push(Effect::KillGroup { run });
            KILL_PATIENCE
        }
    };
    let deadline = now + patience;
    instance.phase = Phase::Stopping { run, pid, spawned, ready, rung, reason, deadline };
}

/// How a run is told to go. One that missed its watchdog's time leaves a core, as under systemd.
pub(super) fn term(run: RunId, reason: &StopReason) -> Effect {
    let signal = if *reason == StopReason::Watchdog { Signal::ABRT } else { Signal::TERM };
    Effect::Signal { run, signal }
}

/// The patience of the present rung is over: takes the next one.
pub(super) fn next_rung(id: &InstanceId, instance: &mut Instance, now: Tick, out: &mut Out) {
    let stop_timeout = instance.rules.stop_timeout;
    let Phase::Stopping { run, rung, deadline, .. } = &mut instance.phase else { return };
    let run = *run;
    match *rung {
        Rung::OwnAccord | Rung::Drain => {
            *rung = Rung::Term;
            *deadline = now + stop_timeout;
            out.push(Effect::Signal { run, signal: Signal::TERM });
        }
        Rung::Term => {
            *rung = Rung::Kill;
            *deadline = now + KILL_PATIENCE;
            out.note(id, Some(run), RemarkKind::Killing);
            out.push(Effect::KillGroup { run });
        }
        Rung::Kill | Rung::Unkillable => {
            if *rung == Rung::Kill {
                out.note(id, Some(run), RemarkKind::Unkillable);
            }
            *rung = Rung::Unkillable;
            *deadline = now + KILL_PATIENCE;
            out.push(Effect::KillGroup { run });
        }
    }
}
