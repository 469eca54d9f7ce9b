//! What the node did about an event against what it owed; and what another orchestrator that goes
//! on may believe.

use std::time::Duration;

use blackhole_node::decide::{
    Announcement, Effect, Instance, Membership, Node, Phase, Remark, RemarkKind, StopStep, Wanted,
};
use blackhole_node::units::{InstanceId, RunId, Signal, Tick};

use super::oracle::{Deed, Expected, KILL_PATIENCE, Life, Oracle, Stage, State, Want, cause};
use super::oracle_ends::End;

/// What was said while no orchestrator was there is heard within this time.
const CATCHING_UP: Duration = Duration::from_secs(5);

impl Oracle {
    /// All that is owed was done, nothing else was, and none of it twice.
    pub(super) fn judge(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Some(deed) = deed(effect) else { continue };
            let fits = |owed: &Deed| match (owed, &deed) {
                (
                    Deed::SayRestarting { id, attempt, delay: base },
                    Deed::SayRestarting { id: other, attempt: nth, delay },
                ) => id == other && attempt == nth && (*base..=*base * 5 / 4).contains(delay),
                (owed, deed) => owed == deed,
            };
            match self.owed.iter().position(fits) {
                Some(place) => drop(self.owed.swap_remove(place)),
                None => self.fail(&format!("nobody asked for {deed:?}; owed: {:?}", self.owed)),
            }
            self.learn(effect);
        }
        self.must(self.owed.is_empty(), || format!("not done: {:?}", self.owed));
    }

    /// What only the node can tell: numbers of runs and the random part of a pause.
    fn learn(&mut self, effect: &Effect) {
        if let Effect::Spawn { instance, run, .. } = effect {
            self.begin_run(instance, *run);
        }
        if let Effect::Note(Remark { instance, kind: RemarkKind::Restarting { delay, .. }, .. }) =
            effect
            && let Some(it) = self.instances.get_mut(instance)
            && let State::Pauses { until } = &mut it.state
        {
            *until = self.now + *delay;
        }
    }

    fn begin_run(&mut self, id: &InstanceId, run: RunId) {
        let now = self.now;
        let former = self.runs.insert(run, id.clone());
        self.must(former.is_none(), || format!("run {run} was there before"));
        if let Some(it) = self.instances.get_mut(id) {
            let due = Some(now + it.rules.start_timeout);
            it.state = State::Runs(Life { due, ..Life::of(run, Stage::Starting) });
        }
    }

    /// Both know the same instances, and the node wakes no later than something is due.
    pub(super) fn compare(&self, node: &Node) {
        let same = self.instances.keys().eq(node.instances().map(|(id, _)| id));
        self.must(same, || "it has other instances than were planned".to_owned());
        let (own, nodes) = (self.next_due(), node.next_deadline());
        let wakes = own.is_none_or(|own| nodes.is_some_and(|nodes| nodes <= own));
        self.must(wakes, || format!("due at {own:?}, and it sleeps until {nodes:?}"));
    }

    /// Another orchestrator goes on. It knows what was saved: that is taken from it, but no
    /// deadline is.
    pub(super) fn go_on_from(&mut self, node: &Node, effects: &[Effect], now: Tick) {
        let spawned = |run: RunId| {
            let is_spawn =
                |effect: &Effect| matches!(effect, Effect::Spawn { run: new, .. } if *new == run);
            effects.iter().any(is_spawn)
        };
        let mut next = Self::new(self.seed, now, Default::default());
        next.announced = node.is_announced();
        for (id, instance) in node.instances() {
            let mut it = Expected::of(instance, now);
            let former = self.instances.get_mut(id).and_then(Expected::life);
            if let Some(life) = it.life() {
                let run = life.run;
                if life.stage == Stage::Starting && spawned(run) {
                    life.due = Some(now + instance.rules.start_timeout);
                } else if life.stage == Stage::Starting {
                    let least = now + CATCHING_UP;
                    let anew = now + instance.rules.start_timeout.max(CATCHING_UP);
                    // Of one that was told to go meanwhile its time to start is not known.
                    let is_it = |former: &&mut Life| former.run == run;
                    let before = former.filter(is_it).filter(|it| it.stage == Stage::Starting);
                    let most = before.map(|former| former.due.max(Some(anew)));
                    let fits = life.due >= Some(least) && most.is_none_or(|most| life.due <= most);
                    self.must(fits, || format!("run {run} has until {:?} to start", life.due));
                }
                if let Some(again) = life.to_do_again() {
                    let done = effects.iter().any(|effect| deed(effect).as_ref() == Some(&again));
                    self.must(done, || format!("not done again: {again:?}"));
                }
                next.runs.insert(run, id.clone());
            }
            next.instances.insert(id.clone(), it);
        }
        *self = next;
    }
}

impl Life {
    pub(super) fn of(run: RunId, stage: Stage) -> Self {
        Self { run, has_pid: false, exec_failed: false, ready: None, strikes: 0, stage, due: None }
    }

