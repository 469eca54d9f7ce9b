//! Single decisions, to the moment: what must not be forgotten, doubled, shortened or obeyed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effect::{Effect, RemarkKind};
use super::event::{Check, Command, Event, ExitFacts, GroupState, News, Notice, Urgency};
use super::node::{Node, Planned, Wanted};
use super::phase::{Phase, StopStep};
use super::resume::{AdoptedRun, resume};
use super::samples;
use super::step::step;
use crate::plan::{Readiness, RestartPolicy, Rules};
use crate::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

const SECOND: Duration = Duration::from_secs(1);
const WATCHDOG: Duration = Duration::from_secs(20);

fn web() -> InstanceId {
    "web-0".parse().unwrap()
}

/// One instance of those rules.
struct Scene {
    node: Node,
    now: Tick,
}

impl Scene {
    fn new(rules: Rules) -> Self {
        let node = Node::new([(web(), rules)], 1);
        let mut scene = Self { node, now: Tick::ZERO };
        scene.then(Event::Tick);
        scene
    }

    fn ready(rules: Rules) -> Self {
        let mut scene = Self::new(rules);
        scene.come_up();
        scene
    }

    fn come_up(&mut self) {
        self.news(News::Spawned { pid: Pid(7) });
        self.news(News::Executed);
        assert_eq!(self.word(), "ready");
    }

    fn then(&mut self, event: Event) -> Vec<Effect> {
        step(&mut self.node, self.now, event)
    }

    fn news(&mut self, news: News) -> Vec<Effect> {
        let run = self.run();
        self.then(Event::News { run, news })
    }

    fn command(&mut self, command: fn(BTreeSet<InstanceId>) -> Command) -> Vec<Effect> {
        self.then(Event::Command(command(BTreeSet::from([web()]))))
    }

    fn shut_down(&mut self, urgency: Urgency) -> Vec<Effect> {
        self.then(Event::Command(Command::Shutdown(urgency)))
    }

    /// What is done in the last instant of that time, and nothing before.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now + time;
        self.now = end - Duration::from_millis(1);
        assert_eq!(self.then(Event::Tick), [], "before it is due");
        self.now = end;
        self.then(Event::Tick)
    }

    fn exit(&mut self, status: ExitStatus, oom_kills: u64) -> Vec<Effect> {
        let facts = ExitFacts { status, oom_kills };
        self.news(News::Exited { facts, group: GroupState::Empty })
    }

    fn phase(&self) -> &Phase {
        &self.node.instance(&web()).unwrap().phase
    }

    fn word(&self) -> &'static str {
        self.phase().word()
    }

    fn run(&self) -> RunId {
        self.phase().run().unwrap()
    }

    fn term(&self) -> Effect {
        Effect::Signal { run: self.run(), signal: Signal::TERM }
    }

    fn kill(&self) -> Effect {
        Effect::KillGroup { run: self.run() }
    }
}

fn rules() -> Rules {
    samples::rules(&[])
}

fn watched() -> Rules {
    Rules { watchdog: Some(WATCHDOG), ..rules() }
}

fn failed() -> News {
    News::Checked(Check::Failed("no answer".to_owned()))
}

fn remarks<'e>(effects: &'e [Effect]) -> Vec<&'e RemarkKind> {
    let remark = |effect: &'e Effect| {
        let Effect::Note(remark) = effect else { return None };
        Some(&remark.kind)
    };
    effects.iter().filter_map(remark).collect()
}

#[test]
fn a_healthy_check_takes_the_strikes_away() {
    let mut scene = Scene::ready(rules());
    for _ in 0..3 {
        scene.news(failed());
        scene.news(failed());
        scene.news(News::Checked(Check::Healthy));
    }
    assert_eq!(scene.word(), "ready");
    scene.news(failed());
    scene.news(News::Checked(Check::Starved));
    scene.news(failed());
    assert_eq!(scene.word(), "ready", "two of three");
    assert!(scene.news(failed()).contains(&scene.term()), "nothing was learnt in between");
}

#[test]
fn a_watchdog_message_arms_for_its_time_and_no_longer() {
    let mut scene = Scene::ready(watched());
    scene.now = scene.now + WATCHDOG / 2;
    scene.news(News::Notice(Notice::Watchdog));
    let missed = scene.pass(WATCHDOG);
    assert!(missed.contains(&Effect::Signal { run: scene.run(), signal: Signal::ABRT }));
}

#[test]
fn a_run_that_is_gone_on_with_keeps_its_watchdog() {
    for (watchdog, patience) in [(WATCHDOG, WATCHDOG), (SECOND, 5 * SECOND)] {
        let rules = Rules { watchdog: Some(watchdog), ..rules() };
        let saved = Scene::ready(rules.clone()).node.saved();
        let planned = BTreeMap::from([(web(), Planned::from(rules))]);
        let adopted = AdoptedRun { run: RunId::FIRST, pid: Pid(7) };
        let now = Tick::from_millis(3_600_000);
        let (node, _) = resume(saved, &planned, &BTreeMap::from([(web(), adopted)]), now);
        let mut scene = Scene { node, now };
        scene.pass(patience);
        assert_eq!(scene.word(), "stopping");
    }
}

