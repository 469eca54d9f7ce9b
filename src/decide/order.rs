//! Who waits for whom: starts follow the dependencies, stops go against them.

use std::collections::BTreeSet;

use super::effect::{Announcement, Effect, RemarkKind};
use super::node::{Effects, Goal, Instance, Membership, Node, Wanted};
use super::phase::{Phase, StopReason};
use super::stop::begin_stop;
use super::view::Hold;
use crate::units::{InstanceId, RunId, ServiceName, Tick};

/// After every event: lets everything go on that no longer has to wait. Looks at what the event
/// touched and at those who may have waited for that.
pub(super) fn advance(node: &mut Node, now: Tick, out: &mut Effects) {
    let touched = node.instances.take_touched();
    rest_what_is_unwanted(node, &touched, out);
    let concerned = node.concerned_by(touched);
    remove_what_is_retired(node, &concerned, out);
    stop_what_nobody_needs(node, &concerned, now, out);
    start_what_may_start(node, &concerned, now, out);
    // What began to stop or to start lets nobody else go on.
    node.instances.take_touched();
    announce(node, out);
}

/// Unwanted instances without a process rest at once.
fn rest_what_is_unwanted(node: &mut Node, touched: &BTreeSet<InstanceId>, out: &mut Effects) {
    for id in node.those(touched, Instance::idles_unwanted) {
        if let Some(instance) = node.instances.get_mut(&id) {
            instance.phase = Phase::Stopped;
            out.note(&id, None, RemarkKind::Stopped);
        }
    }
}

fn remove_what_is_retired(node: &mut Node, concerned: &BTreeSet<InstanceId>, out: &mut Effects) {
    for id in node.those(concerned, Instance::is_retired) {
        node.instances.remove(&id);
        out.note(&id, None, RemarkKind::Retired);
        out.push(Effect::Retire { instance: id });
    }
}

