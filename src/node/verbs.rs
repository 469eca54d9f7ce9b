//! Verbs that wait: what was asked for, and whether it holds, or cannot hold any more.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tonic::Status;

use crate::control::server::Verb;
use crate::decide::{Node, Phase, Wanted};
use crate::rpc::pb::node::VerbReply;
use crate::units::{InstanceId, Tick};

/// Somebody who waits for a verb's outcome.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) verb: Verb,
    pub(super) ids: BTreeSet<InstanceId>,
    pub(super) reply: oneshot::Sender<Result<VerbReply, Status>>,
}

/// How far a verb has come for all the instances it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Done,
    /// What an operator is told of each instance for which it cannot hold.
    Failed(Vec<String>),
}

pub(super) fn outcome(node: &Node, verb: Verb, ids: &BTreeSet<InstanceId>, now: Tick) -> Outcome {
    let mut failures = Vec::new();
    for id in ids {
        match one(node, verb, id, now) {
            Outcome::Pending => return Outcome::Pending,
            Outcome::Done => {}
            Outcome::Failed(why) => failures.extend(why),
        }
    }
    if failures.is_empty() { Outcome::Done } else { Outcome::Failed(failures) }
}

fn one(node: &Node, verb: Verb, id: &InstanceId, now: Tick) -> Outcome {
    let Some(instance) = node.instance(id) else { return Outcome::Done };
    let failed =
        |words: &str| Outcome::Failed(vec![format!("{id} {words}: {}", node.reason(id, now))]);
    match (verb, &instance.phase) {
        (Verb::Stop, Phase::Stopped | Phase::Failed(_)) => Outcome::Done,
        // Somebody else started it meanwhile.
        (Verb::Stop, _) if instance.wanted == Wanted::Up => failed("was started again"),
        (Verb::Stop, _) => Outcome::Pending,
        (Verb::Start | Verb::Restart, Phase::Ready { .. }) => Outcome::Done,
        (Verb::Start | Verb::Restart, Phase::Failed(_)) => failed("failed"),
        // It may come up later; whoever asked should not have to wait for that.
        (Verb::Start | Verb::Restart, Phase::Backoff { .. }) => failed("failed to start"),
        (Verb::Start | Verb::Restart, Phase::Stopped) if instance.wanted == Wanted::Down => {
            failed("was stopped")
        }
        // It did its work and ended well.
        (Verb::Start | Verb::Restart, Phase::Stopped) => Outcome::Done,
        (Verb::Start | Verb::Restart, Phase::Waiting) if node.is_held_for_good(id) => {
            failed("cannot start")
        }
        (
            Verb::Start | Verb::Restart,
            Phase::Waiting
            | Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. },
        ) => Outcome::Pending,
    }
}
