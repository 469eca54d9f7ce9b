//! What an event does to what is expected, and what the node owes for it.

use std::collections::BTreeSet;
use std::time::Duration;

use blackhole_node::decide::{
    Check, Command, Event, GroupState, News, Notice, Replan, StopStep, Urgency,
};
use blackhole_node::plan::{Readiness, Rules};
use blackhole_node::units::{InstanceId, RunId, Signal, Tick};

use super::oracle::{Deed, Expected, KILL_PATIENCE, Life, Oracle, Stage, State, Want};
use super::oracle_ends::End;

impl Oracle {
    /// The node is about to hear of it.
    pub(super) fn hear(&mut self, now: Tick, event: &Event) {
        self.now = now;
        self.owed.clear();
        match event {
            Event::Tick => self.on_time(),
            Event::Command(command) => self.on_command(command),
            Event::News { run, news } => {
                // Of a run that is over nothing follows.
                if let Some(id) = self.runs.get(run).cloned() {
                    self.on_news(&id, *run, news);
                }
            }
        }
        self.go_on();
    }

    fn on_time(&mut self) {
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in ids {
            let now = self.now;
            let Some(it) = self.instances.get_mut(&id) else { continue };
            if matches!(it.state, State::Pauses { until } if until <= now) {
                it.state = State::Waits;
            }
            let Some(life) = it.life().filter(|life| life.due.is_some_and(|due| due <= now)) else {
                continue;
            };
            let run = life.run;
            match life.stage {
                Stage::Starting => self.stop(&id, "start timeout"),
                Stage::Ready => self.stop(&id, "watchdog"),
                Stage::Clearing { .. } => {
                    life.due = Some(now + KILL_PATIENCE);
                    self.owed.extend([Deed::SayUnkillable(run), Deed::Clear(run)]);
                }
                Stage::Stopping { .. } => self.press(&id),
            }
        }
    }

    /// The next step of a stop.
    fn press(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(it) = self.instances.get_mut(id) else { return };
        let stop_timeout = it.rules.stop_timeout;
        let Some(life) = it.life() else { return };
        let Stage::Stopping { step, .. } = &mut life.stage else { return };
        let (next, patience) = match *step {
            StopStep::OwnAccord | StopStep::Drain => {
                self.owed.push(Deed::Signal(life.run, Signal::TERM));
                (StopStep::Term, stop_timeout)
            }
            StopStep::Term => {
                self.owed.extend([Deed::SayKilling(life.run), Deed::Kill(life.run)]);
                (StopStep::Kill, KILL_PATIENCE)
            }
            StopStep::Kill => {
                self.owed.extend([Deed::SayUnkillable(life.run), Deed::Kill(life.run)]);
                (StopStep::Unkillable, KILL_PATIENCE)
            }
            StopStep::Unkillable => {
                self.owed.push(Deed::Kill(life.run));
                (StopStep::Unkillable, KILL_PATIENCE)
            }
        };
        *step = next;
        life.due = Some(now + patience);
    }

    /// Tells a run to go, if it was not told yet.
    pub(super) fn stop(&mut self, id: &InstanceId, cause: &'static str) {
        let now = self.now;
        let Some(it) = self.instances.get_mut(id).filter(|it| it.lives()) else { return };
        let (drain, stop_timeout) = (it.rules.drain, it.rules.stop_timeout);
        let served = it.serves();
        let Some(life) = it.life() else { return };
        let run = life.run;
        self.owed.push(Deed::SayStopping(run, cause));
        let at_fault = ["start timeout", "unhealthy", "watchdog"].contains(&cause);
        let (step, patience) = if cause == "own accord" {
            (StopStep::OwnAccord, stop_timeout)
        } else if served && !at_fault && !drain.is_zero() {
            (StopStep::Drain, drain)
        } else {
            let signal = if cause == "watchdog" { Signal::ABRT } else { Signal::TERM };
            self.owed.push(Deed::Signal(run, signal));
            (StopStep::Term, stop_timeout)
        };
        life.stage = Stage::Stopping { step, cause };
        life.due = Some(now + patience);
        life.exec_failed = false;
    }

    fn on_command(&mut self, command: &Command) {
        match command {
            Command::Stop(ids) => ids.iter().for_each(|id| self.want_down(id)),
            Command::Shutdown(urgency) => self.on_shutdown(*urgency),
            // From its announcement on nobody brings anything up.
            _ if self.shutting_down => {}
            Command::Start(ids) => {
                for id in self.with_needs(ids) {
                    self.want_up(&id);
                }
            }
            Command::Restart(ids) => {
                for id in ids {
                    self.want_up(id);
                    self.start_anew(id, "operator");
                }
            }
            Command::Replan(plan) => self.on_plan(plan),
            Command::SetLimits(_) => {}
        }
    }

