//! Live change: a configuration that is read anew, or a service that is scaled, becomes a new plan
//! for what runs. Everything that can be refused is refused before anything is changed.

use std::collections::BTreeSet;
use std::fmt;
use std::future::pending;
use std::thread;

use tokio::sync::oneshot;
use tonic::Status;

use super::boot::{Configured, Loader};
use super::logs;
use super::supervise::Supervisor;
use super::verbs::{Reply, WaitFor, Waiter};
use crate::config::{
    LimitSettings, LimitsError, NodeConfig, RuntimeOverrides, ScaleError, UnknownService,
};
use crate::control::Wait;
use crate::control::server::Responder;
use crate::decide::{Command, Event, Goal, Membership, Replan};
use crate::plan::{Changes, Plan};
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, ServiceName};

/// The file's configuration, what an operator changed beside it, and the reading that is under way.
#[derive(Debug)]
pub(super) struct Live {
    loader: Loader,
    /// What the file says.
    file: NodeConfig,
    /// The same as text.
    pub(super) text: String,
    pub(super) overrides: RuntimeOverrides,
    /// The first thing that was wrong with what the last reload read, if it was refused.
    pub(super) refused: Option<String>,
    reading: Option<oneshot::Receiver<Result<Configured, String>>>,
    /// Who wants to know about the reading that is under way.
    asked: Vec<ReloadRequest>,
    /// Who asked after it had begun: they get another one.
    next: Vec<ReloadRequest>,
}

/// How much of a refusal stands in one line, in characters.
const LINE_MOST: usize = 300;

/// Somebody who asked for a reload.
#[derive(Debug)]
pub(super) enum ReloadRequest {
    /// By SIGHUP: the log is the answer.
    Signal,
    Operator {
        reply: Responder<pb::ReplanReply>,
        wait: Wait,
    },
}

/// Why nothing was changed.
#[derive(Debug)]
pub(super) enum Refusal {
    Configuration(String),
    Scale(ScaleError),
    Limits(LimitsError),
    /// Not the asker's fault.
    State(String),
}

impl Live {
    pub(super) fn new(
        (file, text): (NodeConfig, String),
        overrides: RuntimeOverrides,
        loader: Loader,
    ) -> Self {
        let (asked, next) = (Vec::new(), Vec::new());
        Self { loader, file, text, overrides, refused: None, reading: None, asked, next }
    }

    /// Reading is done beside the loop: a file may lie on a disk that hangs.
    pub(super) fn ask(&mut self, asked: ReloadRequest) {
        if self.reading.is_some() {
            // A signal wants no answer, and one more reading serves all.
            if self.next.is_empty() || !matches!(asked, ReloadRequest::Signal) {
                self.next.push(asked);
            }
            return;
        }
        self.asked.push(asked);
        self.reading = Some(begin_to_read(self.loader.clone()));
    }

    /// The end of the reading that is under way. May be dropped and called again.
    pub(super) async fn read(&mut self) -> Result<Configured, String> {
        let Some(reading) = &mut self.reading else { return pending().await };
        let read = reading.await;
        self.reading = None;
        read.unwrap_or_else(|_| Err("no thread can be made to read it".to_owned()))
    }

    /// What would be set for a service with these in addition.
    pub(super) fn limits_with(
        &self,
        name: &str,
        assignments: &[String],
    ) -> Result<(ServiceName, LimitSettings), Refusal> {
        let asked = LimitSettings::parse(assignments).map_err(Refusal::Limits)?;
        let service = self.file.running(name).map_err(|error| Refusal::Limits(error.into()))?;
        let settings = self.overrides.limited.get(service).cloned().unwrap_or_default().and(&asked);
        Ok((service.clone(), settings))
    }
}

/// On a thread that ends with its answer. The runtime's own would panic where none can be made;
/// here that is the end of the channel.
fn begin_to_read(loader: Loader) -> oneshot::Receiver<Result<Configured, String>> {
    let (tell, told) = oneshot::channel();
    let read = move || {
        let _nobody_waits_any_more = tell.send(loader.load());
    };
    let _none_is_told_by_the_channel = thread::Builder::new().name("reload".to_owned()).spawn(read);
    told
}

impl Supervisor {
    pub(super) fn reload(&mut self, asked: ReloadRequest) {
        let Some(asked) = self.upgrades_for(asked) else { return };
        self.act.service_manager.reloading();
        self.live.ask(asked);
    }

