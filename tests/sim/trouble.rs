//! What goes wrong in the simulated world, and what operators do, also in the middle of a shutdown.

use std::collections::{BTreeMap, BTreeSet};

use blackhole_node::decide::{
    Check, Command, Event, ExitFacts, GroupState, Memory, News, Notice, Replan, Rng, Urgency,
};
use blackhole_node::plan::Rules;
use blackhole_node::units::{Core, ExitStatus, InstanceId, RunId, ServiceName, Signal};

use super::limits::some_limits;
use super::samples::{self, SERVICES};
use super::world::{World, ms};

impl World {
    /// Something goes wrong, or an operator does something.
    pub(super) fn make_trouble(&mut self) {
        let Some(run) = self.some_run() else { return };
        match self.rng.below(14) {
            0 | 1 => {
                let status = self.some_end();
                self.end_main(run, 0, status);
            }
            2 => {
                let status = ExitStatus::Signal { number: Signal::KILL, core: Core::None };
                self.end_main(run, 0, status);
            }
            3..=6 => {
                let failed = Check::Failed("no answer within 5s".to_owned());
                let checks = [Check::Healthy, failed.clone(), failed, Check::Starved];
                let check = self.one_of(&checks);
                self.tell(run, 0, News::Checked(check));
            }
            7 => {
                let by = ms(self.rng.below(10_000));
                let notices = [
                    Notice::Ready,
                    Notice::Stopping,
                    Notice::Watchdog,
                    Notice::WatchdogTrigger,
                    Notice::ExtendTimeout(by),
                    Notice::Status("busy".to_owned()),
                ];
                let notice = self.one_of(&notices);
                self.tell(run, 0, News::Notice(notice));
            }
            8 => {
                let memory = self.one_of(&[Memory::Short, Memory::Enough]);
                self.tell(run, 0, News::Memory(memory));
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
        if ids.is_empty() {
            return;
        }
        let one = self.one_of(&ids);
        let mut chosen = BTreeSet::from([one.clone()]);
        if self.one_in(4) {
            chosen.insert(self.one_of(&ids));
        }
        if self.stopping {
            self.seen.insert("InAShutdown");
        }
        let command = match self.rng.below(8) {
            0 => Command::Stop(chosen),
            1 => Command::Restart(chosen),
            2 | 3 => return self.configuration_changes(),
            4 => return self.set_limits(&one.service),
            5 if self.stopping => Command::Shutdown(Urgency::Now),
            _ => Command::Start(chosen),
        };
        self.apply(Event::Command(command));
    }

    /// The file is edited and read: instances and services come and go, rules change, needs are
    /// turned round, some need another process. In a shutdown the node does not take it.
    fn configuration_changes(&mut self) {
        let rng = &mut self.rng;
        let mut relaunch = BTreeSet::new();
        let mut rules = BTreeMap::new();
        for (id, before) in &self.file {
            if id.index != 0 && rng.below(4) == 0 {
                continue;
            }
            let mut now = before.clone();
            if rng.below(6) == 0 {
                samples::change(&mut now, rng);
                if rng.below(3) != 0 {
                    relaunch.insert(id.clone());
                }
            }
            if rng.below(6) == 0 {
                let more = InstanceId::new(id.service.clone(), id.index + 1);
                rules.entry(more).or_insert_with(|| now.clone());
            }
            rules.insert(id.clone(), now);
        }
        if rng.below(8) == 0 {
            come_or_go(&mut rules, rng);
            self.seen.insert("ServicesChanged");
        }
        if rng.below(3) == 0 {
            samples::turn_needs(&mut rules, rng);
            self.seen.insert("NeedsChanged");
        }
        let mut limits = BTreeMap::new();
        for id in rules.keys() {
            if rng.below(5) == 0 {
                limits.insert(id.clone(), some_limits(rng));
            }
        }
        if !self.stopping {
            self.plan_has_the_last_word(&limits);
        }
        self.file.clone_from(&rules);
        self.apply(Event::Command(Command::Replan(Replan { rules, limits, relaunch })));
    }

    fn some_run(&mut self) -> Option<RunId> {
        let count = u64::try_from(self.processes.len()).unwrap_or(0);
        let which = usize::try_from(self.rng.below(count.max(1))).unwrap_or(0);
        // The newest runs are the interesting ones.
        let recent = which % 8;
        self.processes.keys().rev().nth(recent).or(self.processes.keys().next()).copied()
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        samples::one_of(all, &mut self.rng)
    }
}

/// One service is no longer in the file, or another is there, or there again.
fn come_or_go(rules: &mut BTreeMap<InstanceId, Rules>, rng: &mut Rng) {
    let name: ServiceName = samples::one_of(&SERVICES, rng).parse().unwrap();
    let mut others = rules.keys().filter(|id| id.service != name);
    if others.next().is_none() {
        return;
    }
    if rules.keys().any(|id| id.service == name) {
        rules.retain(|id, _| id.service != name);
        for rules in rules.values_mut() {
            rules.needs.retain(|need| *need != name);
            rules.restart_with.retain(|leader| *leader != name);
        }
    } else {
        rules.insert(InstanceId::new(name, 0), samples::rules(Vec::new(), rng));
    }
}
