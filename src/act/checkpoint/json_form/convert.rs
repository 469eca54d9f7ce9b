//! Conversions between our values and the words of the first form.

use super::{
    Core, Ended, Ending, ExitFacts, ExitStatus, Goal, Instance, Node, Phase, Readiness,
    RestartPolicy, RestartRules, Rules, Run, Rung, StopReason, Tenure, Verdict, Wanted, name,
};
use crate::act::checkpoint::value::SavedRun;
use crate::decide::{self, Recency, SavedNode};
use crate::plan;
use crate::units::{self, InstanceId, NameError, Pid, RunId, ServiceName, Tick};

/// Conversions in both directions between two enums with the same cases.
macro_rules! same {
    ($theirs:path, $ours:ident: $($their:ident = $our:ident),+) => {
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> Self {
                match value { $(<$theirs>::$their => Self::$our),+ }
            }
        }

        impl From<$ours> for $theirs {
            fn from(value: $ours) -> Self {
                match value { $($ours::$our => Self::$their),+ }
            }
        }
    };
}

same!(decide::Goal, Goal: Run = Run, Shutdown = Shutdown);
same!(decide::Wanted, Wanted: Up = Up, Restart = Anew, Down = Down);
same!(decide::Membership, Tenure: Planned = Planned, Retiring = Retiring);
same!(
    decide::StopStep, Rung:
    OwnAccord = OwnAccord, Drain = Drain, Term = Term, Kill = Kill, Unkillable = Unkillable
);
same!(
    plan::RestartPolicy, RestartPolicy: Always = Always, OnFailure = OnFailure, Never = Never
);
same!(units::Core, Core: Dumped = Dumped, None = None);

impl From<&SavedRun> for Run {
    fn from(saved: &SavedRun) -> Self {
        let SavedRun { pid, cpu_before, oom_kills_before, binary: _ } = saved;
        Self { pid: pid.0, cpu_before: *cpu_before, oom_kills_before: *oom_kills_before }
    }
}

impl Run {
    pub(super) fn read(self) -> SavedRun {
        let Self { pid, cpu_before, oom_kills_before } = self;
        SavedRun { pid: Pid(pid), cpu_before, oom_kills_before, binary: None }
    }
}

impl From<&SavedNode> for Node {
    fn from(node: &SavedNode) -> Self {
        let one = |(id, instance): (&InstanceId, &_)| (id.to_string(), Instance::from(instance));
        Self {
            instances: node.instances.iter().map(one).collect(),
            next_run: node.next_run.0,
            chance: node.rng.state(),
            goal: node.goal.into(),
        }
    }
}

impl Node {
    pub(super) fn read(self) -> Result<SavedNode, NameError> {
        let one = |(id, instance): (String, Instance)| Ok((id.parse()?, instance.read()?));
        Ok(SavedNode {
            instances: self.instances.into_iter().map(one).collect::<Result<_, NameError>>()?,
            next_run: RunId(self.next_run),
            rng: decide::Rng::seeded(self.chance),
            goal: self.goal.into(),
            recency: Recency::Newest,
        })
    }
}

impl From<&decide::SavedInstance> for Instance {
    fn from(instance: &decide::SavedInstance) -> Self {
        Self {
            rules: (&instance.rules).into(),
            wanted: instance.wanted.into(),
            tenure: instance.membership.into(),
            // A phase that is not known is decided when it is read, so it is never saved.
            phase: instance.phase.as_ref().map_or(Phase::Waiting, Phase::from),
            attempt: instance.attempt,
            recent: instance.recent.iter().map(|at| at.0).collect(),
            restarts: instance.restarts,
            last: instance.last.as_ref().map(Ended::from),
        }
    }
}

impl Instance {
    pub(super) fn read(self) -> Result<decide::SavedInstance, NameError> {
        Ok(decide::SavedInstance {
            rules: self.rules.read()?,
            wanted: self.wanted.into(),
            membership: self.tenure.into(),
            phase: Some(self.phase.read()?),
            attempt: self.attempt,
            recent: self.recent.into_iter().map(Tick).collect(),
            restarts: self.restarts,
            last: self.last.map(Ended::read).transpose()?,
        })
    }
}

impl From<&plan::Rules> for Rules {
    fn from(rules: &plan::Rules) -> Self {
        let names = |all: &[ServiceName]| all.iter().map(ToString::to_string).collect();
        Self {
            needs: names(&rules.needs),
            restart_with: names(&rules.restart_with),
            readiness: match rules.readiness {
                plan::Readiness::Started => Readiness::Started,
                plan::Readiness::Notify => Readiness::Notify,
                plan::Readiness::Grpc => Readiness::Grpc,
                plan::Readiness::Port(port) => Readiness::Port(port),
            },
            restart: (&rules.restart).into(),
            start_timeout: rules.start_timeout,
            stop_timeout: rules.stop_timeout,
            drain: rules.drain,
            watchdog: rules.watchdog,
            unhealthy_threshold: rules.unhealthy_threshold,
        }
    }
}