    /// The configuration was read, or could not be.
    pub(super) fn take_read(&mut self, read: Result<Configured, String>) {
        let applied = read.map_err(Refusal::Configuration).and_then(|read| self.apply_file(read));
        for asked in std::mem::take(&mut self.live.asked) {
            match (asked, &applied) {
                (ReloadRequest::Signal, _) => {}
                (ReloadRequest::Operator { reply, wait }, Ok((known, touched, limits))) => {
                    let reply = Reply::Replan(reply, known.clone());
                    let waiter = replanned(touched.clone(), limits.clone(), reply);
                    self.answer_when_it_holds(waiter, wait);
                }
                (ReloadRequest::Operator { reply, .. }, Err(refusal)) => {
                    let _gone = reply.send(Err(refusal.status()));
                }
            }
        }
        self.live.refused = applied.as_ref().err().map(Refusal::in_a_line);
        if let Err(refusal) = &applied {
            self.say(Level::Error, &format!("not reloaded, nothing is changed: {refusal}"));
        }
        if self.node.is_announced() {
            let summary = self.summary();
            self.act.service_manager.ready(summary);
        }
        for asked in std::mem::take(&mut self.live.next) {
            self.reload(asked);
        }
    }

    fn apply_file(&mut self, read: Configured) -> Result<Applied, Refusal> {
        let Configured { config: file, text, origin, remarks } = read;
        let fixed = file.fixed_keys_changed(&self.live.file);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            return Err(Refusal::Configuration(format!(
                "{keys}: cannot change while the node runs; stop it and start it again"
            )));
        }
        let mut overrides = self.live.overrides.clone();
        overrides.yield_to_file(&self.live.file, &file);
        let config = overrides.applied_to(&file).map_err(Refusal::Limits)?;
        let (changes, touched) = self.apply(config)?;
        self.live.file = file;
        self.live.text = text;
        self.live.overrides = overrides;
        self.say(Level::Info, &format!("configuration: {origin}; {}", in_words(&changes)));
        for remark in &remarks {
            self.say(Level::Warn, remark);
        }
        let changes_of_limits = changes.limited_otherwise().cloned().collect();
        let changes = changes_to_pb(&changes);
        let known =
            pb::ReplanReply { origin, remarks, changes, instances: Vec::new(), upgrade: None };
        Ok((known, touched, changes_of_limits))
    }

    pub(super) fn scale(&mut self, request: &pb::ScaleRequest, reply: Responder<pb::ReplanReply>) {
        let pb::ScaleRequest { service, instances, no_block } = request;
        let scaled = self.config.scaled(service, *instances).map_err(Refusal::Scale);
        let applied = scaled.and_then(|config| {
            let count = config.services.iter().find(|(name, _)| name.as_str() == service);
            let count = count.map(|(name, service)| (name.clone(), service.instances));
            let applied = self.apply(config)?;
            self.live.overrides.scaled.extend(count);
            Ok(applied)
        });
        match applied {
            Ok((changes, touched)) => {
                self.say(Level::Info, &format!("scaled {service}: {}", in_words(&changes)));
                let changes = changes_to_pb(&changes);
                let reply = Reply::Replan(reply, pb::ReplanReply { changes, ..Default::default() });
                let waiter = replanned(touched, BTreeSet::new(), reply);
                self.answer_when_it_holds(waiter, Wait::unless(*no_block));
            }
            Err(refusal) => {
                let _gone = reply.send(Err(refusal.status()));
            }
        }
    }

    /// Puts in force what was changed beside the file.
    pub(super) fn apply_overrides(&mut self) -> Result<Changes, Refusal> {
        let config = self.live.overrides.applied_to(&self.live.file).map_err(Refusal::Limits)?;
        self.apply(config).map(|(changes, _)| changes)
    }

    /// Puts a configuration in force: all of it, or nothing. Also gives the instances that have to
    /// come up or go before it is.
    fn apply(&mut self, config: NodeConfig) -> Result<(Changes, BTreeSet<InstanceId>), Refusal> {
        if self.node.goal() == Goal::Shutdown {
            return Err(Refusal::State("the node is stopping".to_owned()));
        }
        let retiring = self.node.instances().filter(|(_, i)| i.membership == Membership::Retiring);
        let retiring: BTreeSet<InstanceId> = retiring.map(|(id, _)| id.clone()).collect();
        let plan = Plan::of(&config);
        let changes = Changes::between(&self.act.plan().clone().without(&retiring), &plan);
        let mut leaving: BTreeSet<_> = retiring.union(&changes.removed).cloned().collect();
        leaving.retain(|id| !plan.instances.contains_key(id));
        let rules = plan.instances.iter().map(|(id, plan)| (id.clone(), plan.rules.clone()));
        let relaunch = changes.relaunched.keys().cloned().collect();
        let replan = Replan { rules: rules.collect(), relaunch };
        let applied = self.act.apply_plan(plan, &leaving);
        applied.map_err(|error| Refusal::State(error.to_string()))?;
        logs::register(&self.context.log_store, &config);
        self.context.log_store.set_node_level(config.monitoring.log_level);
        self.context.health_checks.send_replace(config.health_checks);
        self.services.send_replace(config.services.keys().cloned().collect());
        self.config = config;
        let mut touched: BTreeSet<_> = changes.added.union(&leaving).cloned().collect();
        touched.extend(changes.relaunched.keys().cloned());
        self.follow_limits(&changes);
        self.take(Event::Command(Command::Replan(replan)));
        Ok((changes, touched))
    }
}

