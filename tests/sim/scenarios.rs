//! Single faults in virtual time: what the core decides, to the moment. The histories of
//! `world.rs` meet the same faults by rng and in company.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackhole_node::decide::{
    Check, Command, Effect, Event, ExitFacts, GroupState, News, Node, Phase, RemarkKind, Urgency,
    broken_invariant, step,
};
use blackhole_node::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use blackhole_node::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

const HOUR: Duration = Duration::from_secs(3600);
const CRASH: ExitStatus = ExitStatus::Code(1);

/// The defaults of the configuration, ready when started.
fn rules(needs: &[&str]) -> Rules {
    Rules {
        needs: needs.iter().map(|name| name.parse().unwrap()).collect(),
        restart_with: Vec::new(),
        readiness: Readiness::Started,
        restart: RestartRules {
            policy: RestartPolicy::Always,
            max_restarts: 5,
            window: secs(300),
            backoff_initial: secs(1),
            backoff_max: secs(60),
            stable_after: secs(30),
        },
        start_timeout: secs(30),
        stop_timeout: secs(10),
        drain: Duration::ZERO,
        watchdog: None,
        unhealthy_threshold: 3,
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(name: &str) -> InstanceId {
    format!("{name}-0").parse().unwrap()
}

/// A node, the time, and everything it asked for.
struct Stage {
    node: Node,
    now: Tick,
    asked: Vec<(Tick, Effect)>,
}

impl Stage {
    fn new(services: Vec<(InstanceId, Rules)>) -> Self {
        let node = Node::new(services, 7);
        let mut stage = Self { node, now: Tick::ZERO, asked: Vec::new() };
        stage.take(Event::Tick);
        stage
    }

    fn one(rules: Rules) -> Self {
        Self::new(vec![(id("web"), rules)])
    }

    fn take(&mut self, event: Event) {
        let effects = step(&mut self.node, self.now, event);
        assert_eq!(broken_invariant(&self.node, self.now), None);
        self.asked.extend(effects.into_iter().map(|effect| (self.now, effect)));
    }

    fn news(&mut self, run: RunId, news: News) {
        self.take(Event::News { run, news });
    }

    fn run(&self, id: &InstanceId) -> RunId {
        self.node.instance(id).unwrap().run().unwrap_or_else(|| panic!("{id} has no run"))
    }

    fn come_up(&mut self, id: &InstanceId) {
        let run = self.run(id);
        self.news(run, News::Spawned { pid: Pid(100) });
        self.news(run, News::Executed);
    }

    fn exit(&mut self, id: &InstanceId, status: ExitStatus) {
        let facts = ExitFacts { status, oom_kills: 0 };
        self.news(self.run(id), News::Exited { facts, group: GroupState::Empty });
    }

    /// Time goes by, and what falls due is done when it is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.node.next_deadline().filter(|due| *due <= end) {
            self.now = due;
            self.take(Event::Tick);
        }
        self.now = end;
    }

    /// For `time`, every run lives for `life` and crashes. Gives the starts.
    fn crash_every(&mut self, id: &InstanceId, life: Duration, time: Duration) -> Vec<Tick> {
        let end = self.now + time;
        while self.now < end {
            match self.node.instance(id).unwrap().run() {
                Some(_) => {
                    self.come_up(id);
                    self.pass(life);
                    self.exit(id, CRASH);
                }
                None => match self.node.next_deadline() {
                    Some(due) => self.pass(due.since(self.now)),
                    None => self.pass(end.since(self.now)),
                },
            }
        }
        self.starts(id)
    }

    fn starts(&self, id: &InstanceId) -> Vec<Tick> {
        let spawned =
            |effect: &Effect| matches!(effect, Effect::Spawn { instance, .. } if instance == id);
        self.asked.iter().filter(|(_, effect)| spawned(effect)).map(|(at, _)| *at).collect()
    }

    fn word(&self, id: &InstanceId) -> &'static str {
        self.node.instance(id).unwrap().phase.word()
    }

    fn reason(&self, id: &InstanceId) -> String {
        self.node.reason(id, self.now)
    }

    /// When each of these remarks was made, of whom.
    fn remarks(&self, wanted: impl Fn(&RemarkKind) -> bool) -> Vec<(Tick, InstanceId)> {
        let remark = |(at, effect): &(Tick, Effect)| {
            let Effect::Note(remark) = effect else { return None };
            wanted(&remark.kind).then(|| (*at, remark.instance.clone()))
        };
        self.asked.iter().filter_map(remark).collect()
    }

    fn has_asked(&self, effect: &Effect) -> Vec<Tick> {
        self.asked.iter().filter(|(_, asked)| asked == effect).map(|(at, _)| *at).collect()
    }
}

