//! What operators read of the state: how a run ended, why an instance is not ready, and the node as
//! a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{Effect, Remark, RemarkKind};
use super::event::{Check, Command, Event, ExitFacts, GroupState, Memory, News, Notice, Urgency};
use super::instance::Instance;
use super::instances::{Census, Instances};
use super::node::{Node, Wanted};
use super::phase::{Ended, Ending, Phase, StopReason, StopStep};
use super::samples::rules;
use super::step::step;
use super::view::NodePhase;
use crate::plan::{LimitLayers, RestartPolicy, Rules};
use crate::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Tick = Tick::from_millis(60_000);

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn killed_by(number: i32) -> ExitStatus {
    ExitStatus::Signal { number: Signal(number), core: Core::None }
}

fn ended(status: ExitStatus, oom_kills: u64, ready: bool) -> Ended {
    Ended {
        run: RunId(3),
        pid: Some(Pid(7)),
        at: NOW,
        how: Ending::Exited(ExitFacts { status, oom_kills }),
        asked: None,
        lasted: Duration::from_secs(5),
        ready_for: ready.then_some(Duration::from_secs(4)),
    }
}

#[test]
fn an_end_for_want_of_memory_is_that_of_a_process_that_was_killed_for_it() {
    let is_oom = |status, oom_kills| ExitFacts { status, oom_kills }.is_oom();
    assert!(is_oom(killed_by(9), 1) && is_oom(ExitStatus::Unseen, 1));
    assert!(!is_oom(killed_by(9), 0) && !is_oom(ExitStatus::Unseen, 0));
    assert!(!is_oom(killed_by(15), 1) && !is_oom(ExitStatus::Code(0), 1));
}

#[test]
fn an_end_is_told_with_its_cause_and_how_long_it_had_lasted() {
    let crash = ended(ExitStatus::Code(1), 0, true).to_string();
    assert_eq!(crash, "exit code 1 after 5s");
    let early = ended(ExitStatus::Code(1), 0, false).to_string();
    assert_eq!(early, "exit code 1 after 5s, before it was ready");
    let oom = ended(killed_by(9), 1, true).to_string();
    assert!(oom.starts_with("OomKilled: out of memory ("), "{oom}");
    let child = ended(ExitStatus::Code(0), 1, true).to_string();
    assert_eq!(child, "exit code 0, 1 of its processes killed for want of memory after 5s");
    let asked = Ended { asked: Some(StopReason::Operator), ..ended(ExitStatus::Code(0), 0, true) };
    assert_eq!(asked.to_string(), "exit code 0 (asked by the operator)");
    let failure = super::event::SpawnFailure("no memory".to_owned());
    let never = Ended { how: Ending::NeverStarted(failure), ..ended(ExitStatus::Unseen, 0, false) };
    assert_eq!(never.to_string(), "no memory");
}

/// `web` needs `db`.
fn node() -> Node {
    let all = [(id("db-0"), rules(&[])), (id("web-0"), rules(&["db"]))];
    let mut node = Node::new(all, 1);
    step(&mut node, NOW, Event::Tick);
    node
}

fn tell(node: &mut Node, name: &str, news: News) {
    let run = node.instance(&id(name)).unwrap().run().unwrap();
    step(node, NOW, Event::News { run, news });
}

fn come_up(node: &mut Node, name: &str) {
    tell(node, name, News::Spawned { pid: Pid(7) });
    tell(node, name, News::Executed);
}

fn exit(node: &mut Node, name: &str, group: GroupState) {
    let facts = ExitFacts { status: ExitStatus::Code(1), oom_kills: 0 };
    tell(node, name, News::Exited { facts, group });
}

#[test]
fn why_an_instance_is_not_ready_is_told_in_each_phase() {
    let mut node = node();
    let why = |node: &Node, name: &str| node.reason(&id(name), NOW);
    assert_eq!(why(&node, "web-0"), "waits for db-0 (starting)");
    assert_eq!(why(&node, "db-0"), "");
    come_up(&mut node, "db-0");
    come_up(&mut node, "web-0");
    assert_eq!(why(&node, "web-0"), "");
    tell(&mut node, "web-0", News::Checked(Check::Failed("no answer".to_owned())));
    assert_eq!(why(&node, "web-0"), "1 of 3 health checks failed");
    tell(&mut node, "web-0", News::Checked(Check::Healthy));
    tell(&mut node, "web-0", News::Memory(Memory::Short));
    assert!(why(&node, "web-0").starts_with("slowed down: "));
    exit(&mut node, "web-0", GroupState::Populated);
    assert_eq!(why(&node, "web-0"), "ending what its first process left behind");
    tell(&mut node, "web-0", News::GroupEmpty);
    assert_eq!(why(&node, "web-0"), "last run: exit code 1 after 0us");
    come_up(&mut node, "web-0");
    assert_eq!(why(&node, "web-0"), "last run: exit code 1 after 0us");
    let both = BTreeSet::from([id("db-0"), id("web-0")]);
    step(&mut node, NOW, Event::Command(Command::Stop(both)));
    assert_eq!(why(&node, "db-0"), "stops after web-0");
    assert_eq!(why(&node, "web-0"), "asked by the operator");
    exit(&mut node, "web-0", GroupState::Empty);
    assert_eq!(why(&node, "web-0"), "exit code 1 (asked by the operator)");
}

