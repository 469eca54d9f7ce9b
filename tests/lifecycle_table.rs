//! The transition table: every phase against every kind of event, written to `docs/lifecycle.md`.
//! A change of behaviour is a change of that file; `LIFECYCLE_WRITE=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use blackhole_node::decide::{
    Check, Command, Effect, Event, ExitFacts, GroupState, Memory, News, Node, Notice, Replan,
    SpawnFailure, Urgency, step,
};
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

const PAGE: &str = "docs/lifecycle.md";

fn rules(needs: &[&str]) -> Rules {
    Rules {
        needs: needs.iter().map(|name| name.parse().unwrap()).collect(),
        restart_with: Vec::new(),
        readiness: Readiness::Notify,
        restart: RestartRules {
            policy: RestartPolicy::Always,
            max_restarts: 2,
            window: Duration::from_secs(300),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
        },
        start_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(10),
        drain: Duration::from_secs(2),
        watchdog: Some(Duration::from_secs(20)),
        unhealthy_threshold: 1,
    }
}

fn web() -> InstanceId {
    "web-0".parse().unwrap()
}

fn exited(status: ExitStatus, group: GroupState) -> News {
    News::Exited { facts: ExitFacts { status, oom_kills: 0 }, group }
}

/// A node on the way, and the time it is there.
struct Scene {
    node: Node,
    now: Tick,
}

impl Scene {
    fn new() -> Self {
        let all = [("db-0".parse().unwrap(), rules(&[])), (web(), rules(&["db"]))];
        let mut scene = Self { node: Node::new(all, 1), now: Tick::ZERO };
        scene.then(Event::Tick);
        scene
    }

    fn then(&mut self, event: Event) -> Vec<Effect> {
        step(&mut self.node, self.now, event)
    }

    fn news(&mut self, service: &str, news: News) -> &mut Self {
        let run = self.run(service);
        self.then(Event::News { run, news });
        self
    }

    fn run(&self, instance: &str) -> RunId {
        let instance = self.node.instance(&instance.parse().unwrap()).unwrap();
        instance.run().unwrap_or(RunId(999))
    }

    fn ready(&mut self, instance: &str) -> &mut Self {
        self.news(instance, News::Spawned { pid: Pid(7) });
        self.news(instance, News::Notice(Notice::Ready))
    }

    fn crash(&mut self) -> &mut Self {
        self.news("web-0", exited(ExitStatus::Code(1), GroupState::Empty))
    }

    fn word(&self) -> &'static str {
        self.node.instance(&web()).unwrap().phase.word()
    }
}

fn starting() -> Scene {
    let mut scene = Scene::new();
    scene.ready("db-0").news("web-0", News::Spawned { pid: Pid(8) });
    scene
}

fn ready() -> Scene {
    let mut scene = starting();
    scene.news("web-0", News::Notice(Notice::Ready));
    scene
}

fn stopping(due_ticks: u32) -> Scene {
    let mut scene = ready();
    scene.then(command(Command::Stop));
    for _ in 0..due_ticks {
        scene.now = scene.node.next_deadline().unwrap();
        scene.then(Event::Tick);
    }
    scene
}

fn scenes() -> Vec<(&'static str, Scene)> {
    let mut stopped = Scene::new();
    stopped.then(command(Command::Stop));
    let mut clearing = ready();
    clearing.news("web-0", exited(ExitStatus::Code(1), GroupState::Populated));
    let mut backoff = starting();
    backoff.crash().crash();
    let mut failed = starting();
    failed.crash().crash();
    failed.now = failed.now + Duration::from_secs(5);
    failed.then(Event::Tick);
    failed.crash();
    vec![
        ("stopped", stopped),
        ("waiting", Scene::new()),
        ("starting", starting()),
        ("ready", ready()),
        ("draining", stopping(0)),
        ("terminating", stopping(1)),
        ("killing", stopping(2)),
        ("clearing", clearing),
        ("backoff", backoff),
        ("failed", failed),
    ]
}

