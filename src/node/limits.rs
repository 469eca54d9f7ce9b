//! Limits of what runs change with the plan. Each instance follows beside the loop, for memory in
//! use may take its time to come down; where it does not, what `set-limits` asked for is undone.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::reload::changes_to_pb;
use super::supervise::Supervisor;
use super::verbs::{Reply, WaitFor, Waiter};
use crate::act::{ActError, LimitChange, LimitInForce, Pause};
use crate::config::LimitSettings;
use crate::control::Wait;
use crate::control::server::Responder;
use crate::plan::Changes;
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, ServiceName};

/// How many outcomes may wait for the loop.
const QUEUE: usize = 64;

/// The changes that are under way.
#[derive(Debug)]
pub(super) struct LimitChanges {
    under_way: BTreeMap<InstanceId, UnderWay>,
    next_ticket: u64,
    /// What `set-limits` had set for a service before what is not in force everywhere yet.
    to_undo: BTreeMap<ServiceName, LimitSettings>,
    tell: mpsc::Sender<Changed>,
    hear: mpsc::Receiver<Changed>,
}

#[derive(Debug)]
struct UnderWay {
    ticket: u64,
    /// Dropped: the change gives way to another.
    _go_on: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// How a change came out.
#[derive(Debug)]
pub(super) struct Changed {
    instance: InstanceId,
    ticket: u64,
    outcome: Result<(), ActError>,
}

impl LimitChanges {
    pub(super) fn new() -> Self {
        let (tell, hear) = mpsc::channel(QUEUE);
        let (under_way, to_undo) = (BTreeMap::new(), BTreeMap::new());
        Self { under_way, next_ticket: 0, to_undo, tell, hear }
    }

    /// The next outcome. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Changed> {
        self.hear.recv().await
    }

    pub(super) fn is_under_way(&self, instance: &InstanceId) -> bool {
        self.under_way.contains_key(instance)
    }

    /// On a thread of its own: the kernel takes memory away in the caller's time.
    fn begin(&mut self, instance: &InstanceId, change: LimitChange) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (go_on, cancelled) = channel::<()>();
        let former = self.under_way.remove(instance).and_then(|former| former.thread);
        let (tell, id) = (self.tell.clone(), instance.clone());
        let work = move || {
            if let Some(former) = former {
                let _it_told_its_outcome_itself = former.join();
            }
            let outcome = change.carry_out(|time| match cancelled.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => Pause::Over,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => Pause::Cancelled,
            });
            let _the_loop_is_gone = tell.blocking_send(Changed { instance: id, ticket, outcome });
        };
        let thread = thread::Builder::new().name("limits".to_owned()).spawn(work);
        let failed = thread.as_ref().err().map(|reason| ActError::Thread(reason.to_string()));
        self.under_way
            .insert(instance.clone(), UnderWay { ticket, _go_on: go_on, thread: thread.ok() });
        if let Some(error) = failed {
            let changed = Changed { instance: instance.clone(), ticket, outcome: Err(error) };
            let _full_only_of_other_outcomes = self.tell.try_send(changed);
        }
    }

    /// Whether this was the change that is under way.
    fn finish(&mut self, instance: &InstanceId, ticket: u64) -> bool {
        let current = self.under_way.get(instance).is_some_and(|change| change.ticket == ticket);
        if current {
            self.under_way.remove(instance);
        }
        current
    }

    fn is_settled(&self, service: &ServiceName) -> bool {
        self.under_way.keys().all(|instance| instance.service != *service)
    }
}

impl Supervisor {
    /// What runs follows a plan that is in force already.
    pub(super) fn follow_limits(&mut self, changes: &Changes) {
        for id in changes.limited_otherwise() {
            if let Some(change) = self.act.limit_change(id) {
                self.limits.begin(id, change);
            }
        }
    }

    /// What was taken over may use more than it is to: its limits follow where they do not hold.
    pub(super) fn follow_limits_of(&mut self, id: &InstanceId) {
        let lags = |limit: &LimitInForce| limit.set.is_some() && !limit.is_met();
        if self.act.limits(id).iter().any(lags)
            && let Some(change) = self.act.limit_change(id)
        {
            self.limits.begin(id, change);
        }
    }

    pub(super) fn take_changed_limits(&mut self, changed: Changed) {
        let Changed { instance, ticket, outcome } = changed;
        if !self.limits.finish(&instance, ticket) {
            return;
        }
        if let Err(error) = outcome {
            let what = format!("{instance}: {error}");
            self.say(Level::Warn, &what);
            for waiter in self.waiters.iter_mut().filter(|w| w.limits.contains(&instance)) {
                waiter.problems.push(what.clone());
            }
            self.undo_limits(&instance.service);
        }
        if self.limits.is_settled(&instance.service) {
            self.limits.to_undo.remove(&instance.service);
        }
        self.reply_to_waiters();
    }

    fn undo_limits(&mut self, service: &ServiceName) {
        let Some(former) = self.limits.to_undo.remove(service) else { return };
        self.live.overrides.limit(service, former);
        if let Err(refusal) = self.apply_overrides() {
            self.say(Level::Warn, &format!("limits of {service} are not undone: {refusal}"));
        }
    }

    pub(super) fn set_limits(
        &mut self,
        request: &pb::SetLimitsRequest,
        reply: Responder<pb::ReplanReply>,
    ) {
        let applied = self.live.limits_with(&request.service, &request.assignments).and_then(
            |(service, settings)| {
                if !self.limits.is_settled(&service) {
                    return Err(super::reload::Refusal::State(format!(
                        "the limits of {service} are being changed just now; try again"
                    )));
                }
                let former = self.live.overrides.limit(&service, settings);
                let applied = self.apply_overrides();
                let applied = applied.inspect_err(|_| {
                    self.live.overrides.limit(&service, former.clone());
                })?;
                Ok((service, former, applied))
            },
        );
        match applied {
            Ok((service, former, changes)) => {
                if !self.limits.is_settled(&service) {
                    self.limits.to_undo.insert(service.clone(), former);
                }
                self.say(Level::Info, &format!("limits of {service} are set anew"));
                let ids = changes.limited_otherwise().cloned().collect();
                let limits = changes.limited_otherwise().cloned().collect();
                let known =
                    pb::ReplanReply { changes: changes_to_pb(&changes), ..Default::default() };
                let reply = Reply::Replan(reply, known);
                let waiter =
                    Waiter { wait_for: WaitFor::Limited, ids, limits, problems: Vec::new(), reply };
                self.answer_when_it_holds(waiter, Wait::unless(request.no_block));
            }
            Err(refusal) => {
                let _gone = reply.send(Err(refusal.status()));
            }
        }
    }
}
