//! Changes of limits, step by step.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{Effect, RemarkKind};
use super::event::{LimitsRefusal, Usage};
use super::limits::*;
use super::node::Node;
use crate::decide::samples::rules;
use crate::decide::{Command, Event, ExitFacts, GroupState, News, Replan, Urgency, step};
use crate::plan::{GroupLimits, LimitLayer, LimitLayers};
use crate::units::{ByteSize, ExitStatus, InstanceId, Pid, RunId, ServiceName, Tick};

const MIB: fn(u64) -> ByteSize = ByteSize::mib;

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

struct Scene {
    node: Node,
    now: Tick,
}

impl Scene {
    /// Two instances of `web`, which are ready.
    fn new() -> Self {
        let all = ["web-0", "web-1"].map(|name| (id(name), rules(&[])));
        let mut scene = Self { node: Node::new(all, 1), now: Tick::ZERO };
        scene.then(Event::Tick);
        for name in ["web-0", "web-1"] {
            scene.news(name, News::Spawned { pid: Pid(7) });
            scene.news(name, News::Executed);
        }
        scene
    }

    fn then(&mut self, event: Event) -> Vec<Effect> {
        let effects = step(&mut self.node, self.now, event);
        effects.into_iter().filter(|effect| !matches!(effect, Effect::Announce(_))).collect()
    }

    fn news(&mut self, name: &str, news: News) -> Vec<Effect> {
        let run = self.run(name);
        self.then(Event::News { run, news })
    }

    fn run(&self, name: &str) -> RunId {
        self.node.instance(&id(name)).unwrap().run().unwrap()
    }

    fn set(&mut self, memory: ByteSize) -> Vec<Effect> {
        let layers = |name| {
            let operator = LimitLayer { memory: Some(Some(memory)), ..Default::default() };
            (id(name), LimitLayers { operator, ..Default::default() })
        };
        let layers = BTreeMap::from(["web-0", "web-1"].map(layers));
        self.then(Event::Command(Command::SetLimits(layers)))
    }

    fn usage(&mut self, name: &str, used: ByteSize) -> Vec<Effect> {
        let change = self.node.instance(&id(name)).unwrap().limits.change().unwrap();
        let usage = Usage { memory: Some(used), memory_max: None, memory_high: None };
        self.news(name, News::Usage { change, usage })
    }

    fn is_set(&mut self, name: &str) -> Vec<Effect> {
        let change = self.node.instance(&id(name)).unwrap().limits.change().unwrap();
        self.news(name, News::LimitsSet { change })
    }

    fn in_force(&self, name: &str) -> Option<ByteSize> {
        self.node.instance(&id(name)).unwrap().limits.in_force().memory
    }

    fn changes(&self) -> bool {
        self.node.limits_are_changing(&"web".parse().unwrap())
    }
}

/// What is told of limits that could not be set.
fn refusals(effects: &[Effect]) -> Vec<String> {
    let told = |effect: &Effect| {
        let Effect::Note(remark) = effect else { return None };
        let RemarkKind::LimitsRefused(refusal) = &remark.kind else { return None };
        Some(refusal.to_string())
    };
    effects.iter().filter_map(told).collect()
}

#[test]
fn memory_comes_down_to_a_margin_below_the_limit() {
    assert_eq!(surplus(Some(MIB(60)), MIB(64)), 0);
    assert_eq!(surplus(Some(MIB(61)), MIB(64)), MIB(1).0);
    assert_eq!(surplus(Some(MIB(100)), MIB(64)), MIB(40).0);
    assert_eq!(surplus(Some(MIB(8)), MIB(8)), MIB(1).0);
    assert_eq!(margin(MIB(1)), MIB(1).0 / 4);
    assert_eq!(margin(ByteSize::gib(64)), MIB(64).0);
    assert_eq!(surplus(Some(ByteSize(0)), ByteSize(0)), 0);
    assert_eq!(surplus(None, MIB(1)), 0);
}

#[test]
fn what_fits_is_set_at_once_and_settled_when_all_have_it() {
    let mut scene = Scene::new();
    let asked = scene.set(MIB(64));
    assert!(asked.iter().all(|effect| matches!(effect, Effect::ReadUsage { .. })), "{asked:?}");
    for name in ["web-0", "web-1"] {
        let set = scene.usage(name, MIB(10));
        let [Effect::SetLimits { limits, .. }] = &set[..] else { panic!("{set:?}") };
        assert_eq!(limits.memory, Some(MIB(64)));
    }
    assert!(scene.is_set("web-0").is_empty() && scene.changes());
    assert!(scene.is_set("web-1").is_empty() && !scene.changes());
    assert_eq!(scene.set(MIB(64)), [], "it is set already");
}

