//! What must hold after every step. Checked in debug builds, in every simulated history, and cheap
//! enough to be read in one sitting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::limits;
use super::node::{Goal, Instance, Membership, Node, Wanted};
use super::phase::Phase;
use crate::units::{InstanceId, Tick};

/// The longest a phase may last without the core doing something about it. `EXTEND_TIMEOUT_USEC`
/// and configured timeouts stay below it.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The first invariant that does not hold, in words.
pub fn broken_invariant(node: &Node, now: Tick) -> Option<String> {
    runs_and_phases_agree(node)
        .or_else(|| node.instances.iter().find_map(|(id, i)| instance_is_sound(id, i, now)))
        .or_else(|| shutdown_wants_nothing(node))
        .or_else(|| limits::broken_invariant(node))
        .or_else(|| node.instances.disagreement())
        .or_else(|| node.instances.iter().find_map(|(id, i)| waits_for_nobody(node, id, i)))
        .or_else(|| stops_in_a_circle(node))
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

/// What may go on does, in the step that lets it.
fn waits_for_nobody(node: &Node, id: &InstanceId, instance: &Instance) -> Option<String> {
    let may_start = node.goal == Goal::Run
        && instance.phase == Phase::Waiting
        && node.holders(id).next().is_none();
    let may_stop = instance.is_to_stop() && node.must_stop_first(id).next().is_none();
    if may_start || may_stop || instance.idles_unwanted() {
        let (wanted, word) = (instance.wanted, instance.phase.word());
        return Some(format!("{id} is {word}, wanted {wanted:?}, and waits for nobody"));
    }
    None
}

/// Every stop that waits for others can come: taking away, again and again, one that waits for
/// none of those left takes away all.
fn stops_in_a_circle(node: &Node) -> Option<String> {
    if node.instances.census().waiting_to_stop == 0 {
        return None;
    }
    let to_stop = |(_, instance): &(&InstanceId, &Instance)| instance.is_to_stop();
    let waits_for = |id| node.must_stop_first(id).filter(to_stop).count();
    let waiting = node.instances.iter().filter(to_stop).map(|(id, _)| (id, waits_for(id)));
    let mut waiting: BTreeMap<&InstanceId, usize> = waiting.collect();
    let free = waiting.iter().filter(|(_, others)| **others == 0);
    let mut free: Vec<&InstanceId> = free.map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        waiting.remove(id);
        let needs = node.instances.get(id).map(|instance| &instance.rules.needs);
        let needs: BTreeSet<_> = needs.into_iter().flatten().collect();
        for (needed, _) in needs.into_iter().flat_map(|need| node.instances.of(need)) {
            if let Some(others) = waiting.get_mut(needed) {
                *others -= 1;
                if *others == 0 {
                    free.push(needed);
                }
            }
        }
    }
    let ids: Vec<String> = waiting.keys().map(ToString::to_string).collect();
    (!ids.is_empty()).then(|| format!("these wait for each other to stop: {}", ids.join(", ")))
}
