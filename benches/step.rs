//! What one decision costs in a node of 10, 100 and 1,000 services. A round is a crash, its
//! immediate restart and the readiness of the new run; the ratio is to the smallest node. Then the
//! start and the orderly stop of 1,024 services in 64 layers, each of which needs all 16 services
//! of the layer before its own.

use std::hint::black_box;
use std::time::{Duration, Instant};

use blackhole_node::decide::{
    Command, Effect, Event, ExitFacts, GroupState, News, Node, Notice, Urgency, step,
};
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

const ROUNDS: u32 = 2_000;
const EVENTS_A_ROUND: u32 = 3;

fn main() {
    let mut smallest = None;
    println!("services  ns/event  ratio");
    for services in [10, 100, 1000] {
        let took = crash_and_restart(services);
        let per_event = took.as_nanos() / u128::from(ROUNDS * EVENTS_A_ROUND);
        let base = *smallest.get_or_insert(per_event.max(1));
        let tenths = per_event * 10 / base;
        println!("{services:>8}  {per_event:>8}  {}.{}", tenths / 10, tenths % 10);
    }
    for (layers, width) in [(16, 16), (64, 16)] {
        let (events, took) = rise_and_fall(layers, width);
        let per_event = took.as_nanos() / events;
        println!("{layers} layers of {width}: {events} events, {per_event} ns/event");
    }
}

/// Starts all, in order, and stops all, in reverse.
fn rise_and_fall(layers: usize, width: usize) -> (u128, Duration) {
    let service = |layer: usize, place: usize| format!("s{layer}x{place}");
    let all = (0..layers).flat_map(|layer| (0..width).map(move |place| (layer, place)));
    let services = all.map(|(layer, place)| {
        let before = layer.checked_sub(1).into_iter();
        let needs = before.flat_map(|before| (0..width).map(move |place| service(before, place)));
        let needs = needs.map(|name| name.parse().expect("a name")).collect();
        let id: InstanceId = format!("{}-0", service(layer, place)).parse().expect("a name");
        (id, Rules { needs, ..rules() })
    });
    let mut node = Node::new(services.collect::<Vec<_>>(), 1);
    let now = Tick::from_millis(1);
    let mut events = 0;
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = Instant::now();
    let mut next = spawned(&step(&mut node, now, Event::Tick));
    let mut live = Vec::new();
    while let Some(run) = next.pop() {
        step(&mut node, now, Event::News { run, news: News::Spawned { pid: Pid(7) } });
        let ready = Event::News { run, news: News::Notice(Notice::Ready) };
        next.extend(spawned(&step(&mut node, now, ready)));
        live.push(run);
        events += 2;
    }
    step(&mut node, now, Event::Command(Command::Shutdown(Urgency::Orderly)));
    while let Some(run) = live.pop() {
        let facts = ExitFacts { status: ExitStatus::Code(0), oom_kills: 0 };
        let news = News::Exited { facts, group: GroupState::Empty };
        step(&mut node, now, Event::News { run, news });
        events += 1;
    }
    let took = start.elapsed();
    assert!(node.instances().all(|(_, instance)| instance.run().is_none()), "all of it is down");
    (events, took)
}

fn crash_and_restart(services: u16) -> Duration {
    let names = (0..services).map(|n| format!("s{n}-0").parse::<InstanceId>().expect("a name"));
    let mut node = Node::new(names.map(|id| (id, rules())).collect::<Vec<_>>(), 1);
    let mut now = Tick::from_millis(1);
    let mut live = spawned(&step(&mut node, now, Event::Tick));
    for run in live.clone() {
        come_up(&mut node, now, run);
    }
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = Instant::now();
    for round in 0..ROUNDS {
        now = now + Duration::from_millis(10);
        let index = usize::try_from(round).unwrap_or(0) % live.len();
        let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
        let facts = ExitFacts { status, oom_kills: 0 };
        let news = News::Exited { facts, group: GroupState::Empty };
        let effects = step(&mut node, now, Event::News { run: live[index], news });
        live[index] = spawned(&effects)[0];
        come_up(&mut node, now, live[index]);
    }
    let took = start.elapsed();
    black_box(node);
    took
}

fn come_up(node: &mut Node, now: Tick, run: RunId) {
    step(node, now, Event::News { run, news: News::Spawned { pid: Pid(7) } });
    step(node, now, Event::News { run, news: News::Notice(Notice::Ready) });
}

fn spawned(effects: &[Effect]) -> Vec<RunId> {
    let run = |effect: &Effect| match effect {
        Effect::Spawn { run, .. } => Some(*run),
        Effect::Signal { .. }
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
    };
    effects.iter().filter_map(run).collect()
}

fn rules() -> Rules {
    Rules {
        needs: Vec::new(),
        restart_with: Vec::new(),
        readiness: Readiness::Notify,
        restart: RestartRules {
            policy: RestartPolicy::Always,
            max_restarts: 5,
            window: Duration::from_secs(300),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
        },
        start_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(10),
        drain: Duration::ZERO,
        watchdog: None,
        unhealthy_threshold: 3,
    }
}
