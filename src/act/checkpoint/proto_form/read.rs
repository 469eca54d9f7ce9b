//! From the messages to our values. A field that is missing or not known is named in `remarks` and
//! replaced by a value that harms no service: nothing is stopped, killed or abandoned because of
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::act::binary::Binary;
use crate::act::checkpoint::value::{Former, Known, SavedRun, default_rules};
use crate::config::{LimitSettings, RuntimeOverrides};
use crate::decide::{
    Ended, Ending, ExitFacts, GiveUpReason, Goal, Membership, Phase, Recency, Rng, SavedInstance,
    SavedNode, SpawnFailure, StopReason, StopStep, Wanted,
};
use crate::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use crate::rpc::pb::node::{self, checkpoint as pb};
use crate::units::{Core, ExitStatus, InstanceId, Pid, RunId, ServiceName, Signal, Tick};

/// The reason of an unhealthy run whose reason cannot be read.
const NOT_KNOWN: &str = "for a reason that is not known any more";

/// `unknown`: how many bytes are in fields that this version does not have.
pub(super) fn read(
    checkpoint: node::Checkpoint,
    unknown: usize,
    monotonic: Duration,
) -> (Former, Option<String>) {
    let began_at = checkpoint.began_at_ns.map(Duration::from_nanos);
    let now = began_at.map_or(Tick::ZERO, |began_at| Tick(monotonic.saturating_sub(began_at)));
    let mut reader = Reader { now, began_at, remarks: Vec::new() };
    if unknown > 0 {
        reader.remark(format!("{unknown} bytes of it are in fields that this version has not"));
    }
    if began_at.is_none() {
        reader.remark("it has no beginning of its clock: all that it times begins anew".to_owned());
    }
    if checkpoint.boot_id.is_none() {
        reader.remark("it does not say in which boot it was written; taken as this one".to_owned());
    }
    if checkpoint.config.is_none() {
        reader.remark("it has no configuration; taken from the file".to_owned());
    }
    let goal = match pb::Goal::try_from(checkpoint.goal) {
        Ok(pb::Goal::Run) => Goal::Run,
        Ok(pb::Goal::Shutdown) => Goal::Shutdown,
        Ok(pb::Goal::Unspecified) | Err(_) => {
            reader.remark("what the node was to do is not known; it runs".to_owned());
            Goal::Run
        }
    };
    let count = checkpoint.instances.len();
    let instances: BTreeMap<_, _> =
        checkpoint.instances.into_iter().filter_map(|one| reader.instance(one)).collect();
    let known = if instances.len() == count { Known::Instances } else { Known::SomeInstances };
    let monotonic_ns = u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX);
    let node = SavedNode {
        instances,
        // The runs that are under way raise it, if that is too low.
        next_run: RunId(reader.or(checkpoint.next_run, "next_run", 0)),
        rng: Rng::seeded(reader.or(checkpoint.random_state, "random_state", monotonic_ns)),
        goal,
        recency: Recency::Newest,
    };
    let former = Former {
        sequence: reader.or(checkpoint.sequence, "sequence", 0),
        slot: None,
        generation: reader.or(checkpoint.generation, "generation", 1),
        began_at,
        config: checkpoint.config,
        overrides: reader.overrides(checkpoint.overrides),
        node,
        runs: checkpoint.runs.into_iter().filter_map(run).collect(),
        known,
        remarks: reader.remarks,
    };
    (former, checkpoint.boot_id)
}

/// `None`: a required field is missing; the run is then adopted by its descriptors alone.
fn run(saved: pb::Run) -> Option<(RunId, SavedRun)> {
    let (pid, oom_kills_before) = (Pid(saved.pid?), saved.oom_kills_before?);
    let cpu_before = Duration::from_nanos(saved.cpu_before_ns);
    let binary = saved.binary.and_then(|binary| {
        let pb::Binary { version, build_id } = binary;
        Some(Arc::new(Binary { version: version?, build_id }))
    });
    Some((RunId(saved.run), SavedRun { pid, cpu_before, oom_kills_before, binary }))
}

struct Reader {
    now: Tick,
    /// `None`: times cannot be compared with our clock.
    began_at: Option<Duration>,
    remarks: Vec<String>,
}

impl Reader {
    fn remark(&mut self, what: String) {
        self.remarks.push(what);
    }

