//! Was a process that did not answer hung, or was it given no processor to answer with?
//!
//! A hung process sleeps, spins or is stopped; a starved one is runnable and waits in the run
//! queue. A group tells how long that was, the present wait included (`cpu.pressure`). Without it
//! there is `/proc/PID/schedstat` (kernel doc scheduler/sched-stats), which counts a wait when it
//! is over. We ourselves may wait in the same queue.

use std::time::Duration;

use crate::linux::members::Members;
use crate::linux::{process, procfs};
use crate::units::Tick;

/// What the run's processes did on the processors so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub ran: Duration,
    pub waited: Duration,
}

/// Watches how the processes of one run are scheduled.
#[derive(Debug)]
pub struct Scheduling {
    members: Members,
    began: Tick,
    before: CpuTime,
    /// How long our own process has waited.
    own_before: Duration,
}

impl Scheduling {
    pub fn of(members: Members) -> Self {
        let own_before = Duration::ZERO;
        Self { members, began: Tick::ZERO, before: CpuTime::default(), own_before }
    }

    /// A check begins.
    pub fn begin(&mut self, now: Tick) {
        self.began = now;
        self.before = self.sample();
        self.own_before = own_wait();
    }

    /// The check that began went unanswered for `patience`.
    pub fn was_starved(&self, now: Tick, patience: Duration) -> bool {
        let window = now.since(self.began);
        let frozen = self.members.group().is_some_and(|group| group.frozen().unwrap_or(false));
        let own = own_wait().saturating_sub(self.own_before);
        frozen || is_starved(window, patience, self.sample().since(self.before), own)
    }

    fn sample(&self) -> CpuTime {
        self.of_group().unwrap_or_else(|| self.of_processes())
    }

    fn of_group(&self) -> Option<CpuTime> {
        let group = self.members.group()?;
        let ran = group.cpu_usage().ok().flatten()?;
        let waited = group.cpu_waited().ok().flatten()?;
        Some(CpuTime { ran, waited })
    }

    fn of_processes(&self) -> CpuTime {
        let pids = self.members.pids().unwrap_or_default();
        let mut total = CpuTime::default();
        for time in pids.into_iter().filter_map(|pid| procfs::scheduled(pid).ok().flatten()) {
            total.ran += time.ran;
            total.waited += time.waited;
        }
        total
    }
}

impl CpuTime {
    fn since(self, before: Self) -> Self {
        let ran = self.ran.saturating_sub(before.ran);
        Self { ran, waited: self.waited.saturating_sub(before.waited) }
    }
}

fn own_wait() -> Duration {
    let own = procfs::scheduled(process::own_pid()).ok().flatten();
    own.map(|time| time.waited).unwrap_or_default()
}

/// Starved: we came half the patience too late, or waiting for a processor, theirs and our own,
/// took half the window and they ran for less than that.
fn is_starved(window: Duration, patience: Duration, theirs: CpuTime, own: Duration) -> bool {
    let we_were_late = window >= patience + patience / 2;
    let waited = theirs.waited + own;
    we_were_late || (waited >= window / 2 && waited > theirs.ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NO_WAIT: Duration = Duration::ZERO;

    fn cpu(ran_ms: u64, waited_ms: u64) -> CpuTime {
        CpuTime { ran: Duration::from_millis(ran_ms), waited: Duration::from_millis(waited_ms) }
    }

    #[test]
    fn a_process_that_waited_for_a_processor_is_not_hung() {
        assert!(is_starved(SECOND, SECOND, cpu(10, 800), NO_WAIT));
    }

    #[test]
    fn a_sleeping_a_stopped_and_a_spinning_process_are_hung() {
        assert!(!is_starved(SECOND, SECOND, cpu(0, 0), NO_WAIT), "asleep or stopped");
        assert!(!is_starved(SECOND, SECOND, cpu(990, 10), NO_WAIT), "spinning");
        assert!(!is_starved(SECOND, SECOND, cpu(600, 520), NO_WAIT), "spinning with company");
    }

    #[test]
    fn our_own_lateness_is_nobody_elses_fault() {
        assert!(is_starved(SECOND * 3, SECOND, cpu(0, 0), NO_WAIT));
    }

    #[test]
    fn their_wait_and_ours_add_up() {
        let own = Duration::from_millis(300);
        assert!(is_starved(SECOND, SECOND, cpu(10, 300), own));
        assert!(!is_starved(SECOND, SECOND, cpu(10, 100), own));
    }
}