    /// What a former orchestrator may have died before.
    fn to_do_again(&self) -> Option<Deed> {
        let run = self.run;
        match &self.stage {
            Stage::Stopping { step: StopStep::Term, cause: "watchdog" } => {
                Some(Deed::Signal(run, Signal::ABRT))
            }
            Stage::Stopping { step: StopStep::Term, .. } => Some(Deed::Signal(run, Signal::TERM)),
            Stage::Stopping { step: StopStep::Kill | StopStep::Unkillable, .. } => {
                Some(Deed::Kill(run))
            }
            Stage::Clearing { .. } => Some(Deed::Clear(run)),
            Stage::Starting | Stage::Ready | Stage::Stopping { .. } => None,
        }
    }
}

impl Expected {
    /// As the next orchestrator has it, with the deadlines that must hold from now on.
    fn of(instance: &Instance, now: Tick) -> Self {
        let rules = instance.rules.clone();
        let patience = |step: StopStep| match step {
            StopStep::OwnAccord | StopStep::Term => rules.stop_timeout,
            StopStep::Drain => rules.drain,
            StopStep::Kill | StopStep::Unkillable => KILL_PATIENCE,
        };
        let state = match &instance.phase {
            Phase::Stopped => State::Rests,
            Phase::Failed(_) => State::Failed,
            Phase::Waiting => State::Waits,
            Phase::Backoff { until, .. } => State::Pauses { until: *until },
            Phase::Starting { run, pid, exec_failure, deadline, .. } => State::Runs(Life {
                has_pid: pid.is_some(),
                exec_failed: exec_failure.is_some(),
                due: Some(*deadline),
                ..Life::of(*run, Stage::Starting)
            }),
            Phase::Ready { run, since, .. } => State::Runs(Life {
                has_pid: true,
                ready: Some(*since),
                due: rules.watchdog.map(|patience| now + patience.max(CATCHING_UP)),
                ..Life::of(*run, Stage::Ready)
            }),
            Phase::Stopping { run, ready, stop_step: step, reason, .. } => State::Runs(Life {
                has_pid: true,
                ready: *ready,
                due: Some(now + patience(*step)),
                ..Life::of(*run, Stage::Stopping { step: *step, cause: cause(reason) })
            }),
            Phase::Clearing { run, ended, .. } => State::Runs(Life {
                has_pid: true,
                due: Some(now + KILL_PATIENCE),
                ..Life::of(*run, Stage::Clearing { end: End::saved(ended) })
            }),
        };
        let wanted = match instance.wanted {
            Wanted::Up => Want::Up,
            Wanted::Restart => Want::Again,
            Wanted::Down => Want::Down,
        };
        Self {
            planned: instance.membership == Membership::Planned,
            wanted,
            state,
            attempt: instance.attempt,
            counted: instance.recent.clone(),
            had_a_run: instance.last.is_some(),
            rules,
        }
    }
}

/// None: nothing is foretold about it.
fn deed(effect: &Effect) -> Option<Deed> {
    Some(match effect {
        Effect::Spawn { instance, .. } => Deed::Spawn(instance.clone()),
        Effect::Signal { run, signal } => Deed::Signal(*run, *signal),
        Effect::KillGroup { run } => Deed::Kill(*run),
        Effect::Clear { run } => Deed::Clear(*run),
        Effect::Forget { run } => Deed::Forget(*run),
        Effect::Retire { instance } => Deed::Retire(instance.clone()),
        Effect::Announce(Announcement::Ready) => Deed::AnnounceReady,
        Effect::Announce(Announcement::Stopping) => Deed::AnnounceStopping,
        Effect::Announce(Announcement::Stopped) => Deed::AnnounceStopped,
        Effect::Note(remark) => return said(remark),
        Effect::ReadUsage { .. }
        | Effect::Reclaim { .. }
        | Effect::SetLimits { .. }
        | Effect::UndoSetLimits { .. } => return None,
    })
}

fn said(Remark { instance, run, kind }: &Remark) -> Option<Deed> {
    let id = instance.clone();
    Some(match kind {
        RemarkKind::Stopped => Deed::SayStopped(id),
        RemarkKind::Failed(_) => Deed::SayFailed(id),
        RemarkKind::Retired => Deed::SayRetired(id),
        RemarkKind::Restarting { delay, attempt } => {
            Deed::SayRestarting { id, attempt: *attempt, delay: *delay }
        }
        RemarkKind::Ready { .. } => Deed::SayReady((*run)?),
        RemarkKind::StartFailed(_) => Deed::SayStartFailed((*run)?),
        RemarkKind::Ended(_) => Deed::SayEnded((*run)?),
        RemarkKind::Unhealthy { strikes, threshold, .. } => {
            Deed::SayUnhealthy { run: (*run)?, strikes: *strikes, threshold: *threshold }
        }
        RemarkKind::Stopping(reason) => Deed::SayStopping((*run)?, cause(reason)),
        RemarkKind::Killing => Deed::SayKilling((*run)?),
        RemarkKind::Unkillable => Deed::SayUnkillable((*run)?),
        RemarkKind::LeftOvers => Deed::SayLeftOvers((*run)?),
        RemarkKind::Starting
        | RemarkKind::Starved
        | RemarkKind::Memory(_)
        | RemarkKind::LimitsRefused(_) => return None,
    })
}
