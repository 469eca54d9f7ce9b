//! From our values to the messages.

use std::time::Duration;

use crate::act::checkpoint::value::{Checkpoint, SavedRun, State};
use crate::config::{LimitSettings, RuntimeOverrides};
use crate::decide::{
    Ended, Ending, GiveUpReason, Goal, Membership, Phase, SavedInstance, StopReason, StopStep,
    Wanted,
};
use crate::plan::{Readiness, RestartPolicy, RestartRules, Rules};
use crate::rpc::pb::node::{self, checkpoint as pb};
use crate::units::{Core, ExitStatus, InstanceId, RunId, ServiceName};

const NOTHING: pb::Nothing = pb::Nothing {};

impl From<&Checkpoint> for node::Checkpoint {
    fn from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { sequence, boot, state, runs } = checkpoint;
        let State { generation, began_at, config, overrides, node } = state;
        let goal = match node.goal {
            Goal::Run => pb::Goal::Run,
            Goal::Shutdown => pb::Goal::Shutdown,
        };
        Self {
            sequence: Some(*sequence),
            boot_id: Some(boot.clone()),
            generation: Some(*generation),
            began_at_ns: Some(ns(*began_at)),
            config: Some(config.clone()),
            overrides: Some(overrides.into()),
            instances: node.instances.iter().map(instance).collect(),
            runs: runs.iter().map(run).collect(),
            next_run: Some(node.next_run.0),
            random_state: Some(node.rng.state()),
            goal: goal.into(),
        }
    }
}

/// At most 584 years, which no clock and no configuration reaches.
fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn names(all: &[ServiceName]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

impl From<&RuntimeOverrides> for pb::Overrides {
    fn from(overrides: &RuntimeOverrides) -> Self {
        let RuntimeOverrides { scaled, limited } = overrides;
        let limits = |(service, settings): (&ServiceName, &LimitSettings)| pb::Limited {
            service: service.to_string(),
            assignments: settings.clone().into(),
        };
        Self {
            scaled: scaled
                .iter()
                .map(|(name, count)| (name.to_string(), (*count).into()))
                .collect(),
            limited: limited.iter().map(limits).collect(),
        }
    }
}

fn run((run, saved): (&RunId, &SavedRun)) -> pb::Run {
    let SavedRun { pid, cpu_before, oom_kills_before, binary } = saved;
    pb::Run {
        run: run.0,
        pid: Some(pid.0),
        cpu_before_ns: ns(*cpu_before),
        oom_kills_before: Some(*oom_kills_before),
        binary: binary.as_deref().map(|binary| pb::Binary {
            version: Some(binary.version.clone()),
            build_id: binary.build_id.clone(),
        }),
    }
}

fn instance((id, saved): (&InstanceId, &SavedInstance)) -> pb::Instance {
    let wanted = match saved.wanted {
        Wanted::Up => pb::Wanted::Up,
        Wanted::Restart => pb::Wanted::Restart,
        Wanted::Down => pb::Wanted::Down,
    };
    let membership = match saved.membership {
        Membership::Planned => pb::Membership::Planned,
        Membership::Retiring => pb::Membership::Retiring,
    };
    pb::Instance {
        id: id.to_string(),
        rules: Some((&saved.rules).into()),
        wanted: wanted.into(),
        membership: membership.into(),
        phase: saved.phase.as_ref().map(|phase| pb::Phase { kind: Some(phase.into()) }),
        attempt: Some(saved.attempt),
        counted_restarts_ns: saved.recent.iter().map(|at| ns(at.0)).collect(),
        restarts: Some(saved.restarts),
        last: saved.last.as_ref().map(pb::Ended::from),
    }
}

impl From<&Phase> for pb::phase::Kind {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Stopped => Self::Stopped(NOTHING),
            Phase::Waiting => Self::Waiting(NOTHING),
            Phase::Starting { run, since, pid, exec_failure, deadline } => {
                Self::Starting(pb::Starting {
                    run: Some(run.0),
                    since_ns: Some(ns(since.0)),
                    pid: pid.map(|pid| pid.0),
                    exec_failure: exec_failure.as_ref().map(|failure| failure.0.clone()),
                    deadline_ns: Some(ns(deadline.0)),
                })
            }
            // Strikes and the watchdog's time begin anew after an adoption.
            Phase::Ready { run, pid, spawned, since, strikes: _, watchdog: _ } => {
                Self::Ready(pb::Ready {
                    run: Some(run.0),
                    pid: Some(pid.0),
                    spawned_ns: Some(ns(spawned.0)),
                    since_ns: Some(ns(since.0)),
                })
            }
            Phase::Stopping { run, pid, spawned, ready, stop_step, reason, deadline } => {
                Self::Stopping(pb::Stopping {
                    run: Some(run.0),
                    pid: pid.map(|pid| pid.0),
                    spawned_ns: Some(ns(spawned.0)),
                    ready_ns: ready.map(|at| ns(at.0)),
                    step: pb::StopStep::from(*stop_step).into(),
                    reason: Some(reason.into()),
                    deadline_ns: Some(ns(deadline.0)),
                })
            }
            Phase::Clearing { run, ended, deadline } => Self::Clearing(pb::Clearing {
                run: Some(run.0),
                ended: Some(ended.into()),
                deadline_ns: Some(ns(deadline.0)),
            }),
            Phase::Backoff { until, attempt } => {
                Self::Backoff(pb::Backoff { until_ns: Some(ns(until.0)), attempt: Some(*attempt) })
            }
            Phase::Failed(reason) => Self::Failed(pb::Failed { reason: Some(reason.into()) }),
        }
    }
}

