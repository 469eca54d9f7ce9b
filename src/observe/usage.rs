//! What the processes of a run use right now. Looked at when somebody asks, never by a timer.

use std::time::Duration;

use crate::linux::members::Members;
use crate::linux::{Error, procfs};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    /// Processor time since the group or the processes began.
    pub cpu: Duration,
    /// Processes and threads.
    pub tasks: u64,
}

/// From the group's own counters where the host keeps them, else summed over its processes.
pub fn of(members: &Members) -> Result<Usage, Error> {
    let summed = procfs::total_usage(members.pids()?)?;
    let group = members.group();
    let memory = group.map(|group| group.memory_current()).transpose()?.flatten();
    let cpu = group.map(|group| group.cpu_usage()).transpose()?.flatten();
    Ok(Usage {
        memory_bytes: memory.unwrap_or(summed.resident).0,
        cpu: cpu.unwrap_or(summed.cpu),
        tasks: summed.threads,
    })
}
