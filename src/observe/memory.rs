//! Whether a run is short of memory because of its limits. The kernel wakes the observer when
//! processes wait for memory; a timer runs only from then until they no longer do.

use std::time::Duration;

use tokio::time::timeout;

use super::news::Reporter;
use crate::decide::{Memory, News};
use crate::linux::Error;
use crate::linux::cgroupfs::{Group, MemoryStalls};
use crate::linux::members::Members;

/// The part of the time that has to be lost for a report: 10 %.
const STALLED: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(2);
/// After this time without another such window the run is not short of memory any more.
const CALM: Duration = Duration::from_secs(10);

/// Reports when the run becomes short of memory because of its own limits, and when it no longer
/// is. Ends at once where the host cannot tell.
pub async fn watch(members: Members, reporter: Reporter) {
    let Some(group) = members.group() else { return };
    let watching = match group.watch_memory_stalls(STALLED, WINDOW) {
        Ok(Some(stalls)) => follow(group, &stalls, &reporter).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = watching {
        reporter.warn(error.to_string()).await;
    }
}

async fn follow(group: &Group, stalls: &MemoryStalls, reporter: &Reporter) -> Result<(), Error> {
    let mut before = held_back(group)?;
    loop {
        stalls.next().await?;
        let now = held_back(group)?;
        // No event of its own limits: the whole machine is short of memory.
        if now == before {
            continue;
        }
        reporter.report(News::Memory(Memory::Short)).await;
        while let Ok(again) = timeout(CALM, stalls.next()).await {
            again?;
        }
        reporter.report(News::Memory(Memory::Enough)).await;
        before = held_back(group)?;
    }
}

/// How often the run was held back by its own limits.
fn held_back(group: &Group) -> Result<u64, Error> {
    let events = group.limit_events()?;
    Ok(events.memory_high.saturating_add(events.memory_max))
}
