//! Who waits for whom: starts follow the dependencies, stops go against them.

use super::effect::{Announcement, Effect, RemarkKind};
use super::node::{Effects, Goal, Instance, Membership, Node, Wanted};
use super::phase::{Phase, StopReason};
use super::stop::begin_stop;
use super::view::Hold;
use crate::units::{InstanceId, RunId, ServiceName, Tick};

/// After every event: lets everything go on that no longer has to wait.
pub(super) fn advance(node: &mut Node, now: Tick, out: &mut Effects) {
    rest_what_is_unwanted(node, out);
    remove_what_is_retired(node, out);
    stop_what_nobody_needs(node, now, out);
    start_what_may_start(node, now, out);
    announce(node, out);
}

/// Unwanted instances without a process rest at once.
fn rest_what_is_unwanted(node: &mut Node, out: &mut Effects) {
    for (id, instance) in &mut node.instances {
        let idle = matches!(instance.phase, Phase::Waiting | Phase::Backoff { .. });
        if instance.wanted == Wanted::Down && idle {
            instance.phase = Phase::Stopped;
            out.note(id, None, RemarkKind::Stopped);
        }
    }
}

fn remove_what_is_retired(node: &mut Node, out: &mut Effects) {
    let goes = |i: &Instance| i.membership == Membership::Retiring && i.phase.is_at_rest();
    let all = node.instances.iter().filter(|(_, instance)| goes(instance));
    for id in all.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
        node.instances.remove(&id);
        out.note(&id, None, RemarkKind::Retired);
        out.push(Effect::Retire { instance: id });
    }
}

/// Unwanted instances with a process are stopped once all that need them, and are unwanted too,
/// rest. One that is needed by something that stays up is stopped all the same: its operator said
/// so.
fn stop_what_nobody_needs(node: &mut Node, now: Tick, out: &mut Effects) {
    let due: Vec<InstanceId> = node
        .instances
        .iter()
        .filter(|(_, instance)| instance.wanted == Wanted::Down)
        .filter(|(_, i)| matches!(i.phase, Phase::Starting { .. } | Phase::Ready { .. }))
        .filter(|(id, _)| node.stops_first(id).is_empty())
        .map(|(id, _)| id.clone())
        .collect();
    for id in due {
        if let Some(instance) = node.instances.get_mut(&id) {
            let reason = match (node.goal, instance.membership) {
                (Goal::Shutdown, _) => StopReason::Shutdown,
                (Goal::Run, Membership::Retiring) => StopReason::Replanned,
                (Goal::Run, Membership::Planned) => StopReason::Operator,
            };
            begin_stop(&id, instance, reason, now, out);
        }
    }
}

fn start_what_may_start(node: &mut Node, now: Tick, out: &mut Effects) {
    if node.goal == Goal::Shutdown {
        return;
    }
    let due: Vec<InstanceId> = node
        .instances
        .iter()
        .filter(|(_, instance)| instance.phase == Phase::Waiting)
        .filter(|(id, _)| node.holds(id).is_empty())
        .map(|(id, _)| id.clone())
        .collect();
    for id in due {
        let run = node.next_run;
        node.next_run = run.next();
        spawn(node, &id, run, now, out);
    }
}

/// What needs this service and waits out a back-off may have failed for want of it: its delays
/// begin anew, now. What was counted stays counted.
pub(super) fn wake_dependants(node: &mut Node, back: &ServiceName) {
    for instance in node.instances.values_mut() {
        let backs_off = matches!(instance.phase, Phase::Backoff { .. });
        if backs_off && instance.rules.needs.contains(back) {
            instance.attempt = 0;
            instance.phase = Phase::Waiting;
        }
    }
}

fn spawn(node: &mut Node, id: &InstanceId, run: RunId, now: Tick, out: &mut Effects) {
    let Some(instance) = node.instances.get_mut(id) else { return };
    let deadline = now + instance.rules.start_timeout;
    instance.phase = Phase::Starting { run, since: now, pid: None, exec_failure: None, deadline };
    instance.status_text.clear();
    instance.last_check = None;
    node.runs.insert(run, id.clone());
    out.note(id, Some(run), RemarkKind::Starting);
    let limits = instance.limits.in_force();
    out.push(Effect::Spawn { instance: id.clone(), run, limits });
}

