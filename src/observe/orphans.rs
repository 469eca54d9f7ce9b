//! Orphans of services, which the kernel makes our children (we are their subreaper). They are
//! collected when they end; no run is told of it.

use crate::linux::pidfd::Reaped;
use crate::linux::{Error, process, procfs};
use crate::units::Pid;

/// Collects every ended child for which `is_ours` is false. Returns how many those were.
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
