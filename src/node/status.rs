//! The status as the operator and the gateway are told it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::host::Host;
use crate::act::{Act, LimitInForce};
use crate::config::NodeConfig;
use crate::decide::{Instance, Memory, Node, NodePhase, Phase};
use crate::linux::cgroupfs::LimitEvents;
use crate::linux::{process, procfs};
use crate::observe::usage::{self, Usage};
use crate::plan::GroupLimit;
use crate::rpc::pb::node as pb;
use crate::telemetry::{Form, LogStore};
use crate::units::{ByteSize, InstanceId, RunId, Tick};

/// Two samples of processor time that are closer together than this give no useful percentage.
const SAMPLES_APART: Duration = Duration::from_millis(200);

/// The last samples of processor time, from which percentages are computed.
#[derive(Debug, Default)]
pub(super) struct CpuSamples {
    runs: BTreeMap<RunId, CpuSample>,
    own: Option<CpuSample>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Tick,
    cpu: Duration,
    percent: f64,
}

/// Everything that a status is made from.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) node: &'a Node,
    pub(super) act: &'a Act,
    pub(super) host: &'a Host,
    pub(super) config: &'a NodeConfig,
    pub(super) log_store: &'a LogStore,
    pub(super) now: Tick,
    /// The wall clock now, in microseconds since 1970.
    pub(super) unix_us: i64,
    pub(super) generation: u32,
}

impl View<'_> {
    /// The status of the node and of those instances for which `wanted` holds.
    pub(super) fn status(
        &self,
        samples: &mut CpuSamples,
        wanted: impl Fn(&InstanceId) -> bool,
    ) -> pb::NodeStatus {
        samples.runs.retain(|run, _| self.node.owner(*run).is_some());
        let chosen = self.node.instances().filter(|(id, _)| wanted(id));
        pb::NodeStatus {
            node: Some(self.node_info(samples)),
            instances: chosen.map(|(id, instance)| self.instance(id, instance, samples)).collect(),
            disabled: self.act.plan().disabled.iter().map(ToString::to_string).collect(),
        }
    }

    /// The status of the node and all instances, without what is measured or passes by itself: it
    /// reads no file, and equals the one before where nothing has changed.
    pub(super) fn standing(&self) -> pb::NodeStatus {
        let instances = self.node.instances();
        pb::NodeStatus {
            node: Some(self.standing_node()),
            instances: instances.map(|(id, one)| self.standing_instance(id, one)).collect(),
            disabled: self.act.plan().disabled.iter().map(ToString::to_string).collect(),
        }
    }

    fn node_info(&self, samples: &mut CpuSamples) -> pb::NodeInfo {
        let own = procfs::usage(process::own_pid()).ok().flatten();
        let cpu = own.map(|own| own.cpu).unwrap_or_default();
        let percent = percent(samples.own, self.now, cpu, self.now.0);
        samples.own = Some(percent);
        pb::NodeInfo {
            uptime_seconds: self.now.0.as_secs_f64(),
            memory_bytes: own.map(|own| own.resident.0).unwrap_or_default(),
            cpu_percent: percent.percent,
            ..self.standing_node()
        }
    }

    fn standing_node(&self) -> pb::NodeInfo {
        pb::NodeInfo {
            name: self.config.node.name.clone(),
            version: self.act.binary().version.clone(),
            pid: process::own_pid().0,
            phase: self.node.phase().word().to_owned(),
            node_phase: node_phase(self.node.phase()).into(),
            degradations: self.degradations(),
            api: self.act.api().map(|address| format!("http://{address}")).unwrap_or_default(),
            runtime_dir: self.config.node.runtime_dir.to_string_lossy().into_owned(),
            generation: self.generation,
            data_dir: self.config.node.data_dir.to_string_lossy().into_owned(),
            build_id: self.act.binary().build_id.clone().unwrap_or_default(),
            ..pb::NodeInfo::default()
        }
    }

    /// The degradations of the host, and those of this moment.
    fn degradations(&self) -> Vec<pb::Degradation> {
        let mut all = self.host.degradations.clone();
        all.extend(self.act.degradations());
        if let Some(sink) = self.log_store.sink().filter(|sink| sink.is_stalled()) {
            let (name, missing) = match sink.form() {
                Form::Console(_) => {
                    ("console", "whoever reads our standard output does not keep up")
                }
                Form::Journal => ("journald", "it does not take our lines in time"),
            };
            all.push(pb::Degradation {
                name: name.to_owned(),
                missing: missing.to_owned(),
                instead: "lines are left out there and counted; `logs` has them".to_owned(),
            });
        }
        all
    }

    fn instance(
        &self,
        id: &InstanceId,
        instance: &Instance,
        samples: &mut CpuSamples,
    ) -> pb::InstanceStatus {
        let usage = self.usage(instance);
        let wanted = instance.limits.in_force();
        let limits = self.act.limits(id, &wanted);
        pb::InstanceStatus {
            uptime_seconds: instance.uptime(self.now).as_secs_f64(),
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: memory_limit(&limits, wanted.memory),
            cpu_percent: self.cpu_percent(instance, usage, samples),
            last_health_check_unix_us: self.last_check(instance),
            log_lines_dropped: self.log_store.dropped(&id.service),
            tasks: usage.tasks,
            limits: limits.into_iter().map(told_limit).collect(),
            limit_events: Some(told_events(self.act.limit_events(id))),
            ..self.standing_instance(id, instance)
        }
    }

    pub(super) fn standing_instance(
        &self,
        id: &InstanceId,
        instance: &Instance,
    ) -> pb::InstanceStatus {
        let plan = self.act.plan().instances.get(id);
        let socket = plan.map(|plan| plan.socket.to_string_lossy().into_owned());
        pb::InstanceStatus {
            service: id.service.to_string(),
            instance: id.to_string(),
            phase: instance.phase.word().to_owned(),
            instance_phase: instance_phase(&instance.phase).into(),
            pid: instance.pid().map_or(0, |pid| pid.0),
            restarts: instance.restarts,
            socket: socket.unwrap_or_default(),
            reason: self.node.reason(id, self.now),
            health: health(instance).word().to_owned(),
            instance_health: health(instance).into(),
            status_text: instance.status_text.clone(),
            run: instance.run().map_or(0, |run| run.0),
            ready_seconds: instance.ready_after().unwrap_or_default().as_secs_f64(),
            binary: self.binary(id, instance),
            ..pb::InstanceStatus::default()
        }
    }

    /// `None`: it is no built-in service, or has no process.
    fn binary(&self, id: &InstanceId, instance: &Instance) -> Option<pb::Binary> {
        let is_built_in = self.act.plan().instances.get(id)?.launch.program.is_own();
        let live = self.act.run(instance.run()?).filter(|_| is_built_in)?;
        let known = live.binary.as_deref().map(|binary| pb::Binary {
            version: binary.version.clone(),
            build_id: binary.build_id.clone().unwrap_or_default(),
            current: binary.is_same(self.act.binary()),
        });
        Some(known.unwrap_or_default())
    }

    fn usage(&self, instance: &Instance) -> Usage {
        let live = instance.run().and_then(|run| self.act.run(run));
        let used = live.and_then(|live| {
            let used = usage::of(&live.members).ok()?;
            Some(Usage { cpu: used.cpu.saturating_sub(live.cpu_before), ..used })
        });
        used.unwrap_or_default()
    }

    /// Since the sample before, or else since the run began.
    fn cpu_percent(&self, instance: &Instance, usage: Usage, samples: &mut CpuSamples) -> f64 {
        let Some(run) = instance.run() else { return 0.0 };
        let sample = percent(
            samples.runs.get(&run).copied(),
            self.now,
            usage.cpu,
            instance.uptime(self.now),
        );
        samples.runs.insert(run, sample);
        sample.percent
    }

    fn last_check(&self, instance: &Instance) -> i64 {
        let ago = instance.last_check.map(|(at, _)| self.now.since(at));
        let ago = ago.and_then(|ago| i64::try_from(ago.as_micros()).ok());
        ago.map_or(0, |ago| self.unix_us.saturating_sub(ago))
    }
}

