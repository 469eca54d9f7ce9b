//! The monotonic clock of the node, and the wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::linux::process;
use crate::units::Tick;

/// The monotonic clock, counted from the start of the node.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// A clock that began at this reading of the kernel's monotonic clock, in this boot: after an
    /// adoption the clock of the former orchestrator goes on.
    pub fn begun_at(monotonic: Duration) -> Self {
        let ago = process::monotonic().saturating_sub(monotonic);
        let now = Self::start().start;
        Self { start: now.checked_sub(ago).unwrap_or(now) }
    }

    /// The reading of the kernel's monotonic clock at which it began.
    pub fn began_at(self) -> Duration {
        process::monotonic().saturating_sub(self.start.elapsed())
    }

    pub fn now(self) -> Tick {
        Tick(self.start.elapsed())
    }

    /// The instant for tokio's timers at which `tick` is reached.
    pub fn instant(self, tick: Tick) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + tick.0)
    }

    /// The next whole multiple of `interval` after now: checks of many services that share an
    /// interval share a wake-up.
    pub fn next_beat(self, interval: Duration) -> tokio::time::Instant {
        let interval_ns = interval.as_nanos().max(1);
        let beats = self.start.elapsed().as_nanos() / interval_ns + 1;
        let at = u64::try_from(beats * interval_ns).unwrap_or(u64::MAX);
        self.instant(Tick(Duration::from_nanos(at)))
    }
}

/// The wall clock, in microseconds since 1970.
pub fn unix_us() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)
}
