//! What must hold after every step. Checked in debug builds, in every simulated history, and cheap
//! enough to be read in one sitting.

use std::time::Duration;

use super::limits;
use super::node::{Goal, Instance, Membership, Node, Wanted};
use super::phase::Phase;
use crate::units::{InstanceId, Tick};

/// The longest a phase may last without the core doing something about it. `EXTEND_TIMEOUT_USEC`
/// and configured timeouts stay below it.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The first invariant that does not hold, in words.
pub fn broken_invariant(node: &Node, now: Tick) -> Option<String> {
    runs_and_phases_agree(node)
        .or_else(|| node.instances.iter().find_map(|(id, i)| instance_is_sound(id, i, now)))
        .or_else(|| shutdown_wants_nothing(node))
        .or_else(|| limits::broken_invariant(node))
}

/// At most one live run an instance, and each in the index exactly once.
fn runs_and_phases_agree(node: &Node) -> Option<String> {
    let live = node.instances.iter().filter_map(|(id, i)| i.phase.run().map(|run| (run, id)));
    let mut count = 0;
    for (run, id) in live {
        count += 1;
        if node.runs.get(&run) != Some(id) {
            return Some(format!("run {run} of {id} is not in the index"));
        }
        if run >= node.next_run {
            return Some(format!("run {run} of {id} was not handed out yet"));
        }
    }
    (count != node.runs.len()).then(|| "the index names runs that are over".to_owned())
}

fn instance_is_sound(id: &InstanceId, instance: &Instance, now: Tick) -> Option<String> {
    let limit = instance.rules.restart.max_restarts;
    if instance.recent.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Some(format!("{id} was restarted more than {limit} times within its window"));
    }
    let ending = matches!(instance.phase, Phase::Stopping { .. } | Phase::Clearing { .. });
    if instance.wanted == Wanted::Restart && !ending {
        return Some(format!("{id} is to restart, but no run of it is ending"));
    }
    if instance.membership == Membership::Retiring && instance.wanted != Wanted::Down {
        return Some(format!("{id} is wanted although it is no longer planned"));
    }
    if instance.membership == Membership::Retiring && instance.phase.is_at_rest() {
        return Some(format!("{id} rests and is neither planned nor removed"));
    }
    let must_end = match instance.phase {
        Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Clearing { .. }
        | Phase::Backoff { .. } => true,
        Phase::Stopped | Phase::Waiting | Phase::Ready { .. } | Phase::Failed(_) => false,
    };
    match instance.phase.deadline() {
        None if must_end => Some(format!("{id} is {} without end", instance.phase.word())),
        Some(deadline) if deadline > now + LONGEST => {
            Some(format!("{id} is {} for too long", instance.phase.word()))
        }
        Some(_) | None => None,
    }
}

fn shutdown_wants_nothing(node: &Node) -> Option<String> {
    let wanted = node.instances.iter().find(|(_, i)| i.wanted != Wanted::Down);
    match (node.goal, wanted) {
        (Goal::Shutdown, Some((id, _))) => Some(format!("{id} is wanted up in a shutdown")),
        (Goal::Shutdown | Goal::Run, _) => None,
    }
}