#[test]
fn memory_that_stays_is_tried_fifty_times_and_then_everything_is_undone() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    scene.usage("web-1", MIB(10));
    scene.is_set("web-1");
    let mut last = scene.usage("web-0", MIB(100));
    let mut tries = 0;
    while let [Effect::Reclaim { high, bytes, .. }] = &last[..] {
        assert_eq!((*high, *bytes), (MIB(60), MIB(40).0));
        tries += 1;
        last = scene.usage("web-0", MIB(100));
        if last.is_empty() {
            assert_eq!(scene.node.next_deadline(), Some(scene.now + PAUSE));
            scene.now = scene.now + PAUSE;
            last = scene.then(Event::Tick);
        }
    }
    assert_eq!(tries, TRIES);
    let [Effect::SetLimits { limits, .. }] = &last[..] else { panic!("{last:?}") };
    assert_eq!((limits.memory, limits.memory_high), (None, None), "as the kernel had it");
    let undone = scene.is_set("web-0");
    let words = refusals(&undone);
    let expected = "its memory does not come down to 64MiB: it uses 100MiB, so its limit stays max";
    assert_eq!(words, [expected]);
    let web: ServiceName = "web".parse().unwrap();
    assert!(undone.contains(&Effect::UndoSetLimits { service: web }));
    let set_anew = undone.iter().filter(|effect| matches!(effect, Effect::SetLimits { .. }));
    assert_eq!(set_anew.count(), 2, "that which had them gives them back");
    assert_eq!((scene.in_force("web-0"), scene.in_force("web-1")), (None, None));
    scene.is_set("web-0");
    scene.is_set("web-1");
    assert!(!scene.changes());
}

#[test]
fn an_answer_to_a_former_change_is_not_taken_for_one_to_this() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    let former = scene.node.instance(&id("web-0")).unwrap().limits.change().unwrap();
    scene.set(MIB(32));
    let usage = Usage { memory: Some(MIB(1)), memory_max: None, memory_high: None };
    assert_eq!(scene.news("web-0", News::Usage { change: former, usage }), []);
    assert_eq!(scene.news("web-0", News::LimitsSet { change: former }), []);
    let refusal = LimitsRefusal::Kernel("EIO".to_owned());
    assert_eq!(scene.news("web-0", News::LimitsRefused { change: former, refusal }), []);
    assert_eq!(scene.in_force("web-0"), Some(MIB(32)));
}

#[test]
fn a_run_that_ends_leaves_the_change_to_its_next_run() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    let facts = ExitFacts { status: ExitStatus::Code(1), oom_kills: 0 };
    for name in ["web-0", "web-1"] {
        let next = scene.news(name, News::Exited { facts, group: GroupState::Empty });
        let spawned = next.iter().find_map(|effect| {
            let Effect::Spawn { limits, .. } = effect else { return None };
            Some(limits.memory)
        });
        assert_eq!(spawned, Some(Some(MIB(64))));
    }
    assert!(!scene.changes());
}

#[test]
fn a_kernel_that_does_not_answer_is_told_of_and_undone() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    scene.now = scene.now + STEP_TIMEOUT;
    let undone = scene.then(Event::Tick);
    let words = ["the kernel has not taken its limits within 1m"];
    assert_eq!(refusals(&undone), words, "the other one follows the undo");
    assert_eq!((scene.in_force("web-0"), scene.in_force("web-1")), (None, None));
}

#[test]
fn a_change_that_takes_the_place_of_another_knows_what_that_one_lowered() {
    let mut scene = Scene::new();
    let measure = |scene: &mut Scene, high: Option<ByteSize>| {
        let change = scene.node.instance(&id("web-0")).unwrap().limits.change().unwrap();
        let usage = Usage { memory: Some(MIB(100)), memory_max: None, memory_high: high };
        scene.news("web-0", News::Usage { change, usage })
    };
    scene.set(MIB(64));
    measure(&mut scene, Some(MIB(90)));
    scene.set(MIB(32));
    measure(&mut scene, Some(MIB(60)));
    let change = scene.node.instance(&id("web-0")).unwrap().limits.change().unwrap();
    let refusal = LimitsRefusal::Kernel("EIO".to_owned());
    let kept = scene.news("web-0", News::LimitsRefused { change, refusal });
    let [Effect::SetLimits { limits, .. }] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(limits.memory_high, Some(MIB(90)));
}

