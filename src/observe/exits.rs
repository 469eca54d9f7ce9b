//! The exec report of a run, and the end of its main process and of its group, from the kernel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::news::Reporter;
use super::retry::{Failed, Report, Retry};
use crate::decide::{ExitFacts, GroupState, News, SpawnFailure};
use crate::linux::Error;
use crate::linux::members::Members;
use crate::linux::pidfd::{Pidfd, Reaped};
use crate::linux::spawn::{ExecOutcome, ExecReport};
use crate::units::ExitStatus;

/// How often, and how far apart, it is looked whether another parent has collected its child.
const COLLECTED_LOOKS: u32 = 50;
const COLLECTED_LOOK: Duration = Duration::from_millis(10);

/// The main process of a run, and what is known about its start.
#[derive(Debug)]
pub struct MainProcess {
    pub pidfd: Arc<Pidfd>,
    pub members: Members,
    /// `None`: a former orchestrator started it.
    pub exec: Option<ExecReport>,
    /// How many processes of its group the OOM killer had ended before the run began.
    pub oom_kills_before: u64,
}

/// Reports whether the program was executed, then how its process ended, then ends.
pub async fn watch(first: MainProcess, reporter: Reporter) {
    let MainProcess { pidfd, members, exec, oom_kills_before } = first;
    match exec {
        Some(exec) => tell_of_exec(exec, &reporter).await,
        None => reporter.report(News::Executed).await,
    }
    let mut waits = Retry::default();
    let status = loop {
        if let Err(error) = pidfd.exited().await {
            // Without the kernel's notification the process is looked at from time to time.
            pause(&mut waits, &error, &reporter).await;
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
    // Read after the process was collected: the kernel has counted by then.
    let oom_kills = oom_kills(&members).saturating_sub(oom_kills_before);
    let facts = ExitFacts { status, oom_kills };
    let group = match members.any() {
        Ok(false) => GroupState::Empty,
        Ok(true) | Err(_) => GroupState::Populated,
    };
    reporter.report(News::Exited { facts, group }).await;
}

async fn pause(waits: &mut Retry, error: &Error, reporter: &Reporter) {
    let Failed { pause, report } = waits.failed();
    if report == Report::Warn {
        reporter.warn(error.to_string()).await;
    }
    sleep(pause).await;
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

/// For a child of another process: whether it was collected, which the kernel tells, but does not
/// notify of.
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

/// Kills the members of the run until none is left, reports that, and ends.
pub async fn clear(members: Members, reporter: Reporter) {
    match members.clear().await {
        Ok(()) => reporter.report(News::GroupEmpty).await,
        // The core asks again after its timeout.
        Err(error) => reporter.warn(error.to_string()).await,
    }
}

/// 0 without the memory controller.
fn oom_kills(members: &Members) -> u64 {
    members.group().and_then(|group| group.oom_kills().ok().flatten()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::sync::mpsc;

    use super::*;
    use crate::decide::Event;
    use crate::linux::members::Marks;
    use crate::observe::clock::Clock;
    use crate::observe::news::{Observation, QUEUE};
    use crate::units::{Pid, RunId, Signal};

    /// A descriptor can be waited for once at a time: a second wait fails at once.
    #[tokio::test]
    async fn a_wait_that_fails_at_once_is_paused_and_the_end_is_seen_all_the_same() {
        #[allow(clippy::disallowed_methods, reason = "a test's own child, not one of the node's")]
        let mut child = Command::new("sleep").arg("1000000").spawn().unwrap();
        let pid = Pid(i32::try_from(child.id()).unwrap());
        let pidfd = Arc::new(Pidfd::open(pid).unwrap().unwrap());
        let held = Arc::clone(&pidfd);
        let other_wait = tokio::spawn(async move { held.exited().await });
        tokio::task::yield_now().await;
        let (to_node, mut observations) = mpsc::channel(QUEUE);
        let all = ["NO=process".to_owned()].into();
        let first = MainProcess {
            pidfd: Arc::clone(&pidfd),
            members: Members::Marked(Marks { all, ..Marks::default() }),
            exec: None,
            oom_kills_before: 0,
        };
        let clock = Clock::start();
        let watching = tokio::spawn(watch(first, Reporter::new(RunId(1), to_node)));
        let mut warnings = 0;
        let status = loop {
            match observations.recv().await.unwrap() {
                Observation::Warning { .. } => warnings += 1,
                Observation::Event(Event::News { news: News::Exited { facts, .. }, .. }) => {
                    break facts.status;
                }
                Observation::Event(_) | Observation::FdStore { .. } => {}
            }
            if warnings == 3 {
                // A sleep is never too short: two pauses have passed, of 100 and 200 ms.
                assert!(clock.now().0 >= Duration::from_millis(300), "{:?}", clock.now());
                pidfd.send(Signal::KILL).unwrap();
            }
        };
        assert_eq!(warnings, 3);
        assert!(matches!(status, ExitStatus::Signal { number: Signal::KILL, .. }), "{status}");
        watching.await.unwrap();
        other_wait.await.unwrap().unwrap();
        let _collected_by_the_watch = child.wait();
    }
}
