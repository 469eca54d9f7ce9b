//! The orchestrator's death in the simulated world, and the one that goes on from what was saved.

use std::collections::BTreeMap;
use std::time::Duration;

use blackhole_node::act::{Checkpoint, CheckpointForm, State};
use blackhole_node::config::RuntimeOverrides;
use blackhole_node::decide::{
    AdoptedRun, Check, Event, ExitFacts, GroupState, Membership, News, Planned, SavedNode,
    broken_invariant, resume,
};
use blackhole_node::plan::Readiness;
use blackhole_node::units::{ExitStatus, InstanceId, RunId};

use super::world::{World, ms};

impl World {
    /// The orchestrator dies in the middle of its effects, and another goes on from what was saved
    /// last. What was only in the former's memory is lost; what the kernel
    /// holds is told again, but how a process ended perhaps nobody knows.
    pub(super) fn be_succeeded(&mut self) {
        self.seen.insert("Succeeded");
        self.now = self.now + ms(self.rng.below(5_000));
        self.say(format!("{:>9}ms the orchestrator is succeeded", self.now.0.as_millis()));
        let saved = as_read(&self.saved);
        let unseen = self.one_in(2);
        self.queue.retain(|_, event| keeps(event));
        if unseen {
            for event in self.queue.values_mut() {
                if let Event::News { news: News::Exited { facts, .. }, .. } = event {
                    facts.status = ExitStatus::Unseen;
                }
            }
        }
        let over = self.processes.iter().filter(|(_, process)| process.forgotten);
        self.formerly = over.map(|(run, _)| *run).collect();
        // Later runs of an instance take the place of earlier ones.
        let adopted = self.processes.iter().filter(|(_, process)| !process.forgotten);
        let adopted =
            adopted.map(|(run, p)| (p.instance.clone(), AdoptedRun { run: *run, pid: p.pid }));
        let adopted: BTreeMap<InstanceId, AdoptedRun> = adopted.collect();
        let planned = self.node.instances().filter(|(_, i)| i.membership == Membership::Planned);
        let planned = planned.map(|(id, instance)| {
            let (rules, limits) = (instance.rules.clone(), instance.limits.layers());
            (id.clone(), Planned { rules, limits })
        });
        let (node, effects) = resume(saved, &planned.collect(), &adopted, self.now);
        self.former_limits.clear();
        self.saved = node.saved();
        self.node = node;
        assert_eq!(broken_invariant(&self.node, self.now), None, "{}", self.place());
        for adopted in adopted.into_values() {
            self.look_again(adopted.run);
        }
        self.perform_all(effects);
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

/// What the next orchestrator reads, in whatever form it is written.
fn as_read(node: &SavedNode) -> SavedNode {
    let (boot, began_at) = ("boot".to_owned(), Duration::ZERO);
    let state = State {
        generation: 1,
        began_at,
        config: String::new(),
        overrides: RuntimeOverrides::default(),
        node: node.clone(),
    };
    let written = Checkpoint { sequence: 0, boot, state, runs: BTreeMap::new() };
    for form in CheckpointForm::ALL {
        let bytes = form.write(&written).unwrap();
        let read = form.read(&bytes, (&written.boot, began_at)).unwrap();
        assert_eq!((&read.node, read.remarks.as_slice()), (node, [].as_slice()), "{form:?}");
    }
    written.state.node
}

/// Whether the news is still to be had when the orchestrator that would have heard it is gone.
/// That a process ended is told again by its pidfd.
fn keeps(event: &Event) -> bool {
    match event {
        Event::News { news, .. } => matches!(news, News::Exited { .. } | News::Notice(_)),
        Event::Tick | Event::Command(_) => true,
    }
}