fn replanned(ids: BTreeSet<InstanceId>, limits: BTreeSet<InstanceId>, reply: Reply) -> Waiter {
    Waiter { wait_for: WaitFor::Replanned, ids, limits, problems: Vec::new(), reply }
}

/// What is known of the answer at once, the instances it depends on, and those whose limits it
/// depends on.
type Applied = (pb::ReplanReply, BTreeSet<InstanceId>, BTreeSet<InstanceId>);

impl Refusal {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Limits(LimitsError::Service(UnknownService::None { .. })) => {
                Status::not_found(self.to_string())
            }
            Self::Limits(LimitsError::Service(UnknownService::Disabled(_))) => {
                Status::failed_precondition(self.to_string())
            }
            Self::Limits(
                LimitsError::Form(_)
                | LimitsError::Key { .. }
                | LimitsError::Wrong(_)
                | LimitsError::Memory { .. },
            ) => Status::invalid_argument(self.to_string()),
            Self::Scale(ScaleError::Service(UnknownService::None { .. })) => {
                Status::not_found(self.to_string())
            }
            Self::Configuration(_)
            | Self::Scale(ScaleError::Instances { .. } | ScaleError::Memory { .. }) => {
                Status::invalid_argument(self.to_string())
            }
            Self::State(_) | Self::Scale(ScaleError::Service(UnknownService::Disabled(_))) => {
                Status::failed_precondition(self.to_string())
            }
        }
    }
}

impl Refusal {
    fn in_a_line(&self) -> String {
        let text = self.to_string();
        let mut lines = text.lines();
        let first: String = lines.next().unwrap_or_default().chars().take(LINE_MOST).collect();
        match lines.count() {
            0 => first,
            more => format!("{first} (and {more} more)"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(why) | Self::State(why) => f.write_str(why),
            Self::Scale(why) => write!(f, "{why}"),
            Self::Limits(why) => write!(f, "{why}"),
        }
    }
}

pub(super) fn changes_to_pb(changes: &Changes) -> Vec<pb::Change> {
    let change = |id: &InstanceId, what: &str, differs: &[&str]| pb::Change {
        instance: id.to_string(),
        what: what.to_owned(),
        differs: differs.iter().map(|part| (*part).to_owned()).collect(),
    };
    let added = changes.added.iter().map(|id| change(id, "added", &[]));
    let removed = changes.removed.iter().map(|id| change(id, "removed", &[]));
    let restarted = changes.relaunched.iter().map(|(id, why)| change(id, "restarted", why));
    let adjusted = changes.adjusted.iter().map(|(id, why)| change(id, "adjusted", why));
    let mut all: Vec<pb::Change> = added.chain(removed).chain(restarted).chain(adjusted).collect();
    all.sort_by(|one, other| one.instance.cmp(&other.instance));
    all
}

/// `1 added, 2 restarted`
fn in_words(changes: &Changes) -> String {
    let counts = [
        (changes.added.len(), "added"),
        (changes.removed.len(), "removed"),
        (changes.relaunched.len(), "restarted"),
        (changes.adjusted.len(), "adjusted"),
    ];
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if words.is_empty() { "nothing changes".to_owned() } else { words.join(", ") }
}
