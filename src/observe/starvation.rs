//! Whether a process that did not answer hung, or was starved of processor time.
//!
//! A process that hangs sleeps, spins or is stopped; a starved one is runnable and waits in the run
//! queue. `cpu.pressure` of a group tells how long processes waited, including a wait that goes on;
//! without it there is `/proc/PID/schedstat` (kernel doc scheduler/sched-stats), which counts a
//! wait after it is over. The orchestrator may wait in the same queue.
//! is over. We ourselves may wait in the same queue.

use std::time::Duration;

use crate::linux::members::Members;
use crate::linux::{process, procfs};
use crate::units::Tick;

/// The processor time of the run's processes, and their waits, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub ran: Duration,
    pub waited: Duration,
}

/// Measures how the processes of one run are scheduled during a check.
#[derive(Debug)]
pub struct Scheduling {
    members: Members,
    began: Tick,
    looked: Tick,
    before: CpuTime,
    /// How long the orchestrator itself has waited.
    own_before: Duration,
}

/// The part of the timeout after which the processes of an unanswered check are measured. Measuring
/// costs more than a check that is answered at once.
const LOOK_AFTER: u32 = 10;

impl Scheduling {
    pub fn of(members: Members) -> Self {
        Self {
            members,
            began: Tick::ZERO,
            looked: Tick::ZERO,
            before: CpuTime::default(),
            own_before: Duration::ZERO,
        }
    }

    /// Begins a check. Returns when to call `look`, if it is not answered by then.
    pub fn begin(&mut self, now: Tick, patience: Duration) -> Tick {
        self.began = now;
        now + patience / LOOK_AFTER
    }

    /// Measures the processes of a check that was not answered soon.
    pub fn look(&mut self, now: Tick) {
        self.looked = now;
        self.before = self.sample();
        self.own_before = own_wait();
    }

    /// Whether the check that went unanswered for `patience` was starved.
    pub fn was_starved(&self, now: Tick, patience: Duration) -> bool {
        let frozen = self.members.group().is_some_and(|group| group.frozen().unwrap_or(false));
        let we_were_late = is_late(self.began, self.looked, now, patience);
        let own = own_wait().saturating_sub(self.own_before);
        let window = now.since(self.looked);
        frozen || we_were_late || is_starved(window, self.sample().since(self.before), own)
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

/// The orchestrator was late by half the timeout: when it measured, or at the end.
fn is_late(began: Tick, looked: Tick, now: Tick, patience: Duration) -> bool {
    looked.since(began) >= patience / 2 || now.since(began) >= patience + patience / 2
}

/// The waits of the processes and of the orchestrator took half the window, and more time than the
/// processes ran.
fn is_starved(window: Duration, theirs: CpuTime, own: Duration) -> bool {
    let waited = theirs.waited + own;
    waited >= window / 2 && waited > theirs.ran
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
        assert!(is_starved(SECOND, cpu(10, 800), NO_WAIT));
    }

    #[test]
    fn a_sleeping_a_stopped_and_a_spinning_process_are_hung() {
        assert!(!is_starved(SECOND, cpu(0, 0), NO_WAIT), "asleep or stopped");
        assert!(!is_starved(SECOND, cpu(990, 10), NO_WAIT), "spinning");
        assert!(!is_starved(SECOND, cpu(600, 520), NO_WAIT), "spinning with company");
    }

    #[test]
    fn our_own_lateness_is_nobody_elses_fault() {
        let at = Tick::from_millis;
        assert!(is_late(at(0), at(100), at(3000), SECOND), "at the end");
        assert!(is_late(at(0), at(900), at(1000), SECOND), "at the look");
        assert!(!is_late(at(0), at(101), at(1001), SECOND), "in time");
    }

    #[test]
    fn their_wait_and_ours_add_up() {
        let own = Duration::from_millis(300);
        assert!(is_starved(SECOND, cpu(10, 300), own));
        assert!(!is_starved(SECOND, cpu(10, 100), own));
    }
}