    fn or<T>(&mut self, value: Option<T>, field: &str, default: T) -> T {
        value.unwrap_or_else(|| {
            self.remark(format!("it has no {field}"));
            default
        })
    }

    /// A time in the past; if it is not known, now.
    fn time(&self, ns: Option<u64>) -> Tick {
        self.began_at.and(ns).map_or(self.now, |ns| Tick(Duration::from_nanos(ns)))
    }

    /// A time in the future; if it is not known, `patience` from now.
    fn deadline(&self, ns: Option<u64>, patience: Duration) -> Tick {
        let known = self.began_at.and(ns).map(|ns| Tick(Duration::from_nanos(ns)));
        known.unwrap_or(self.now + patience)
    }

    fn overrides(&mut self, overrides: Option<pb::Overrides>) -> RuntimeOverrides {
        let mut read = RuntimeOverrides::default();
        let pb::Overrides { scaled, limited } = self.or(overrides, "overrides", Default::default());
        for (service, count) in scaled {
            match (service.parse(), u16::try_from(count)) {
                (Ok(name), Ok(count)) => drop(read.scaled.insert(name, count)),
                (Err(_), _) | (_, Err(_)) => {
                    self.remark(format!("{service:?} was scaled to {count}, which cannot be"));
                }
            }
        }
        for pb::Limited { service, assignments } in limited {
            let Ok(name) = service.parse::<ServiceName>() else {
                self.remark(format!("{service:?}, of which limits were set, is no service"));
                continue;
            };
            let mut settings = LimitSettings::default();
            for assignment in assignments {
                match LimitSettings::parse(&[assignment]) {
                    Ok(one) => settings = settings.and(&one),
                    Err(why) => self.remark(format!("limits of {name}: {why}")),
                }
            }
            read.limit(&name, settings);
        }
        read
    }

    fn instance(&mut self, saved: pb::Instance) -> Option<(InstanceId, SavedInstance)> {
        let Ok(id) = saved.id.parse::<InstanceId>() else {
            self.remark(format!("{:?} is not the name of an instance", saved.id));
            return None;
        };
        let rules = self.rules(&id, saved.rules);
        let membership = match pb::Membership::try_from(saved.membership) {
            Ok(pb::Membership::Planned) => Membership::Planned,
            Ok(pb::Membership::Retiring) => Membership::Retiring,
            Ok(pb::Membership::Unspecified) | Err(_) => {
                self.remark(format!("{id}: whether it was on its way out is not known; it stays"));
                Membership::Planned
            }
        };
        let kind = saved.phase.and_then(|phase| phase.kind);
        let stopped = matches!(kind, Some(pb::phase::Kind::Stopped(_)));
        let wanted = match pb::Wanted::try_from(saved.wanted) {
            Ok(pb::Wanted::Up) => Wanted::Up,
            Ok(pb::Wanted::Restart) => Wanted::Restart,
            Ok(pb::Wanted::Down) => Wanted::Down,
            Ok(pb::Wanted::Unspecified) | Err(_) => {
                self.remark(format!("{id}: whether it is to run is not known; it stays as it is"));
                if stopped { Wanted::Down } else { Wanted::Up }
            }
        };
        let phase = kind.and_then(|kind| self.phase(kind, wanted, &rules));
        if phase.is_none() {
            self.remark(format!("{id}: its phase is not known; a run of it counts as ready"));
        }
        let instance = SavedInstance {
            wanted,
            membership,
            phase,
            attempt: self.or(saved.attempt, &format!("{id}.attempt"), 0),
            recent: saved.counted_restarts_ns.iter().map(|ns| self.time(Some(*ns))).collect(),
            restarts: self.or(saved.restarts, &format!("{id}.restarts"), 0),
            last: saved.last.map(|last| self.ended(last, wanted)),
            rules,
        };
        Some((id, instance))
    }

