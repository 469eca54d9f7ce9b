//! The circle: wait for something, step, carry out the effects, wait again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::adoption::Resumed;
use super::attach::{ObserverContext, PumpEnded, Pumps, attach};
use super::boot::Booted;
use super::control_service::ServedControl;
use super::history::History;
use super::host::Host;
use super::limits::LimitChanges;
use super::logs::LogSources;
use super::reload::{Live, ReloadRequest};
use super::remarks;
use super::security;
use super::status::{CpuSamples, View};
use super::upgrade::Upgrade;
use super::verbs::{Outcome, WaitFor, Waiter, outcome};
use crate::act::{Act, ActError, StartedRun};
use crate::config::NodeConfig;
use crate::control::Wait;
use crate::control::server::{ControlRequest, ControlService, Responder, Verb};
use crate::decide::{Command, Effect, Event, News, Node, NodePhase, SpawnFailure, Urgency, step};
use crate::linux::process;
use crate::observe::news::{Observation, QUEUE, Reporter};
use crate::observe::notify_message::FdStoreRequest;
use crate::observe::signals::{NodeSignal, Signals};
use crate::observe::{exits, orphans};
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, RunId, ServiceName};

/// After a child ended, intruders among the children are collected this much later, once for all.
const REAP_DELAY: Duration = Duration::from_millis(50);
/// Events after which the state is saved although more is waiting.
const UNSAVED_MOST: u32 = 64;
/// How many observations are taken before anything else gets its turn.
const HEARD_AT_ONCE: usize = 64;
/// How long the last lines of services and the console may take at the end.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) struct Supervisor {
    pub(super) node: Node,
    pub(super) act: Act,
    host: Host,
    /// What is in force.
    pub(super) config: NodeConfig,
    pub(super) live: Live,
    pub(super) limits: LimitChanges,
    pub(super) context: ObserverContext,
    /// The names that logs can be asked for.
    pub(super) services: watch::Sender<Arc<[ServiceName]>>,
    observers: BTreeMap<RunId, JoinSet<()>>,
    pub(super) pumps: JoinSet<PumpEnded>,
    pub(super) waiters: Vec<Waiter>,
    cpu_samples: CpuSamples,
    history: History,
    /// When intruders are looked for next.
    reap_at: Option<Instant>,
    /// When the service manager is asked for more time next.
    pub(super) ask_at: Option<Instant>,
    /// Events since the state was saved that may have changed it.
    pub(super) unsaved: u32,
    pub(super) stopped: bool,
    /// How many orchestrators there were, with us.
    pub(super) generation: u32,
    pub(super) upgrade: Option<Upgrade>,
    /// The program that we are to become.
    pub(super) hand_over_to: Option<PathBuf>,
}

/// Where the loop hears from.
struct Inbox {
    observations: mpsc::Receiver<Observation>,
    requests: mpsc::Receiver<ControlRequest>,
    signals: Signals,
    beat: Option<tokio::time::Interval>,
}