/// Reliability 1.
#[test]
fn a_success_is_the_end_on_failure() {
    let web = id("web");
    let mut on_failure = rules(&[]);
    on_failure.restart.policy = RestartPolicy::OnFailure;
    let mut stage = Stage::one(on_failure);
    stage.come_up(&web);
    stage.exit(&web, ExitStatus::Code(0));
    stage.pass(HOUR);
    assert_eq!((stage.word(&web), stage.starts(&web).len()), ("stopped", 1));
    assert_eq!(stage.reason(&web), "exit code 0 after 0us");
}

/// Reliability 2: at once, then after one second and up to a quarter more.
#[test]
fn a_crash_is_answered_at_once_and_the_next_one_after_a_second() {
    let web = id("web");
    let mut on_failure = rules(&[]);
    on_failure.restart.policy = RestartPolicy::OnFailure;
    let mut stage = Stage::one(on_failure);
    stage.crash_every(&web, Duration::ZERO, secs(2));
    let starts = stage.starts(&web);
    assert_eq!((starts[0], starts[1]), (Tick::ZERO, Tick::ZERO));
    let delay = starts[2].since(starts[1]);
    assert!(delay >= secs(1) && delay <= Duration::from_millis(1250), "{delay:?}");
}

/// Reliability 3.
#[test]
fn a_crash_loop_is_over_after_its_five_restarts_and_stays_so() {
    let web = id("web");
    let mut stage = Stage::one(rules(&[]));
    let starts = stage.crash_every(&web, Duration::ZERO, HOUR);
    assert_eq!((starts.len(), stage.word(&web)), (6, "failed"));
    assert!(stage.reason(&web).starts_with("5 restarts within 5m; last: exit code 1"));
    assert_eq!(stage.node.next_deadline(), None, "nothing wakes it any more");
}

/// Reliability 4.
#[test]
fn a_crash_every_61_seconds_is_within_the_limit_for_ever_and_every_50_is_not() {
    let web = id("web");
    let mut stage = Stage::one(rules(&[]));
    let starts = stage.crash_every(&web, secs(61), 24 * HOUR);
    assert_eq!(stage.word(&web), "starting");
    assert_eq!(starts.len(), 24 * 3600 / 61 + 2);
    for (index, first) in starts.iter().enumerate() {
        let within = starts[index..].iter().take_while(|at| at.since(*first) < secs(300));
        assert!(within.count() <= 5, "from {first:?}");
    }
    let delayed = |kind: &RemarkKind| {
        let RemarkKind::Restarting { delay, attempt } = kind else { return false };
        !delay.is_zero() || *attempt != 1
    };
    assert_eq!(stage.remarks(delayed), [], "each run was stable: the series begins anew");

    let mut stage = Stage::one(rules(&[]));
    assert_eq!(stage.crash_every(&web, secs(50), HOUR).len(), 6);
    assert_eq!(stage.word(&web), "failed");
}

