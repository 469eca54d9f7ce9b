//! A process's own end by a signal that it handled until then.
#![allow(unsafe_code, reason = "only libc can set a signal's default disposition")]

use rustix::process::{DumpableBehavior, getpid, kill_process, set_dumpable_behavior};

use super::error::{Error, failed};
use super::pidfd::kernel_signal;
use crate::units::Signal;

/// Ends this process by `signal`, without a core file. Returns only if the signal ends nobody.
pub fn die_by_signal(signal: Signal) -> Result<(), Error> {
    let kernel = kernel_signal(signal)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("forbid core files for", "this process"))?;
    // SAFETY: SIG_DFL is no function of ours that could run; `kernel_signal` checked the number.
    if unsafe { libc::signal(signal.0, libc::SIG_DFL) } == libc::SIG_ERR {
        let errno = rustix::io::Errno::from_io_error(&std::io::Error::last_os_error());
        let errno = errno.unwrap_or(rustix::io::Errno::INVAL);
        return Err(failed("reset the handling of", signal)(errno));
    }
    kill_process(getpid(), kernel).map_err(failed("send to this process", signal))
}
