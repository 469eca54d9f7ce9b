//! The values that the supervise loop owns. `supervise` runs the loop; each other file carries out
//! one kind of request.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::history::History;
use super::host::Host;
use super::in_force::InForce;
use super::observers::Observers;
use super::reload_queue::ReloadQueue;
use super::status::{CpuSamples, View};
use super::status_watchers::StatusWatchers;
use super::upgrade_request::Upgrade;
use super::verbs::Waiter;
use crate::act::Act;
use crate::decide::Node;
use crate::observe::clock;
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, RunId};

pub(super) struct Supervisor {
    /// All supervision state; changed by `decide::step` alone.
    pub(super) node: Node,
    pub(super) in_force: InForce,
    pub(super) act: Act,
    pub(super) observers: Observers,
    pub(super) pending: Pending,
    pub(super) timers: Timers,
    pub(super) facts: Facts,
    /// Why the loop is to end; `None`: it goes on.
    pub(super) end: Option<End>,
}

/// Callers that wait for an outcome.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) reload: ReloadQueue,
    /// The first error of the last reload, if that was refused.
    pub(super) refused_reload: Option<String>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) status_watchers: StatusWatchers,
}

/// What is due later, beside the core's deadlines.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When orphans are collected next.
    pub(super) reap_at: Option<Instant>,
    /// When the service manager is asked for more time next (`EXTEND_TIMEOUT_USEC=`).
    pub(super) extend_at: Option<Instant>,
    /// How many events since the last checkpoint may have changed the state.
    pub(super) unsaved: u32,
}

/// What `status` and `why` tell beside the core's state.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) host: Host,
    /// How many orchestrators there were, with this one.
    pub(super) generation: u32,
    pub(super) history: History,
    pub(super) cpu_samples: CpuSamples,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// No service runs any more.
    Stopped,
    /// An exec handover to this program.
    HandOver(PathBuf),
}

impl Supervisor {
    pub(super) fn say(&self, level: Level, words: &str) {
        self.observers.context.log_store.node_line(level, words, &[]);
    }

    pub(super) fn remark(&self, run: RunId, what: &str) {
        match self.node.owner(run) {
            Some(id) => self.say(Level::Warn, &format!("{id} {what}")),
            None => self.say(Level::Warn, &format!("run {run} {what}")),
        }
    }

    pub(super) fn view(&mut self, wanted: impl Fn(&InstanceId) -> bool) -> pb::NodeStatus {
        let mut samples = std::mem::take(&mut self.facts.cpu_samples);
        let status = self.as_view().status(&mut samples, wanted);
        self.facts.cpu_samples = samples;
        status
    }

    /// Builds and sends the status that is due for those who watch it.
    pub(super) fn give_status(&mut self) {
        if self.pending.status_watchers.is_watched() {
            let status = self.as_view().standing();
            self.pending.status_watchers.give(Instant::now(), status);
        } else {
            self.pending.status_watchers.rest();
        }
    }

    /// The status of the instance with this run; `None` if there is none, or nobody watches.
    pub(super) fn watched_status_of(&self, run: RunId) -> Option<pb::InstanceStatus> {
        let id = self.node.owner(run).filter(|_| self.pending.status_watchers.is_watched())?;
        Some(self.as_view().standing_instance(id, self.node.instance(id)?))
    }

    pub(super) fn watch_status(&mut self) -> watch::Receiver<Arc<pb::NodeStatus>> {
        let status = self.as_view().standing();
        self.pending.status_watchers.add(Instant::now(), status)
    }

    fn as_view(&self) -> View<'_> {
        View {
            node: &self.node,
            act: &self.act,
            host: &self.facts.host,
            config: &self.in_force.config,
            log_store: &self.observers.context.log_store,
            now: self.observers.context.clock.now(),
            unix_us: clock::unix_us(),
            generation: self.facts.generation,
        }
    }
}