fn told_limit(limit: LimitInForce) -> pb::Limit {
    let met = limit.is_met();
    let LimitInForce { wanted, set } = limit;
    let GroupLimit { file, value, matters } = wanted;
    pb::Limit { name: file.to_owned(), wanted: value, set, met, matters }
}

/// The limit that the kernel has, or without the kernel the wanted one, in bytes; 0: no limit.
fn memory_limit(limits: &[LimitInForce], wanted: Option<ByteSize>) -> u64 {
    let set = limits.iter().find(|limit| limit.wanted.file == "memory.max");
    match set.and_then(|limit| limit.set.as_deref()) {
        Some(set) => set.parse().unwrap_or(0),
        None => wanted.map_or(0, |size| size.0),
    }
}

fn told_events(events: LimitEvents) -> pb::LimitEvents {
    pb::LimitEvents {
        oom_kills: events.oom_kills,
        memory_max: events.memory_max,
        memory_high: events.memory_high,
        tasks_max: events.tasks_max,
        cpu_throttled_periods: events.throttled_periods,
        cpu_throttled_seconds: events.throttled.as_secs_f64(),
    }
}

fn percent(before: Option<CpuSample>, now: Tick, cpu: Duration, lifetime: Duration) -> CpuSample {
    let of = |used: Duration, over: Duration| {
        if over.is_zero() { 0.0 } else { 100.0 * used.as_secs_f64() / over.as_secs_f64() }
    };
    match before {
        Some(sample) if now.since(sample.at) < SAMPLES_APART => sample,
        Some(sample) => {
            let used = cpu.saturating_sub(sample.cpu);
            CpuSample { at: now, cpu, percent: of(used, now.since(sample.at)) }
        }
        None => CpuSample { at: now, cpu, percent: of(cpu, lifetime) },
    }
}

fn health(instance: &Instance) -> pb::InstanceHealth {
    match (instance.run(), instance.last_check) {
        (Some(_), Some((_, false))) => pb::InstanceHealth::Unhealthy,
        (Some(_), _) if instance.memory == Memory::Short => pb::InstanceHealth::Degraded,
        (Some(_), Some((_, true))) => pb::InstanceHealth::Healthy,
        (None, _) | (_, None) => pb::InstanceHealth::Unknown,
    }
}

fn instance_phase(phase: &Phase) -> pb::InstancePhase {
    match phase {
        Phase::Stopped => pb::InstancePhase::Stopped,
        Phase::Waiting => pb::InstancePhase::Waiting,
        Phase::Starting { .. } => pb::InstancePhase::Starting,
        Phase::Ready { .. } => pb::InstancePhase::Ready,
        Phase::Stopping { .. } | Phase::Clearing { .. } => pb::InstancePhase::Stopping,
        Phase::Backoff { .. } => pb::InstancePhase::Backoff,
        Phase::Failed(_) => pb::InstancePhase::Failed,
    }
}

fn node_phase(phase: NodePhase) -> pb::NodePhase {
    match phase {
        NodePhase::Starting => pb::NodePhase::Starting,
        NodePhase::Ready => pb::NodePhase::Ready,
        NodePhase::Degraded => pb::NodePhase::Degraded,
        NodePhase::Stopping => pb::NodePhase::Stopping,
    }
}
