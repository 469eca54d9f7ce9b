//! Live changes: `reload`, `scale`, `set-limits`. Everything that can be refused is refused before
//! anything is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::in_force::{InForce, Refusal};
use super::loader::Configured;
use super::logs;
use super::reload_queue::{Read, ReloadRequest};
use super::supervisor::Supervisor;
use super::verbs::{Reply, WaitFor, Waiter};
use crate::control::Wait;
use crate::control::server::Responder;
use crate::decide::{Command, Event, Goal, Membership, Replan};
use crate::plan::Changes;
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, ServiceName};

/// A change that was applied.
struct Applied {
    changes: Changes,
    /// The instances that have to be ready or gone before the change is complete.
    touched: BTreeSet<InstanceId>,
}

impl Applied {
    fn limited(&self) -> BTreeSet<InstanceId> {
        self.changes.limited_otherwise().cloned().collect()
    }
}

impl Supervisor {
    pub(super) fn reload(&mut self, request: ReloadRequest) {
        let Some(request) = self.upgrades_for(request) else { return };
        self.act.service_manager.reloading();
        self.pending.reload.push(request);
    }

    /// The configuration file was read, or could not be.
    pub(super) fn take_read(&mut self, read: Read) {
        let Read { outcome, requests, next } = read;
        let applied =
            outcome.map_err(Refusal::Configuration).and_then(|read| self.apply_file(read));
        for request in requests {
            match (request, &applied) {
                (ReloadRequest::Signal, _) => {}
                (ReloadRequest::Operator { reply, wait }, Ok((known, applied))) => {
                    let reply = Reply::Replan(reply, known.clone());
                    let waiter = replanned(applied.touched.clone(), applied.limited(), reply);
                    self.answer_when_it_holds(waiter, wait);
                }
                (ReloadRequest::Operator { reply, .. }, Err(refusal)) => {
                    let _gone = reply.send(Err(refusal.status()));
                }
            }
        }
        self.pending.refused_reload = applied.as_ref().err().map(Refusal::in_a_line);
        if let Err(refusal) = &applied {
            self.say(Level::Error, &format!("not reloaded, nothing is changed: {refusal}"));
        }
        self.end_reload();
        for request in next {
            self.reload(request);
        }
    }

    fn apply_file(&mut self, read: Configured) -> Result<(pb::ReplanReply, Applied), Refusal> {
        let (origin, remarks) = (read.origin.clone(), read.remarks.clone());
        let applied = self.replan(self.in_force.with_file(read)?)?;
        self.say(Level::Info, &format!("configuration: {origin}; {}", in_words(&applied.changes)));
        for remark in &remarks {
            self.say(Level::Warn, remark);
        }
        let changes = changes_to_pb(&applied.changes);
        let known =
            pb::ReplanReply { origin, remarks, changes, instances: Vec::new(), upgrade: None };
        Ok((known, applied))
    }

    pub(super) fn scale(&mut self, request: &pb::ScaleRequest, reply: Responder<pb::ReplanReply>) {
        let pb::ScaleRequest { service, instances, no_block } = request;
        let next = self.in_force.scaled(service, *instances);
        match next.and_then(|next| self.replan(next)) {
            Ok(Applied { changes, touched }) => {
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

    pub(super) fn set_limits(
        &mut self,
        request: &pb::SetLimitsRequest,
        reply: Responder<pb::ReplanReply>,
    ) {
        match self.apply_limits(request) {
            Ok(changes) => {
                let ids: BTreeSet<_> = changes.limited_otherwise().cloned().collect();
                let known =
                    pb::ReplanReply { changes: changes_to_pb(&changes), ..Default::default() };
                let reply = Reply::Replan(reply, known);
                let (wait_for, limits) = (WaitFor::Limited, ids.clone());
                let waiter = Waiter { wait_for, ids, limits, reply };
                self.answer_when_it_holds(waiter, Wait::unless(request.no_block));
            }
            Err(refusal) => {
                let _gone = reply.send(Err(refusal.status()));
            }
        }
    }

    fn apply_limits(&mut self, request: &pb::SetLimitsRequest) -> Result<Changes, Refusal> {
        let (service, next) = self.in_force.limited(&request.service, &request.assignments)?;
        if self.node.limits_are_changing(&service) {
            return Err(Refusal::State(format!(
                "the limits of {service} are being changed just now; try again"
            )));
        }
        let Applied { changes, .. } = self.put_in_force(next)?;
        self.say(Level::Info, &format!("limits of {service} are set anew"));
        let layers = self.in_force.limits_of(&service);
        self.take(Event::Command(Command::SetLimits(layers)));
        Ok(changes)
    }

    /// The core has undone the last `set-limits` of the service: puts the former settings in force.
    pub(super) fn undo_set_limits(&mut self, service: &ServiceName) {
        let undone = self.in_force.without_last_limits(service);
        if let Err(refusal) = undone.and_then(|former| self.put_in_force(former)) {
            self.say(Level::Warn, &format!("limits of {service} are not undone: {refusal}"));
        }
    }

    /// Puts a plan in force whose instances may differ, and sends the core the command to follow
    /// it.
    fn replan(&mut self, next: InForce) -> Result<Applied, Refusal> {
        let applied = self.put_in_force(next)?;
        let planned = self.in_force.planned().into_iter();
        let (rules, limits) = planned
            .map(|(id, planned)| ((id.clone(), planned.rules), (id, planned.limits)))
            .unzip();
        let relaunch = applied.changes.relaunched.keys().cloned().collect();
        self.take(Event::Command(Command::Replan(Replan { rules, limits, relaunch })));
        Ok(applied)
    }

    /// Applies the plan as a whole, or refuses it.
    fn put_in_force(&mut self, next: InForce) -> Result<Applied, Refusal> {
        if self.node.goal() == Goal::Shutdown {
            return Err(Refusal::State("the node is stopping".to_owned()));
        }
        let retiring = self.node.instances().filter(|(_, i)| i.membership == Membership::Retiring);
        let retiring: BTreeSet<InstanceId> = retiring.map(|(id, _)| id.clone()).collect();
        let changes = Changes::between(&self.act.plan().clone().without(&retiring), &next.plan);
        let mut leaving: BTreeSet<_> = retiring.union(&changes.removed).cloned().collect();
        leaving.retain(|id| !next.plan.instances.contains_key(id));
        let applied = self.act.apply_plan(next.plan.as_ref().clone(), &leaving);
        applied.map_err(|error| Refusal::State(error.to_string()))?;
        self.in_force = next;
        self.publish();
        let mut touched: BTreeSet<_> = changes.added.union(&leaving).cloned().collect();
        touched.extend(changes.relaunched.keys().cloned());
        Ok(Applied { changes, touched })
    }

    /// Gives what is in force to the tasks beside the loop.
    fn publish(&self) {
        let (config, context) = (&self.in_force.config, &self.observers.context);
        logs::register(&context.log_store, config);
        context.log_store.set_node_level(config.monitoring.log_level);
        context.health_checks.send_replace(config.health_checks);
        let services: Arc<[ServiceName]> = config.services.keys().cloned().collect();
        context.services.send_replace(services);
    }
}

fn replanned(ids: BTreeSet<InstanceId>, limits: BTreeSet<InstanceId>, reply: Reply) -> Waiter {
    Waiter { wait_for: WaitFor::Replanned, ids, limits, reply }
}

fn changes_to_pb(changes: &Changes) -> Vec<pb::Change> {
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
