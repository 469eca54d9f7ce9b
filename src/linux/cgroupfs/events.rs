//! Counters of a group that reaches its limits, and wake-ups when it stalls on memory (PSI).

use std::ops::Add;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::group::{Group, flat_value};
use crate::linux::error::{Error, failed};
use crate::linux::fd_readiness;

/// How often a group and those below it have run into limits, since the group was made. Zero where
/// the host does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitEvents {
    /// OOM kills (`memory.events`). One of the whole group (`memory.oom.group`) counts once.
    pub oom_kills: u64,
    /// Times its memory was about to go over `memory.max`.
    pub memory_max: u64,
    /// Times its processes were throttled because its memory was over `memory.high`.
    pub memory_high: u64,
    /// Forks refused by `pids.max`.
    pub tasks_max: u64,
    /// Periods of `cpu.max` in which it was throttled (`cpu.stat`).
    pub throttled_periods: u64,
    /// How long its processes were throttled, summed over processors (`cpu.stat`).
    pub throttled: Duration,
}

impl Add for LimitEvents {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            oom_kills: self.oom_kills.saturating_add(other.oom_kills),
            memory_max: self.memory_max.saturating_add(other.memory_max),
            memory_high: self.memory_high.saturating_add(other.memory_high),
            tasks_max: self.tasks_max.saturating_add(other.tasks_max),
            throttled_periods: self.throttled_periods.saturating_add(other.throttled_periods),
            throttled: self.throttled.saturating_add(other.throttled),
        }
    }
}

impl LimitEvents {
    /// From `memory.events`, `pids.events` and `cpu.stat`; empty where a file is missing.
    fn from(memory: &str, pids: &str, cpu: &str) -> Self {
        let of = |text, key| flat_value(text, key).unwrap_or_default();
        // Of those that it kills together the kernel counts the first twice in `oom_kill`.
        let together = of(memory, "oom_group_kill");
        Self {
            oom_kills: if together > 0 { together } else { of(memory, "oom_kill") },
            memory_max: of(memory, "max"),
            memory_high: of(memory, "high"),
            tasks_max: of(pids, "max"),
            throttled_periods: of(cpu, "nr_throttled"),
            throttled: Duration::from_micros(of(cpu, "throttled_usec")),
        }
    }
}

impl Group {
    /// The counters now; all zero for a group that was removed.
    pub fn limit_events(&self) -> Result<LimitEvents, Error> {
        let text = |file| Ok(self.read_if_there(file)?.unwrap_or_default());
        let (memory, pids, cpu) = (text("memory.events")?, text("pids.events")?, text("cpu.stat")?);
        Ok(LimitEvents::from(&memory, &pids, &cpu))
    }

    /// Sets a PSI trigger on `memory.pressure`: it fires when some process of the group has stalled
    /// on memory for `stalled` within `window` (kernel doc accounting/psi.rst). `None` without PSI.
    ///
    /// `window` is of 2 s or a multiple of that: what Linux asks of who is not root.
    pub fn watch_memory_stalls(
        &self,
        stalled: Duration,
        window: Duration,
    ) -> Result<Option<MemoryStalls>, Error> {
        let file = "memory.pressure";
        let opened = match self.open_file(file, OFlags::RDWR | OFlags::NONBLOCK) {
            Ok(opened) => opened,
            Err(refused) if is_not_counted(&refused) => return Ok(None),
            Err(refused) => return Err(refused),
        };
        let trigger = format!("some {} {}", stalled.as_micros(), window.as_micros());
        let object = self.path().join(file).display().to_string();
        // The kernel takes the trigger with its terminating NUL.
        match rustix::io::write(&opened, format!("{trigger}\0").as_bytes()) {
            Ok(_) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(reason) => return Err(failed("set a trigger in", object)(reason)),
        }
        let watched = fd_readiness::registered(opened, Interest::PRIORITY);
        let watched = watched.map_err(failed("watch", &object))?;
        Ok(Some(MemoryStalls { watched, object }))
    }
}

/// Without PSI the file is missing or says EOPNOTSUPP.
fn is_not_counted(refused: &Error) -> bool {
    matches!(refused.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP))
}

/// A PSI trigger. Dropping it removes it.
#[derive(Debug)]
pub struct MemoryStalls {
    watched: AsyncFd<OwnedFd>,
    object: String,
}

impl MemoryStalls {
    /// Waits until the trigger fires, which it does at most once in each window.
    pub async fn next(&self) -> Result<(), Error> {
        let ready = self.watched.ready(Interest::PRIORITY).await;
        ready.map_err(failed("watch", &self.object))?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_its_place() {
        let memory = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n";
        let cpu = "usage_usec 9\nnr_periods 8\nnr_throttled 7\nthrottled_usec 1500\n";
        let events = LimitEvents::from(memory, "max 11\n", cpu);
        let expected = LimitEvents {
            oom_kills: 6,
            memory_max: 3,
            memory_high: 2,
            tasks_max: 11,
            throttled_periods: 7,
            throttled: Duration::from_micros(1500),
        };
        assert_eq!(events, expected);
        let one_by_one = memory.replace("oom_group_kill 6", "oom_group_kill 0");
        assert_eq!(LimitEvents::from(&one_by_one, "", "").oom_kills, 5);
        assert_eq!(LimitEvents::from("", "", "usage_usec 9\n"), LimitEvents::default());
        assert_eq!((events + events).tasks_max, 22);
    }
}
