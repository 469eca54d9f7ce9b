//! A state with one of everything that can be saved, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Checkpoint, Former, Known, SavedRun, State};
use crate::config::{LimitSettings, RuntimeOverrides};
use crate::decide::{
    Ended, Ending, ExitFacts, GiveUpReason, Goal, Membership, Phase, Recency, Rng, SavedInstance,
    SavedNode, SpawnFailure, StopReason, StopStep, Wanted,
};
use crate::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use crate::units::{Core, ExitStatus, Pid, RunId, Signal, Tick};

pub(super) const BOOT: &str = "5d6a0a8e-8f2b-4c0e-9a51-0a4a4b8f1c11";

fn ns(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

fn at(nanos: u64) -> Tick {
    Tick(ns(nanos))
}

pub(super) fn rules() -> Rules {
    Rules {
        needs: vec!["storage".parse().unwrap()],
        restart_with: vec!["identity".parse().unwrap()],
        readiness: Readiness::Started,
        restart: RestartRules {
            policy: RestartPolicy::Always,
            max_restarts: 6,
            window: ns(301_000_000_000),
            backoff_initial: ns(1_500_000_000),
            backoff_max: ns(61_000_000_000),
            stable_after: ns(31_000_000_000),
        },
        start_timeout: ns(32_000_000_000),
        stop_timeout: ns(11_000_000_000),
        drain: ns(250_000_000),
        watchdog: None,
        unhealthy_threshold: 4,
    }
}

pub(super) fn instance(phase: Phase) -> SavedInstance {
    SavedInstance {
        rules: rules(),
        wanted: Wanted::Up,
        membership: Membership::Planned,
        phase: Some(phase),
        attempt: 0,
        recent: VecDeque::new(),
        restarts: 0,
        last: None,
    }
}

fn ended(run: u64, status: ExitStatus) -> Ended {
    Ended {
        run: RunId(run),
        pid: Some(Pid(400)),
        at: at(7_000_000_001),
        how: Ending::Exited(ExitFacts { status, oom_kills: 2 }),
        asked: None,
        lasted: ns(3_000_000_000),
        ready_for: Some(ns(2_999_999_999)),
    }
}

fn stopping(run: u64, stop_step: StopStep, reason: StopReason) -> Phase {
    Phase::Stopping {
        run: RunId(run),
        pid: Some(Pid(500)),
        spawned: at(1),
        ready: Some(at(2)),
        stop_step,
        reason,
        deadline: at(20_000_000_003),
    }
}

fn phases() -> Vec<(&'static str, SavedInstance)> {
    let signal = |number, core| ExitStatus::Signal { number: Signal(number), core };
    let starting = Phase::Starting {
        run: RunId(10),
        since: at(1_000_000_001),
        pid: Some(Pid(310)),
        exec_failure: Some(SpawnFailure("no such file".to_owned())),
        deadline: at(31_000_000_001),
    };
    let begun = Phase::Starting {
        run: RunId(11),
        since: at(5),
        pid: None,
        exec_failure: None,
        deadline: at(6),
    };
    let ready = Phase::Ready {
        run: RunId(12),
        pid: Pid(312),
        spawned: at(1_000),
        since: at(2_000),
        strikes: 0,
        watchdog: None,
    };
    let clearing =
        Phase::Clearing { run: RunId(13), ended: ended(13, ExitStatus::Code(3)), deadline: at(9) };
    let too_many = Phase::Failed(GiveUpReason::TooManyRestarts {
        restarts: 5,
        window: ns(300_000_000_000),
        last: ended(14, signal(11, Core::Dumped)),
    });
    let never_started = Ended {
        pid: None,
        how: Ending::NeverStarted(SpawnFailure("no program".to_owned())),
        asked: Some(StopReason::StartTimeout),
        ready_for: None,
        ..ended(15, ExitStatus::Unseen)
    };
    let not_restarted = Phase::Failed(GiveUpReason::NotRestarted { last: never_started });
    let with = StopReason::With("identity".parse().unwrap());
    let why = StopReason::Unhealthy("NOT_SERVING".to_owned());
    let steps = [
        ("drains-0", stopping(16, StopStep::Drain, StopReason::Operator)),
        ("goes-0", stopping(17, StopStep::OwnAccord, StopReason::OwnAccord)),
        ("ends-0", stopping(18, StopStep::Term, with)),
        ("sick-0", stopping(19, StopStep::Kill, why)),
        ("hangs-0", stopping(20, StopStep::Unkillable, StopReason::Watchdog)),
        ("late-0", stopping(21, StopStep::Term, StopReason::StartTimeout)),
        ("leaves-0", stopping(22, StopStep::Term, StopReason::Replanned)),
        ("last-0", stopping(23, StopStep::Term, StopReason::Shutdown)),
    ];
    let others = [
        ("rests-0", Phase::Stopped),
        ("waits-0", Phase::Waiting),
        ("starts-0", starting),
        ("begins-0", begun),
        ("runs-0", ready),
        ("clears-0", clearing),
        ("backs-off-0", Phase::Backoff { until: at(44), attempt: 3 }),
        ("fails-0", too_many),
        ("failed-1", not_restarted),
    ];
    let all = others.into_iter().chain(steps);
    all.map(|(name, phase)| (name, instance(phase))).collect()
}

fn instances() -> BTreeMap<crate::units::InstanceId, SavedInstance> {
    let mut all: BTreeMap<_, _> =
        phases().into_iter().map(|(name, one)| (name.parse().unwrap(), one)).collect();
    let mut change = |name: &str, change: fn(&mut SavedInstance)| {
        change(all.get_mut(&name.parse().unwrap()).unwrap());
    };
    change("rests-0", |one| {
        one.wanted = Wanted::Down;
        one.rules.restart.policy = RestartPolicy::Never;
        one.last = Some(ended(3, ExitStatus::Unseen));
    });
    change("leaves-0", |one| {
        (one.wanted, one.membership) = (Wanted::Down, Membership::Retiring);
        one.rules.readiness = Readiness::Port(65535);
    });
    change("ends-0", |one| one.wanted = Wanted::Restart);
    change("runs-0", |one| {
        one.attempt = 2;
        one.recent = VecDeque::from([at(100), at(200)]);
        one.restarts = 7;
        one.rules.readiness = Readiness::Notify;
        one.rules.watchdog = Some(ns(9_000_000_000));
        let signal = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
        one.last = Some(Ended { asked: Some(StopReason::Operator), ..ended(4, signal) });
    });
    change("waits-0", |one| {
        one.rules.readiness = Readiness::Grpc;
        one.rules.restart.policy = RestartPolicy::OnFailure;
    });
    all
}

pub(super) fn checkpoint() -> Checkpoint {
    let web: crate::units::ServiceName = "web".parse().unwrap();
    let limits = ["memory=1GiB", "cpu_cores=0.5"].map(str::to_owned);
    let overrides = RuntimeOverrides {
        scaled: BTreeMap::from([(web.clone(), 3)]),
        limited: BTreeMap::from([(web, LimitSettings::parse(&limits).unwrap())]),
    };
    let node = SavedNode {
        instances: instances(),
        next_run: RunId(24),
        rng: Rng::seeded(0x9e37_79b9_7f4a_7c15),
        goal: Goal::Run,
        recency: Recency::Newest,
    };
    let began_at = ns(1_234_567_890_123);
    let config = "[node]\nname = \"b\u{fc}hne\"\n".to_owned();
    let run = SavedRun {
        pid: Pid(312),
        cpu_before: ns(3_000_000_007),
        oom_kills_before: 2,
        binary: None,
    };
    Checkpoint {
        sequence: 41,
        boot: BOOT.to_owned(),
        state: State { generation: 3, began_at, config, overrides, node },
        runs: BTreeMap::from([(RunId(12), run)]),
    }
}

/// What is known when all of it was read.
pub(super) fn former(checkpoint: Checkpoint) -> Former {
    let Checkpoint { sequence, state, runs, .. } = checkpoint;
    let State { generation, began_at, config, overrides, node } = state;
    Former {
        sequence,
        slot: None,
        generation,
        began_at: Some(began_at),
        config: Some(config),
        overrides,
        node,
        runs,
        known: Known::Instances,
        remarks: Vec::new(),
    }
}