fn refuse(scene: &mut Scene, name: &str) -> Vec<Effect> {
    let change = scene.node.instance(&id(name)).unwrap().limits.change().unwrap();
    let refusal = LimitsRefusal::Kernel("EIO".to_owned());
    scene.news(name, News::LimitsRefused { change, refusal })
}

fn plan(scene: &mut Scene, limits: &[(&str, LimitLayers)]) -> Vec<Effect> {
    let rules = ["web-0", "web-1"].map(|name| (id(name), rules(&[]))).into();
    let limits = limits.iter().map(|(name, layers)| (id(name), *layers)).collect();
    let plan = Replan { rules, limits, relaunch: BTreeSet::new() };
    scene.then(Event::Command(Command::Replan(plan)))
}

fn of_file(memory: ByteSize) -> LimitLayers {
    let file = GroupLimits { memory: Some(memory), ..GroupLimits::default() };
    LimitLayers { file, ..LimitLayers::default() }
}

#[test]
fn each_step_of_a_change_has_its_time() {
    let mut scene = Scene::new();
    let due = |scene: &Scene, name: &str| {
        scene.node.instance(&id(name)).unwrap().limits.deadline().unwrap().since(scene.now)
    };
    scene.set(MIB(64));
    assert_eq!(due(&scene, "web-0"), STEP_TIMEOUT);
    scene.now = scene.now + PAUSE;
    scene.usage("web-0", MIB(10));
    scene.usage("web-1", MIB(100));
    assert_eq!((due(&scene, "web-0"), due(&scene, "web-1")), (STEP_TIMEOUT, STEP_TIMEOUT));
    scene.usage("web-1", MIB(100));
    scene.now = scene.now + PAUSE;
    scene.then(Event::Tick);
    assert_eq!(due(&scene, "web-1"), STEP_TIMEOUT, "the next try");
    scene.now = scene.now + PAUSE;
    refuse(&mut scene, "web-1");
    assert_eq!(due(&scene, "web-1"), STEP_TIMEOUT, "what it had is set again");
    let words = LimitsRefusal::NoAnswer { within: STEP_TIMEOUT }.to_string();
    assert_eq!(words, "the kernel has not taken its limits within 1m");
}

#[test]
fn a_refusal_is_known_until_the_next_change() {
    let mut scene = Scene::new();
    let is_refused =
        |scene: &Scene| scene.node.instance(&id("web-0")).unwrap().limits.refusal().is_some();
    scene.set(MIB(64));
    refuse(&mut scene, "web-0");
    assert!(is_refused(&scene));
    scene.set(MIB(32));
    assert!(!is_refused(&scene));
    refuse(&mut scene, "web-0");
    plan(&mut scene, &[("web-0", of_file(MIB(128)))]);
    assert!(!is_refused(&scene));
}

/// What an operator had set is not undone where a plan says something else by now, and only there.
#[test]
fn a_plan_has_the_last_word_on_what_an_operator_had_set() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    let same = scene.node.instance(&id("web-1")).unwrap().limits.layers();
    let operator = LimitLayer { memory: Some(Some(MIB(128))), ..Default::default() };
    let other = LimitLayers { operator, ..LimitLayers::default() };
    let asked = plan(&mut scene, &[("web-0", other), ("web-1", same)]);
    let [Effect::ReadUsage { .. }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(plan(&mut scene, &[("web-0", other)]), [], "it is so already");
    refuse(&mut scene, "web-1");
    assert_eq!((scene.in_force("web-0"), scene.in_force("web-1")), (Some(MIB(128)), None));
}

#[test]
fn a_change_is_of_its_services() {
    let mut scene = Scene::new();
    scene.set(MIB(64));
    assert!(scene.changes());
    assert!(!scene.node.limits_are_changing(&"db".parse().unwrap()));
    let (mut node, now) =
        (Node::new([id("web-0"), id("db-0")].map(|id| (id, rules(&[]))), 1), Tick::ZERO);
    step(&mut node, now, Event::Tick);
    let rules = ["web-0", "db-0"].map(|name| (id(name), rules(&[]))).into();
    let limits = ["web-0", "db-0"].map(|name| (id(name), of_file(MIB(8)))).into();
    let plan = Replan { rules, limits, relaunch: BTreeSet::new() };
    step(&mut node, now, Event::Command(Command::Replan(plan)));
    assert!(node.limits_are_changing(&"db".parse().unwrap()));
}

#[test]
fn nobody_sets_limits_in_a_shutdown() {
    let mut scene = Scene::new();
    scene.then(Event::Command(Command::Shutdown(Urgency::Orderly)));
    assert_eq!(scene.set(MIB(64)), []);
    assert_eq!((scene.in_force("web-0"), scene.changes()), (None, false));
}
