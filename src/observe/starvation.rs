//! Was a process that did not answer hung, or was it given no processor to answer with?
//!
//! A hung process sleeps, spins or is stopped; a starved one is runnable and waits in the run
//! queue (`/proc/PID/schedstat`: time run and time waited, kernel doc scheduler/sched-stats). Our
//! own lateness says the same of the whole machine.

use std::time::Duration;

use crate::linux::members::Members;
use crate::linux::procfs;
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
}

impl Scheduling {
    pub fn of(members: Members) -> Self {
        Self { members, began: Tick::ZERO, before: CpuTime::default() }
    }

    /// A check begins.
    pub fn begin(&mut self, now: Tick) {
        self.began = now;
        self.before = self.sample();
    }

    /// The check that began went unanswered for `patience`.
    pub fn was_starved(&self, now: Tick, patience: Duration) -> bool {
        let window = now.since(self.began);
        let frozen = self.members.group().is_some_and(|group| group.frozen().unwrap_or(false));
        frozen || is_starved(window, patience, self.before, self.sample())
    }

    fn sample(&self) -> CpuTime {
        let pids = self.members.pids().unwrap_or_default();
        let mut total = CpuTime::default();
        for time in pids.into_iter().filter_map(|pid| procfs::scheduled(pid).ok().flatten()) {
            total.ran += time.ran;
            total.waited += time.waited;
        }
        total
    }
}

/// Starved: we ourselves came half the patience too late, or the processes waited for a processor
/// during half the window and ran for less than they waited.
fn is_starved(window: Duration, patience: Duration, before: CpuTime, after: CpuTime) -> bool {
    let ran = after.ran.saturating_sub(before.ran);
    let waited = after.waited.saturating_sub(before.waited);
    let we_were_late = window >= patience + patience / 2;
    we_were_late || (waited >= window / 2 && waited > ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cpu(ran_ms: u64, waited_ms: u64) -> CpuTime {
        CpuTime { ran: Duration::from_millis(ran_ms), waited: Duration::from_millis(waited_ms) }
    }

    #[test]
    fn a_process_that_waited_for_a_processor_is_not_hung() {
        assert!(is_starved(SECOND, SECOND, cpu(500, 100), cpu(510, 900)));
    }

    #[test]
    fn a_sleeping_a_stopped_and_a_spinning_process_are_hung() {
        assert!(!is_starved(SECOND, SECOND, cpu(500, 100), cpu(500, 100)), "asleep or stopped");
        assert!(!is_starved(SECOND, SECOND, cpu(0, 0), cpu(990, 10)), "spinning");
        assert!(!is_starved(SECOND, SECOND, cpu(0, 0), cpu(600, 520)), "spinning with company");
    }

    #[test]
    fn our_own_lateness_is_nobody_elses_fault() {
        assert!(is_starved(SECOND * 3, SECOND, cpu(0, 0), cpu(0, 0)));
    }
}