    /// `None`: the kind of phase is not known, or names no run.
    fn phase(&mut self, kind: pb::phase::Kind, wanted: Wanted, rules: &Rules) -> Option<Phase> {
        use pb::phase::Kind;
        Some(match kind {
            Kind::Stopped(_) => Phase::Stopped,
            Kind::Waiting(_) => Phase::Waiting,
            Kind::Starting(starting) => Phase::Starting {
                run: RunId(starting.run?),
                since: self.time(starting.since_ns),
                pid: starting.pid.map(Pid),
                exec_failure: starting.exec_failure.map(SpawnFailure),
                deadline: self.deadline(starting.deadline_ns, rules.start_timeout),
            },
            Kind::Ready(ready) => Phase::Ready {
                run: RunId(ready.run?),
                pid: Pid(ready.pid?),
                spawned: self.time(ready.spawned_ns),
                since: self.time(ready.since_ns),
                strikes: 0,
                watchdog: None,
            },
            Kind::Stopping(stopping) => Phase::Stopping {
                run: RunId(stopping.run?),
                pid: stopping.pid.map(Pid),
                spawned: self.time(stopping.spawned_ns),
                ready: stopping.ready_ns.map(|ns| self.time(Some(ns))),
                stop_step: self.stop_step(stopping.step),
                reason: self.stop_reason(stopping.reason.unwrap_or_default(), wanted),
                deadline: self.deadline(stopping.deadline_ns, rules.stop_timeout),
            },
            Kind::Clearing(clearing) => {
                let run = RunId(clearing.run?);
                let ended = pb::Ended { run: run.0, ..clearing.ended.unwrap_or_default() };
                let ended = self.ended(ended, wanted);
                let deadline = self.deadline(clearing.deadline_ns, rules.stop_timeout);
                Phase::Clearing { run, ended, deadline }
            }
            Kind::Backoff(backoff) => Phase::Backoff {
                until: self.time(backoff.until_ns),
                attempt: backoff.attempt.unwrap_or_default(),
            },
            Kind::Failed(failed) => Phase::Failed(match failed.reason? {
                pb::failed::Reason::TooManyRestarts(many) => GiveUpReason::TooManyRestarts {
                    restarts: many.restarts,
                    window: Duration::from_nanos(many.window_ns),
                    last: self.ended(many.last.unwrap_or_default(), wanted),
                },
                pb::failed::Reason::NotRestarted(last) => {
                    GiveUpReason::NotRestarted { last: self.ended(last, wanted) }
                }
            }),
        })
    }

    /// An unknown step becomes the gentlest that goes on by itself.
    fn stop_step(&mut self, step: i32) -> StopStep {
        match pb::StopStep::try_from(step) {
            Ok(pb::StopStep::OwnAccord) => StopStep::OwnAccord,
            Ok(pb::StopStep::Drain) => StopStep::Drain,
            Ok(pb::StopStep::Term) => StopStep::Term,
            Ok(pb::StopStep::Kill) => StopStep::Kill,
            Ok(pb::StopStep::Unkillable) => StopStep::Unkillable,
            Ok(pb::StopStep::Unspecified) | Err(_) => {
                self.remark("how far a stop had come is not known; it drains".to_owned());
                StopStep::Drain
            }
        }
    }

    /// An unknown reason becomes one after which the instance is started again under any restart
    /// policy, if it is wanted up.
    fn stop_reason(&mut self, reason: pb::StopReason, wanted: Wanted) -> StopReason {
        use pb::stop_reason::Kind;
        let known = reason.kind.and_then(|kind| {
            Some(match kind {
                Kind::Operator(_) => StopReason::Operator,
                Kind::Shutdown(_) => StopReason::Shutdown,
                Kind::OwnAccord(_) => StopReason::OwnAccord,
                Kind::StartTimeout(_) => StopReason::StartTimeout,
                Kind::Unhealthy(why) => StopReason::Unhealthy(why),
                Kind::Watchdog(_) => StopReason::Watchdog,
                Kind::Replanned(_) => StopReason::Replanned,
                Kind::With(service) => StopReason::With(service.parse().ok()?),
            })
        });
        known.unwrap_or_else(|| {
            self.remark("why a run was stopped is not known".to_owned());
            match wanted {
                Wanted::Up => StopReason::Unhealthy(NOT_KNOWN.to_owned()),
                Wanted::Restart | Wanted::Down => StopReason::Operator,
            }
        })
    }

    fn ended(&mut self, ended: pb::Ended, wanted: Wanted) -> Ended {
        let how = match ended.how {
            Some(pb::ended::How::NeverStarted(why)) => Ending::NeverStarted(SpawnFailure(why)),
            Some(pb::ended::How::Exited(exited)) => Ending::Exited(facts(exited)),
            None => {
                self.remark("how a run ended is not known".to_owned());
                Ending::Exited(ExitFacts { status: ExitStatus::Unseen, oom_kills: 0 })
            }
        };
        Ended {
            run: RunId(ended.run),
            pid: ended.pid.map(Pid),
            at: self.time(Some(ended.at_ns)),
            how,
            asked: ended.asked.map(|reason| self.stop_reason(reason, wanted)),
            lasted: Duration::from_nanos(ended.lasted_ns),
            ready_for: ended.ready_for_ns.map(Duration::from_nanos),
        }
    }

