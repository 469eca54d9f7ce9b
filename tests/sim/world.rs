//! The simulated world: fake processes, a virtual clock, a queue of news with random delays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackhole_node::decide::{
    Announcement, Command, Effect, Event, News, Node, Planned, RemarkKind, Rng, Urgency,
    broken_invariant, step,
};
use blackhole_node::plan::{LimitLayers, Rules};
use blackhole_node::units::{InstanceId, RunId, ServiceName, Tick};

use super::limits::some_limits;
use super::oracle::Oracle;
use super::processes::Process;
use super::samples::services;
use super::succession::Saved;
use super::words::{word, word_of_reason};

/// How long the world is full of faults, and how long it may take to heal or to stop.
const FAULTY: Duration = Duration::from_secs(600);
const HEALING: Duration = Duration::from_secs(900);
/// How long the faults go on in a stop.
const FAULTY_STOP: Duration = Duration::from_secs(20);
const STOPPING: Duration = Duration::from_secs(900);

/// Many times what a history takes.
const STEPS_MOST: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Faulty,
    Fair,
}

pub struct World {
    pub(super) seed: u64,
    pub(super) node: Node,
    /// What the node is to do by the world's own reckoning.
    pub(super) oracle: Oracle,
    /// The rules as the configuration has them now.
    pub(super) file: BTreeMap<InstanceId, Rules>,
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
    /// Whether the history is written down.
    pub(super) kept: bool,
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
        let file = services(&mut rng);
        let planned = file.iter().map(|(id, rules)| {
            let (rules, limits) = (rules.clone(), some_limits(&mut rng));
            (id.clone(), Planned { rules, limits })
        });
        let planned: BTreeMap<_, _> = planned.collect();
        let node = Node::new(planned.clone(), seed);
        Self {
            seed,
            saved: Saved { node: node.saved(), planned },
            node,
            oracle: Oracle::new(seed, Tick::ZERO, file.clone()),
            file,
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
            kept: false,
            log: Vec::new(),
            seen: BTreeSet::new(),
            steps: 0,
        }
    }

    pub fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    pub fn kept(mut self) -> Self {
        self.kept = true;
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
        self.assert_all_are_up();
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
        assert!(self.steps < STEPS_MOST, "{}: without end", self.place());
        self.say(|now| format!("{now:>9}ms {event:?}"));
        let is_command = matches!(event, Event::Command(_));
        self.oracle.hear(self.now, &event);
        self.go_on_beating(&event);
        let effects = step(&mut self.node, self.now, event);
        self.oracle.judge(&effects);
        self.oracle.compare(&self.node);
        // The core looks itself where it is built with its checks.
        if !cfg!(debug_assertions) {
            assert_eq!(broken_invariant(&self.node, self.now), None, "{}", self.place());
        }
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
            self.say(|_| format!("            -> {effect:?}"));
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

    /// A line of the history, with the milliseconds since its beginning.
    pub(super) fn say(&mut self, line: impl FnOnce(u128) -> String) {
        if !self.loud && !self.kept {
            return;
        }
        let line = line(self.now.0.as_millis());
        if self.loud {
            println!("{line}");
        }
        self.log.push(line);
    }

    pub(super) fn place(&self) -> String {
        format!("SIM_SEED={} at {}ms", self.seed, self.now.0.as_millis())
    }
}
