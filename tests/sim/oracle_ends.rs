//! What must follow the end of a run by the rules of its service, and who goes on then.

use std::time::Duration;

use blackhole_node::decide::{Ended, Ending, ExitFacts};
use blackhole_node::plan::{Readiness, RestartPolicy};
use blackhole_node::units::{ExitStatus, InstanceId, RunId, Signal, Tick};

use super::oracle::{Deed, Expected, Life, Oracle, State, Want, cause};

/// How a run came to its end, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct End {
    /// None: it never was a program.
    pub(super) facts: Option<ExitFacts>,
    /// Why it was told to go, if it was.
    pub(super) asked: Option<&'static str>,
    pub(super) ready_for: Option<Duration>,
}

impl End {
    pub(super) fn never_started() -> Self {
        Self { facts: None, asked: None, ready_for: None }
    }

    pub(super) fn of(life: &Life, facts: ExitFacts, now: Tick) -> Self {
        let ready_for = life.ready.map(|since| now.since(since));
        Self { facts: (!life.exec_failed).then_some(facts), asked: life.cause(), ready_for }
    }

    /// As a former orchestrator saved it.
    pub(super) fn saved(ended: &Ended) -> Self {
        let facts = match ended.how {
            Ending::Exited(facts) => Some(facts),
            Ending::NeverStarted(_) => None,
        };
        Self { facts, asked: ended.asked.as_ref().map(cause), ready_for: ended.ready_for }
    }

    /// Exit code 0 or a signal that tells a daemon to go; not when the node had to end it, and not
    /// when some of it was killed for want of memory.
    fn is_success(&self) -> bool {
        let at_fault = ["start timeout", "unhealthy", "watchdog"];
        let Some(facts) = self.facts.filter(|facts| facts.oom_kills == 0) else { return false };
        let asked_to_go = [1, 2, 13, 15].map(Signal);
        let clean = match facts.status {
            ExitStatus::Code(code) => code == 0,
            ExitStatus::Signal { number, .. } => asked_to_go.contains(&number),
            ExitStatus::Unseen => false,
        };
        clean && self.asked.is_none_or(|asked| !at_fault.contains(&asked))
    }

    /// Somebody else ended a run that had shown that it works.
    fn is_no_crash(&self, readiness: Readiness) -> bool {
        let Some(facts) = self.facts.filter(|facts| facts.oom_kills == 0) else { return false };
        let sent_by_others = [1, 2, 9, 15, 24].map(Signal);
        let signalled = match facts.status {
            ExitStatus::Signal { number, .. } => sent_by_others.contains(&number),
            ExitStatus::Code(_) | ExitStatus::Unseen => false,
        };
        let proof = match readiness {
            Readiness::Started => Duration::from_secs(1),
            Readiness::Notify | Readiness::Grpc | Readiness::Port(_) => Duration::ZERO,
        };
        let works = self.ready_for.is_some_and(|time| time >= proof);
        works && signalled && self.asked.is_none()
    }
}

impl Oracle {
    /// Nothing of the run is left.
    pub(super) fn end(&mut self, id: &InstanceId, run: RunId, end: End) {
        self.owed.extend([Deed::SayEnded(run), Deed::Forget(run)]);
        self.runs.remove(&run);
        let (now, shutting_down) = (self.now, self.shutting_down);
        let Some(it) = self.instances.get_mut(id) else { return };
        it.had_a_run = true;
        if shutting_down || it.wanted == Want::Down {
            it.state = State::Rests;
            self.owed.push(Deed::SayStopped(id.clone()));
            return;
        }
        if it.wanted == Want::Again {
            (it.wanted, it.state) = (Want::Up, State::Waits);
            return;
        }
        match (it.rules.restart.policy, end.is_success()) {
            (RestartPolicy::Never | RestartPolicy::OnFailure, true) => {
                it.state = State::Rests;
                self.owed.push(Deed::SayStopped(id.clone()));
            }
            (RestartPolicy::Never, false) => {
                it.state = State::Failed;
                self.owed.push(Deed::SayFailed(id.clone()));
            }
            (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, false) => {
                let deed = it.restart(id, end, now);
                self.owed.extend(deed);
            }
        }
    }