#[test]
fn the_node_is_starting_ready_degraded_or_stopping() {
    let mut node = node();
    assert_eq!((node.phase(), node.is_moving()), (NodePhase::Starting, true));
    come_up(&mut node, "db-0");
    come_up(&mut node, "web-0");
    assert_eq!((node.phase(), node.is_moving()), (NodePhase::Ready, false));
    exit(&mut node, "web-0", GroupState::Populated);
    assert_eq!((node.phase(), node.is_moving()), (NodePhase::Degraded, false));
    step(&mut node, NOW, Event::Command(Command::Shutdown(Urgency::Now)));
    assert_eq!((node.phase(), node.is_moving()), (NodePhase::Stopping, false));
}

#[test]
fn names_stand_for_a_service_or_for_one_of_its_instances() {
    let node = node();
    assert_eq!(node.named("web"), BTreeSet::from([id("web-0")]));
    assert_eq!(node.named("db-0"), BTreeSet::from([id("db-0")]));
    assert!(node.named("d").is_empty());
}

#[test]
fn the_rules_are_told_with_what_was_used_up_of_them() {
    let mut instance = Instance::new(rules(&["db", "log"]), LimitLayers::default());
    instance.recent = [0, 10_000, 20_000].map(Tick::from_millis).into();
    let words = instance.rules_in_words(Tick::from_millis(300_000));
    assert_eq!(words[0], "restart policy always: however it ends");
    assert_eq!(words[1], "at most 5 counted restarts within 5m; 2 so far");
    let growth = "then after 1s, twice as long each time, at most 1m";
    assert_eq!(words[2], format!("the first restart at once, {growth}"));
    assert_eq!(words[3..], ["starts when ready: db, log"]);
    let mut rules = Rules { restart_with: vec!["db".parse().unwrap()], ..rules(&[]) };
    rules.restart.policy = RestartPolicy::Never;
    rules.restart.backoff_max = rules.restart.backoff_initial;
    let words = Instance::new(rules, LimitLayers::default()).rules_in_words(NOW);
    assert_eq!(words[0], "restart policy never");
    assert_eq!(words[2], "the first restart at once, then after 1s, each time");
    assert_eq!(words[3..], ["is restarted after a restart of: db"]);
}

fn in_phase(phase: Phase, wanted: Wanted) -> Instance {
    Instance { phase, wanted, ..Instance::new(rules(&["db"]), LimitLayers::default()) }
}

fn stopping(stop_step: StopStep) -> Phase {
    let (run, spawned, reason) = (RunId(3), Tick::ZERO, StopReason::Operator);
    Phase::Stopping { run, pid: None, spawned, ready: None, stop_step, reason, deadline: NOW }
}

/// At rest, under way, moving, as wanted, waiting to stop.
fn counts(phase: Phase, wanted: Wanted) -> [usize; 5] {
    let mut instances = Instances::default();
    instances.insert(id("web-0"), in_phase(phase, wanted));
    instances.take_touched();
    let Census { at_rest, under_way, moving, as_wanted, waiting_to_stop } = instances.census();
    instances.remove(&id("web-0"));
    assert_eq!(instances.census(), Census::default(), "what has gone is not counted");
    assert_eq!((instances.len(), instances.next_deadline()), (0, None));
    [at_rest, under_way, moving, as_wanted, waiting_to_stop]
}

