//! Questions to the state. Nothing here changes it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::Memory;
use super::node::{Goal, Instance, Node, Wanted};
use super::phase::{Phase, StopStep};
use crate::plan::RestartPolicy;
use crate::units::{InstanceId, Pid, RunId, ServiceName, Tick, human_duration};

/// What keeps an instance from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub on: InstanceId,
    /// The phase word of the one waited for.
    pub phase: &'static str,
}

/// The node as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePhase {
    Starting,
    Ready,
    /// Something that is wanted up is not ready.
    Degraded,
    Stopping,
}

impl NodePhase {
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

impl Node {
    pub fn phase(&self) -> NodePhase {
        match self.goal {
            Goal::Shutdown => NodePhase::Stopping,
            Goal::Run if !self.announced => NodePhase::Starting,
            Goal::Run if self.instances.census().as_wanted == self.instances.len() => {
                NodePhase::Ready
            }
            Goal::Run => NodePhase::Degraded,
        }
    }

    /// Whether something is under way and not late: a start, a back-off, a stop before its kill.
    pub fn is_moving(&self) -> bool {
        self.instances.census().moving > 0
    }

    /// The instances that a service's or an instance's name stands for; empty: there is none.
    pub fn named(&self, name: &str) -> BTreeSet<InstanceId> {
        let fits = |id: &&InstanceId| id.service.as_str() == name || id.to_string() == name;
        self.instances.keys().filter(fits).cloned().collect()
    }

    /// Why an instance is not ready, or how its run before ended; empty: nothing to say.
    pub fn reason(&self, id: &InstanceId, now: Tick) -> String {
        let Some(instance) = self.instances.get(id) else { return String::new() };
        let last = || instance.last.as_ref().map(ToString::to_string).unwrap_or_default();
        match &instance.phase {
            Phase::Failed(reason) => reason.to_string(),
            Phase::Waiting => {
                let holds = self.holds(id);
                let on: Vec<String> =
                    holds.iter().map(|hold| format!("{} ({})", hold.on, hold.phase)).collect();
                format!("waits for {}", on.join(", "))
            }
            Phase::Backoff { until, attempt } => {
                let left = human_duration(until.since(now));
                format!("restart {attempt} in {left}; last: {}", last())
            }
            Phase::Stopping { stop_step, reason, .. } => {
                format!("{reason}{}", stop_step_words(*stop_step))
            }
            Phase::Clearing { .. } => "ending what its first process left behind".to_owned(),
            Phase::Ready { strikes, .. } if *strikes > 0 => {
                let threshold = instance.rules.unhealthy_threshold;
                format!("{strikes} of {threshold} health checks failed")
            }
            Phase::Ready { .. } if instance.memory == Memory::Short => {
                "slowed down: it asks for more memory than its limits give".to_owned()
            }
            Phase::Ready { .. } if instance.wanted == Wanted::Down => {
                let first: Vec<String> =
                    self.stops_first(id).iter().map(ToString::to_string).collect();
                format!("stops after {}", first.join(", "))
            }
            Phase::Ready { .. } | Phase::Starting { .. } if instance.restarts > 0 => {
                format!("last run: {}", last())
            }
            Phase::Stopped if instance.last.is_some() => last(),
            Phase::Ready { .. } | Phase::Starting { .. } | Phase::Stopped => String::new(),
        }
    }
}

fn stop_step_words(stop_step: StopStep) -> &'static str {
    match stop_step {
        StopStep::OwnAccord | StopStep::Term => "",
        StopStep::Drain => " (draining)",
        StopStep::Kill => " (killed: it did not end within its stop timeout)",
        StopStep::Unkillable => " (cannot be killed: a process hangs in the kernel)",
    }
}

impl Instance {
    /// The rules that decide about its restarts and what has been used up of them, in words.
    pub fn rules_in_words(&self, now: Tick) -> Vec<String> {
        let rules = &self.rules.restart;
        let policy = match rules.policy {
            RestartPolicy::Always => "always: however it ends",
            RestartPolicy::OnFailure => {
                "on_failure: not after exit code 0, SIGHUP, SIGINT, SIGTERM or SIGPIPE"
            }
            RestartPolicy::Never => "never",
        };
        let counted = self.recent.iter().filter(|at| now.since(**at) < rules.window).count();
        let (max, window) = (rules.max_restarts, human_duration(rules.window));
        let (initial, most) =
            (human_duration(rules.backoff_initial), human_duration(rules.backoff_max));
        let growth = if rules.backoff_initial == rules.backoff_max {
            "each time".to_owned()
        } else {
            format!("twice as long each time, at most {most}")
        };
        let mut words = vec![
            format!("restart policy {policy}"),
            format!("at most {max} counted restarts within {window}; {counted} so far"),
            format!("the first restart at once, then after {initial}, {growth}"),
        ];
        let names = |all: &[ServiceName]| {
            all.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
        };
        let (needs, leaders) = (&self.rules.needs, &self.rules.restart_with);
        if !needs.is_empty() {
            words.push(format!("starts when ready: {}", names(needs)));
        }
        if !leaders.is_empty() {
            words.push(format!("is restarted after a restart of: {}", names(leaders)));
        }
        words
    }

    pub fn pid(&self) -> Option<Pid> {
        match self.phase {
            Phase::Starting { pid, .. } | Phase::Stopping { pid, .. } => pid,
            Phase::Ready { pid, .. } => Some(pid),
            Phase::Stopped
            | Phase::Waiting
            | Phase::Clearing { .. }
            | Phase::Backoff { .. }
            | Phase::Failed(_) => None,
        }
    }

    pub fn run(&self) -> Option<RunId> {
        self.phase.run()
    }

    /// How long the present run has lasted; zero without one.
    pub fn uptime(&self, now: Tick) -> Duration {
        match self.phase {
            Phase::Starting { since, .. } => now.since(since),
            Phase::Ready { spawned, .. } | Phase::Stopping { spawned, .. } => now.since(spawned),
            Phase::Stopped
            | Phase::Waiting
            | Phase::Clearing { .. }
            | Phase::Backoff { .. }
            | Phase::Failed(_) => Duration::ZERO,
        }
    }

    /// From the spawn of the present run to its readiness.
    pub fn ready_after(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ready { spawned, since, .. } => Some(since.since(spawned)),
            Phase::Stopped
            | Phase::Waiting
            | Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Backoff { .. }
            | Phase::Failed(_) => None,
        }
    }
}
