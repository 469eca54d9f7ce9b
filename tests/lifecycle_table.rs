//! The transition table: every phase against every kind of event, written to `docs/lifecycle.md`.
//! A change of behaviour is a change of that file; `LIFECYCLE_WRITE=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use blackhole_node::decide::{
    Check, Command, Effect, Event, ExitFacts, GroupState, Instance, Memory, News, Node, Notice,
    Phase, Replan, SpawnFailure, Urgency, step,
};
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{
    Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick, human_duration,
};

const PAGE: &str = "docs/lifecycle.md";
const WATCHDOG: Duration = Duration::from_secs(20);

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
        watchdog: Some(WATCHDOG),
        unhealthy_threshold: 2,
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
        Self::beside(None)
    }

    /// `app` needs `web`.
    fn beside(app: Option<&str>) -> Self {
        let app = app.map(|app| (app.parse().unwrap(), rules(&["web"])));
        let all = [("db-0".parse().unwrap(), rules(&[])), (web(), rules(&["db"]))];
        let node = Node::new(all.into_iter().chain(app), 1);
        let mut scene = Self { node, now: Tick::ZERO };
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
    spawned(Scene::new())
}

fn spawned(mut scene: Scene) -> Scene {
    scene.ready("db-0").news("web-0", News::Spawned { pid: Pid(8) });
    scene
}

fn ready() -> Scene {
    let mut scene = starting();
    scene.news("web-0", News::Notice(Notice::Ready));
    scene
}

/// In a stop sequence, after so many of its steps.
fn stopping(command: Event, due_ticks: u32) -> Scene {
    let mut scene = ready();
    scene.then(command);
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
    let mut struck = ready();
    struck.news("web-0", failed_check());
    let stop = |steps| stopping(command(Command::Stop), steps);
    let mut scenes = vec![
        ("stopped", stopped),
        ("waiting", Scene::new()),
        ("starting", starting()),
        ("ready", ready()),
        ("ready, one check failed", struck),
        ("draining", stop(0)),
        ("terminating", stop(1)),
        ("killing", stop(2)),
        ("clearing", clearing),
        ("backoff", backoff),
        ("failed", failed),
    ];
    scenes.extend(scenes_of_a_shutdown());
    scenes
}

/// The node is shutting down, in order, and is not through with it.
fn scenes_of_a_shutdown() -> Vec<(&'static str, Scene)> {
    let shutdown = || Event::Command(Command::Shutdown(Urgency::Orderly));
    let mut needed = spawned(Scene::beside(Some("app-0")));
    needed.news("web-0", News::Notice(Notice::Ready));
    needed.ready("app-0").then(shutdown());
    let mut clearing = stopping(shutdown(), 1);
    clearing.news("web-0", exited(ExitStatus::Code(0), GroupState::Populated));
    let mut stopped = stopping(shutdown(), 1);
    stopped.news("web-0", exited(ExitStatus::Code(0), GroupState::Empty));
    vec![
        ("shutdown: ready, and needed", needed),
        ("shutdown: draining", stopping(shutdown(), 0)),
        ("shutdown: terminating", stopping(shutdown(), 1)),
        ("shutdown: killing", stopping(shutdown(), 2)),
        ("shutdown: clearing", clearing),
        ("shutdown: stopped", stopped),
    ]
}

fn failed_check() -> News {
    News::Checked(Check::Failed("no answer".to_owned()))
}

fn command(command: fn(BTreeSet<InstanceId>) -> Command) -> Event {
    Event::Command(command(BTreeSet::from([web()])))
}

/// A new plan of these instances, of which those have another process.
fn replan(instances: &[&str], relaunch: &[&str]) -> Event {
    replan_with(instances, relaunch, WATCHDOG)
}