#[test]
fn the_census_counts_every_phase() {
    let (up, down) = (Wanted::Up, Wanted::Down);
    let (since, pid) = (Tick::ZERO, None);
    let starting =
        || Phase::Starting { run: RunId(3), since, pid, exec_failure: None, deadline: NOW };
    let clearing =
        || Phase::Clearing { run: RunId(3), ended: ended(killed_by(9), 0, true), deadline: NOW };
    assert_eq!(counts(Phase::Stopped, up), [1, 0, 0, 1, 0]);
    assert_eq!(counts(Phase::Waiting, up), [0, 0, 0, 0, 0]);
    assert_eq!(counts(Phase::Waiting, down), [0, 0, 0, 1, 0]);
    assert_eq!(counts(starting(), up), [0, 1, 1, 0, 0]);
    assert_eq!(counts(starting(), down), [0, 1, 1, 1, 1]);
    assert_eq!(counts(Phase::Backoff { until: NOW, attempt: 1 }, up), [0, 1, 1, 0, 0]);
    assert_eq!(counts(stopping(StopStep::Term), up), [0, 1, 1, 0, 0]);
    assert_eq!(counts(stopping(StopStep::Term), down), [0, 1, 1, 1, 0]);
    assert_eq!(counts(stopping(StopStep::Kill), up), [0, 1, 0, 0, 0]);
    assert_eq!(counts(clearing(), up), [0, 1, 0, 0, 0]);
    assert_eq!(counts(clearing(), down), [0, 1, 0, 1, 0]);
}

#[test]
fn who_names_a_service_is_found_until_it_goes_or_names_it_no_more() {
    let db = "db".parse().unwrap();
    let mut instances = Instances::default();
    let names = |instances: &Instances| instances.naming(&db).count();
    instances.insert(id("web-0"), in_phase(Phase::Waiting, Wanted::Up));
    instances.insert(id("web-1"), in_phase(Phase::Waiting, Wanted::Up));
    assert_eq!(instances.take_touched().len(), 2);
    assert_eq!(names(&instances), 2);
    instances.get_mut(&id("web-1")).unwrap().rules = rules(&[]);
    assert_eq!(instances.take_touched(), BTreeSet::from([id("web-1")]));
    assert_eq!(names(&instances), 1);
    instances.get_mut(&id("web-0"));
    instances.remove(&id("web-0"));
    assert_eq!((names(&instances), instances.take_touched()), (0, BTreeSet::new()));
    assert_eq!(instances.of(&"web".parse().unwrap()).count(), 1);
    let same = instances.clone();
    assert!(instances == same && instances != Instances::default());
}

#[test]
fn what_a_service_said_of_itself_and_was_found_to_be_is_of_one_run() {
    let mut node = node();
    tell(&mut node, "db-0", News::Spawned { pid: Pid(7) });
    tell(&mut node, "db-0", News::Notice(Notice::Status("busy".to_owned())));
    tell(&mut node, "db-0", News::Executed);
    tell(&mut node, "db-0", News::Checked(Check::Healthy));
    let said = |node: &Node| {
        let instance = node.instance(&id("db-0")).unwrap();
        (instance.status_text.clone(), instance.last_check)
    };
    assert_eq!(said(&node), ("busy".to_owned(), Some((NOW, true))));
    tell(&mut node, "db-0", News::Checked(Check::Failed("no answer".to_owned())));
    assert_eq!(said(&node).1, Some((NOW, false)));
    let run = node.instance(&id("db-0")).unwrap().run().unwrap();
    let news = News::Memory(Memory::Short);
    let effects = step(&mut node, NOW, Event::News { run, news });
    let kind = RemarkKind::Memory(Memory::Short);
    assert_eq!(effects, [Effect::Note(Remark { instance: id("db-0"), run: Some(run), kind })]);
    let facts = ExitFacts { status: ExitStatus::Code(1), oom_kills: 0 };
    let news = News::Exited { facts, group: GroupState::Empty };
    let effects = step(&mut node, NOW, Event::News { run, news });
    assert_eq!(said(&node), (String::new(), None));
    let kinds = effects.iter().filter_map(|effect| {
        let Effect::Note(remark) = effect else { return None };
        Some(&remark.kind)
    });
    assert_eq!(kinds.filter(|kind| **kind == RemarkKind::Starting).count(), 1);
}

#[test]
fn phases_of_the_node_and_steps_of_a_stop_have_their_words() {
    let phases = [NodePhase::Starting, NodePhase::Ready, NodePhase::Degraded, NodePhase::Stopping];
    assert_eq!(phases.map(NodePhase::word), ["starting", "ready", "degraded", "stopping"]);
    let mut node = Node::new([(id("web-0"), Rules { drain: SECOND, ..rules(&[]) })], 1);
    step(&mut node, NOW, Event::Tick);
    come_up(&mut node, "web-0");
    let web = BTreeSet::from([id("web-0")]);
    step(&mut node, NOW, Event::Command(Command::Stop(web)));
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(node.reason(&id("web-0"), NOW));
        let due = node.next_deadline().unwrap();
        step(&mut node, due, Event::Tick);
    }
    let after = [
        " (draining)",
        "",
        " (killed: it did not end within its stop timeout)",
        " (cannot be killed: a process hangs in the kernel)",
    ];
    assert_eq!(told, after.map(|after| format!("asked by the operator{after}")));
}
