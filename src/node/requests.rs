//! Requests on the control socket, and the callers that wait for an outcome.

use std::collections::BTreeSet;

use tonic::Status;

use super::reload_queue::ReloadRequest;
use super::security;
use super::supervisor::Supervisor;
use super::verbs::{Outcome, WaitFor, Waiter, outcome, refused_limits};
use crate::control::Wait;
use crate::control::server::{ControlRequest, Responder, Verb};
use crate::decide::{Command, Event, Urgency};
use crate::linux::process;
use crate::rpc::pb::node as pb;
use crate::units::InstanceId;

impl Supervisor {
    pub(super) fn answer(&mut self, request: ControlRequest) {
        // A caller that went away needs no reply.
        match request {
            ControlRequest::Status { name, reply } => {
                let _gone = reply.send(self.status(&name));
            }
            ControlRequest::WatchStatus { reply } => {
                let _gone = reply.send(self.watch_status());
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
                self.pending.waiters.push(waiter);
                self.reply_to_waiters();
            }
            Wait::Accepted => {
                let instances = self.view(|id| waiter.ids.contains(id)).instances;
                waiter.reply.send(Ok(instances));
            }
        }
    }

    pub(super) fn reply_to_waiters(&mut self) {
        let now = self.observers.context.clock.now();
        for mut waiter in std::mem::take(&mut self.pending.waiters) {
            let unsettled = waiter.limits.iter().any(|id| self.limits_of_are_changing(id));
            if unsettled && !waiter.reply.is_closed() {
                self.pending.waiters.push(waiter);
                continue;
            }
            let problems = refused_limits(&self.node, &waiter.limits);
            if waiter.wait_for == WaitFor::Limited && !problems.is_empty() {
                waiter.reply.send(Err(Status::failed_precondition(problems.join("; "))));
                continue;
            }
            waiter.reply.remark(problems);
            let answer = match outcome(&self.node, waiter.wait_for, &waiter.ids, now) {
                Outcome::Pending if !waiter.reply.is_closed() => {
                    self.pending.waiters.push(waiter);
                    continue;
                }
                Outcome::Pending => continue,
                Outcome::Done => Ok(self.view(|id| waiter.ids.contains(id)).instances),
                Outcome::Failed(why) => Err(Status::failed_precondition(why.join("; "))),
            };
            waiter.reply.send(answer);
        }
    }

    fn limits_of_are_changing(&self, id: &InstanceId) -> bool {
        self.node.instance(id).is_some_and(|instance| instance.limits.change().is_some())
    }

    fn status(&mut self, name: &str) -> Result<pb::NodeStatus, Status> {
        if name.is_empty() {
            return Ok(self.view(|_| true));
        }
        let ids = self.named_or_disabled(name)?;
        Ok(self.view(|id| ids.contains(id)))
    }

    /// The instances that the name stands for; none for a disabled service.
    fn named_or_disabled(&self, name: &str) -> Result<BTreeSet<InstanceId>, Status> {
        let ids = self.node.named(name);
        let disabled = self.in_force.plan.disabled.iter().any(|service| service.as_str() == name);
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
        let now = self.observers.context.clock.now();
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
                happenings: self.facts.history.of(id),
            }
        };
        Ok(pb::WhyReply { instances: ids.iter().zip(statuses).map(history).collect() })
    }

    fn no_such(&self, name: &str) -> Status {
        if self.in_force.plan.disabled.iter().any(|service| service.as_str() == name) {
            return Status::failed_precondition(format!(
                "{name} is disabled; set services.{name}.enabled = true and reload"
            ));
        }
        let mut known: Vec<&str> =
            self.node.instances().map(|(id, _)| id.service.as_str()).collect();
        known.dedup();
        Status::not_found(format!("there is no service {name:?}; there are: {}", known.join(", ")))
    }
}