    fn on_shutdown(&mut self, urgency: Urgency) {
        if !self.shutting_down {
            self.owed.push(Deed::AnnounceStopping);
        }
        self.shutting_down = true;
        let now = self.now;
        for it in self.instances.values_mut() {
            it.want_down();
            let lives = it.lives();
            let Some(life) = it.life().filter(|_| urgency == Urgency::Now) else { continue };
            let is_pressed = matches!(&life.stage, Stage::Stopping { step, .. }
                if *step < StopStep::Kill);
            if lives {
                self.owed.push(Deed::SayStopping(life.run, "shutdown"));
            }
            if lives || is_pressed {
                self.owed.push(Deed::Kill(life.run));
                let cause = life.cause().unwrap_or("shutdown");
                life.stage = Stage::Stopping { step: StopStep::Kill, cause };
                life.due = Some(now + KILL_PATIENCE);
                life.exec_failed = false;
            }
        }
    }

    fn want_down(&mut self, id: &InstanceId) {
        if let Some(it) = self.instances.get_mut(id) {
            it.want_down();
        }
    }

    fn want_up(&mut self, id: &InstanceId) {
        let Some(it) = self.instances.get_mut(id).filter(|it| it.planned) else { return };
        it.wanted = Want::Up;
        match &it.state {
            State::Rests | State::Failed | State::Pauses { .. } => {
                it.forgive();
                it.state = State::Waits;
            }
            State::Runs(_) if !it.lives() => {
                it.forgive();
                it.wanted = Want::Again;
            }
            State::Waits | State::Runs(_) => {}
        }
    }

    /// Its run, if it is wanted and was not told to go, is followed by another.
    pub(super) fn start_anew(&mut self, id: &InstanceId, cause: &'static str) {
        let Some(it) = self.instances.get_mut(id) else { return };
        if it.lives() && it.wanted != Want::Down {
            it.wanted = Want::Again;
            self.stop(id, cause);
        }
    }

    /// These and all that they need, over however many others.
    fn with_needs(&self, ids: &BTreeSet<InstanceId>) -> BTreeSet<InstanceId> {
        let mut all: BTreeSet<InstanceId> =
            ids.iter().filter(|id| self.instances.contains_key(id)).cloned().collect();
        loop {
            let needs = all.iter().flat_map(|id| &self.instances[id].rules.needs);
            let more: Vec<InstanceId> = needs.flat_map(|service| self.ids_of(service)).collect();
            let before = all.len();
            all.extend(more);
            if all.len() == before {
                return all;
            }
        }
    }

    fn on_plan(&mut self, plan: &Replan) {
        for (id, it) in &mut self.instances {
            if !plan.rules.contains_key(id) {
                it.want_down();
                it.planned = false;
                // What goes while others of its service stay goes as their needs say.
                let stays = plan.rules.iter().find(|(other, _)| other.service == id.service);
                if let Some((_, rules)) = stays {
                    it.rules.needs.clone_from(&rules.needs);
                }
            }
        }
        for (id, rules) in &plan.rules {
            let now = self.now;
            let Some(it) = self.instances.get_mut(id) else {
                self.instances.insert(id.clone(), Expected::new(rules.clone()));
                continue;
            };
            it.take_rules(rules, now);
            if !std::mem::replace(&mut it.planned, true) {
                self.want_up(id);
            }
        }
        for id in &plan.relaunch {
            let Some(it) = self.instances.get_mut(id) else { continue };
            if it.wanted == Want::Down {
                continue;
            }
            match &it.state {
                State::Runs(_) if it.lives() => self.start_anew(id, "replanned"),
                State::Runs(_) => it.wanted = Want::Again,
                State::Rests | State::Failed | State::Pauses { .. } => {
                    it.forgive();
                    it.state = State::Waits;
                }
                State::Waits => {}
            }
        }
    }

    fn on_news(&mut self, id: &InstanceId, run: RunId, news: &News) {
        let Some(it) = self.instances.get_mut(id) else { return };
        let readiness = it.rules.readiness;
        let Some(life) = it.life() else { return };
        match news {
            News::Spawned { .. } => life.has_pid = true,
            News::SpawnFailed(_) => {
                if !matches!(life.stage, Stage::Starting | Stage::Stopping { .. }) {
                    return;
                }
                self.owed.push(Deed::SayStartFailed(run));
                let asked = life.cause();
                self.end(id, run, End { asked, ..End::never_started() });
            }
            News::ExecFailed(_) => {
                life.exec_failed |= life.stage == Stage::Starting;
            }
            News::Executed => self.take_sign(id, Readiness::Started),
            News::PortOpen if matches!(readiness, Readiness::Port(_)) => {
                self.take_sign(id, readiness);
            }
            News::Checked(check) => self.on_check(id, run, check),
            News::Notice(notice) => self.on_notice(id, notice),
            News::Exited { facts, group } => {
                if matches!(life.stage, Stage::Clearing { .. }) {
                    return;
                }
                let end = End::of(life, *facts, self.now);
                match group {
                    GroupState::Empty => self.end(id, run, end),
                    GroupState::Populated => {
                        life.stage = Stage::Clearing { end };
                        life.due = Some(self.now + KILL_PATIENCE);
                        self.owed.extend([Deed::SayLeftOvers(run), Deed::Clear(run)]);
                    }
                }
            }
            News::GroupEmpty => {
                if let Stage::Clearing { end } = &life.stage {
                    let end = *end;
                    self.end(id, run, end);
                }
            }
            News::PortOpen
            | News::Memory(_)
            | News::Usage { .. }
            | News::LimitsSet { .. }
            | News::LimitsRefused { .. } => {}
        }
    }