/// Unwanted instances with a process are stopped once all that need them, and are unwanted too,
/// rest. One that is needed by something that stays up is stopped all the same: its operator said
/// so.
fn stop_what_nobody_needs(
    node: &mut Node,
    concerned: &BTreeSet<InstanceId>,
    now: Tick,
    out: &mut Effects,
) {
    for id in node.those(concerned, Instance::is_to_stop) {
        if node.must_stop_first(&id).next().is_some() {
            continue;
        }
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

fn start_what_may_start(
    node: &mut Node,
    concerned: &BTreeSet<InstanceId>,
    now: Tick,
    out: &mut Effects,
) {
    if node.goal == Goal::Shutdown {
        return;
    }
    for id in node.those(concerned, |instance| instance.phase == Phase::Waiting) {
        if node.holders(&id).next().is_none() {
            let run = node.next_run;
            node.next_run = run.next();
            spawn(node, &id, run, now, out);
        }
    }
}

/// What needs this service and waits out a back-off may have failed for want of it: its delays
/// begin anew, now. What was counted stays counted.
pub(super) fn wake_dependants(node: &mut Node, back: &ServiceName) {
    let sleeps = |instance: &Instance| {
        matches!(instance.phase, Phase::Backoff { .. }) && instance.rules.needs.contains(back)
    };
    let naming = node.instances.naming(back);
    let asleep: Vec<InstanceId> =
        naming.filter(|(_, instance)| sleeps(instance)).map(|(id, _)| id.clone()).collect();
    for id in asleep {
        if let Some(instance) = node.instances.get_mut(&id) {
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
    let census = node.instances.census();
    match node.goal {
        // Nothing is on its way. What waits now waits for good: whom it waits for is neither ready
        // nor under way, so it has failed, or waits itself for one that has.
        Goal::Run if !node.announced && census.under_way == 0 => {
            node.announced = true;
            out.push(Effect::Announce(Announcement::Ready));
        }
        Goal::Shutdown if census.at_rest == node.instances.len() => {
            out.push(Effect::Announce(Announcement::Stopped));
        }
        Goal::Run | Goal::Shutdown => {}
    }
}

impl Instance {
    pub(super) fn idles_unwanted(&self) -> bool {
        let idle = matches!(self.phase, Phase::Waiting | Phase::Backoff { .. });
        self.wanted == Wanted::Down && idle
    }

    pub(super) fn is_retired(&self) -> bool {
        self.membership == Membership::Retiring && self.phase.is_at_rest()
    }

    pub(super) fn is_to_stop(&self) -> bool {
        let lives = matches!(self.phase, Phase::Starting { .. } | Phase::Ready { .. });
        self.wanted == Wanted::Down && lives
    }

    /// Whether those that need it may start for its part: it serves, was stopped on purpose, has
    /// done its work, or is no longer part of the plan.
    fn holds_nobody(&self) -> bool {
        let met = matches!(self.phase, Phase::Ready { .. } | Phase::Stopped);
        met || self.membership == Membership::Retiring
    }

    /// Whether those that it needs wait with their stop until it rests.
    fn stops_first(&self) -> bool {
        self.wanted == Wanted::Down && !self.phase.is_at_rest()
    }
}

impl Node {
    /// The touched ones, and those who may have waited for what they have become.
    fn concerned_by(&self, touched: BTreeSet<InstanceId>) -> BTreeSet<InstanceId> {
        let mut concerned = BTreeSet::new();
        for id in &touched {
            let Some(instance) = self.instances.get(id) else { continue };
            if instance.holds_nobody() {
                concerned.extend(self.instances.naming(&id.service).map(|(id, _)| id.clone()));
            }
            if !instance.stops_first() {
                let needed = instance.rules.needs.iter().flat_map(|need| self.instances.of(need));
                let to_stop = needed.filter(|(_, needed)| needed.is_to_stop());
                concerned.extend(to_stop.map(|(id, _)| id.clone()));
            }
        }
        concerned.extend(touched);
        concerned
    }

    fn those(
        &self,
        among: &BTreeSet<InstanceId>,
        are: impl Fn(&Instance) -> bool,
    ) -> Vec<InstanceId> {
        let found = among.iter().filter(|id| self.instances.get(id).is_some_and(&are));
        found.cloned().collect()
    }

    /// What keeps a waiting instance from starting, in the order of its `needs`; empty: nothing.
    ///
    /// A need is met when all its instances are ready. One that rests because it was stopped on
    /// purpose, or has done its work, holds nobody back; one that failed does.
    pub fn holds(&self, id: &InstanceId) -> Vec<Hold> {
        let holders = self.holders(id);
        holders.map(|(on, state)| Hold { on: on.clone(), phase: state.phase.word() }).collect()
    }

    /// The first instance of each need that is not met.
    pub(super) fn holders(
        &self,
        id: &InstanceId,
    ) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        let needs = self.instances.get(id).map(|instance| &instance.rules.needs);
        needs.into_iter().flatten().filter_map(|service| {
            self.instances.of(service).find(|(_, state)| !state.holds_nobody())
        })
    }

    pub(super) fn is_ready(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|i| matches!(i.phase, Phase::Ready { .. }))
    }

    /// The unwanted instances that must rest before this one is stopped.
    pub fn stops_first(&self, id: &InstanceId) -> Vec<InstanceId> {
        self.must_stop_first(id).map(|(other, _)| other.clone()).collect()
    }

    pub(super) fn must_stop_first(
        &self,
        id: &InstanceId,
    ) -> impl Iterator<Item = (&InstanceId, &Instance)> {
        let naming = self.instances.naming(&id.service);
        naming.filter(|(_, other)| other.stops_first() && other.rules.needs.contains(&id.service))
    }

    /// Whether a chain of needs leads to a failed instance. Looks at every instance once.
    pub fn is_held_for_good(&self, id: &InstanceId) -> bool {
        let mut seen = BTreeSet::from([id]);
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for (other, state) in self.holders(id) {
                match state.phase {
                    Phase::Failed(_) => return true,
                    Phase::Waiting if seen.insert(other) => open.push(other),
                    Phase::Stopped
                    | Phase::Waiting
                    | Phase::Starting { .. }
                    | Phase::Ready { .. }
                    | Phase::Stopping { .. }
                    | Phase::Clearing { .. }
                    | Phase::Backoff { .. } => {}
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::samples::rules;
    use crate::decide::step::take;
    use crate::decide::{
        Command, Ended, Ending, Event, ExitFacts, GiveUpReason, GroupState, News, SpawnFailure,
        Urgency, step,
    };
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

    /// What one event costs: the instances that are looked at for it.
    fn looks(node: &mut Node, event: Event) -> usize {
        node.instances.looks.set(0);
        take(node, Tick::ZERO, event);
        node.instances.looks.get()
    }

    fn news(node: &Node, id: &InstanceId, news: News) -> Event {
        Event::News { run: node.instance(id).unwrap().run().unwrap(), news }
    }

    fn end(code: u8) -> News {
        let facts = ExitFacts { status: ExitStatus::Code(code.into()), oom_kills: 0 };
        News::Exited { facts, group: GroupState::Empty }
    }

    fn name(layer: usize, place: usize) -> String {
        format!("s{layer}x{place}")
    }

    /// Each service needs all of the layer before its own.
    fn layered(layers: usize, width: usize) -> (Node, Vec<InstanceId>) {
        let all = (0..layers).flat_map(|layer| (0..width).map(move |place| (layer, place)));
        let services: Vec<_> = all
            .map(|(layer, place)| {
                let before = layer.checked_sub(1).into_iter();
                let needs: Vec<String> = before
                    .flat_map(|before| (0..width).map(move |place| name(before, place)))
                    .collect();
                let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
                (format!("{}-0", name(layer, place)).parse().unwrap(), rules(&needs))
            })
            .collect();
        let ids = services.iter().map(|(id, _): &(InstanceId, _)| id.clone()).collect();
        (Node::new(services, 1), ids)
    }

    #[test]
    fn an_event_costs_no_more_with_a_thousand_services_than_with_ten() {
        let costs = [10, 1000].map(|count| {
            let (mut node, ids) = layered(1, count);
            take(&mut node, Tick::ZERO, Event::Tick);
            for id in &ids {
                for sign in [News::Spawned { pid: Pid(7) }, News::Executed] {
                    let event = news(&node, id, sign);
                    take(&mut node, Tick::ZERO, event);
                }
            }
            let id = &ids[3];
            let all = BTreeSet::from([id.clone()]);
            let crash = news(&node, id, end(1));
            let crash = looks(&mut node, crash);
            let spawned = news(&node, id, News::Spawned { pid: Pid(8) });
            let spawned = looks(&mut node, spawned);
            let ready = news(&node, id, News::Executed);
            let ready = looks(&mut node, ready);
            let time = looks(&mut node, Event::Tick);
            let stop = looks(&mut node, Event::Command(Command::Stop(all)));
            let gone = news(&node, id, end(0));
            let gone = looks(&mut node, gone);
            assert_eq!(node.instance(id).unwrap().phase, Phase::Stopped);
            [crash, spawned, ready, time, stop, gone]
        });
        assert_eq!(costs[0], costs[1]);
        assert!(costs[0].iter().all(|looks| *looks < 20), "{costs:?}");
    }

    #[test]
    fn an_event_in_a_layered_graph_costs_what_two_layers_cost() {
        const WIDTH: usize = 16;
        let (mut node, ids) = layered(60, WIDTH);
        take(&mut node, Tick::ZERO, Event::Tick);
        let mut most = 0;
        for id in &ids {
            for sign in [News::Spawned { pid: Pid(7) }, News::Executed] {
                let event = news(&node, id, sign);
                most = most.max(looks(&mut node, event));
            }
        }
        assert!(node.is_announced(), "all of it is up");
        take(&mut node, Tick::ZERO, Event::Command(Command::Shutdown(Urgency::Orderly)));
        for id in ids.iter().rev() {
            let event = news(&node, id, end(0));
            most = most.max(looks(&mut node, event));
        }
        assert!(node.instances().all(|(_, instance)| instance.phase == Phase::Stopped));
        assert!(most <= 3 * WIDTH * WIDTH, "{most}");
    }

    #[test]
    fn whether_something_is_held_for_good_is_found_by_looking_once_at_each() {
        let (mut node, ids) = layered(60, 16);
        take(&mut node, Tick::ZERO, Event::Tick);
        let (last, needs) = (ids.last().unwrap(), 59 * 16 * 16);
        let asked = |node: &Node| {
            node.instances.looks.set(0);
            (node.is_held_for_good(last), node.instances.looks.get() <= 2 * needs)
        };
        assert_eq!(asked(&node), (false, true), "the first layer is on its way");
        let give_up = GiveUpReason::TooManyRestarts {
            restarts: 5,
            window: Duration::from_secs(300),
            last: ended(),
        };
        node.instances.get_mut(&ids[15]).unwrap().phase = Phase::Failed(give_up);
        assert_eq!(asked(&node), (true, true), "one of it has failed");
    }

    fn ended() -> Ended {
        let how = Ending::NeverStarted(SpawnFailure("no memory".to_owned()));
        let (run, at, lasted) = (RunId::FIRST, Tick::ZERO, Duration::ZERO);
        Ended { run, pid: None, at, how, asked: None, lasted, ready_for: None }
    }
}
