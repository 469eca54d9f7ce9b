//! Orphans: processes of services whose parents ended, and which the kernel makes children of the
//! orchestrator (a subreaper). They are collected when they end, without news about any run.

use crate::linux::pidfd::Reaped;
use crate::linux::{Error, process, procfs};
use crate::units::Pid;

/// Collects every child that has ended and for which `is_ours` is false. Returns how many there
/// were.
pub fn reap(is_ours: impl Fn(Pid) -> bool) -> Result<usize, Error> {
    let orphans = procfs::own_children()?.into_iter().filter(|pid| !is_ours(*pid));
    let mut reaped = 0;
    for pid in orphans {
        if let Reaped::Ended(_) = process::reap_orphan(pid)? {
            reaped += 1;
        }
    }
    Ok(reaped)
}
