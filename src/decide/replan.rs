//! A new plan for a node that runs: what stays, what is started anew, what is retired; and who
//! restarts because another did.

use std::collections::BTreeMap;

use super::event::Replan;
use super::limits::replan_limits;
use super::node::{Effects, Instance, Membership, Node, Wanted};
use super::phase::{Phase, StopReason};
use super::wanted::{restart_run, want_down, want_up};
use crate::plan::Rules;
use crate::units::{InstanceId, Tick};

/// Instances with the same rules and no need for another run do not notice.
pub(super) fn replan(node: &mut Node, plan: Replan, now: Tick, out: &mut Effects) {
    let Replan { rules, mut limits, relaunch } = plan;
    let planned = |id: &InstanceId| rules.contains_key(id);
    let unplanned: Vec<_> = node.instances.keys().filter(|id| !planned(id)).cloned().collect();
    for id in unplanned {
        want_down(node, &id);
        if let Some(instance) = node.instances.get_mut(&id) {
            instance.membership = Membership::Retiring;
            instance.take_needs_of(first_of_service(&id, &rules));
        }
    }
    for (id, rules) in rules {
        match node.instances.get_mut(&id) {
            Some(instance) => {
                instance.take_rules(rules, now);
                if instance.membership == Membership::Retiring {
                    instance.membership = Membership::Planned;
                    want_up(node, &id);
                }
            }
            None => {
                let limits = limits.remove(&id).unwrap_or_default();
                node.instances.insert(id, Instance::new(rules, limits));
            }
        }
    }
    replan_limits(node, limits, now, out);
    for id in relaunch {
        if let Some(instance) = node.instances.get_mut(&id) {
            relaunch_by_the_new_plan(&id, instance, now, out);
        }
    }
}

/// What an operator stopped stays stopped; everything else gets a run by the new plan.
fn relaunch_by_the_new_plan(
    id: &InstanceId,
    instance: &mut Instance,
    now: Tick,
    out: &mut Effects,
) {
    if instance.wanted == Wanted::Down {
        return;
    }
    match instance.phase {
        Phase::Starting { .. } | Phase::Ready { .. } => {
            restart_run(id, instance, StopReason::Replanned, now, out);
        }
        Phase::Stopping { .. } | Phase::Clearing { .. } => instance.wanted = Wanted::Restart,
        Phase::Stopped | Phase::Backoff { .. } | Phase::Failed(_) => {
            instance.forgive();
            instance.phase = Phase::Waiting;
        }
        Phase::Waiting => {}
    }
}

/// An instance that had a run before is ready again: what restarts with its service, and has run
/// since before then, follows.
pub(super) fn restart_followers(node: &mut Node, back: &InstanceId, now: Tick, out: &mut Effects) {
    let Some(leader) = node.instances.get(back).filter(|leader| leader.last.is_some()) else {
        return;
    };
    let leading = leader.phase.run();
    let follows = |instance: &Instance| {
        instance.rules.restart_with.contains(&back.service) && instance.phase.run() < leading
    };
    let naming = node.instances.naming(&back.service);
    let followers: Vec<InstanceId> =
        naming.filter(|(_, instance)| follows(instance)).map(|(id, _)| id.clone()).collect();
    for id in &followers {
        if let Some(instance) = node.instances.get_mut(id) {
            restart_run(id, instance, StopReason::With(back.service.clone()), now, out);
        }
    }
}

/// What the plan says of the first instance of the same service.
pub(super) fn first_of_service<'p, P>(
    id: &InstanceId,
    plan: &'p BTreeMap<InstanceId, P>,
) -> Option<&'p P> {
    let first = InstanceId::new(id.service.clone(), 0);
    let found = plan.range(first..).next().filter(|(other, _)| other.service == id.service);
    found.map(|(_, planned)| planned)
}

impl Instance {
    /// What is retired while others of its service stay stops in the order that holds for them. By
    /// the needs of an older plan it could wait for one that waits for it by those of this one. The
    /// needs of a service that has gone are those of the last plan that had it: a circle of them
    /// would be one in a single plan.
    pub(super) fn take_needs_of(&mut self, sibling: Option<&Rules>) {
        if let Some(rules) = sibling {
            self.rules.needs.clone_from(&rules.needs);
        }
    }