fn command(command: fn(BTreeSet<InstanceId>) -> Command) -> Event {
    Event::Command(command(BTreeSet::from([web()])))
}

/// A new plan of these instances, of which those have another process.
fn replan(instances: &[&str], relaunch: &[&str]) -> Event {
    let id = |name: &&str| name.parse::<InstanceId>().unwrap();
    let needs = |id: &InstanceId| if *id == web() { rules(&["db"]) } else { rules(&[]) };
    let rules = instances.iter().map(id).map(|id| (id.clone(), needs(&id))).collect();
    let relaunch = relaunch.iter().map(id).collect();
    Event::Command(Command::Replan(Replan { rules, limits: BTreeMap::new(), relaunch }))
}

/// Makes an event that is about this run, if it is about one.
type Make = fn(RunId) -> Event;

/// Events in words; those about a run are made for the run that is live in the scene.
fn events() -> Vec<(&'static str, Make)> {
    fn about(run: RunId, news: News) -> Event {
        Event::News { run, news }
    }
    vec![
        ("time passes, nothing is due", |_| Event::Tick),
        ("start", |_| command(Command::Start)),
        ("stop", |_| command(Command::Stop)),
        ("restart", |_| command(Command::Restart)),
        ("shutdown", |_| Event::Command(Command::Shutdown(Urgency::Orderly))),
        ("shutdown, now", |_| Event::Command(Command::Shutdown(Urgency::Now))),
        ("new plan: unchanged", |_| replan(&["db-0", "web-0"], &[])),
        ("new plan: changed", |_| replan(&["db-0", "web-0"], &["web-0"])),
        ("new plan: removed", |_| replan(&["db-0"], &[])),
        ("spawned", |run| about(run, News::Spawned { pid: Pid(9) })),
        ("spawn failed", |run| about(run, News::SpawnFailed(SpawnFailure("EAGAIN".to_owned())))),
        ("executed", |run| about(run, News::Executed)),
        ("exec failed", |run| about(run, News::ExecFailed(SpawnFailure("ENOENT".to_owned())))),
        ("port open", |run| about(run, News::PortOpen)),
        ("READY=1", |run| about(run, News::Notice(Notice::Ready))),
        ("STOPPING=1", |run| about(run, News::Notice(Notice::Stopping))),
        ("STATUS=", |run| about(run, News::Notice(Notice::Status("busy".to_owned())))),
        ("WATCHDOG=1", |run| about(run, News::Notice(Notice::Watchdog))),
        ("WATCHDOG=trigger", |run| about(run, News::Notice(Notice::WatchdogTrigger))),
        ("EXTEND_TIMEOUT_USEC=", |run| {
            about(run, News::Notice(Notice::ExtendTimeout(Duration::from_secs(60))))
        }),
        ("check: healthy", |run| about(run, News::Checked(Check::Healthy))),
        ("check: failed", |run| about(run, News::Checked(Check::Failed("no answer".to_owned())))),
        ("check: starved", |run| about(run, News::Checked(Check::Starved))),
        ("short of memory", |run| about(run, News::Memory(Memory::Short))),
        ("exit 0", |run| about(run, exited(ExitStatus::Code(0), GroupState::Empty))),
        ("exit 1", |run| about(run, exited(ExitStatus::Code(1), GroupState::Empty))),
        ("SIGKILL from outside", |run| {
            let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
            about(run, exited(status, GroupState::Empty))
        }),
        ("exit, others left", |run| about(run, exited(ExitStatus::Code(1), GroupState::Populated))),
        ("group empty", |run| about(run, News::GroupEmpty)),
        ("news of a run that is over", |_| about(RunId(999), News::GroupEmpty)),
    ]
}

