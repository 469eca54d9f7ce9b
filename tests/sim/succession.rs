//! The orchestrator's death in the simulated world, and the one that goes on from what was saved.

use std::collections::BTreeMap;

use blackhole_node::decide::{
    AdoptedRun, Check, Command, Event, ExitFacts, GroupState, Membership, News, Node, Planned,
    Recency, Replan, SavedNode, broken_invariant, resume,
};
use blackhole_node::plan::{LimitLayers, Readiness, Rules};
use blackhole_node::units::{ExitStatus, InstanceId, RunId};

use super::oracle::Oracle;
use super::saved_form::as_read;
use super::world::{World, ms};

/// What the next orchestrator finds if this one dies now.
pub(super) struct Saved {
    pub(super) node: SavedNode,
    /// The plan that was in force then.
    pub(super) planned: BTreeMap<InstanceId, Planned>,
}

impl World {
    pub(super) fn save(&mut self) {
        self.saved = Saved { node: self.node.saved(), planned: self.planned() };
    }

    /// The plan in force.
    pub(super) fn planned(&self) -> BTreeMap<InstanceId, Planned> {
        let planned = self.node.instances().filter(|(_, i)| i.membership == Membership::Planned);
        let planned = planned.map(|(id, instance)| {
            let (rules, limits) = (instance.rules.clone(), instance.limits.layers());
            (id.clone(), Planned { rules, limits })
        });
        planned.collect()
    }

    /// The orchestrator dies in the middle of its effects, and another is started. What was only in
    /// the former's memory is lost; what the kernel holds is told again, but how a process ended
    /// perhaps nobody knows.
    pub(super) fn be_succeeded(&mut self) {
        self.seen.insert("Succeeded");
        self.now = self.now + ms(self.rng.below(5_000));
        self.say(|now| format!("{now:>9}ms the orchestrator is succeeded"));
        self.queue.retain(|_, event| keeps(event));
        if self.one_in(2) {
            for event in self.queue.values_mut() {
                if let Event::News { news: News::Exited { facts, .. }, .. } = event {
                    facts.status = ExitStatus::Unseen;
                }
            }
        }
        let planned = self.planned();
        self.former_limits.clear();
        if std::mem::take(&mut self.stopping) {
            self.end_all();
        }
        // An orderly end that was saved is not gone on with.
        if self.saved.node.is_ending() {
            return self.begin_anew(planned);
        }
        self.go_on();
        self.read_file_again(&planned);
    }

    /// Its orderly end had begun: the unit's `ExecStopPost=`, or the next one's sweep, leaves
    /// nothing of it.
    fn end_all(&mut self) {
        self.seen.insert("EndedAll");
        for process in self.processes.values_mut() {
            (process.main_alive, process.others) = (false, false);
        }
        for event in self.queue.values_mut() {
            if let Event::News { news: News::Exited { group, .. }, .. } = event {
                *group = GroupState::Empty;
            }
        }
    }

    /// With nothing but the configuration.
    fn begin_anew(&mut self, former: BTreeMap<InstanceId, Planned>) {
        self.seen.insert("BegunAnew");
        self.queue.clear();
        self.processes.clear();
        self.stillborn.clear();
        self.formerly.clear();
        let limits = limits_of(&self.file, &former);
        let planned = self.file.iter().map(|(id, rules)| {
            let limits = limits.get(id).copied().unwrap_or_default();
            (id.clone(), Planned { rules: rules.clone(), limits })
        });
        self.node = Node::new(planned, self.seed);
        self.oracle = Oracle::new(self.seed, self.now, self.file.clone());
        self.save();
        self.apply(Event::Tick);
    }

