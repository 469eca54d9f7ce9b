//! The beginning and the end of a process, from the kernel: its exec report, its pidfd, its group.

use std::sync::Arc;

use super::news::Teller;
use crate::decide::{ExitFacts, GroupState, News, SpawnFailure};
use crate::linux::members::Members;
use crate::linux::pidfd::{Pidfd, Reaped};
use crate::linux::spawn::{ExecOutcome, ExecReport};
use crate::units::ExitStatus;

/// What is known when no status can be had: somebody else collected it.
const UNKNOWN_END: ExitStatus = ExitStatus::Code(-1);

/// Tells whether the program was executed, then how its process ended, then ends.
pub async fn watch(pidfd: Arc<Pidfd>, members: Members, exec: ExecReport, teller: Teller) {
    let oom_before = oom_kills(&members);
    match exec.outcome().await {
        Ok(ExecOutcome::Executed) => teller.tell(News::Executed).await,
        Ok(ExecOutcome::Failed(failure)) => {
            teller.tell(News::ExecFailed(SpawnFailure(failure.to_string()))).await;
        }
        Err(error) => teller.odd(error.to_string()).await,
    }
    let status = loop {
        if let Err(error) = pidfd.exited().await {
            teller.odd(error.to_string()).await;
        }
        match pidfd.reap() {
            Ok(Reaped::Ended(status)) => break status,
            Ok(Reaped::StillRunning) => {}
            Ok(Reaped::NotOurChild) => break UNKNOWN_END,
            Err(error) => {
                teller.odd(error.to_string()).await;
                break UNKNOWN_END;
            }
        }
    };
    // The counter is read after the process was collected: the kernel has counted by then.
    let oom_kills = oom_kills(&members).saturating_sub(oom_before);
    let facts = ExitFacts { status, oom_kills };
    let group = match members.any() {
        Ok(false) => GroupState::Empty,
        Ok(true) | Err(_) => GroupState::Populated,
    };
    teller.tell(News::Exited { facts, group }).await;
}

/// Kills what is left of the run until nothing is, tells so, and ends.
pub async fn clear(members: Members, teller: Teller) {
    match members.clear().await {
        Ok(()) => teller.tell(News::GroupEmpty).await,
        // The core asks again when its patience is over.
        Err(error) => teller.odd(error.to_string()).await,
    }
}

/// Zero where the host has no memory controller for us.
fn oom_kills(members: &Members) -> u64 {
    members.group().and_then(|group| group.oom_kills().ok().flatten()).unwrap_or(0)
}
