//! Verbs whose callers wait: what was asked for, and whether it holds or cannot hold any more. Of
//! the caller only the responder is known.

use std::collections::BTreeSet;

use tonic::Status;

use crate::control::server::{Responder, Verb};
use crate::decide::{Membership, Node, Phase, Wanted};
use crate::rpc::pb::node::{InstanceStatus, ReplanReply, VerbReply};
use crate::units::{InstanceId, Tick};

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    Verb(Verb),
    /// The new plan is in force: instances that are new or changed are ready, others are gone.
    Replanned,
    /// The limits are in force, whatever the phases.
    Limited,
}

/// A caller that waits for an outcome.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wait_for: WaitFor,
    pub(super) ids: BTreeSet<InstanceId>,
    /// The instances whose changes of limits have to be over first.
    pub(super) limits: BTreeSet<InstanceId>,
    pub(super) reply: Reply,
}

impl Waiter {
    pub(super) fn about_verb(
        verb: Verb,
        ids: BTreeSet<InstanceId>,
        reply: Responder<VerbReply>,
    ) -> Self {
        let limits = BTreeSet::new();
        Self { wait_for: WaitFor::Verb(verb), ids, limits, reply: Reply::Verb(reply) }
    }
}

/// The refused changes of limits of these instances, in words.
pub(super) fn refused_limits(node: &Node, ids: &BTreeSet<InstanceId>) -> Vec<String> {
    let refusal = |id: &InstanceId| Some((id.clone(), node.instance(id)?.limits.refusal()?));
    ids.iter().filter_map(refusal).map(|(id, refusal)| format!("{id}: {refusal}")).collect()
}

/// The responder of a caller.
#[derive(Debug)]
pub(super) enum Reply {
    Verb(Responder<VerbReply>),
    /// With the part of the reply that is known already.
    Replan(Responder<ReplanReply>, ReplanReply),
}

impl Reply {
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Verb(reply) => reply.is_closed(),
            Self::Replan(reply, _) => reply.is_closed(),
        }
    }

    /// Adds remarks to a reply about a plan.
    pub(super) fn remark(&mut self, problems: Vec<String>) {
        match self {
            Self::Verb(_) => {}
            Self::Replan(_, known) => known.remarks.extend(problems),
        }
    }

    /// Replies with the instances as they are now, or with the reason why the outcome cannot come
    /// true.
    pub(super) fn send(self, outcome: Result<Vec<InstanceStatus>, Status>) {
        // A caller that went away needs no reply.
        match self {
            Self::Verb(reply) => {
                let _gone = reply.send(outcome.map(|instances| VerbReply { instances }));
            }
            Self::Replan(reply, known) => {
                let known = |instances| ReplanReply { instances, ..known };
                let _gone = reply.send(outcome.map(known));
            }
        }
    }
}

/// Whether what a caller waits for holds, for all instances together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Done,
    /// Why it cannot hold, for each such instance.
    Failed(Vec<String>),
}

pub(super) fn outcome(
    node: &Node,
    wait_for: WaitFor,
    ids: &BTreeSet<InstanceId>,
    now: Tick,
) -> Outcome {
    let mut failures = Vec::new();
    for id in ids {
        match one(node, wait_for, id, now) {
            Outcome::Pending => return Outcome::Pending,
            Outcome::Done => {}
            Outcome::Failed(why) => failures.extend(why),
        }
    }
    if failures.is_empty() { Outcome::Done } else { Outcome::Failed(failures) }
}

fn one(node: &Node, wait_for: WaitFor, id: &InstanceId, now: Tick) -> Outcome {
    let Some(instance) = node.instance(id) else { return Outcome::Done };
    let failed =
        |words: &str| Outcome::Failed(vec![format!("{id} {words}: {}", node.reason(id, now))]);
    match (wait_for, instance.membership) {
        (WaitFor::Limited, _) => Outcome::Done,
        (WaitFor::Verb(Verb::Stop), _) if instance.phase.is_at_rest() => Outcome::Done,
        // Another caller started it meanwhile.
        (WaitFor::Verb(Verb::Stop), _) if instance.wanted == Wanted::Up => {
            failed("was started again")
        }
        (WaitFor::Verb(Verb::Stop), _) => Outcome::Pending,
        (WaitFor::Verb(Verb::Start | Verb::Restart), Membership::Retiring) => {
            failed("is being removed")
        }
        (WaitFor::Replanned, Membership::Retiring) => Outcome::Pending,
        (WaitFor::Replanned, Membership::Planned) if instance.wanted == Wanted::Down => {
            Outcome::Done
        }
        (WaitFor::Verb(Verb::Start | Verb::Restart) | WaitFor::Replanned, Membership::Planned) => {
            match &instance.phase {
                Phase::Ready { .. } => Outcome::Done,
                Phase::Failed(_) => failed("failed"),
                // It may become ready later; the caller is not kept waiting for that.
                Phase::Backoff { .. } => failed("failed to start"),
                Phase::Stopped if instance.wanted == Wanted::Down => failed("was stopped"),
                // It finished its work and exited with success.
                Phase::Stopped => Outcome::Done,
                Phase::Waiting if node.is_held_for_good(id) => failed("cannot start"),
                Phase::Waiting
                | Phase::Starting { .. }
                | Phase::Stopping { .. }
                | Phase::Clearing { .. } => Outcome::Pending,
            }
        }
    }
}
