//! The signal mask of this thread, by the kernel's own call: the C library's leaves its own signals
//! unblocked. The child uses it too.
#![allow(unsafe_code, reason = "rt_sigprocmask with the kernel's mask")]

use std::io;
use std::ptr;

/// A signal mask as the kernel has it: 64 bits.
pub(super) type Mask = u64;

/// Every signal, also those that the C library keeps for itself. Returns the mask before.
pub(super) fn block_signals() -> io::Result<Mask> {
    let mut before: Mask = 0;
    if set_mask(&Mask::MAX, &raw mut before) < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(before)
}

/// Setting a mask with valid pointers cannot fail.
pub(super) fn restore_signals(mask: Mask) {
    set_mask(&mask, ptr::null_mut());
}

fn set_mask(mask: &Mask, before: *mut Mask) -> libc::c_long {
    let (call, how) = (libc::SYS_rt_sigprocmask, libc::SIG_SETMASK);
    // SAFETY: `before` is null or points to a mask of our caller; both masks are 64 bits.
    unsafe { libc::syscall(call, how, ptr::from_ref(mask), before, size_of::<Mask>()) }
}