#[test]
fn an_end_for_want_of_memory_is_no_success_whatever_its_exit_code() {
    let on_failure = |policy| {
        let mut rules = rules();
        rules.restart.policy = policy;
        rules
    };
    let mut scene = Scene::ready(on_failure(RestartPolicy::OnFailure));
    scene.exit(ExitStatus::Code(0), 1);
    assert_eq!(scene.word(), "starting");
    scene.come_up();
    scene.exit(ExitStatus::Code(0), 0);
    assert_eq!(scene.word(), "stopped");
    let mut scene = Scene::ready(on_failure(RestartPolicy::Never));
    scene.exit(ExitStatus::Code(0), 1);
    assert_eq!(scene.word(), "failed");
}

#[test]
fn a_signal_that_tells_a_daemon_to_go_is_a_success_and_no_other_is() {
    for (number, word) in
        [(1, "stopped"), (2, "stopped"), (13, "stopped"), (15, "stopped"), (9, "failed")]
    {
        let mut never = rules();
        never.restart.policy = RestartPolicy::Never;
        let mut scene = Scene::ready(never);
        scene.exit(ExitStatus::Signal { number: Signal(number), core: Core::None }, 0);
        assert_eq!(scene.word(), word, "signal {number}");
    }
}

#[test]
fn time_that_is_asked_for_makes_no_deadline_shorter() {
    let mut scene = Scene::new(Rules { readiness: Readiness::Notify, ..rules() });
    scene.news(News::Spawned { pid: Pid(7) });
    let extend = |seconds: u32| News::Notice(Notice::ExtendTimeout(SECOND * seconds));
    scene.news(extend(1));
    assert_eq!(scene.phase().deadline(), Some(Tick::ZERO + 30 * SECOND));
    scene.news(extend(60));
    assert!(scene.pass(60 * SECOND).contains(&scene.term()));
    scene.news(extend(1));
    assert!(scene.pass(10 * SECOND).contains(&scene.kill()));
    scene.news(extend(60));
    assert_eq!(scene.phase().deadline(), Some(scene.now + 5 * SECOND), "not of a kill");
}

#[test]
fn nothing_is_started_in_a_shutdown() {
    for rest in [true, false] {
        let mut scene = Scene::ready(rules());
        scene.shut_down(Urgency::Orderly);
        if rest {
            scene.exit(ExitStatus::Code(0), 0);
            assert_eq!(scene.word(), "stopped");
        }
        for command in [Command::Start, Command::Restart] {
            let effects = scene.command(command);
            assert_eq!(remarks(&effects), [&RemarkKind::Stopped; 0]);
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
            assert_eq!(scene.node.instance(&web()).unwrap().wanted, Wanted::Down);
        }
    }
}

#[test]
fn a_start_forgives_what_went_wrong_before_also_while_a_run_ends() {
    let mut scene = Scene::ready(rules());
    for _ in 0..3 {
        scene.exit(ExitStatus::Code(1), 0);
        scene.now = scene.now + 10 * SECOND;
        scene.then(Event::Tick);
        scene.come_up();
    }
    assert_eq!(scene.node.instance(&web()).unwrap().recent.len(), 3);
    scene.command(Command::Stop);
    scene.command(Command::Start);
    let instance = scene.node.instance(&web()).unwrap();
    assert_eq!((instance.attempt, instance.recent.len()), (0, 0));
    scene.exit(ExitStatus::Code(1), 0);
    assert_eq!(scene.word(), "starting", "by the start, whatever its policy says");
}

#[test]
fn each_step_of_a_stop_has_its_patience() {
    let mut scene = Scene::ready(Rules { drain: 2 * SECOND, ..rules() });
    scene.command(Command::Stop);
    assert!(scene.pass(2 * SECOND).contains(&scene.term()));
    assert!(scene.pass(10 * SECOND).contains(&scene.kill()));
    let unkillable = scene.pass(5 * SECOND);
    assert!(unkillable.contains(&scene.kill()));
    assert_eq!(remarks(&unkillable), [&RemarkKind::Unkillable]);
    assert_eq!(scene.pass(5 * SECOND), [scene.kill()], "that is said once");
}

#[test]
fn who_says_that_it_stops_has_its_stop_timeout_before_it_is_told_to() {
    let mut scene = Scene::ready(Rules { drain: 2 * SECOND, ..rules() });
    scene.news(News::Notice(Notice::Stopping));
    assert!(scene.pass(10 * SECOND).contains(&scene.term()));
}

#[test]
fn a_shutdown_that_becomes_urgent_kills_what_was_given_time() {
    let mut scene = Scene::ready(rules());
    scene.shut_down(Urgency::Orderly);
    let effects = scene.shut_down(Urgency::Now);
    assert_eq!(effects, [scene.kill()]);
    assert!(matches!(scene.phase(), Phase::Stopping { stop_step: StopStep::Kill, .. }));
    assert_eq!(scene.shut_down(Urgency::Now), [], "once");
    assert!(scene.pass(5 * SECOND).contains(&scene.kill()));
}