    /// What was counted by the old rules is kept as far as the new ones can hold it.
    fn take_rules(&mut self, rules: Rules, now: Tick) {
        let same_watchdog = self.rules.watchdog == rules.watchdog;
        self.rules = rules;
        let limit = usize::try_from(self.rules.restart.max_restarts).unwrap_or(usize::MAX);
        let surplus = self.recent.len().saturating_sub(limit);
        self.recent.drain(..surplus);
        if let (Phase::Ready { watchdog, .. }, false) = (&mut self.phase, same_watchdog) {
            *watchdog = self.rules.watchdog.map(|patience| now + patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::decide::samples::rules;
    use crate::decide::{
        Announcement, Command, Effect, Event, ExitFacts, GroupState, News, Urgency, resume, step,
    };
    use crate::units::{ExitStatus, Pid};

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    fn up(names: &[&str]) -> Node {
        let all = names.iter().map(|name| (id(name), rules(&[])));
        let mut node = Node::new(all, 1);
        step(&mut node, Tick::ZERO, Event::Tick);
        for name in names {
            come_up(&mut node, name);
        }
        node
    }

    fn tell(node: &mut Node, name: &str, news: News) -> Vec<Effect> {
        let run = node.instance(&id(name)).unwrap().run().unwrap();
        step(node, Tick::ZERO, Event::News { run, news })
    }

    fn come_up(node: &mut Node, name: &str) {
        tell(node, name, News::Spawned { pid: Pid(7) });
        tell(node, name, News::Executed);
    }

    fn end(node: &mut Node, name: &str) -> Vec<Effect> {
        let facts = ExitFacts { status: ExitStatus::Code(0), oom_kills: 0 };
        tell(node, name, News::Exited { facts, group: GroupState::Empty })
    }

    fn plan(node: &mut Node, names: &[&str], relaunch: &[&str]) -> Vec<Effect> {
        let rules: BTreeMap<_, _> = names.iter().map(|name| (id(name), rules(&[]))).collect();
        let relaunch: BTreeSet<_> = relaunch.iter().map(|name| id(name)).collect();
        let replan = Replan { rules, limits: BTreeMap::new(), relaunch };
        step(node, Tick::ZERO, Event::Command(Command::Replan(replan)))
    }

    fn retired(effects: &[Effect]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::Retire { .. }))
    }

    #[test]
    fn the_same_plan_again_has_no_effect() {
        let mut node = up(&["a-0", "b-0"]);
        let before = node.clone();
        assert_eq!(plan(&mut node, &["a-0", "b-0"], &[]), []);
        assert_eq!(node, before);
    }

    #[test]
    fn what_is_not_planned_is_retired_when_it_rests_and_not_before() {
        let mut node = up(&["a-0", "a-1"]);
        assert!(!retired(&plan(&mut node, &["a-0"], &[])));
        assert_eq!(node.instance(&id("a-1")).unwrap().membership, Membership::Retiring);
        assert!(retired(&end(&mut node, "a-1")));
        assert_eq!(node.instance(&id("a-1")), None);
    }

    #[test]
    fn what_is_planned_again_while_it_goes_comes_back() {
        let mut node = up(&["a-0", "a-1"]);
        plan(&mut node, &["a-0"], &[]);
        plan(&mut node, &["a-0", "a-1"], &[]);
        assert!(!retired(&end(&mut node, "a-1")));
        assert_eq!(node.instance(&id("a-1")).unwrap().phase.word(), "starting");
    }

    #[test]
    fn a_start_does_not_hold_what_is_being_removed() {
        let mut node = up(&["a-0", "a-1"]);
        plan(&mut node, &["a-0"], &[]);
        for command in [Command::Start, Command::Restart] {
            let all = BTreeSet::from([id("a-1")]);
            step(&mut node, Tick::ZERO, Event::Command(command(all)));
        }
        assert!(retired(&end(&mut node, "a-1")));
    }

    #[test]
    fn a_follower_that_started_after_its_leader_did_is_left_alone() {
        let mut node = up(&["leader-0", "late-0"]);
        let follows = |name: &str| {
            let restart_with = vec!["leader".parse().unwrap()];
            (id(name), Rules { restart_with, ..rules(&[]) })
        };
        let all = BTreeMap::from([(id("leader-0"), rules(&[])), follows("late-0")]);
        let replan = Replan { rules: all, limits: BTreeMap::new(), relaunch: BTreeSet::new() };
        step(&mut node, Tick::ZERO, Event::Command(Command::Replan(replan)));
        end(&mut node, "leader-0");
        // The leader's next run has begun, and the follower begins one after it.
        end(&mut node, "late-0");
        come_up(&mut node, "late-0");
        come_up(&mut node, "leader-0");
        assert_eq!(node.instance(&id("late-0")).unwrap().phase.word(), "ready");
        let leader = BTreeSet::from([id("leader-0")]);
        step(&mut node, Tick::ZERO, Event::Command(Command::Restart(leader)));
        end(&mut node, "leader-0");
        come_up(&mut node, "leader-0");
        assert_eq!(node.instance(&id("late-0")).unwrap().phase.word(), "stopping");
    }

    /// `x` needs `d`, and `r` does until the plan turns it round: then `d` needs `r`.
    fn plan_of(turned: bool, names: &[&str]) -> BTreeMap<InstanceId, Rules> {
        let needs = |name: &str| match (name.split('-').next().unwrap(), turned) {
            ("x", _) | ("r", false) => rules(&["d"]),
            ("d", true) => rules(&["r"]),
            _ => rules(&[]),
        };
        names.iter().map(|name| (id(name), needs(name))).collect()
    }

    fn replan_to(node: &mut Node, rules: BTreeMap<InstanceId, Rules>) {
        let replan = Replan { rules, limits: BTreeMap::new(), relaunch: BTreeSet::new() };
        step(node, Tick::ZERO, Event::Command(Command::Replan(replan)));
    }

    /// `stop d x` is under way, and `d` waits for `x`.
    fn in_a_stop() -> Node {
        let mut node = Node::new(plan_of(false, &["d-0", "r-0", "r-1", "x-0"]), 1);
        step(&mut node, Tick::ZERO, Event::Tick);
        for name in ["d-0", "r-0", "r-1", "x-0"] {
            come_up(&mut node, name);
        }
        let both = BTreeSet::from([id("d-0"), id("x-0")]);
        step(&mut node, Tick::ZERO, Event::Command(Command::Stop(both)));
        node
    }

    /// Whoever is told to stop does. Gives those that rested, in their order.
    fn all_that_stop(node: &mut Node) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            let stopping = |(_, i): &(&InstanceId, &Instance)| i.phase.word() == "stopping";
            let next = node.instances().find(stopping).map(|(id, _)| id.to_string());
            let Some(next) = next else { return order };
            end(node, &next);
            order.push(next);
        }
    }

    #[test]
    fn a_stop_ends_when_a_reload_turns_a_need_round_and_scales_down() {
        let mut node = in_a_stop();
        replan_to(&mut node, plan_of(true, &["d-0", "r-0", "x-0"]));
        assert_eq!(all_that_stop(&mut node), ["x-0", "d-0", "r-1"]);
        let effects = step(&mut node, Tick::ZERO, Event::Command(Command::Shutdown(Urgency::Now)));
        assert!(!effects.contains(&Effect::Announce(Announcement::Stopped)), "r-0 is still there");
    }

    #[test]
    fn what_two_plans_retired_stops_too_when_the_second_had_turned_a_need_round() {
        let mut node = in_a_stop();
        replan_to(&mut node, plan_of(true, &["d-0", "r-0", "x-0"]));
        replan_to(&mut node, plan_of(true, &["x-0"]));
        assert_eq!(all_that_stop(&mut node), ["x-0", "d-0", "r-0", "r-1"]);
    }

    #[test]
    fn an_orchestrator_that_goes_on_by_another_plan_than_was_saved_stops_everything_too() {
        let node = in_a_stop();
        let adopted = |(id, instance): (&InstanceId, &Instance)| {
            let (run, pid) = (instance.run().unwrap(), Pid(7));
            (id.clone(), crate::decide::AdoptedRun { run, pid })
        };
        let adopted: BTreeMap<_, _> = node.instances().map(adopted).collect();
        let rules = plan_of(true, &["d-0", "r-0", "x-0"]);
        let planned = rules.into_iter().map(|(id, rules)| (id, rules.into())).collect();
        let (mut node, _) = resume(node.saved(), &planned, &adopted, Tick::ZERO);
        assert_eq!(all_that_stop(&mut node), ["x-0", "d-0", "r-1"]);
    }
}