impl From<StopStep> for pb::StopStep {
    fn from(step: StopStep) -> Self {
        match step {
            StopStep::OwnAccord => Self::OwnAccord,
            StopStep::Drain => Self::Drain,
            StopStep::Term => Self::Term,
            StopStep::Kill => Self::Kill,
            StopStep::Unkillable => Self::Unkillable,
        }
    }
}

impl From<&StopReason> for pb::StopReason {
    fn from(reason: &StopReason) -> Self {
        use pb::stop_reason::Kind;
        let kind = match reason {
            StopReason::Operator => Kind::Operator(NOTHING),
            StopReason::Shutdown => Kind::Shutdown(NOTHING),
            StopReason::OwnAccord => Kind::OwnAccord(NOTHING),
            StopReason::StartTimeout => Kind::StartTimeout(NOTHING),
            StopReason::Unhealthy(why) => Kind::Unhealthy(why.clone()),
            StopReason::Watchdog => Kind::Watchdog(NOTHING),
            StopReason::Replanned => Kind::Replanned(NOTHING),
            StopReason::With(service) => Kind::With(service.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&GiveUpReason> for pb::failed::Reason {
    fn from(reason: &GiveUpReason) -> Self {
        match reason {
            GiveUpReason::TooManyRestarts { restarts, window, last } => {
                Self::TooManyRestarts(pb::TooManyRestarts {
                    restarts: *restarts,
                    window_ns: ns(*window),
                    last: Some(last.into()),
                })
            }
            GiveUpReason::NotRestarted { last } => Self::NotRestarted(last.into()),
        }
    }
}

impl From<&Ended> for pb::Ended {
    fn from(ended: &Ended) -> Self {
        use pb::ended::How;
        use pb::exited::Status;
        let how = match &ended.how {
            Ending::NeverStarted(failure) => How::NeverStarted(failure.0.clone()),
            Ending::Exited(facts) => {
                let status = match facts.status {
                    ExitStatus::Code(code) => Status::Code(code),
                    ExitStatus::Signal { number, core } => Status::Signal(pb::Signal {
                        number: number.0,
                        core_dumped: core == Core::Dumped,
                    }),
                    ExitStatus::Unseen => Status::Unseen(NOTHING),
                };
                How::Exited(pb::Exited { status: Some(status), oom_kills: facts.oom_kills })
            }
        };
        Self {
            run: ended.run.0,
            pid: ended.pid.map(|pid| pid.0),
            at_ns: ns(ended.at.0),
            how: Some(how),
            asked: ended.asked.as_ref().map(pb::StopReason::from),
            lasted_ns: ns(ended.lasted),
            ready_for_ns: ended.ready_for.map(ns),
        }
    }
}

impl From<&Rules> for pb::Rules {
    fn from(rules: &Rules) -> Self {
        use pb::readiness::Kind;
        let readiness = match rules.readiness {
            Readiness::Started => Kind::Started(NOTHING),
            Readiness::Notify => Kind::Notify(NOTHING),
            Readiness::Grpc => Kind::Grpc(NOTHING),
            Readiness::Port(port) => Kind::Port(port.into()),
        };
        Self {
            needs: names(&rules.needs),
            restart_with: names(&rules.restart_with),
            readiness: Some(pb::Readiness { kind: Some(readiness) }),
            restart: Some((&rules.restart).into()),
            start_timeout_ns: Some(ns(rules.start_timeout)),
            stop_timeout_ns: Some(ns(rules.stop_timeout)),
            drain_ns: Some(ns(rules.drain)),
            watchdog_ns: rules.watchdog.map(ns),
            unhealthy_threshold: Some(rules.unhealthy_threshold),
        }
    }
}

impl From<&RestartRules> for pb::RestartRules {
    fn from(rules: &RestartRules) -> Self {
        let policy = match rules.policy {
            RestartPolicy::Always => pb::RestartPolicy::Always,
            RestartPolicy::OnFailure => pb::RestartPolicy::OnFailure,
            RestartPolicy::Never => pb::RestartPolicy::Never,
        };
        Self {
            policy: policy.into(),
            max_restarts: Some(rules.max_restarts),
            window_ns: Some(ns(rules.window)),
            backoff_initial_ns: Some(ns(rules.backoff_initial)),
            backoff_max_ns: Some(ns(rules.backoff_max)),
            stable_after_ns: Some(ns(rules.stable_after)),
        }
    }
}