/// Reliability 7.
#[test]
fn who_ends_before_it_is_ready_has_failed_to_start_and_dependants_wait() {
    let (first, second) = (id("first"), id("second"));
    let mut notify = rules(&[]);
    notify.readiness = Readiness::Notify;
    let mut stage = Stage::new(vec![(first.clone(), notify), (second.clone(), rules(&["first"]))]);
    stage.crash_every(&first, secs(5), HOUR);
    assert_eq!((stage.starts(&first).len(), stage.starts(&second).len()), (6, 0));
    assert_eq!((stage.word(&first), stage.word(&second)), ("failed", "waiting"));
    assert!(stage.reason(&first).ends_with("before it was ready"));
    assert_eq!(stage.reason(&second), "waits for first-0 (failed)");
}

/// Reliability 8.
#[test]
fn who_is_never_ready_is_asked_to_go_and_then_killed_with_all_it_left() {
    let web = id("web");
    let mut notify = rules(&[]);
    notify.readiness = Readiness::Notify;
    let mut stage = Stage::one(notify);
    stage.come_up(&web);
    let run = stage.run(&web);
    stage.pass(secs(60));
    let at = |seconds| vec![Tick::ZERO + secs(seconds)];
    assert_eq!(stage.has_asked(&Effect::Signal { run, signal: Signal::TERM }), at(30));
    assert_eq!(stage.has_asked(&Effect::KillGroup { run })[..1], at(40));
    let facts = ExitFacts {
        status: ExitStatus::Signal { number: Signal::KILL, core: Core::None },
        oom_kills: 0,
    };
    stage.news(run, News::Exited { facts, group: GroupState::Populated });
    assert_eq!(stage.has_asked(&Effect::Clear { run }), at(60));
    assert_eq!(stage.starts(&web).len(), 1, "not before all of it is gone");
    stage.news(run, News::GroupEmpty);
    assert_eq!(stage.starts(&web).len(), 2);
    assert!(stage.reason(&web).contains("not ready within its start timeout"));
}

/// Reliability 10: the delays that are decided, for the fourth common crash (4 s and a quarter).
#[test]
fn a_hundred_that_fall_together_are_told_to_rise_one_by_one() {
    let all: Vec<InstanceId> =
        (0..100).map(|index| InstanceId::new("web".parse().unwrap(), index)).collect();
    let mut stage = Stage::new(all.iter().map(|id| (id.clone(), rules(&[]))).collect());
    for _ in 0..4 {
        all.iter().for_each(|id| stage.come_up(id));
        all.iter().for_each(|id| stage.exit(id, CRASH));
        if stage.word(&all[0]) == "backoff" {
            stage.pass(secs(10));
        }
    }
    let mut slots = BTreeMap::new();
    for id in &all {
        let starts = stage.starts(id);
        assert_eq!(starts.len(), 5);
        *slots.entry(starts[4].0.as_millis() / 10).or_insert(0) += 1;
    }
    assert!(slots.len() >= 50, "{slots:?}");
}

/// Reliability 11: a short life is told of from its end.
#[test]
fn an_end_that_is_heard_of_before_the_beginning_is_one_end() {
    let web = id("web");
    let mut stage = Stage::one(rules(&[]));
    let first = stage.run(&web);
    stage.exit(&web, ExitStatus::Code(0));
    let second = stage.run(&web);
    assert_ne!(first, second);
    stage.news(first, News::Executed);
    stage.news(first, News::Spawned { pid: Pid(100) });
    let facts = ExitFacts { status: CRASH, oom_kills: 0 };
    stage.news(first, News::Exited { facts, group: GroupState::Empty });
    assert_eq!((stage.word(&web), stage.run(&web)), ("starting", second));
    assert_eq!(stage.node.instance(&web).unwrap().pid(), None, "not the pid of the other run");
    assert_eq!(stage.remarks(|kind| matches!(kind, RemarkKind::Ended(_))).len(), 1);
    assert_eq!(stage.has_asked(&Effect::Forget { run: first }).len(), 1);
}

/// Every order of these.
fn orders<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    let Some((last, rest)) = of.split_last() else { return vec![Vec::new()] };
    let insert = |order: Vec<T>| {
        (0..=order.len()).map(move |place| {
            let mut longer = order.clone();
            longer.insert(place, last.clone());
            longer
        })
    };
    orders(rest).into_iter().flat_map(|order| insert(order).collect::<Vec<_>>()).collect()
}