fn announce(node: &mut Node, out: &mut Effects) {
    match node.goal {
        Goal::Run if !node.announced && node.is_settled() => {
            node.announced = true;
            out.push(Effect::Announce(Announcement::Ready));
        }
        Goal::Shutdown if node.instances.values().all(|i| i.phase.is_at_rest()) => {
            out.push(Effect::Announce(Announcement::Stopped));
        }
        Goal::Run | Goal::Shutdown => {}
    }
}

impl Node {
    /// What keeps a waiting instance from starting, in the order of its `needs`; empty: nothing.
    ///
    /// A need is met when all its instances are ready. One that rests because it was stopped on
    /// purpose, or has done its work, holds nobody back; one that failed does.
    pub fn holds(&self, id: &InstanceId) -> Vec<Hold> {
        let Some(instance) = self.instances.get(id) else { return Vec::new() };
        let needs = instance.rules.needs.iter();
        needs
            .filter_map(|service| {
                let blocking = self.instances.iter().find(|(other, state)| {
                    let met = matches!(state.phase, Phase::Ready { .. } | Phase::Stopped);
                    let stays = state.membership == Membership::Planned;
                    other.service == *service && stays && !met
                });
                blocking.map(|(other, state)| Hold { on: other.clone(), phase: state.phase.word() })
            })
            .collect()
    }

    pub(super) fn is_ready(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|i| matches!(i.phase, Phase::Ready { .. }))
    }

    /// The unwanted instances that must rest before this one is stopped.
    pub fn stops_first(&self, id: &InstanceId) -> Vec<InstanceId> {
        self.instances
            .iter()
            .filter(|(_, other)| other.rules.needs.contains(&id.service))
            .filter(|(_, other)| other.wanted == Wanted::Down && !other.phase.is_at_rest())
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// Whether nothing is on its way up: every instance is ready, rests, or is held by one that
    /// rests without being able to serve.
    fn is_settled(&self) -> bool {
        self.instances.iter().all(|(id, instance)| match instance.phase {
            Phase::Ready { .. } | Phase::Stopped | Phase::Failed(_) => true,
            Phase::Waiting => self.is_held_for_good(id),
            Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Backoff { .. } => false,
        })
    }

    /// Whether a chain of needs leads to a failed instance. Ends because needs have no cycles.
    pub fn is_held_for_good(&self, id: &InstanceId) -> bool {
        self.holds(id).iter().any(|hold| match self.instances.get(&hold.on) {
            Some(other) => match other.phase {
                Phase::Failed(_) => true,
                Phase::Waiting => self.is_held_for_good(&hold.on),
                Phase::Stopped
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Stopping { .. }
                | Phase::Clearing { .. }
                | Phase::Backoff { .. } => false,
            },
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::rules;
    use crate::decide::{Event, ExitFacts, GroupState, News, step};
    use crate::units::{ExitStatus, Pid};

    fn tell(node: &mut Node, id: &InstanceId, news: News) {
        let run = node.instance(id).unwrap().run().unwrap();
        step(node, Tick::ZERO, Event::News { run, news });
    }

    fn come_up(node: &mut Node, id: &InstanceId) {
        tell(node, id, News::Spawned { pid: Pid(7) });
        tell(node, id, News::Executed);
    }

    fn crash(node: &mut Node, id: &InstanceId) {
        let facts = ExitFacts { status: ExitStatus::Code(1), oom_kills: 0 };
        tell(node, id, News::Exited { facts, group: GroupState::Empty });
    }

    #[test]
    fn the_return_of_what_it_needs_ends_a_back_off() {
        let [db, web]: [InstanceId; 2] = ["db-0", "web-0"].map(|name| name.parse().unwrap());
        let word = |node: &Node, id: &InstanceId| node.instance(id).unwrap().phase.word();
        let mut node = Node::new([(db.clone(), rules(&[])), (web.clone(), rules(&["db"]))], 1);
        step(&mut node, Tick::ZERO, Event::Tick);
        come_up(&mut node, &db);
        for _ in 0..2 {
            come_up(&mut node, &web);
            crash(&mut node, &web);
        }
        assert_eq!(word(&node, &web), "backoff");
        crash(&mut node, &db);
        come_up(&mut node, &db);
        assert_eq!(word(&node, &web), "starting", "its need is back");
        assert_eq!(node.instance(&web).unwrap().recent.len(), 2, "what was counted stays");
    }
}