impl Rules {
    pub(super) fn read(self) -> Result<plan::Rules, NameError> {
        let names = |all: Vec<String>| {
            all.iter().map(|text| name(text)).collect::<Result<Vec<ServiceName>, NameError>>()
        };
        Ok(plan::Rules {
            needs: names(self.needs)?,
            restart_with: names(self.restart_with)?,
            readiness: match self.readiness {
                Readiness::Started => plan::Readiness::Started,
                Readiness::Notify => plan::Readiness::Notify,
                Readiness::Grpc => plan::Readiness::Grpc,
                Readiness::Port(port) => plan::Readiness::Port(port),
            },
            restart: self.restart.read(),
            start_timeout: self.start_timeout,
            stop_timeout: self.stop_timeout,
            drain: self.drain,
            watchdog: self.watchdog,
            unhealthy_threshold: self.unhealthy_threshold,
        })
    }
}

impl From<&plan::RestartRules> for RestartRules {
    fn from(rules: &plan::RestartRules) -> Self {
        Self {
            policy: rules.policy.into(),
            max_restarts: rules.max_restarts,
            window: rules.window,
            backoff_initial: rules.backoff_initial,
            backoff_max: rules.backoff_max,
            stable_after: rules.stable_after,
        }
    }
}

impl RestartRules {
    pub(super) fn read(self) -> plan::RestartRules {
        plan::RestartRules {
            policy: self.policy.into(),
            max_restarts: self.max_restarts,
            window: self.window,
            backoff_initial: self.backoff_initial,
            backoff_max: self.backoff_max,
            stable_after: self.stable_after,
        }
    }
}

impl From<&decide::Phase> for Phase {
    fn from(phase: &decide::Phase) -> Self {
        match phase {
            decide::Phase::Stopped => Self::Stopped,
            decide::Phase::Waiting => Self::Waiting,
            decide::Phase::Starting { run, since, pid, exec_failure, deadline } => Self::Starting {
                run: run.0,
                since: since.0,
                pid: pid.map(|pid| pid.0),
                exec_failure: exec_failure.as_ref().map(|failure| failure.0.clone()),
                deadline: deadline.0,
            },
            decide::Phase::Ready { run, pid, spawned, since, strikes, watchdog } => Self::Ready {
                run: run.0,
                pid: pid.0,
                spawned: spawned.0,
                since: since.0,
                strikes: *strikes,
                watchdog: watchdog.map(|at| at.0),
            },
            decide::Phase::Stopping { run, pid, spawned, ready, stop_step, reason, deadline } => {
                Self::Stopping {
                    run: run.0,
                    pid: pid.map(|pid| pid.0),
                    spawned: spawned.0,
                    ready: ready.map(|at| at.0),
                    rung: (*stop_step).into(),
                    reason: reason.into(),
                    deadline: deadline.0,
                }
            }
            decide::Phase::Clearing { run, ended, deadline } => {
                Self::Clearing { run: run.0, ended: ended.into(), deadline: deadline.0 }
            }
            decide::Phase::Backoff { until, attempt } => {
                Self::Backoff { until: until.0, attempt: *attempt }
            }
            decide::Phase::Failed(reason) => Self::Failed(reason.into()),
        }
    }
}

impl Phase {
    pub(super) fn read(self) -> Result<decide::Phase, NameError> {
        Ok(match self {
            Self::Stopped => decide::Phase::Stopped,
            Self::Waiting => decide::Phase::Waiting,
            Self::Starting { run, since, pid, exec_failure, deadline } => decide::Phase::Starting {
                run: RunId(run),
                since: Tick(since),
                pid: pid.map(Pid),
                exec_failure: exec_failure.map(decide::SpawnFailure),
                deadline: Tick(deadline),
            },
            Self::Ready { run, pid, spawned, since, strikes, watchdog } => decide::Phase::Ready {
                run: RunId(run),
                pid: Pid(pid),
                spawned: Tick(spawned),
                since: Tick(since),
                strikes,
                watchdog: watchdog.map(Tick),
            },
            Self::Stopping { run, pid, spawned, ready, rung, reason, deadline } => {
                decide::Phase::Stopping {
                    run: RunId(run),
                    pid: pid.map(Pid),
                    spawned: Tick(spawned),
                    ready: ready.map(Tick),
                    stop_step: rung.into(),
                    reason: reason.read()?,
                    deadline: Tick(deadline),
                }
            }
            Self::Clearing { run, ended, deadline } => decide::Phase::Clearing {
                run: RunId(run),
                ended: ended.read()?,
                deadline: Tick(deadline),
            },
            Self::Backoff { until, attempt } => {
                decide::Phase::Backoff { until: Tick(until), attempt }
            }
            Self::Failed(verdict) => decide::Phase::Failed(verdict.read()?),
        })
    }
}