fn replan_with(instances: &[&str], relaunch: &[&str], watchdog: Duration) -> Event {
    let id = |name: &&str| name.parse::<InstanceId>().unwrap();
    let needs = |id: &InstanceId| if *id == web() { rules(&["db"]) } else { rules(&[]) };
    let with = |rules: Rules| Rules { watchdog: Some(watchdog), ..rules };
    let rules = instances.iter().map(id).map(|id| (id.clone(), with(needs(&id)))).collect();
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
        ("new plan: a watchdog of 5 s", |_| {
            replan_with(&["db-0", "web-0"], &[], Duration::from_secs(5))
        }),
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
        ("EXTEND_TIMEOUT_USEC=: 60 s", |run| {
            about(run, News::Notice(Notice::ExtendTimeout(Duration::from_secs(60))))
        }),
        ("EXTEND_TIMEOUT_USEC=: 1 s", |run| {
            about(run, News::Notice(Notice::ExtendTimeout(Duration::from_secs(1))))
        }),
        ("check: healthy", |run| about(run, News::Checked(Check::Healthy))),
        ("check: failed", |run| about(run, failed_check())),
        ("check: starved", |run| about(run, News::Checked(Check::Starved))),
        ("short of memory", |run| about(run, News::Memory(Memory::Short))),
        ("exit 0", |run| about(run, exited(ExitStatus::Code(0), GroupState::Empty))),
        ("exit 1", |run| about(run, exited(ExitStatus::Code(1), GroupState::Empty))),
        ("SIGKILL from outside", |run| {
            let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
            about(run, exited(status, GroupState::Empty))
        }),
        ("SIGKILL for want of memory", |run| {
            let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
            let facts = ExitFacts { status, oom_kills: 1 };
            about(run, News::Exited { facts, group: GroupState::Empty })
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

/// What else of the instance is another than before.
fn changes(before: &Instance, after: &Instance, now: Tick) -> Vec<String> {
    let mut changes = Vec::new();
    let mut change = |name: &str, values: [Option<String>; 2]| {
        let [before, after] = values;
        if before != after {
            changes.push(after.map_or(format!("no {name}"), |after| format!("{name} {after}")));
        }
    };
    let both = [before, after];
    let due = |instance: &Instance| Some(human_duration(instance.phase.deadline()?.since(now)));
    if before.phase.deadline() != after.phase.deadline() {
        change("due in", [None, due(after)]);
    }
    let strikes = |instance: &Instance| {
        let Phase::Ready { strikes, .. } = instance.phase else { return None };
        Some(strikes)
    };
    if let [Some(before), Some(after)] = both.map(strikes) {
        change("strikes", [before, after].map(|strikes| Some(strikes.to_string())));
    }
    change("attempt", both.map(|instance| Some(instance.attempt.to_string())));
    change("counted", both.map(|instance| Some(instance.recent.len().to_string())));
    change("restarts", both.map(|instance| Some(instance.restarts.to_string())));
    change("wanted", both.map(|instance| Some(format!("{:?}", instance.wanted).to_lowercase())));
    changes
}

/// The next phase, what is done about it, and what else changes; `-` where nothing does.
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
    let mut cell = if scene.word() == before { "(stays)" } else { scene.word() }.to_owned();
    if !words.is_empty() {
        write!(cell, ": {}", words.join(", ")).unwrap();
    }
    for change in changes(&state, after, scene.now) {
        write!(cell, "; {change}").unwrap();
    }
    cell
}

fn table() -> String {
    let mut page = String::from(
        "# The life of an instance\n\n\
         Written by `tests/lifecycle_table.rs` from the code; do not edit.\n\n\
         The instance is `web-0`: it needs `db`, tells its readiness by `READY=1`, has the\n\
         policy `always`, two restarts in five minutes, 30 s to start, a drain of 2 s, 10 s to\n\
         stop, a watchdog of 20 s and a threshold of two failed checks. A cell is the next phase\n\
         and what is done, then what else changes: when it is due, counted from the event; failed\n\
         checks in a row (strikes); restarts in a row (attempt), within the window (counted) and\n\
         in all (restarts); what is wanted of it. `-` is no change; `(stays)` is a change within\n\
         the phase. In the last columns the node is shutting down.\n\n",
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
        "stopped", "waiting", "starting", "ready", "ready", "stopping", "stopping", "stopping",
        "stopping", "backoff", "failed", "ready", "stopping", "stopping", "stopping", "stopping",
        "stopped",
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
