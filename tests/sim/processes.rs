//! The processes of the simulated world: they are born, come up, feed their watchdog, ask for more
//! time, obey a signal or not, and end. What a kernel would tell of them is told to the node.

use std::time::Duration;

use blackhole_node::decide::Event;
use blackhole_node::decide::{Check, ExitFacts, GroupState, News, Notice, SpawnFailure};
use blackhole_node::plan::{GroupLimits, Readiness, Rules};
use blackhole_node::units::{Core, ExitStatus, InstanceId, Pid, RunId, Signal, Tick};

use super::world::{Weather, World, ms};

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
    /// From one `WATCHDOG=1` to the next, by the `WATCHDOG_USEC` it was started with.
    beat: Option<Duration>,
    next_beat: Tick,
}

impl World {
    pub(super) fn spawn(&mut self, id: &InstanceId, run: RunId, limits: GroupLimits) {
        assert!(!self.stopping, "{}: a spawn in a shutdown", self.place());
        for (other, process) in &self.processes {
            let left = process.main_alive || process.others;
            assert!(process.instance != *id || !left, "{}: {run} beside {other}", self.place());
        }
        if self.trouble(12) {
            let failure = SpawnFailure("no memory for a process".to_owned());
            self.stillborn.insert(run);
            return self.tell(run, 0, News::SpawnFailed(failure));
        }
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let faulty = self.weather == Weather::Faulty;
        let rules = self.oracle.instances.get(id).map(|it| it.rules.clone());
        let rules = rules.unwrap_or_else(|| panic!("{}: {id} is not known", self.place()));
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
            beat: rules.watchdog.map(|patience| patience / 2),
            next_beat: Tick::ZERO,
        };
        self.processes.insert(run, process);
        let late = if faulty && self.one_in(20) { self.rng.below(5) } else { 0 };
        self.tell(run, late, News::Spawned { pid });
        if self.trouble(15) {
            self.tell(run, 1, News::ExecFailed(SpawnFailure("no such file".to_owned())));
            return self.end_main(run, 2, ExitStatus::Code(127));
        }
        self.grow_up(run, &rules);
    }

    /// The process begins its work: signs of readiness, and perhaps an early end.
    fn grow_up(&mut self, run: RunId, rules: &Rules) {
        self.tell(run, 1, News::Executed);
        if self.trouble(4) {
            let after = self.rng.below(2_000);
            let status = self.some_end();
            self.end_main(run, after, status);
        }
        if self.trouble(8) {
            return;
        }
        let mut after = 2 + self.rng.below(400);
        if self.trouble(8) {
            after += self.ask_for_time(run, rules.start_timeout);
        }
        match rules.readiness {
            Readiness::Started => {}
            Readiness::Notify => self.tell(run, after, News::Notice(Notice::Ready)),
            Readiness::Grpc => self.tell(run, after, News::Checked(Check::Healthy)),
            Readiness::Port(_) => self.tell(run, after, News::PortOpen),
        }
        self.beat_after(run, after);
    }

    /// It takes several times as long as it may, and says so in time, or too late. Gives how long.
    fn ask_for_time(&mut self, run: RunId, timeout: Duration) -> u64 {
        self.seen.insert("Extended");
        let timeout = u64::try_from(timeout.as_millis()).unwrap();
        let mut asked_at = timeout / 2;
        for _ in 0..1 + self.rng.below(4) {
            let by = self.rng.below(2 * timeout);
            self.tell(run, asked_at, News::Notice(Notice::ExtendTimeout(ms(by))));
            asked_at += self.rng.below(timeout);
        }
        asked_at
    }

    /// So many milliseconds from now, and then regularly.
    fn beat_after(&mut self, run: RunId, after: u64) {
        let at = self.now + ms(after);
        let Some(process) = self.processes.get_mut(&run) else { return };
        let Some(beat) = process.beat else { return };
        process.next_beat = at + beat;
        let after = after + u64::try_from(beat.as_millis()).unwrap();
        self.tell(run, after, News::Notice(Notice::Watchdog));
    }

    /// It sends the next one in time, unless it hangs.
    pub(super) fn go_on_beating(&mut self, event: &Event) {
        let Event::News { run, news: News::Notice(Notice::Watchdog) } = event else { return };
        let now = self.now;
        let is_its_own =
            self.processes.get(run).is_some_and(|p| p.main_alive && p.next_beat <= now);
        if !is_its_own {
            return;
        }
        if self.trouble(25) {
            self.seen.insert("Hung");
            return;
        }
        self.beat_after(*run, 0);
    }

    pub(super) fn some_end(&mut self) -> ExitStatus {
        match self.rng.below(6) {
            0 | 1 => ExitStatus::Code(0),
            2 => ExitStatus::Signal { number: Signal(11), core: Core::Dumped },
            3 => ExitStatus::Signal { number: Signal::KILL, core: Core::None },
            _ => ExitStatus::Code(1),
        }
    }

    pub(super) fn end_main(&mut self, run: RunId, after: u64, status: ExitStatus) {
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

    pub(super) fn signal(&mut self, run: RunId, signal: Signal) {
        if self.stillborn.contains(&run) {
            return;
        }
        let place = self.place();
        let after = self.rng.below(300);
        let process = self.processes.get(&run);
        let process = process.unwrap_or_else(|| panic!("{place}: {signal} to unknown run {run}"));
        assert!(!process.forgotten, "{place}: {signal} to run {run}, which is over");
        if !process.ignores_term {
            return self.end_main(
                run,
                after,
                ExitStatus::Signal { number: signal, core: Core::None },
            );
        }
        if self.trouble(2) {
            self.ask_for_time(run, ms(2_000));
        }
    }

    pub(super) fn kill(&mut self, run: RunId) {
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

    pub(super) fn clear(&mut self, run: RunId) {
        let after = if self.trouble(8) { 7_000 } else { self.rng.below(50) };
        let process = self.processes.get_mut(&run).expect("only known runs are cleared");
        assert!(!process.main_alive && !process.forgotten);
        process.others = false;
        self.tell(run, after, News::GroupEmpty);
    }

    pub(super) fn forget(&mut self, run: RunId) {
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

    pub(super) fn retire(&mut self, id: &InstanceId) {
        for (run, process) in &self.processes {
            let left = process.instance == *id && (process.main_alive || process.others);
            assert!(!left, "{}: {id} is retired before {run}", self.place());
        }
    }

    /// Every planned instance serves, by a process that is there.
    pub(super) fn assert_all_are_up(&self) {
        let late = self.oracle.who_is_not_up();
        let why = late.map(|id| self.node.reason(id, self.now));
        assert!(late.is_none(), "{}: {late:?} is not up ({why:?})", self.place());
        for (run, id) in &self.oracle.runs {
            let alive = self.processes.get(run).is_some_and(|process| process.main_alive);
            assert!(alive, "{}: {id} serves without a process", self.place());
        }
    }
}
