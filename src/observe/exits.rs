//! The beginning and the end of a process, from the kernel: its exec report, its pidfd, its group.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::news::Reporter;
use crate::decide::{ExitFacts, GroupState, News, SpawnFailure};
use crate::linux::members::Members;
use crate::linux::pidfd::{Pidfd, Reaped};
use crate::linux::spawn::{ExecOutcome, ExecReport};
use crate::units::ExitStatus;

/// How often, and how long apart, we look whether a parent has collected its child.
const COLLECTED_LOOKS: u32 = 50;
const COLLECTED_LOOK: Duration = Duration::from_millis(10);

/// A run's first process, and what is known of its beginning.
#[derive(Debug)]
pub struct MainProcess {
    pub pidfd: Arc<Pidfd>,
    pub members: Members,
    /// None: a former orchestrator started it, long since.
    pub exec: Option<ExecReport>,
    /// What its group had counted before it.
    pub oom_kills_before: u64,
}

/// Tells whether the program was executed, then how its process ended, then ends.
pub async fn watch(first: MainProcess, reporter: Reporter) {
    let MainProcess { pidfd, members, exec, oom_kills_before } = first;
    match exec {
        Some(exec) => tell_of_exec(exec, &reporter).await,
        None => reporter.report(News::Executed).await,
    }
    let status = loop {
        if let Err(error) = pidfd.exited().await {
            reporter.warn(error.to_string()).await;
        }
        match pidfd.reap() {
            Ok(Reaped::Ended(status)) => break status,
            Ok(Reaped::StillRunning) => {}
            Ok(Reaped::NotOurChild) => break recorded_end(&pidfd).await,
            Err(error) => {
                reporter.warn(error.to_string()).await;
                break ExitStatus::Unseen;
            }
        }
    };
    // The counter is read after the process was collected: the kernel has counted by then.
    let oom_kills = oom_kills(&members).saturating_sub(oom_kills_before);
    let facts = ExitFacts { status, oom_kills };
    let group = match members.any() {
        Ok(false) => GroupState::Empty,
        Ok(true) | Err(_) => GroupState::Populated,
    };
    reporter.report(News::Exited { facts, group }).await;
}

async fn tell_of_exec(exec: ExecReport, reporter: &Reporter) {
    match exec.outcome().await {
        Ok(ExecOutcome::Executed) => reporter.report(News::Executed).await,
        Ok(ExecOutcome::Failed(failure)) => {
            reporter.report(News::ExecFailed(SpawnFailure(failure.to_string()))).await;
        }
        Err(error) => reporter.warn(error.to_string()).await,
    }
}

/// Of another process's child. The kernel tells it when that one has collected it, and does not
/// wake us then.
async fn recorded_end(pidfd: &Pidfd) -> ExitStatus {
    for _ in 0..COLLECTED_LOOKS {
        let collected = pidfd.pid().is_ok_and(|pid| pid.is_none());
        if collected {
            break;
        }
        sleep(COLLECTED_LOOK).await;
    }
    pidfd.recorded_end().unwrap_or(ExitStatus::Unseen)
}

/// Kills what is left of the run until nothing is, tells so, and ends.
pub async fn clear(members: Members, reporter: Reporter) {
    match members.clear().await {
        Ok(()) => reporter.report(News::GroupEmpty).await,
        // The core asks again when its patience is over.
        Err(error) => reporter.warn(error.to_string()).await,
    }
}

/// Zero where the host has no memory controller for us.
fn oom_kills(members: &Members) -> u64 {
    members.group().and_then(|group| group.oom_kills().ok().flatten()).unwrap_or(0)
}
