//! Children nobody started here: orphans of services that the kernel handed to us (we are their
//! subreaper). They are collected when they end, and are nobody's news.

use crate::linux::pidfd::Reaped;
use crate::linux::{Error, process, procfs};
use crate::units::Pid;

/// Collects every ended child for which `is_ours` is false. Returns how many those were.
pub fn reap(is_ours: impl Fn(Pid) -> bool) -> Result<usize, Error> {
    let strangers = procfs::own_children()?.into_iter().filter(|pid| !is_ours(*pid));
    let mut reaped = 0;
    for pid in strangers {
        if let Reaped::Ended(_) = process::reap_stranger(pid)? {
            reaped += 1;
        }
    }
    Ok(reaped)
}