impl From<&decide::StopReason> for StopReason {
    fn from(reason: &decide::StopReason) -> Self {
        match reason {
            decide::StopReason::Operator => Self::Operator,
            decide::StopReason::Shutdown => Self::Shutdown,
            decide::StopReason::OwnAccord => Self::OwnAccord,
            decide::StopReason::StartTimeout => Self::StartTimeout,
            decide::StopReason::Unhealthy(why) => Self::Unhealthy(why.clone()),
            decide::StopReason::Watchdog => Self::Watchdog,
            decide::StopReason::Replanned => Self::Replanned,
            decide::StopReason::With(service) => Self::With(service.to_string()),
        }
    }
}

impl StopReason {
    pub(super) fn read(self) -> Result<decide::StopReason, NameError> {
        Ok(match self {
            Self::Operator => decide::StopReason::Operator,
            Self::Shutdown => decide::StopReason::Shutdown,
            Self::OwnAccord => decide::StopReason::OwnAccord,
            Self::StartTimeout => decide::StopReason::StartTimeout,
            Self::Unhealthy(why) => decide::StopReason::Unhealthy(why),
            Self::Watchdog => decide::StopReason::Watchdog,
            Self::Replanned => decide::StopReason::Replanned,
            Self::With(service) => decide::StopReason::With(name(&service)?),
        })
    }
}

impl From<&decide::Ended> for Ended {
    fn from(ended: &decide::Ended) -> Self {
        Self {
            run: ended.run.0,
            pid: ended.pid.map(|pid| pid.0),
            at: ended.at.0,
            how: match &ended.how {
                decide::Ending::Exited(facts) => Ending::Exited(ExitFacts {
                    status: facts.status.into(),
                    oom_kills: facts.oom_kills,
                }),
                decide::Ending::NeverStarted(failure) => Ending::NeverStarted(failure.0.clone()),
            },
            asked: ended.asked.as_ref().map(StopReason::from),
            lasted: ended.lasted,
            ready_for: ended.ready_for,
        }
    }
}

impl Ended {
    pub(super) fn read(self) -> Result<decide::Ended, NameError> {
        Ok(decide::Ended {
            run: RunId(self.run),
            pid: self.pid.map(Pid),
            at: Tick(self.at),
            how: match self.how {
                Ending::Exited(ExitFacts { status, oom_kills }) => {
                    decide::Ending::Exited(decide::ExitFacts { status: status.into(), oom_kills })
                }
                Ending::NeverStarted(why) => {
                    decide::Ending::NeverStarted(decide::SpawnFailure(why))
                }
            },
            asked: self.asked.map(StopReason::read).transpose()?,
            lasted: self.lasted,
            ready_for: self.ready_for,
        })
    }
}

impl From<units::ExitStatus> for ExitStatus {
    fn from(status: units::ExitStatus) -> Self {
        match status {
            units::ExitStatus::Code(code) => Self::Code(code),
            units::ExitStatus::Signal { number, core } => {
                Self::Signal { number: number.0, core: core.into() }
            }
            units::ExitStatus::Unseen => Self::Unseen,
        }
    }
}

impl From<ExitStatus> for units::ExitStatus {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal { number, core } => {
                Self::Signal { number: units::Signal(number), core: core.into() }
            }
            ExitStatus::Unseen => Self::Unseen,
        }
    }
}

impl From<&decide::GiveUpReason> for Verdict {
    fn from(reason: &decide::GiveUpReason) -> Self {
        match reason {
            decide::GiveUpReason::TooManyRestarts { restarts, window, last } => {
                Self::TooManyRestarts { restarts: *restarts, window: *window, last: last.into() }
            }
            decide::GiveUpReason::NotRestarted { last } => Self::NotRestarted { last: last.into() },
        }
    }
}

impl Verdict {
    pub(super) fn read(self) -> Result<decide::GiveUpReason, NameError> {
        Ok(match self {
            Self::TooManyRestarts { restarts, window, last } => {
                let last = last.read()?;
                decide::GiveUpReason::TooManyRestarts { restarts, window, last }
            }
            Self::NotRestarted { last } => {
                decide::GiveUpReason::NotRestarted { last: last.read()? }
            }
        })
    }
}