/// Runs the services until the node is told to end and nothing runs any more.
pub(super) async fn until_stopped(booted: Booted) {
    let Booted { file, overrides, generation, config, loader, resumed, adopted_runs, .. } = booted;
    let Booted { clock, log_store, host, act, signals, control, _locks, .. } = booted;
    let (reports, observations) = mpsc::channel(QUEUE);
    let (requested_by, requests) = mpsc::channel(crate::control::server::QUEUE);
    let services = watch::Sender::new(config.services.keys().cloned().collect());
    let sources = LogSources { log_store: log_store.clone(), services: services.subscribe() };
    let control_service = ControlService::new(requested_by, sources);
    let rules = act.plan().instances.iter().map(|(id, plan)| (id.clone(), plan.rules.clone()));
    let (node, effects) = match resumed {
        Some(Resumed { node, effects, .. }) => (node, Some(effects)),
        None => (Node::new(rules.collect::<Vec<_>>(), seed()), None),
    };
    let health_checks = watch::Sender::new(config.health_checks);
    let context = ObserverContext {
        observations: reports,
        clock,
        log_store: log_store.clone(),
        health_checks,
        control_service: control_service.clone(),
        stop_pumps: watch::Sender::new(Pumps::Run),
    };
    let beat = act.service_manager.watchdog_interval.map(tokio::time::interval);
    let mut supervisor = Supervisor {
        node,
        act,
        host,
        live: Live::new(file, overrides, loader),
        limits: LimitChanges::new(),
        config,
        context,
        services,
        observers: BTreeMap::new(),
        pumps: JoinSet::new(),
        waiters: Vec::new(),
        cpu_samples: CpuSamples::default(),
        history: History::default(),
        reap_at: None,
        ask_at: None,
        unsaved: 0,
        stopped: false,
        generation,
        upgrade: None,
        hand_over_to: None,
    };
    remarks::log_degradations(&log_store, &supervisor.host);
    supervisor.tell_addresses();
    if let Some(effects) = effects {
        supervisor.go_on(adopted_runs, effects);
    }
    let mut inbox = Inbox { observations, requests, signals, beat };
    supervisor.take(Event::Tick);
    let served = loop {
        let served = ServedControl::on(&control, control_service.clone());
        supervisor.run(&mut inbox).await;
        let Some(program) = supervisor.hand_over_to.take() else { break served };
        end(served).await;
        supervisor.hand_over(&program, &control).await;
    };
    supervisor.clean_up().await;
    end(served).await;
    log_store.node_line(Level::Info, "stopped", &[]);
    if let Some(sink) = log_store.sink() {
        sink.close(LAST_WORDS).await;
    }
    supervisor.act.service_manager.status("stopped".to_owned());
    let _told_or_not = timeout(LAST_WORDS, supervisor.act.service_manager.flush()).await;
}

async fn end(served: Option<ServedControl>) {
    if let Some(served) = served {
        served.end().await;
    }
}

/// Spreads restarts; nothing depends on its secrecy.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(process::own_pid().0.unsigned_abs()))
}

impl Supervisor {
    /// Until it stopped, or is to hand over.
    async fn run(&mut self, inbox: &mut Inbox) {
        while !self.stopped && self.hand_over_to.is_none() {
            if self.unsaved > UNSAVED_MOST || (self.unsaved > 0 && inbox.observations.is_empty()) {
                self.save();
            }
            self.hear_waiting(&mut inbox.observations);
            let due = self.node.next_deadline().map(|tick| self.context.clock.instant(tick));
            tokio::select! {
                biased;
                told = inbox.signals.next() => self.obey_signal(told),
                () = at(due) => self.take(Event::Tick),
                () = beat(&mut inbox.beat) => self.act.service_manager.watchdog(),
                Some(ask) = inbox.requests.recv() => self.answer(ask),
                read = self.live.read() => self.take_read(read),
                Some(changed) = self.limits.next() => self.take_changed_limits(changed),
                rehearsed = Upgrade::rehearsed(&mut self.upgrade) => self.take_rehearsed(rehearsed),
                () = at(self.reap_at) => self.reap_orphans(),
                () = at(self.ask_at) => self.ask_for_time(),
                () = self.act.service_manager.writable() => self.act.service_manager.send_waiting(),
                Some(ended) = self.pumps.join_next() => self.end_pump(ended),
                Some(observation) = inbox.observations.recv() => self.hear(observation),
            }
        }
    }

    /// News comes before time and operators: a run that has ended did not miss its deadline. But a
    /// service that never stops talking does not keep the loop from everything else.
    fn hear_waiting(&mut self, waiting: &mut mpsc::Receiver<Observation>) {
        for _ in 0..HEARD_AT_ONCE {
            match waiting.try_recv() {
                Ok(observation) => self.hear(observation),
                Err(_) => return,
            }
        }
    }

