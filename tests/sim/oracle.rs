//! What must be, reckoned from what the world told the node and what it heard from it: who is to
//! run, who is ready, how many checks failed in a row, what is due when, and what follows an end.
//! Never asks the node, but when another orchestrator goes on: what that one knows is what was
//! saved. What an event does to it is in `oracle_events.rs`, what a run's end does in
//! `oracle_ends.rs`, and the comparison with what the node did in `oracle_verdict.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use blackhole_node::decide::{StopReason, StopStep};
use blackhole_node::plan::Rules;
use blackhole_node::units::{InstanceId, RunId, ServiceName, Signal, Tick};

use super::oracle_ends::End;

/// From a SIGKILL to the next one.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Oracle {
    pub(super) seed: u64,
    pub(super) now: Tick,
    pub(super) instances: BTreeMap<InstanceId, Expected>,
    /// Who a live run belongs to.
    pub(super) runs: BTreeMap<RunId, InstanceId>,
    pub(super) shutting_down: bool,
    pub(super) announced: bool,
    /// What the node is to do about the present event, and has not done yet.
    pub(super) owed: Vec<Deed>,
}

/// One instance.
pub(super) struct Expected {
    pub(super) rules: Rules,
    /// Part of the plan in force.
    pub(super) planned: bool,
    pub(super) wanted: Want,
    pub(super) state: State,
    pub(super) attempt: u32,
    pub(super) counted: VecDeque<Tick>,
    /// A run of it has ended.
    pub(super) had_a_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Up,
    /// Up, by another run than that which is ending.
    Again,
    Down,
}

#[derive(Debug)]
pub(super) enum State {
    Rests,
    Failed,
    Waits,
    Pauses { until: Tick },
    Runs(Life),
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) run: RunId,
    pub(super) has_pid: bool,
    pub(super) exec_failed: bool,
    pub(super) ready: Option<Tick>,
    /// Failed checks in a row.
    pub(super) strikes: u32,
    pub(super) stage: Stage,
    /// When the node has to do something about it.
    pub(super) due: Option<Tick>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Stage {
    Starting,
    Ready,
    Stopping { step: StopStep, cause: &'static str },
    Clearing { end: End },
}

/// What a node does or says, as far as it is foretold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    Spawn(InstanceId),
    Signal(RunId, Signal),
    Kill(RunId),
    Clear(RunId),
    Forget(RunId),
    Retire(InstanceId),
    AnnounceReady,
    AnnounceStopping,
    AnnounceStopped,
    SayReady(RunId),
    SayUnhealthy {
        run: RunId,
        strikes: u32,
        threshold: u32,
    },
    SayStopping(RunId, &'static str),
    SayKilling(RunId),
    SayUnkillable(RunId),
    SayLeftOvers(RunId),
    SayStartFailed(RunId),
    SayEnded(RunId),
    SayStopped(InstanceId),
    SayFailed(InstanceId),
    SayRetired(InstanceId),
    /// With the delay before the random part of it.
    SayRestarting {
        id: InstanceId,
        attempt: u32,
        delay: Duration,
    },
}

impl Oracle {
    /// A node that begins.
    pub(super) fn new(seed: u64, now: Tick, plan: BTreeMap<InstanceId, Rules>) -> Self {
        let instances = plan.into_iter().map(|(id, rules)| (id, Expected::new(rules)));
        Self {
            seed,
            now,
            instances: instances.collect(),
            runs: BTreeMap::new(),
            shutting_down: false,
            announced: false,
            owed: Vec::new(),
        }
    }

    /// When the node must wake although nothing is heard.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.instances.values().filter_map(Expected::due).min()
    }

    /// The planned instance that does not serve, if there is one.
    pub(super) fn who_is_not_up(&self) -> Option<&InstanceId> {
        let is_up = |it: &Expected| !it.planned || it.serves();
        self.instances.iter().find(|(_, it)| !is_up(it)).map(|(id, _)| id)
    }

    pub(super) fn ids_of(&self, service: &ServiceName) -> Vec<InstanceId> {
        self.instances.keys().filter(|id| id.service == *service).cloned().collect()
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("SIM_SEED={} at {}ms: {what}", self.seed, self.now.0.as_millis())
    }

    pub(super) fn must(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }
}

impl Expected {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            planned: true,
            wanted: Want::Up,
            state: State::Waits,
            attempt: 0,
            counted: VecDeque::new(),
            had_a_run: false,
        }
    }

    fn due(&self) -> Option<Tick> {
        match &self.state {
            State::Pauses { until } => Some(*until),
            State::Runs(life) => life.due,
            State::Rests | State::Failed | State::Waits => None,
        }
    }

    pub(super) fn life(&mut self) -> Option<&mut Life> {
        match &mut self.state {
            State::Runs(life) => Some(life),
            State::Rests | State::Failed | State::Waits | State::Pauses { .. } => None,
        }
    }

    pub(super) fn serves(&self) -> bool {
        matches!(&self.state, State::Runs(life) if life.stage == Stage::Ready)
    }

    /// Has a process that was not told to go.
    pub(super) fn lives(&self) -> bool {
        let stage = match &self.state {
            State::Runs(life) => &life.stage,
            State::Rests | State::Failed | State::Waits | State::Pauses { .. } => return false,
        };
        matches!(stage, Stage::Starting | Stage::Ready)
    }

    pub(super) fn rests(&self) -> bool {
        matches!(self.state, State::Rests | State::Failed)
    }

    /// What went wrong before no longer counts.
    pub(super) fn forgive(&mut self) {
        self.attempt = 0;
        self.counted.clear();
    }
}

pub(super) fn cause(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::Operator => "operator",
        StopReason::Shutdown => "shutdown",
        StopReason::OwnAccord => "own accord",
        StopReason::StartTimeout => "start timeout",
        StopReason::Unhealthy(_) => "unhealthy",
        StopReason::Watchdog => "watchdog",
        StopReason::Replanned => "replanned",
        StopReason::With(_) => "with",
    }
}
