//! The supervise loop: wait for something, step, perform the effects, wait again.

use std::collections::VecDeque;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, yield_now};
use tokio::time::{Instant, sleep_until, timeout};

use super::observers::PumpEnded;
use super::reload_queue::{Read, ReloadRequest};
use super::remarks;
use super::supervisor::{End, Supervisor};
use super::upgrade_request::{Rehearsed, Upgrade};
use crate::act::{ActError, StartedRun};
use crate::control::server::ControlRequest;
use crate::decide::{
    Announcement, Command, Effect, Event, News, NodePhase, Remark, SpawnFailure, Urgency, step,
};
use crate::observe::clock;
use crate::observe::news::Observation;
use crate::observe::notify_message::FdStoreRequest;
use crate::observe::orphans;
use crate::observe::signals::{NodeSignal, Signals};
use crate::plan::GroupLimits;
use crate::units::{InstanceId, Level, RunId};

/// How long after the exit of a child orphans are collected; one look serves all exits in between.
const REAP_DELAY: Duration = Duration::from_millis(50);
/// After so many events the state is saved even though more observations wait.
const UNSAVED_MOST: u32 = 64;
/// How many observations are taken before anything else has its turn.
const HEARD_AT_ONCE: usize = 64;
/// An observer reads in one turn, and may need another to report.
const TURNS_OF_OBSERVERS: usize = 2;
/// How long the last lines of services and the console may take when the node ends.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the loop waits for.
pub(super) struct Inbox {
    pub(super) observations: mpsc::Receiver<Observation>,
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    pub(super) signals: Signals,
    /// When the service manager wants its next `WATCHDOG=1`.
    pub(super) watchdog: Option<tokio::time::Interval>,
}

/// What has woken the loop.
enum Wake {
    Signal(NodeSignal),
    /// A deadline of the core is due.
    Due,
    WatchdogDue,
    Request(ControlRequest),
    Read(Box<Read>),
    LimitsOutcome(Event),
    Rehearsed(Rehearsed),
    ReapDue,
    ExtendDue,
    /// A status is due for those who watch it.
    StatusDue,
    /// The service manager's socket has room for waiting messages.
    ManagerWritable,
    PumpEnded(Result<PumpEnded, JoinError>),
    Observation(Observation),
}