    fn rules(&mut self, id: &InstanceId, rules: Option<pb::Rules>) -> Rules {
        let Some(saved) = rules else {
            self.remark(format!("it has no {id}.rules"));
            return default_rules();
        };
        let default = default_rules();
        let mut time = |ns: Option<u64>, field: &str, default: Duration| {
            ns.map_or_else(
                || self.or(None, &format!("{id}.{field}"), default),
                Duration::from_nanos,
            )
        };
        let start_timeout = time(saved.start_timeout_ns, "start_timeout", default.start_timeout);
        let stop_timeout = time(saved.stop_timeout_ns, "stop_timeout", default.stop_timeout);
        let drain = time(saved.drain_ns, "drain", default.drain);
        let threshold = (saved.unhealthy_threshold, default.unhealthy_threshold);
        Rules {
            needs: self.names(id, &saved.needs),
            restart_with: self.names(id, &saved.restart_with),
            readiness: self.readiness(id, saved.readiness),
            restart: self.restart_rules(id, saved.restart.unwrap_or_default()),
            start_timeout,
            stop_timeout,
            drain,
            watchdog: saved.watchdog_ns.map(Duration::from_nanos),
            unhealthy_threshold: self.or(threshold.0, "unhealthy_threshold", threshold.1),
        }
    }

    fn names(&mut self, id: &InstanceId, names: &[String]) -> Vec<ServiceName> {
        let mut read = Vec::new();
        for name in names {
            match name.parse() {
                Ok(name) => read.push(name),
                Err(_) => self.remark(format!("{id} needs {name:?}, which is no service")),
            }
        }
        read
    }

    fn readiness(&mut self, id: &InstanceId, readiness: Option<pb::Readiness>) -> Readiness {
        use pb::readiness::Kind;
        let known = readiness.and_then(|readiness| match readiness.kind? {
            Kind::Started(_) => Some(Readiness::Started),
            Kind::Notify(_) => Some(Readiness::Notify),
            Kind::Grpc(_) => Some(Readiness::Grpc),
            Kind::Port(port) => u16::try_from(port).ok().map(Readiness::Port),
        });
        self.or(known, &format!("{id}.readiness"), Readiness::Started)
    }

    fn restart_rules(&mut self, id: &InstanceId, saved: pb::RestartRules) -> RestartRules {
        let default = default_rules().restart;
        let policy = match pb::RestartPolicy::try_from(saved.policy) {
            Ok(pb::RestartPolicy::Always) => Some(RestartPolicy::Always),
            Ok(pb::RestartPolicy::OnFailure) => Some(RestartPolicy::OnFailure),
            Ok(pb::RestartPolicy::Never) => Some(RestartPolicy::Never),
            Ok(pb::RestartPolicy::Unspecified) | Err(_) => None,
        };
        let mut time = |ns: Option<u64>, field: &str, default: Duration| {
            ns.map_or_else(
                || self.or(None, &format!("{id}.{field}"), default),
                Duration::from_nanos,
            )
        };
        RestartRules {
            window: time(saved.window_ns, "restart_window", default.window),
            backoff_initial: time(
                saved.backoff_initial_ns,
                "backoff_initial",
                default.backoff_initial,
            ),
            backoff_max: time(saved.backoff_max_ns, "backoff_max", default.backoff_max),
            stable_after: time(saved.stable_after_ns, "stable_after", default.stable_after),
            policy: self.or(policy, &format!("{id}.restart_policy"), default.policy),
            max_restarts: self.or(
                saved.max_restarts,
                &format!("{id}.max_restarts"),
                default.max_restarts,
            ),
        }
    }
}

fn facts(exited: pb::Exited) -> ExitFacts {
    use pb::exited::Status;
    let status = match exited.status {
        Some(Status::Code(code)) => ExitStatus::Code(code),
        Some(Status::Signal(signal)) => ExitStatus::Signal {
            number: Signal(signal.number),
            core: if signal.core_dumped { Core::Dumped } else { Core::None },
        },
        Some(Status::Unseen(_)) | None => ExitStatus::Unseen,
    };
    ExitFacts { status, oom_kills: exited.oom_kills }
}