    /// One of the signs that a service serves; only that which its rules name makes it ready.
    fn take_sign(&mut self, id: &InstanceId, sign: Readiness) {
        let now = self.now;
        let Some(it) = self.instances.get_mut(id) else { return };
        let Rules { readiness, watchdog, .. } = it.rules;
        let Some(life) = it.life() else { return };
        let is_born = life.has_pid && !life.exec_failed && life.stage == Stage::Starting;
        if sign != readiness || !is_born {
            return;
        }
        life.stage = Stage::Ready;
        (life.ready, life.strikes) = (Some(now), 0);
        life.due = watchdog.map(|patience| now + patience);
        let run = life.run;
        self.owed.push(Deed::SayReady(run));
        let leads = it.had_a_run;
        self.wake_those_that_need(id);
        if leads {
            self.restart_followers(id, run);
        }
    }

    fn on_check(&mut self, id: &InstanceId, run: RunId, check: &Check) {
        if *check == Check::Healthy {
            self.take_sign(id, Readiness::Grpc);
        }
        let Some(it) = self.instances.get_mut(id).filter(|it| it.serves()) else { return };
        let threshold = it.rules.unhealthy_threshold;
        let Some(life) = it.life() else { return };
        match check {
            Check::Healthy => life.strikes = 0,
            Check::Starved => {}
            Check::Failed(_) => {
                life.strikes += 1;
                let strikes = life.strikes;
                self.owed.push(Deed::SayUnhealthy { run, strikes, threshold });
                if strikes >= threshold {
                    self.stop(id, "unhealthy");
                }
            }
        }
    }

    fn on_notice(&mut self, id: &InstanceId, notice: &Notice) {
        let now = self.now;
        let Some(it) = self.instances.get_mut(id) else { return };
        let patience = it.rules.watchdog;
        let Some(life) = it.life() else { return };
        match notice {
            Notice::Ready => self.take_sign(id, Readiness::Notify),
            Notice::Stopping => self.stop(id, "own accord"),
            Notice::WatchdogTrigger => self.stop(id, "watchdog"),
            Notice::Watchdog => {
                if life.stage == Stage::Ready {
                    life.due = patience.map(|patience| now + patience);
                }
            }
            Notice::ExtendTimeout(by) => life.extend(now, *by),
            Notice::Status(_) => {}
        }
    }

    /// What is back ends the back-offs of those that need it.
    fn wake_those_that_need(&mut self, id: &InstanceId) {
        for it in self.instances.values_mut() {
            let pauses = matches!(it.state, State::Pauses { .. });
            if pauses && it.rules.needs.contains(&id.service) {
                it.attempt = 0;
                it.state = State::Waits;
            }
        }
    }

    /// Those with an older run than its that restart with it.
    fn restart_followers(&mut self, id: &InstanceId, leading: RunId) {
        let follows = |it: &Expected| {
            let older = matches!(&it.state, State::Runs(life) if life.run < leading);
            older && it.rules.restart_with.contains(&id.service)
        };
        let followers = self.instances.iter().filter(|(_, it)| follows(it));
        let followers: Vec<InstanceId> = followers.map(|(id, _)| id.clone()).collect();
        for follower in followers {
            self.start_anew(&follower, "with");
        }
    }
}

impl Expected {
    fn want_down(&mut self) {
        self.wanted = Want::Down;
        if matches!(self.state, State::Failed) {
            self.state = State::Rests;
        }
    }

    fn take_rules(&mut self, rules: &Rules, now: Tick) {
        let other_watchdog = self.rules.watchdog != rules.watchdog;
        self.rules = rules.clone();
        while self.counted.len() > usize::try_from(rules.restart.max_restarts).unwrap() {
            self.counted.pop_front();
        }
        let serves = self.serves();
        if let Some(life) = self.life().filter(|_| serves && other_watchdog) {
            life.due = rules.watchdog.map(|patience| now + patience);
        }
    }
}

impl Life {
    /// Why it was told to go, if it was.
    pub(super) fn cause(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Stopping { cause, .. } => Some(cause),
            Stage::Starting | Stage::Ready | Stage::Clearing { .. } => None,
        }
    }

    /// It asks for more time: never for less.
    fn extend(&mut self, now: Tick, by: Duration) {
        let may = match self.stage {
            Stage::Starting => true,
            Stage::Stopping { step, .. } => [StopStep::OwnAccord, StopStep::Term].contains(&step),
            Stage::Ready | Stage::Clearing { .. } => false,
        };
        if let Some(due) = self.due.as_mut().filter(|_| may) {
            *due = (*due).max(now + by);
        }
    }
}