impl Supervisor {
    /// Runs until no service runs any more, or until an exec handover.
    pub(super) async fn run(&mut self, inbox: &mut Inbox) -> End {
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            let unsaved = self.timers.unsaved;
            if unsaved > UNSAVED_MOST || (unsaved > 0 && inbox.observations.is_empty()) {
                self.save();
            }
            self.take_waiting(&mut inbox.observations, HEARD_AT_ONCE);
            if self.end.is_none() {
                let wake = self.wait(inbox).await;
                if matches!(wake, Wake::Due) {
                    self.hear_before_judging(&mut inbox.observations).await;
                }
                self.on_wake(wake);
            }
        }
    }

    /// Observations come before deadlines and operators: a run that has ended did not miss its
    /// deadline. Their number is bounded, so that a service that never stops sending does not
    /// starve the rest.
    fn take_waiting(&mut self, waiting: &mut mpsc::Receiver<Observation>, most: usize) {
        for _ in 0..most {
            match waiting.try_recv() {
                Ok(observation) => self.on_observation(observation),
                Err(_) => return,
            }
        }
    }

    /// A deadline is judged by what was said before it: where the node had no processor for a
    /// while, the deadline and the message that kept it are found at the same moment, and the
    /// message is still in its socket. Yielding lets the observers read their sockets first: the
    /// runtime polls the kernel before it wakes the task that yielded, and wakes the tasks that
    /// have something to read before it.
    async fn hear_before_judging(&mut self, waiting: &mut mpsc::Receiver<Observation>) {
        for _ in 0..TURNS_OF_OBSERVERS {
            yield_now().await;
        }
        let most = waiting.len();
        self.take_waiting(waiting, most);
    }

    async fn wait(&mut self, inbox: &mut Inbox) -> Wake {
        let due = self.node.next_deadline();
        let due = due.map(|tick| self.observers.context.clock.instant(tick));
        let (act, pending) = (&mut self.act, &mut self.pending);
        let status_due = pending.status_watchers.due();
        let manager = &act.service_manager;
        tokio::select! {
            biased;
            signal = inbox.signals.next() => Wake::Signal(signal),
            () = at(due) => Wake::Due,
            () = watchdog(&mut inbox.watchdog) => Wake::WatchdogDue,
            Some(request) = inbox.requests.recv() => Wake::Request(request),
            read = pending.reload.read() => Wake::Read(Box::new(read)),
            outcome = act.limit_threads.outcome() => Wake::LimitsOutcome(outcome),
            rehearsed = Upgrade::rehearsed(&mut pending.upgrade) => Wake::Rehearsed(rehearsed),
            () = at(self.timers.reap_at) => Wake::ReapDue,
            () = at(self.timers.extend_at) => Wake::ExtendDue,
            () = at(status_due) => Wake::StatusDue,
            () = manager.writable() => Wake::ManagerWritable,
            Some(ended) = self.observers.pumps.join_next() => Wake::PumpEnded(ended),
            Some(observation) = inbox.observations.recv() => Wake::Observation(observation),
        }
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Signal(signal) => self.on_signal(signal),
            Wake::Due => self.take(Event::Tick),
            Wake::WatchdogDue => self.act.service_manager.watchdog(),
            Wake::Request(request) => self.answer(request),
            Wake::Read(read) => self.take_read(*read),
            Wake::LimitsOutcome(event) => self.take(event),
            Wake::Rehearsed(rehearsed) => self.take_rehearsed(rehearsed),
            Wake::ReapDue => self.reap_orphans(),
            Wake::ExtendDue => self.extend_timeout(),
            Wake::StatusDue => self.give_status(),
            Wake::ManagerWritable => self.act.service_manager.send_waiting(),
            Wake::PumpEnded(ended) => self.end_pump(ended),
            Wake::Observation(observation) => self.on_observation(observation),
        }
    }

    /// Handles one event, and those that its effects give at once.
    pub(super) fn take(&mut self, event: Event) {
        if matches!(event, Event::Command(_)) {
            self.timers.unsaved += 1;
        }
        self.take_all(VecDeque::from([event]));
    }

    pub(super) fn take_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            events.extend(self.step_and_perform(event));
        }
        self.reply_to_waiters();
        self.tell_manager();
    }

    /// Most news are of checks that changed nothing; for them no status is built.
    fn step_and_perform(&mut self, event: Event) -> Vec<Event> {
        let run = match &event {
            Event::News { run, .. } => Some(*run),
            Event::Tick | Event::Command(_) => None,
        };
        let before = run.and_then(|run| self.watched_status_of(run));
        let effects = step(&mut self.node, self.observers.context.clock.now(), event);
        let after = run.and_then(|run| self.watched_status_of(run));
        if run.is_none() || !effects.is_empty() || before != after {
            self.pending.status_watchers.note_change(Instant::now());
        }
        self.perform_all(effects)
    }

    /// Performs effects; returns the events that they give at once.
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        if !effects.is_empty() {
            self.timers.unsaved += 1;
        }
        effects.into_iter().filter_map(|effect| self.perform(effect)).collect()
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn { instance, run, limits } => {
                return Some(self.spawn(&instance, run, &limits));
            }
            Effect::Signal { run, signal } => {
                let done = self.act.signal(run, signal);
                self.complain(run, done);
            }
            Effect::KillGroup { run } => {
                let done = self.act.kill_group(run);
                self.complain(run, done);
            }
            Effect::Clear { run } => {
                if let Some(members) = self.act.begin_clear(run) {
                    self.observers.clear(run, members);
                }
            }
            Effect::Forget { run } => {
                self.act.forget(run);
                self.observers.forget(run);
            }
            Effect::Retire { instance } => self.retire(&instance),
            Effect::ReadUsage { run, change } => return Some(self.act.read_usage(run, change)),
            Effect::Reclaim { run, change, high, bytes } => {
                return self.act.reclaim((run, change), high, bytes);
            }
            Effect::SetLimits { run, change, limits } => {
                return self.act.set_limits((run, change), limits);
            }
            Effect::UndoSetLimits { service } => self.undo_set_limits(&service),
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Note(remark) => self.note(&remark),
        }
        None
    }

    fn spawn(&mut self, id: &InstanceId, run: RunId, limits: &GroupLimits) -> Event {
        let news = match self.act.spawn(id, run, limits) {
            Ok(started_run) => {
                let pid = started_run.pid;
                for intruder in &started_run.intruders {
                    let what = format!("process {intruder}, none of its own, was in its group");
                    self.remark(run, &format!("{what} and is killed"));
                }
                self.watch(id, run, started_run);
                News::Spawned { pid }
            }
            Err(SpawnFailure(why)) => News::SpawnFailed(SpawnFailure(why)),
        };
        Event::News { run, news }
    }

    pub(super) fn watch(&mut self, id: &InstanceId, run: RunId, started_run: StartedRun) {
        let plan = self.act.plan().instances.get(id);
        self.observers.watch(id, run, plan, started_run);
    }

    fn retire(&mut self, id: &InstanceId) {
        self.act.retire(id);
        let forgotten = self.facts.history.forget(id);
        self.write_down(&forgotten);
        if self.in_force.config.services.contains_key(&id.service) {
            return;
        }
        if self.node.instances().all(|(other, _)| other.service != id.service) {
            self.observers.context.log_store.clear(&id.service);
        }
    }

    fn note(&mut self, remark: &Remark) {
        remarks::log(&self.observers.context.log_store, remark);
        if let Some(record) = self.facts.history.keep(remark, clock::unix_us()) {
            self.write_down(&record);
        }
    }

    fn announce(&mut self, announcement: Announcement) {
        self.announce_to_manager(announcement);
        if announcement == Announcement::Stopped {
            self.end = Some(End::Stopped);
        }
    }

    fn on_observation(&mut self, observation: Observation) {
        match observation {
            Observation::Event(event) => self.take(event),
            Observation::FdStore { run, request, fds } => self.store(run, request, fds),
            Observation::Warning { run, what } => self.remark(run, &what),
        }
    }

    fn store(&mut self, run: RunId, request: FdStoreRequest, fds: Vec<OwnedFd>) {
        let Some(id) = self.node.owner(run).cloned() else { return };
        match request {
            FdStoreRequest::Keep { name } => {
                let refused = self.act.store(&id, &name, fds);
                if refused > 0 {
                    let what = format!("fd_store_max is reached; descriptors closed: {refused}");
                    self.remark(run, &what);
                }
            }
            FdStoreRequest::Remove { name } => self.act.unstore(&id, &name),
        }
    }

    fn on_signal(&mut self, signal: NodeSignal) {
        match signal {
            NodeSignal::Terminate => {
                let urgency = match self.node.phase() {
                    NodePhase::Stopping => Urgency::Now,
                    NodePhase::Starting | NodePhase::Ready | NodePhase::Degraded => {
                        Urgency::Orderly
                    }
                };
                self.take(Event::Command(Command::Shutdown(urgency)));
            }
            NodeSignal::Reload => self.reload(ReloadRequest::Signal),
            NodeSignal::ChildExited => {
                self.timers.reap_at.get_or_insert_with(|| Instant::now() + REAP_DELAY);
            }
        }
    }

    fn reap_orphans(&mut self) {
        self.timers.reap_at = None;
        if let Err(error) = orphans::reap(|pid| self.act.owns(pid)) {
            self.say(Level::Warn, &error.to_string());
        }
    }

    pub(super) fn end_pump(&mut self, ended: Result<PumpEnded, JoinError>) {
        if let Ok(PumpEnded { instance, run, part, .. }) = ended {
            self.act.release_fd(part, &instance, run);
        }
    }

    fn complain(&self, run: RunId, done: Result<(), ActError>) {
        if let Err(error) = done {
            self.remark(run, &error.to_string());
        }
    }

    /// After the last run: reads the last lines, then removes sockets and groups.
    pub(super) async fn clean_up(&mut self) {
        self.observers.forget_all();
        let last_words = async {
            while let Some(ended) = self.observers.pumps.join_next().await {
                self.end_pump(ended);
            }
        };
        if timeout(LAST_WORDS, last_words).await.is_err() {
            self.observers.pumps.abort_all();
            self.say(
                Level::Warn,
                "some output of services was not read to its end, or is not where logs go",
            );
        }
        self.act.clean_up();
        let control = self.in_force.config.node.runtime_dir.join(crate::control::SOCKET);
        let _gone_already = std::fs::remove_file(control);
        self.observers.context.log_store.close();
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn watchdog(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}
