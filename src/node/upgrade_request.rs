//! An upgrade that is under way: the rehearsing program, and the caller that waits.

use std::future::pending;
use std::path::PathBuf;

use tokio::task::{JoinError, JoinHandle};
use tonic::Status;

use crate::act::{Rehearsal, RehearsalFailure};
use crate::control::server::Responder;
use crate::rpc::pb::node as pb;

/// The rehearsal of a program.
#[derive(Debug)]
pub(super) struct Upgrade {
    pub(super) program: PathBuf,
    rehearsal: JoinHandle<Result<String, RehearsalFailure>>,
    pub(super) requests: Vec<UpgradeRequest>,
}

/// The caller that waits for the upgrade.
#[derive(Debug)]
pub(super) enum UpgradeRequest {
    /// None; the outcome is logged.
    Signal,
    Reload(Responder<pb::ReplanReply>),
    Upgrade(Responder<pb::UpgradeReply>),
}

pub(super) type Rehearsed = Result<Result<String, RehearsalFailure>, JoinError>;

impl Upgrade {
    pub(super) fn new(program: PathBuf, rehearsal: Rehearsal, request: UpgradeRequest) -> Self {
        let rehearsal = tokio::spawn(rehearsal.outcome());
        Self { program, rehearsal, requests: vec![request] }
    }

    /// The end of the rehearsal that is under way. Cancel safe.
    pub(super) async fn rehearsed(upgrade: &mut Option<Self>) -> Rehearsed {
        match upgrade {
            Some(upgrade) => (&mut upgrade.rehearsal).await,
            None => pending().await,
        }
    }
}

impl UpgradeRequest {
    pub(super) fn tell(self, told: pb::UpgradeReply) {
        // A caller that went away needs no reply.
        match self {
            Self::Signal => {}
            Self::Reload(reply) => {
                let replan = pb::ReplanReply { upgrade: Some(told), ..Default::default() };
                let _gone = reply.send(Ok(replan));
            }
            Self::Upgrade(reply) => {
                let _gone = reply.send(Ok(told));
            }
        }
    }

    pub(super) fn refuse(self, status: &Status) {
        match self {
            Self::Signal => {}
            Self::Reload(reply) => {
                let _gone = reply.send(Err(status.clone()));
            }
            Self::Upgrade(reply) => {
                let _gone = reply.send(Err(status.clone()));
            }
        }
    }
}