    /// One event, and whatever the effects of it answer at once.
    pub(super) fn take(&mut self, event: Event) {
        if matches!(event, Event::Command(_)) {
            self.unsaved += 1;
        }
        self.take_all(VecDeque::from([event]));
    }

    pub(super) fn take_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let effects = step(&mut self.node, self.context.clock.now(), event);
            events.extend(self.perform_all(effects));
        }
        self.reply_to_waiters();
        if self.act.service_manager.is_connected() {
            let summary = self.summary();
            self.act.service_manager.status(summary);
            if self.ask_at.is_none() {
                self.ask_for_time();
            }
        }
    }

    /// What the effects answer at once.
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        if !effects.is_empty() {
            self.unsaved += 1;
        }
        effects.into_iter().filter_map(|effect| self.perform(effect)).collect()
    }

    pub(super) fn watch(&mut self, id: &InstanceId, run: RunId, started_run: StartedRun) {
        let plan = self.act.plan().instances.get(id);
        let observers = attach(&self.context, (id, run), plan, started_run, &mut self.pumps);
        self.observers.insert(run, observers);
    }

    pub(super) fn end_pump(&mut self, ended: Result<PumpEnded, JoinError>) {
        if let Ok(PumpEnded { instance, run, part, .. }) = ended {
            self.act.release_fd(part, &instance, run);
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn { instance, run } => return Some(self.spawn(&instance, run)),
            Effect::Signal { run, signal } => {
                let done = self.act.signal(run, signal);
                self.complain(run, done);
            }
            Effect::KillGroup { run } => {
                let done = self.act.kill_group(run);
                self.complain(run, done);
            }
            Effect::Clear { run } => self.clear(run),
            Effect::Forget { run } => {
                self.act.forget(run);
                self.observers.remove(&run);
            }
            Effect::Retire { instance } => self.retire(&instance),
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Note(remark) => {
                remarks::log(&self.context.log_store, &remark);
                self.history.keep(&remark, wall_clock());
            }
        }
        None
    }

    fn spawn(&mut self, id: &InstanceId, run: RunId) -> Event {
        let news = match self.act.spawn(id, run) {
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

    fn clear(&mut self, run: RunId) {
        let Some(members) = self.act.begin_clear(run) else { return };
        let reporter = Reporter::new(run, self.context.observations.clone());
        let clearing = exits::clear(members, reporter);
        self.observers.entry(run).or_default().spawn(clearing);
    }

    fn retire(&mut self, id: &InstanceId) {
        self.act.retire(id);
        self.history.drop_all_of(id);
        if self.config.services.contains_key(&id.service) {
            return;
        }
        if self.node.instances().all(|(other, _)| other.service != id.service) {
            self.context.log_store.clear(&id.service);
        }
    }

    fn tell_addresses(&self) {
        let control = self.config.node.runtime_dir.join(crate::control::SOCKET);
        self.say(Level::Info, &format!("control socket {}", control.display()));
        let sockets = self.config.node.runtime_dir.join("sockets");
        self.say(Level::Info, &format!("service sockets in {}", sockets.display()));
        if let Some(api) = self.act.api() {
            self.say(Level::Info, &format!("API http://{api} (GET /health, /metrics)"));
        }
    }

    fn hear(&mut self, observation: Observation) {
        match observation {
            Observation::Event(event) => self.take(event),
            Observation::FdStore { run, request, fds } => self.store(run, request, fds),
            Observation::Warning { run, what } => self.remark(run, &what),
        }
    }

    fn store(&mut self, run: RunId, request: FdStoreRequest, fds: Vec<std::os::fd::OwnedFd>) {
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

    fn obey_signal(&mut self, told: NodeSignal) {
        match told {
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
                self.reap_at.get_or_insert_with(|| Instant::now() + REAP_DELAY);
            }
        }
    }

    fn reap_orphans(&mut self) {
        self.reap_at = None;
        if let Err(error) = orphans::reap(|pid| self.act.owns(pid)) {
            self.say(Level::Warn, &error.to_string());
        }
    }

    fn answer(&mut self, request: ControlRequest) {
        // Whoever asked and went away needs no answer.
        match request {
            ControlRequest::Status { name, reply } => {
                let _gone = reply.send(self.status(&name));
            }
            ControlRequest::Why { name, reply } => {
                let _gone = reply.send(self.why(&name));
            }
            ControlRequest::Security { name, reply } => {
                let _gone = reply.send(self.security(&name));
            }
            ControlRequest::Shutdown { reply } => {
                let _gone = reply.send(pb::ShutdownReply { pid: process::own_pid().0 });
                self.take(Event::Command(Command::Shutdown(Urgency::Orderly)));
            }
            ControlRequest::Verb { verb, request, reply } => self.begin_verb(verb, &request, reply),
            ControlRequest::Reload { request, reply } => {
                let wait = Wait::unless(request.no_block);
                self.reload(ReloadRequest::Operator { reply, wait });
            }
            ControlRequest::Scale { request, reply } => self.scale(&request, reply),
            ControlRequest::SetLimits { request, reply } => self.set_limits(&request, reply),
            ControlRequest::Upgrade { request, reply } => self.upgrade(&request, reply),
        }
    }

    fn begin_verb(
        &mut self,
        verb: Verb,
        request: &pb::VerbRequest,
        reply: Responder<pb::VerbReply>,
    ) {
        let ids = self.node.named(&request.name);
        if ids.is_empty() {
            let _gone = reply.send(Err(self.no_such(&request.name)));
            return;
        }
        let command = match verb {
            Verb::Start => Command::Start(ids.clone()),
            Verb::Stop => Command::Stop(ids.clone()),
            Verb::Restart => Command::Restart(ids.clone()),
        };
        self.take(Event::Command(command));
        let waiter = Waiter::about_verb(verb, ids, reply);
        self.answer_when_it_holds(waiter, Wait::unless(request.no_block));
    }

    pub(super) fn answer_when_it_holds(&mut self, waiter: Waiter, wait: Wait) {
        match wait {
            Wait::Outcome => {
                self.waiters.push(waiter);
                self.reply_to_waiters();
            }
            Wait::Accepted => {
                let instances = self.view(|id| waiter.ids.contains(id)).instances;
                waiter.reply.send(Ok(instances));
            }
        }
    }

    pub(super) fn reply_to_waiters(&mut self) {
        let now = self.context.clock.now();
        for mut waiter in std::mem::take(&mut self.waiters) {
            let unsettled = waiter.limits.iter().any(|id| self.limits.is_under_way(id));
            if unsettled && !waiter.reply.is_closed() {
                self.waiters.push(waiter);
                continue;
            }
            let problems = std::mem::take(&mut waiter.problems);
            if waiter.wait_for == WaitFor::Limited && !problems.is_empty() {
                waiter.reply.send(Err(Status::failed_precondition(problems.join("; "))));
                continue;
            }
            waiter.reply.remark(problems);
            let answer = match outcome(&self.node, waiter.wait_for, &waiter.ids, now) {
                Outcome::Pending if !waiter.reply.is_closed() => {
                    self.waiters.push(waiter);
                    continue;
                }
                Outcome::Pending => continue,
                Outcome::Done => Ok(self.view(|id| waiter.ids.contains(id)).instances),
                Outcome::Failed(why) => Err(Status::failed_precondition(why.join("; "))),
            };
            waiter.reply.send(answer);
        }
    }

    fn status(&mut self, name: &str) -> Result<pb::NodeStatus, Status> {
        if name.is_empty() {
            return Ok(self.view(|_| true));
        }
        let ids = self.named_or_disabled(name)?;
        Ok(self.view(|id| ids.contains(id)))
    }

    /// The instances of a name that means something; a disabled service has none.
    fn named_or_disabled(&self, name: &str) -> Result<BTreeSet<InstanceId>, Status> {
        let ids = self.node.named(name);
        let disabled = self.act.plan().disabled.iter().any(|service| service.as_str() == name);
        if ids.is_empty() && !disabled && !name.is_empty() {
            return Err(self.no_such(name));
        }
        Ok(ids)
    }

    fn security(&self, name: &str) -> Result<pb::SecurityReply, Status> {
        let named = self.named_or_disabled(name)?;
        let chosen = self.node.instances().filter(|(id, _)| name.is_empty() || named.contains(id));
        let instances = chosen.map(|(id, instance)| security::of(&self.act, id, instance.pid()));
        Ok(pb::SecurityReply { instances: instances.collect() })
    }

    fn why(&mut self, name: &str) -> Result<pb::WhyReply, Status> {
        let ids = self.node.named(name);
        if ids.is_empty() {
            return Err(self.no_such(name));
        }
        let statuses = self.view(|id| ids.contains(id)).instances;
        let now = self.context.clock.now();
        let history = |(id, status): (&InstanceId, pb::InstanceStatus)| {
            let instance = self.node.instance(id);
            let holds = self.node.holds(id).into_iter();
            let rules = instance.map(|i| i.rules_in_words(now)).unwrap_or_default().into_iter();
            let plan = self.act.plan().instances.get(id);
            let confined = plan.map(|plan| security::in_words(&plan.launch.sandbox));
            pb::InstanceHistory {
                status: Some(status),
                waits_for: holds.map(|hold| format!("{} ({})", hold.on, hold.phase)).collect(),
                rules: rules.chain(confined).collect(),
                happenings: self.history.of(id),
            }
        };
        Ok(pb::WhyReply { instances: ids.iter().zip(statuses).map(history).collect() })
    }

    fn view(&mut self, wanted: impl Fn(&InstanceId) -> bool) -> pb::NodeStatus {
        let view = View {
            node: &self.node,
            act: &self.act,
            host: &self.host,
            config: &self.config,
            log_store: &self.context.log_store,
            now: self.context.clock.now(),
            unix_us: wall_clock(),
            generation: self.generation,
        };
        view.status(&mut self.cpu_samples, wanted)
    }

    fn no_such(&self, name: &str) -> Status {
        if self.act.plan().disabled.iter().any(|service| service.as_str() == name) {
            return Status::failed_precondition(format!(
                "{name} is disabled; set services.{name}.enabled = true and reload"
            ));
        }
        let mut known: Vec<&str> =
            self.node.instances().map(|(id, _)| id.service.as_str()).collect();
        known.dedup();
        Status::not_found(format!("there is no service {name:?}; there are: {}", known.join(", ")))
    }

    fn complain(&self, run: RunId, done: Result<(), ActError>) {
        if let Err(error) = done {
            self.remark(run, &error.to_string());
        }
    }

    fn remark(&self, run: RunId, what: &str) {
        match self.node.owner(run) {
            Some(id) => self.say(Level::Warn, &format!("{id} {what}")),
            None => self.say(Level::Warn, &format!("run {run} {what}")),
        }
    }

    pub(super) fn say(&self, level: Level, words: &str) {
        self.context.log_store.node_line(level, words, &[]);
    }

    /// Everything has ended: reads the last lines, then removes sockets and groups.
    async fn clean_up(&mut self) {
        self.observers.clear();
        let last_words = async {
            while let Some(ended) = self.pumps.join_next().await {
                self.end_pump(ended);
            }
        };
        if timeout(LAST_WORDS, last_words).await.is_err() {
            self.pumps.abort_all();
            self.say(
                Level::Warn,
                "some output of services was not read to its end, or is not where logs go",
            );
        }
        self.act.clean_up();
        let control = self.config.node.runtime_dir.join(crate::control::SOCKET);
        let _gone_already = std::fs::remove_file(control);
        self.context.log_store.close();
    }
}

/// Microseconds since 1970, for people to read.
fn wall_clock() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn beat(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}
