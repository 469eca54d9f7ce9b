//! What an instance is to do, changed by an operator, by a new plan or by another service's
//! restart. Knows nothing of who waits for whom: what follows is `order`'s.

use super::node::{Effects, Goal, Instance, Membership, Node, Wanted};
use super::phase::{Phase, StopReason};
use super::stop::begin_stop;
use crate::units::{InstanceId, Tick};

/// An operator wants it up. In a shutdown nothing is wanted up any more.
pub(super) fn want_up(node: &mut Node, id: &InstanceId) {
    if node.goal == Goal::Shutdown {
        return;
    }
    let Some(instance) = node.instances.get_mut(id) else { return };
    if instance.membership == Membership::Retiring {
        return;
    }
    instance.wanted = Wanted::Up;
    match instance.phase {
        Phase::Stopped | Phase::Failed(_) | Phase::Backoff { .. } => {
            instance.forgive();
            instance.phase = Phase::Waiting;
        }
        Phase::Stopping { .. } | Phase::Clearing { .. } => {
            instance.forgive();
            instance.wanted = Wanted::Restart;
        }
        Phase::Waiting | Phase::Starting { .. } | Phase::Ready { .. } => {}
    }
}

pub(super) fn want_down(node: &mut Node, id: &InstanceId) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    instance.wanted = Wanted::Down;
    if matches!(instance.phase, Phase::Failed(_)) {
        instance.phase = Phase::Stopped;
    }
}

/// A run that is starting or ready, and wanted, is ended and followed by another.
pub(super) fn restart_run(
    id: &InstanceId,
    instance: &mut Instance,
    reason: StopReason,
    now: Tick,
    out: &mut Effects,
) {
    let lives = matches!(instance.phase, Phase::Starting { .. } | Phase::Ready { .. });
    if lives && instance.wanted != Wanted::Down {
        instance.wanted = Wanted::Restart;
        begin_stop(id, instance, reason, now, out);
    }
}