    /// From what was saved last.
    fn go_on(&mut self) {
        let mut saved =
            if self.one_in(3) { as_read(&self.saved.node) } else { self.saved.node.clone() };
        if self.one_in(6) {
            saved.recency = Recency::Outdated;
        }
        let over = self.processes.iter().filter(|(_, process)| process.forgotten);
        self.formerly = over.map(|(run, _)| *run).collect();
        // Later runs of an instance take the place of earlier ones.
        let adopted = self.processes.iter().filter(|(_, process)| !process.forgotten);
        let adopted =
            adopted.map(|(run, p)| (p.instance.clone(), AdoptedRun { run: *run, pid: p.pid }));
        let adopted: BTreeMap<InstanceId, AdoptedRun> = adopted.collect();
        let (node, effects) = resume(saved, &self.saved.planned, &adopted, self.now);
        self.node = node;
        self.oracle.go_on_from(&self.node, &effects, self.now);
        self.oracle.compare(&self.node);
        self.save();
        assert_eq!(broken_invariant(&self.node, self.now), None, "{}", self.place());
        self.sweep();
        for adopted in adopted.into_values() {
            if self.node.owner(adopted.run).is_some() {
                self.look_again(adopted.run);
            }
        }
        self.perform_all(effects);
    }

    /// What is not gone on with is ended.
    fn sweep(&mut self) {
        for (run, process) in &mut self.processes {
            if !process.forgotten && self.node.owner(*run).is_none() {
                (process.main_alive, process.others) = (false, false);
                process.forgotten = true;
                self.formerly.insert(*run);
            }
        }
    }

    /// The configuration may be another than was in force when the state was saved.
    fn read_file_again(&mut self, former: &BTreeMap<InstanceId, Planned>) {
        let before = self.planned();
        let limits = limits_of(&self.file, former);
        let other_limits = |(id, limits): (&InstanceId, &LimitLayers)| {
            before.get(id).is_none_or(|before| before.limits != *limits)
        };
        let same_rules = before.iter().map(|(id, planned)| (id, &planned.rules)).eq(&self.file);
        if same_rules && !limits.iter().any(other_limits) {
            return;
        }
        let differs = |id: &InstanceId, rules: &Rules| {
            before.get(id).is_some_and(|before| before.rules != *rules)
        };
        let relaunch = self.file.iter().filter(|(id, rules)| differs(id, rules));
        let relaunch = relaunch.map(|(id, _)| id.clone()).collect();
        let rules = self.file.clone();
        self.apply(Event::Command(Command::Replan(Replan { rules, limits, relaunch })));
    }

    /// What observers that are new to a run find out.
    fn look_again(&mut self, run: RunId) {
        self.tell(run, 1, News::Executed);
        let process = &self.processes[&run];
        if !process.main_alive {
            let group = if process.others { GroupState::Populated } else { GroupState::Empty };
            let facts = ExitFacts { status: ExitStatus::Unseen, oom_kills: 0 };
            return self.tell(run, 1, News::Exited { facts, group });
        }
        let Some(instance) = self.node.instance(&process.instance) else { return };
        match instance.rules.readiness {
            // The message is in the socket, or was read and saved.
            Readiness::Started | Readiness::Notify => {}
            Readiness::Grpc => self.tell(run, 20, News::Checked(Check::Healthy)),
            Readiness::Port(_) => self.tell(run, 20, News::PortOpen),
        }
    }
}

/// What the former one knew of the limits of those that are in the file.
fn limits_of(
    file: &BTreeMap<InstanceId, Rules>,
    former: &BTreeMap<InstanceId, Planned>,
) -> BTreeMap<InstanceId, LimitLayers> {
    let known = former.iter().filter(|(id, _)| file.contains_key(id));
    known.map(|(id, planned)| (id.clone(), planned.limits)).collect()
}

/// Whether the news is still to be had when the orchestrator that would have heard it is gone.
/// That a process ended is told again by its pidfd.
fn keeps(event: &Event) -> bool {
    match event {
        Event::News { news, .. } => matches!(news, News::Exited { .. } | News::Notice(_)),
        Event::Tick | Event::Command(_) => true,
    }
}
