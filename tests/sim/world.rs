//! The simulated world: fake processes, a virtual clock, a queue of news with random delays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackhole_node::decide::{
    Announcement, Check, Command, Effect, Event, ExitFacts, GroupState, Membership, Memory, News,
    Node, Notice, Phase, Planned, RemarkKind, Replan, Rng, SpawnFailure, StopReason, Urgency,
    Wanted, broken_invariant, step,
};
use blackhole_node::plan::{GroupLimits, LimitLayers, Readiness};
use blackhole_node::units::{Core, ExitStatus, InstanceId, Pid, RunId, ServiceName, Signal, Tick};

use super::limits::some_limits;
use super::samples::services;
use super::succession::Saved;
use super::words::{word, word_of_reason};

/// How long the world is full of faults, and how long it may take to heal or to stop.
const FAULTY: Duration = Duration::from_secs(600);
const HEALING: Duration = Duration::from_secs(900);
/// How long the faults go on in a stop.
const FAULTY_STOP: Duration = Duration::from_secs(20);
const STOPPING: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub(super) struct Process {
    pub(super) instance: InstanceId,
    pub(super) pid: Pid,
    pub(super) main_alive: bool,
    pub(super) others: bool,
    pub(super) end_is_due: bool,
    pub(super) ignores_term: bool,
    pub(super) cannot_be_killed_until: Tick,
    pub(super) forgotten: bool,
    /// Bytes in use.
    pub(super) memory: u64,
    /// What the kernel holds it to.
    pub(super) limits: GroupLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Faulty,
    Fair,
}

