//! Whether a run gets the memory it asks for. The kernel wakes us when its processes wait for
//! memory; only then there is a timer, until they no longer do.

use std::time::Duration;

use tokio::time::timeout;

use super::news::Reporter;
use crate::decide::{Memory, News};
use crate::linux::Error;
use crate::linux::cgroupfs::{Group, MemoryStalls};
use crate::linux::members::Members;

/// So much of the time has to be lost to be worth telling: 10 %.
const STALLED: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(2);
/// Without another such window for this long it has enough again.
const CALM: Duration = Duration::from_secs(10);

/// Tells when the run falls short of memory because of its own limits, and when no longer. Ends at
/// once where the host cannot say.
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
        // Else it waits because the whole machine is short of memory.
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

/// How often its own limits have held it back.
fn held_back(group: &Group) -> Result<u64, Error> {
    let events = group.limit_events()?;
    Ok(events.memory_high.saturating_add(events.memory_max))
}
