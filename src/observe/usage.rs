//! What the processes of a run use now. Measured for a `status` that was asked for, never by a
//! timer.

use std::time::Duration;

use crate::linux::members::Members;
use crate::linux::{Error, procfs};
use crate::units::ByteSize;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    /// Processor time since the group was made, or since the processes began.
    pub cpu: Duration,
    /// Processes and threads.
    pub tasks: u64,
}

/// From the group's own counters, a few files however many processes there are.
///
/// Tasks and processor time are counted by every cgroup v2 group (`pids.current` or
/// `cgroup.threads`, `cpu.stat`). Memory takes the memory controller; without it, as on a host
/// where version 1 has it, the resident memory of the group's processes is summed. Without groups
/// the processes of a run are known by their environment alone, and all of `/proc` is looked
/// through.
pub fn of(members: &Members) -> Result<Usage, Error> {
    let Some(group) = members.group() else {
        let summed = procfs::total_usage(members.pids()?)?;
        return Ok(Usage {
            memory_bytes: summed.resident.0,
            cpu: summed.cpu,
            tasks: summed.threads,
        });
    };
    let (memory, cpu) = (group.memory_current()?, group.cpu_usage()?);
    let ByteSize(memory_bytes) = match memory {
        Some(memory) => memory,
        None => procfs::total_usage(group.procs()?)?.resident,
    };
    Ok(Usage { memory_bytes, cpu: cpu.unwrap_or_default(), tasks: group.tasks()? })
}
