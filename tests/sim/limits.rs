//! Limits in the simulated world: operators and plans that change them, memory that comes down or
//! not, a kernel that refuses, or never answers.

use std::collections::BTreeMap;

use blackhole_node::decide::{
    ChangeId, Command, Effect, Event, LimitsRefusal, News, Phase, Rng, Usage,
};
use blackhole_node::plan::{GroupLimits, LimitLayer, LimitLayers};
use blackhole_node::units::{ByteSize, InstanceId, RunId, ServiceName};

use super::world::World;

/// Some limits of a file: most services have none.
pub fn some_limits(rng: &mut Rng) -> LimitLayers {
    let memory = (rng.below(3) == 0).then(|| ByteSize::mib(16 << rng.below(4)));
    let tasks = (rng.below(4) == 0).then(|| 10 + rng.below(90));
    let file = GroupLimits { memory, tasks, ..GroupLimits::default() };
    LimitLayers { file, operator: LimitLayer::default() }
}

impl World {
    /// An operator gives a service other limits.
    pub(super) fn set_limits(&mut self, service: &ServiceName) {
        if self.stopping || self.node.limits_are_changing(service) {
            return;
        }
        let memory = (!self.one_in(4)).then(|| ByteSize::mib(8 << self.rng.below(5)));
        let operator = LimitLayer { memory: Some(memory), ..LimitLayer::default() };
        let of_service = self.node.instances().filter(|(id, _)| id.service == *service);
        let former = of_service.map(|(id, instance)| (id.clone(), instance.limits.layers()));
        let former: BTreeMap<InstanceId, LimitLayers> = former.collect();
        let layers =
            former.iter().map(|(id, layers)| (id.clone(), LimitLayers { operator, ..*layers }));
        let layers = layers.collect();
        self.former_limits.insert(service.clone(), former);
        self.apply(Event::Command(Command::SetLimits(layers)));
    }

    /// What was set last for the service is not in force any more.
    pub(super) fn check_undone(&mut self, service: &ServiceName) {
        self.seen.insert("Undone");
        let former = self.former_limits.remove(service);
        let former = former.unwrap_or_else(|| panic!("{}: nothing to undo", self.place()));
        for (id, layers) in former {
            // A plan that came meanwhile has the last word.
            let Some(instance) = self.node.instance(&id) else { continue };
            let now = instance.limits.layers();
            assert!(now.operator == layers.operator, "{}: {id} is not undone", self.place());
        }
    }

    /// What a plan says otherwise than before is not undone by what an operator set earlier.
    pub(super) fn plan_has_the_last_word(&mut self, limits: &BTreeMap<InstanceId, LimitLayers>) {
        for (id, layers) in limits {
            let before = self.node.instance(id).map(|instance| instance.limits.layers());
            if let Some(former) = self.former_limits.get_mut(&id.service)
                && before != Some(*layers)
            {
                former.remove(id);
            }
        }
    }

    /// The kernel's side of a change of limits.
    pub(super) fn perform_limits(&mut self, effect: Effect) {
        match effect {
            Effect::ReadUsage { run, change } => self.tell_usage(run, change),
            Effect::Reclaim { run, change, bytes, .. } => {
                let stuck = self.trouble(3);
                if let Some(process) = self.processes.get_mut(&run)
                    && !stuck
                {
                    process.memory = process.memory.saturating_sub(bytes);
                }
                if !self.trouble(40) {
                    self.tell_usage(run, change);
                }
            }
            Effect::SetLimits { run, change, limits } => self.set_in_kernel(run, change, limits),
            Effect::UndoSetLimits { service } => self.check_undone(&service),
            Effect::Spawn { .. }
            | Effect::Signal { .. }
            | Effect::KillGroup { .. }
            | Effect::Clear { .. }
            | Effect::Forget { .. }
            | Effect::Retire { .. }
            | Effect::Announce(_)
            | Effect::Note(_) => unreachable!("not about limits"),
        }
    }

    fn tell_usage(&mut self, run: RunId, change: ChangeId) {
        let after = self.rng.below(20);
        let memory = self.processes.get(&run).map(|process| ByteSize(process.memory));
        let max = self.processes.get(&run).and_then(|process| process.limits.memory);
        let usage = Usage { memory, memory_max: max, memory_high: None };
        self.tell(run, after, News::Usage { change, usage });
    }

    fn set_in_kernel(&mut self, run: RunId, change: ChangeId, limits: GroupLimits) {
        if self.trouble(30) {
            return;
        }
        let after = self.rng.below(200);
        if self.trouble(10) {
            let refusal = LimitsRefusal::Kernel("cannot limit memory.max: EIO".to_owned());
            return self.tell(run, after, News::LimitsRefused { change, refusal });
        }
        let place = self.place();
        if let Some(process) = self.processes.get_mut(&run) {
            assert!(!process.forgotten, "{place}: limits of run {run}, which is over");
            let lowered = limits.memory.is_some_and(|max| max.0 < process.memory);
            let as_it_was = limits.memory == process.limits.memory;
            assert!(!lowered || as_it_was, "{place}: the kernel kills run {run} for its limit");
            process.limits = limits;
        }
        self.tell(run, after, News::LimitsSet { change });
    }

    /// Every run has the limits it is to have, or it is told why not.
    pub(super) fn assert_limits_hold(&self) {
        for (id, instance) in self.node.instances() {
            let Phase::Ready { run, .. } = &instance.phase else { continue };
            assert_eq!(instance.limits.change(), None, "{}: {id} waits for ever", self.place());
            let holds = self.processes[run].limits == instance.limits.in_force();
            let told = instance.limits.refusal().is_some();
            assert!(holds || told, "{}: {id} has other limits", self.place());
        }
    }
}