/// Reliability 12: the end of a run for want of memory, an operator's stop, a failed check and a
/// missed watchdog, all for the same run.
#[test]
fn what_ends_the_same_run_at_once_ends_it_once_in_every_order() {
    #[derive(Debug, Clone, Copy)]
    enum Blow {
        OutOfMemory,
        Stop,
        Unhealthy,
        Watchdog,
    }
    let all = orders(&[Blow::OutOfMemory, Blow::Stop, Blow::Unhealthy, Blow::Watchdog]);
    assert_eq!(all.len(), 24);
    let web = id("web");
    for order in all {
        let mut watched = rules(&[]);
        watched.watchdog = Some(secs(20));
        watched.unhealthy_threshold = 1;
        let mut stage = Stage::one(watched);
        stage.come_up(&web);
        let run = stage.run(&web);
        for blow in &order {
            match blow {
                Blow::OutOfMemory => {
                    let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
                    let facts = ExitFacts { status, oom_kills: 1 };
                    stage.news(run, News::Exited { facts, group: GroupState::Empty });
                }
                Blow::Stop => {
                    stage.take(Event::Command(Command::Stop(BTreeSet::from([web.clone()]))));
                }
                Blow::Unhealthy => {
                    let failed = Check::Failed("no answer within 5s".to_owned());
                    stage.news(run, News::Checked(failed));
                }
                Blow::Watchdog => stage.pass(secs(20)),
            }
        }
        // The run that may have followed obeys the stop.
        if stage.node.instance(&web).unwrap().run().is_some() {
            stage.exit(&web, ExitStatus::Code(0));
        }
        assert_eq!(stage.node.instance(&web).unwrap().phase, Phase::Stopped, "{order:?}");
        assert_eq!(stage.has_asked(&Effect::Forget { run }).len(), 1, "{order:?}");
        let ends = stage.asked.iter().filter(|(_, effect)| {
            let Effect::Note(remark) = effect else { return false };
            remark.run == Some(run) && matches!(remark.kind, RemarkKind::Ended(_))
        });
        assert_eq!(ends.count(), 1, "{order:?}");
    }
}

/// Reliability 33: strictly in reverse, and a stuck one holds up only what it needs.
#[test]
fn a_chain_of_five_stops_in_reverse_within_the_sum_of_its_graces() {
    let names = ["a", "b", "c", "d", "e"];
    let need = |index: usize| names[..index].last().map(|name| vec![*name]).unwrap_or_default();
    let mut services: Vec<_> =
        names.iter().enumerate().map(|(index, name)| (id(name), rules(&need(index)))).collect();
    services.push((id("free"), rules(&[])));
    let mut stage = Stage::new(services);
    for name in names.iter().chain(["free"].iter()) {
        stage.come_up(&id(name));
    }
    stage.pass(HOUR);
    let began = stage.now;
    stage.take(Event::Command(Command::Shutdown(Urgency::Orderly)));
    stage.exit(&id("free"), ExitStatus::Code(0));
    assert_eq!(stage.word(&id("free")), "stopped");
    for (index, name) in names.iter().enumerate().rev() {
        for other in &names[..index] {
            assert_eq!(stage.word(&id(other)), "ready", "{other} is needed by {name}");
        }
        assert_eq!(stage.word(&id(name)), "stopping");
        // It does not obey: the grace passes, and it is killed.
        stage.pass(secs(10));
        let run = stage.run(&id(name));
        assert_eq!(stage.has_asked(&Effect::KillGroup { run }), [stage.now]);
        stage.exit(&id(name), ExitStatus::Signal { number: Signal::KILL, core: Core::None });
    }
    let stopped = |effect: &Effect| {
        matches!(effect, Effect::Announce(blackhole_node::decide::Announcement::Stopped))
    };
    assert!(stage.asked.iter().any(|(_, effect)| stopped(effect)));
    assert_eq!(stage.now.since(began), 5 * secs(10));
}