    /// Whatever no longer has to wait goes on.
    pub(super) fn go_on(&mut self) {
        for (id, it) in &mut self.instances {
            let idle = matches!(it.state, State::Waits | State::Pauses { .. });
            if idle && it.wanted == Want::Down {
                it.state = State::Rests;
                self.owed.push(Deed::SayStopped(id.clone()));
            }
        }
        let gone = self.instances.iter().filter(|(_, it)| !it.planned && it.rests());
        let gone: Vec<InstanceId> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.instances.remove(&id);
            self.owed.extend([Deed::SayRetired(id.clone()), Deed::Retire(id)]);
        }
        for (id, why) in self.to_stop() {
            self.stop(&id, why);
        }
        let to_start = self.to_start();
        self.owed.extend(to_start.into_iter().map(Deed::Spawn));
        self.announce();
    }

    /// Who is unwanted, and needed by nobody who is unwanted too and still there.
    fn to_stop(&self) -> Vec<(InstanceId, &'static str)> {
        let is_needed = |id: &InstanceId| {
            let mut others = self.instances.values();
            let goes = |it: &Expected| it.wanted == Want::Down && !it.rests();
            others.any(|it| goes(it) && it.rules.needs.contains(&id.service))
        };
        let unwanted =
            self.instances.iter().filter(|(_, it)| it.wanted == Want::Down && it.lives());
        let free = unwanted.filter(|(id, _)| !is_needed(id));
        let with_cause = free.map(|(id, it)| {
            let cause = match (self.shutting_down, it.planned) {
                (true, _) => "shutdown",
                (false, false) => "replanned",
                (false, true) => "operator",
            };
            (id.clone(), cause)
        });
        with_cause.collect()
    }

    /// Who waits for nothing any more: all that it needs serves, or rests on purpose.
    fn to_start(&self) -> Vec<InstanceId> {
        if self.shutting_down {
            return Vec::new();
        }
        let holds = |it: &Expected| it.planned && !it.serves() && !matches!(it.state, State::Rests);
        let waits = self.instances.iter().filter(|(_, it)| matches!(it.state, State::Waits));
        let free = waits.filter(|(_, it)| {
            let mut others = self.instances.iter();
            !others.any(|(other, state)| it.rules.needs.contains(&other.service) && holds(state))
        });
        free.map(|(id, _)| id.clone()).collect()
    }

    fn announce(&mut self) {
        let starts = self.owed.iter().any(|deed| matches!(deed, Deed::Spawn(_)));
        let is_under_way = |it: &Expected| {
            matches!(it.state, State::Runs(_) | State::Pauses { .. }) && !it.serves()
        };
        if self.shutting_down {
            if self.instances.values().all(Expected::rests) {
                self.owed.push(Deed::AnnounceStopped);
            }
        } else if !self.announced && !starts && !self.instances.values().any(is_under_way) {
            self.announced = true;
            self.owed.push(Deed::AnnounceReady);
        }
    }
}

impl Expected {
    /// Starts it again, at once or after a pause, or gives up; gives what is told of it.
    fn restart(&mut self, id: &InstanceId, end: End, now: Tick) -> Option<Deed> {
        let rules = &self.rules.restart;
        if end.ready_for.is_some_and(|time| time >= rules.stable_after) {
            self.attempt = 0;
        }
        if end.is_no_crash(self.rules.readiness) {
            self.state = State::Waits;
            return None;
        }
        self.counted.retain(|at| now.since(*at) < rules.window);
        if self.counted.len() >= usize::try_from(rules.max_restarts).unwrap() {
            self.state = State::Failed;
            return Some(Deed::SayFailed(id.clone()));
        }
        let delay = match self.attempt {
            0 => Duration::ZERO,
            n => (rules.backoff_initial * 2_u32.saturating_pow(n - 1)).min(rules.backoff_max),
        };
        self.attempt += 1;
        self.counted.push_back(now);
        // The random part of the pause is learnt from the node.
        self.state = match delay {
            Duration::ZERO => State::Waits,
            delay => State::Pauses { until: now + delay },
        };
        Some(Deed::SayRestarting { id: id.clone(), attempt: self.attempt, delay })
    }
}