pub struct World {
    pub(super) seed: u64,
    pub(super) node: Node,
    pub(super) saved: Saved,
    pub(super) now: Tick,
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) queue: BTreeMap<(Tick, u64), Event>,
    pub(super) order: u64,
    pub(super) next_trouble: Tick,
    pub(super) processes: BTreeMap<RunId, Process>,
    /// Runs whose spawn failed: they never had a process.
    pub(super) stillborn: BTreeSet<RunId>,
    /// Runs that were over when the present orchestrator began.
    pub(super) formerly: BTreeSet<RunId>,
    pub(super) next_pid: i32,
    /// What the last `set-limits` of a service took the place of.
    pub(super) former_limits: BTreeMap<ServiceName, BTreeMap<InstanceId, LimitLayers>>,
    /// The present orchestrator announced that it stops: nothing is to live on.
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    pub(super) loud: bool,
    pub(super) log: Vec<String>,
    pub(super) seen: BTreeSet<&'static str>,
    pub steps: u64,
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0xb1ac);
        let planned = services(&mut rng).into_iter().map(|(id, rules)| {
            let limits = some_limits(&mut rng);
            (id, Planned { rules, limits })
        });
        let planned: BTreeMap<_, _> = planned.collect();
        let node = Node::new(planned.clone(), seed);
        Self {
            seed,
            saved: Saved { node: node.saved(), planned },
            node,
            now: Tick::ZERO,
            rng,
            weather: Weather::Faulty,
            queue: BTreeMap::new(),
            order: 0,
            next_trouble: Tick::ZERO,
            processes: BTreeMap::new(),
            stillborn: BTreeSet::new(),
            formerly: BTreeSet::new(),
            next_pid: 100,
            former_limits: BTreeMap::new(),
            stopping: false,
            stopped: false,
            loud: false,
            log: Vec::new(),
            seen: BTreeSet::new(),
            steps: 0,
        }
    }

    pub fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    pub fn log(&self) -> &[String] {
        &self.log
    }

    pub fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.clone()
    }

    /// A whole life: faults, healing, stop.
    pub fn live(&mut self) {
        self.apply(Event::Tick);
        // Some nodes are told to stop in the middle of their troubles.
        let stops_early = self.one_in(4);
        self.run_until(Tick::ZERO + FAULTY);
        if !stops_early {
            self.heal();
        }
        self.shut_down();
    }

    fn heal(&mut self) {
        self.weather = Weather::Fair;
        for process in self.processes.values_mut() {
            process.cannot_be_killed_until = Tick::ZERO;
            process.ignores_term = false;
        }
        let everything = self.node.instances().map(|(id, _)| id.clone()).collect();
        self.apply(Event::Command(Command::Restart(everything)));
        self.run_until(self.now + HEALING);
        for (id, instance) in self.node.instances() {
            let ready = matches!(instance.phase, Phase::Ready { .. });
            let reason = self.node.reason(id, self.now);
            assert!(ready, "{}: {id} is {} ({reason})", self.place(), instance.phase.word());
        }
        self.assert_limits_hold();
    }

    /// An orchestrator that dies of it, or in it, is started again and told once more.
    fn shut_down(&mut self) {
        self.tell_to_stop();
        if self.weather == Weather::Faulty {
            self.run_until(self.now + FAULTY_STOP);
        }
        self.weather = Weather::Fair;
        self.run_until(self.now + STOPPING);
        if !self.stopped {
            assert!(!self.stopping, "{}: the node did not stop", self.place());
            self.tell_to_stop();
            self.run_until(self.now + STOPPING);
        }
        assert!(self.stopped, "{}: the node did not stop", self.place());
    }

    fn tell_to_stop(&mut self) {
        let urgency = if self.one_in(5) { Urgency::Now } else { Urgency::Orderly };
        self.apply(Event::Command(Command::Shutdown(urgency)));
    }

    fn run_until(&mut self, end: Tick) {
        while !self.stopped {
            let heard = self.queue.keys().next().map(|(at, _)| *at);
            let due = self.node.next_deadline();
            let trouble = (self.weather == Weather::Faulty).then_some(self.next_trouble);
            let times = [heard, due, trouble, Some(end)];
            let Some(next) = times.into_iter().flatten().min() else { return };
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if trouble == Some(next) {
                self.next_trouble = self.now + ms(1 + self.rng.below(3_000));
                self.make_trouble();
            } else if heard == Some(next) {
                let (_, event) = self.queue.pop_first().expect("it was there a line above");
                self.apply(event);
            } else {
                // The loop may be late.
                self.now = self.now + ms(self.rng.below(30));
                self.apply(Event::Tick);
            }
        }
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.steps += 1;
        self.say(format!("{:>9}ms {event:?}", self.now.0.as_millis()));
        let is_command = matches!(event, Event::Command(_));
        let effects = step(&mut self.node, self.now, event);
        let broken = broken_invariant(&self.node, self.now);
        assert_eq!(broken, None, "{}", self.place());
        let dies = self.trouble(150);
        let count = u64::try_from(effects.len()).unwrap_or(0);
        let done = if dies { self.rng.below(count + 1) } else { count };
        self.perform_all(effects.into_iter().take(usize::try_from(done).unwrap_or(0)));
        if self.stopped {
            return;
        }
        if dies {
            return self.be_succeeded();
        }
        // Once it is done. What an operator said is saved at once, the rest a little later.
        if is_command || self.one_in(3) {
            self.save();
        }
    }

    pub(super) fn perform_all(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            self.say(format!("            -> {effect:?}"));
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { instance, run, limits } => self.spawn(&instance, run, limits),
            Effect::Signal { run, signal } => self.signal(run, signal),
            Effect::KillGroup { run } => self.kill(run),
            Effect::Clear { run } => self.clear(run),
            Effect::Forget { run } => self.forget(run),
            Effect::Retire { instance } => self.retire(&instance),
            effect @ (Effect::ReadUsage { .. }
            | Effect::Reclaim { .. }
            | Effect::SetLimits { .. }
            | Effect::UndoSetLimits { .. }) => self.perform_limits(effect),
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Note(remark) => {
                self.seen.insert(word(&remark.kind));
                if let RemarkKind::Stopping(reason) = &remark.kind {
                    self.seen.extend(word_of_reason(reason));
                }
            }
        }
    }

    fn retire(&mut self, id: &InstanceId) {
        assert!(self.node.instance(id).is_none(), "{}: {id} is retired, and there", self.place());
        for (run, process) in &self.processes {
            let left = process.instance == *id && (process.main_alive || process.others);
            assert!(!left, "{}: {id} is retired before {run}", self.place());
        }
    }

    fn announce(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Ready => {}
            Announcement::Stopping => {
                self.seen.insert("Announced");
                self.stopping = true;
            }
            Announcement::Stopped => {
                let left = self.processes.values().filter(|p| p.main_alive || p.others).count();
                assert_eq!(left, 0, "{}: orphans", self.place());
                assert!(self.stopping, "{}: never announced", self.place());
                self.stopped = true;
            }
        }
    }

    fn spawn(&mut self, id: &InstanceId, run: RunId, limits: GroupLimits) {
        assert!(!self.stopping, "{}: a spawn in a shutdown", self.place());
        for (other, process) in &self.processes {
            let left = process.main_alive || process.others;
            assert!(process.instance != *id || !left, "{}: {run} beside {other}", self.place());
        }
        self.assert_needs_are_met(id);
        if self.trouble(12) {
            let failure = SpawnFailure("no memory for a process".to_owned());
            self.stillborn.insert(run);
            return self.tell(run, 0, News::SpawnFailed(failure));
        }
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let faulty = self.weather == Weather::Faulty;
        let process = Process {
            instance: id.clone(),
            pid,
            main_alive: true,
            others: self.trouble(6),
            end_is_due: false,
            ignores_term: self.trouble(5),
            cannot_be_killed_until: Tick::ZERO,
            forgotten: false,
            memory: 1 << (20 + self.rng.below(7)),
            limits,
        };
        self.processes.insert(run, process);
        if !faulty || !self.one_in(20) {
            self.tell(run, 0, News::Spawned { pid });
        } else {
            let late = self.rng.below(5);
            self.tell(run, late, News::Spawned { pid });
        }
        if self.trouble(15) {
            self.tell(run, 1, News::ExecFailed(SpawnFailure("no such file".to_owned())));
            return self.end_main(run, 2, ExitStatus::Code(127));
        }
        self.grow_up(id, run);
    }

    fn assert_needs_are_met(&self, id: &InstanceId) {
        let rules = &self.node.instance(id).expect("only known instances are spawned").rules;
        for (other, state) in self.node.instances() {
            let met = matches!(state.phase, Phase::Ready { .. } | Phase::Stopped);
            let stays = state.membership == Membership::Planned;
            let needed = stays && rules.needs.contains(&other.service);
            assert!(met || !needed, "{}: {id} started before {other}", self.place());
        }
    }

    /// The process begins its work: signs of readiness, and perhaps an early end.
    fn grow_up(&mut self, id: &InstanceId, run: RunId) {
        self.tell(run, 1, News::Executed);
        if self.trouble(4) {
            let after = self.rng.below(2_000);
            let status = self.some_end();
            self.end_main(run, after, status);
        }
        if self.trouble(8) {
            return;
        }
        let after = 2 + self.rng.below(400);
        let readiness = self.node.instance(id).expect("spawned a moment ago").rules.readiness;
        match readiness {
            Readiness::Started => {}
            Readiness::Notify => self.tell(run, after, News::Notice(Notice::Ready)),
            Readiness::Grpc => self.tell(run, after, News::Checked(Check::Healthy)),
            Readiness::Port(_) => self.tell(run, after, News::PortOpen),
        }
    }

    fn some_end(&mut self) -> ExitStatus {
        match self.rng.below(5) {
            0 => ExitStatus::Code(0),
            1 => ExitStatus::Signal { number: Signal(11), core: Core::Dumped },
            2 => ExitStatus::Signal { number: Signal::KILL, core: Core::None },
            _ => ExitStatus::Code(1),
        }
    }

    fn end_main(&mut self, run: RunId, after: u64, status: ExitStatus) {
        let oom_kills = u64::from(self.trouble(10));
        let at = self.now + ms(after);
        let Some(process) = self.processes.get_mut(&run) else { return };
        if !process.main_alive || process.end_is_due {
            return;
        }
        process.end_is_due = true;
        let group = if process.others { GroupState::Populated } else { GroupState::Empty };
        let facts = ExitFacts { status, oom_kills };
        self.order += 1;
        let news = News::Exited { facts, group };
        self.queue.insert((at, self.order), Event::News { run, news });
        // From here on the process is as good as gone: what the core can still do does not matter.
        process.main_alive = false;
    }

    fn signal(&mut self, run: RunId, signal: Signal) {
        if self.stillborn.contains(&run) {
            return;
        }
        let place = self.place();
        let after = self.rng.below(300);
        let process = self.processes.get(&run);
        let process = process.unwrap_or_else(|| panic!("{place}: {signal} to unknown run {run}"));
        assert!(!process.forgotten, "{place}: {signal} to run {run}, which is over");
        self.assert_stop_order(run);
        if !self.processes[&run].ignores_term {
            self.end_main(run, after, ExitStatus::Signal { number: signal, core: Core::None });
        }
    }

    /// In an orderly stop nobody is told to go while somebody who needs it is still there.
    fn assert_stop_order(&self, run: RunId) {
        let id = &self.processes[&run].instance;
        let Some(instance) = self.node.instance(id) else { return };
        let Phase::Stopping { reason: StopReason::Shutdown, .. } = &instance.phase else { return };
        for (other, state) in self.node.instances() {
            let needs_it = state.rules.needs.contains(&id.service);
            let gone = state.phase.is_at_rest();
            assert!(!needs_it || gone, "{}: {id} stops before {other}", self.place());
        }
    }

    fn kill(&mut self, run: RunId) {
        if self.stillborn.contains(&run) {
            return;
        }
        let place = self.place();
        let stuck = self.trouble(10).then(|| self.now + ms(self.rng.below(20_000)));
        let now = self.now;
        let process = self.processes.get_mut(&run);
        let process = process.unwrap_or_else(|| panic!("{place}: kill of unknown run {run}"));
        assert!(!process.forgotten, "{place}: kill of run {run}, which is over");
        if let Some(until) = stuck {
            process.cannot_be_killed_until = until;
        }
        if now >= process.cannot_be_killed_until {
            process.others = false;
            let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
            self.end_main(run, 1, status);
        }
    }

    fn clear(&mut self, run: RunId) {
        let after = if self.trouble(8) { 7_000 } else { self.rng.below(50) };
        let process = self.processes.get_mut(&run).expect("only known runs are cleared");
        assert!(!process.main_alive && !process.forgotten);
        process.others = false;
        self.tell(run, after, News::GroupEmpty);
    }

    fn forget(&mut self, run: RunId) {
        let place = self.place();
        if self.stillborn.contains(&run) {
            return;
        }
        let process = self.processes.get_mut(&run).expect("only known runs are forgotten");
        let left = process.main_alive || process.others;
        assert!(!left, "{place}: run {run} is forgotten with processes left");
        let twice = process.forgotten && !self.formerly.contains(&run);
        assert!(!twice, "{place}: run {run} is forgotten twice");
        process.forgotten = true;
    }

    /// Something goes wrong, or an operator does something.
    fn make_trouble(&mut self) {
        let Some(run) = self.some_run() else { return };
        match self.rng.below(14) {
            0 | 1 => {
                let status = self.some_end();
                self.end_main(run, 0, status);
            }
            2 => {
                self.end_main(run, 0, ExitStatus::Signal { number: Signal::KILL, core: Core::None })
            }
            3..=6 => {
                let failed = Check::Failed("no answer within 5s".to_owned());
                let check = [Check::Healthy, failed.clone(), failed, Check::Starved];
                let which = usize::try_from(self.rng.below(4)).unwrap_or(0);
                self.tell(run, 0, News::Checked(check[which].clone()));
            }
            7 => {
                let notices = [
                    Notice::Ready,
                    Notice::Stopping,
                    Notice::Watchdog,
                    Notice::WatchdogTrigger,
                    Notice::ExtendTimeout(ms(5_000)),
                    Notice::Status("busy".to_owned()),
                ];
                let which = usize::try_from(self.rng.below(6)).unwrap_or(0);
                self.tell(run, 0, News::Notice(notices[which].clone()));
            }
            8 => {
                let memory = [Memory::Short, Memory::Enough];
                let which = usize::try_from(self.rng.below(2)).unwrap_or(0);
                self.tell(run, 0, News::Memory(memory[which]));
            }
            9 => self.repeat_old_news(run),
            _ => self.operator_acts(),
        }
    }

    /// News about some run, old or new, that may have been told before.
    fn repeat_old_news(&mut self, run: RunId) {
        let process = &self.processes[&run];
        let status = ExitStatus::Code(3);
        let facts = ExitFacts { status, oom_kills: 0 };
        let pid = process.pid;
        if process.forgotten {
            let news = [
                News::Exited { facts, group: GroupState::Empty },
                News::GroupEmpty,
                News::Spawned { pid },
                News::Notice(Notice::Stopping),
                News::Executed,
            ];
            for news in news {
                self.tell(run, 0, news);
            }
        } else {
            self.tell(run, 0, News::Executed);
            self.tell(run, 0, News::PortOpen);
        }
    }

    fn operator_acts(&mut self) {
        let ids: Vec<InstanceId> = self.node.instances().map(|(id, _)| id.clone()).collect();
        let count = u64::try_from(ids.len()).unwrap_or(1);
        let which = usize::try_from(self.rng.below(count)).unwrap_or(0);
        let chosen = BTreeSet::from([ids[which].clone()]);
        let service = ids[which].service.clone();
        let command = match self.rng.below(7) {
            0 => Command::Stop(chosen),
            1 => Command::Restart(chosen),
            2 | 3 => return self.configuration_changes(),
            4 => return self.set_limits(&service),
            _ => Command::Start(chosen),
        };
        self.apply(Event::Command(command));
    }

    /// Instances come and go, rules change, some need another process.
    fn configuration_changes(&mut self) {
        let rng = &mut self.rng;
        let mut rules = BTreeMap::new();
        let mut limits = BTreeMap::new();
        let mut relaunch = BTreeSet::new();
        for (id, instance) in self.node.instances() {
            if id.index != 0 && rng.below(4) == 0 {
                continue;
            }
            let mut now = instance.rules.clone();
            if rng.below(6) == 0 {
                now.restart.max_restarts = u32::try_from(rng.below(7)).unwrap_or(5);
                now.stop_timeout = ms(500 + rng.below(5_000));
                relaunch.insert(id.clone());
            }
            if rng.below(6) == 0 {
                let more = InstanceId::new(id.service.clone(), id.index + 1);
                rules.entry(more).or_insert_with(|| now.clone());
            }
            if rng.below(5) == 0 {
                limits.insert(id.clone(), some_limits(rng));
            }
            rules.insert(id.clone(), now);
        }
        let before: BTreeMap<InstanceId, Wanted> =
            self.node.instances().map(|(id, i)| (id.clone(), i.wanted)).collect();
        self.plan_has_the_last_word(&limits);
        let replan = Replan { rules: rules.clone(), limits, relaunch };
        self.apply(Event::Command(Command::Replan(replan)));
        if self.stopping {
            return;
        }
        for (id, instance) in self.node.instances() {
            let planned = rules.contains_key(id);
            let membership = if planned { Membership::Planned } else { Membership::Retiring };
            assert_eq!(instance.membership, membership, "{}: {id}", self.place());
            let new = !before.contains_key(id);
            assert!(!new || instance.wanted == Wanted::Up, "{}: {id}", self.place());
        }
        let missing = rules.keys().find(|id| self.node.instance(id).is_none());
        assert_eq!(missing, None, "{}", self.place());
    }

    fn some_run(&mut self) -> Option<RunId> {
        let count = u64::try_from(self.processes.len()).unwrap_or(0);
        let which = usize::try_from(self.rng.below(count.max(1))).unwrap_or(0);
        // The newest runs are the interesting ones.
        let recent = which % 8;
        self.processes.keys().rev().nth(recent).or(self.processes.keys().next()).copied()
    }

    pub(super) fn tell(&mut self, run: RunId, after: u64, news: News) {
        self.order += 1;
        self.queue.insert((self.now + ms(after), self.order), Event::News { run, news });
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    pub(super) fn trouble(&mut self, one_in: u64) -> bool {
        self.weather == Weather::Faulty && self.one_in(one_in)
    }

    pub(super) fn say(&mut self, line: String) {
        if self.loud {
            println!("{line}");
        }
        self.log.push(line);
    }

    pub(super) fn place(&self) -> String {
        format!("SIM_SEED={} at {}ms", self.seed, self.now.0.as_millis())
    }
}