/// What is done about `web-0`, whose run is `run` or the one it is just given.
fn effect_word(effect: &Effect, own: RunId) -> Option<String> {
    match effect {
        Effect::Spawn { instance, .. } if *instance == web() => Some("spawn".to_owned()),
        Effect::Signal { signal, run } if *run == own => Some(signal.to_string()),
        Effect::KillGroup { run } if *run == own => Some("kill group".to_owned()),
        Effect::Clear { run } if *run == own => Some("clear group".to_owned()),
        Effect::Forget { run } if *run == own => Some("forget".to_owned()),
        Effect::Retire { instance } if *instance == web() => Some("retire".to_owned()),
        Effect::Spawn { .. }
        | Effect::Signal { .. }
        | Effect::KillGroup { .. }
        | Effect::Clear { .. }
        | Effect::Forget { .. }
        | Effect::Retire { .. }
        | Effect::ReadUsage { .. }
        | Effect::Reclaim { .. }
        | Effect::SetLimits { .. }
        | Effect::UndoSetLimits { .. }
        | Effect::Announce(_)
        | Effect::Note(_) => None,
    }
}

/// The next phase and what is done about it; `-` where the event changes nothing.
fn cell(mut scene: Scene, event: Event, before: &str) -> String {
    let state = scene.node.instance(&web()).unwrap().clone();
    let own = scene.run("web-0");
    let effects = scene.then(event);
    let words: Vec<String> = effects.iter().filter_map(|e| effect_word(e, own)).collect();
    let Some(after) = scene.node.instance(&web()) else {
        return format!("(gone): {}", words.join(", "));
    };
    if words.is_empty() && *after == state {
        return "-".to_owned();
    }
    let word = if scene.word() == before { "(stays)" } else { scene.word() };
    if words.is_empty() { word.to_owned() } else { format!("{word}: {}", words.join(", ")) }
}

fn table() -> String {
    let mut page = String::from(
        "# The life of an instance\n\n\
         Written by `tests/lifecycle_table.rs` from the code; do not edit.\n\n\
         The instance is `web-0`: it needs `db`, tells its readiness by `READY=1`, has the\n\
         policy `always`, two restarts in five minutes, a drain of 2 s and a threshold of one\n\
         failed check. A cell is the next phase and what is done; `-` is no change; `(stays)`\n\
         is a change within the phase.\n\n",
    );
    let names: Vec<&str> = scenes().into_iter().map(|(name, _)| name).collect();
    writeln!(page, "| event | {} |", names.join(" | ")).unwrap();
    writeln!(page, "|---|{}", "---|".repeat(names.len())).unwrap();
    for (name, event) in events() {
        let cells = scenes().into_iter().map(|(_, mut scene)| {
            scene.now = scene.now + Duration::from_millis(1);
            let (run, before) = (scene.run("web-0"), scene.word());
            cell(scene, event(run), before)
        });
        writeln!(page, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | ")).unwrap();
    }
    let due = scenes().into_iter().map(|(_, mut scene)| {
        let before = scene.word();
        let own = scene.node.instance(&web()).unwrap().phase.deadline();
        let Some(deadline) = own else { return "-".to_owned() };
        scene.now = deadline;
        cell(scene, Event::Tick, before)
    });
    writeln!(page, "| its deadline passes | {} |", due.collect::<Vec<_>>().join(" | ")).unwrap();
    page
}

#[test]
fn the_scenes_are_what_they_are_called() {
    let expected = [
        "stopped", "waiting", "starting", "ready", "stopping", "stopping", "stopping", "stopping",
        "backoff", "failed",
    ];
    let words: Vec<&str> = scenes().iter().map(|(_, scene)| scene.word()).collect();
    assert_eq!(words, expected);
}

#[test]
fn the_written_table_is_what_the_code_does() {
    let table = table();
    if std::env::var_os("LIFECYCLE_WRITE").is_some() {
        std::fs::write(PAGE, &table).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == table, "{PAGE} is not what the code does; LIFECYCLE_WRITE=1 writes it anew");
}
