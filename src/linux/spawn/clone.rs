//! Making the process: `clone3(2)` or `clone(2)`, with every signal blocked across it.
#![allow(unsafe_code, reason = "no library offers clone3 into a cgroup")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::sheet::Sheet;
use super::{Door, child};
use crate::linux::cgroupfs::Group;
use crate::linux::pidfd::Pidfd;
use crate::units::Pid;

/// `linux/sched.h`. The C library's headers, and so the libc crate, give 0 for it on glibc.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
/// SIGCHLD, as after fork: `waitid` does not see children with another one.
const EXIT_SIGNAL: u64 = 17;

/// Makes the child, which never returns from here.
///
/// Signals are blocked meanwhile, so that none is taken by the parent's handlers inside the child,
/// where they would write into the runtime's shared wake-up pipe. The child unblocks them when
/// every one has its default again.
pub(super) fn clone(
    door: Door,
    group: Option<&Group>,
    sheet: &mut Sheet<'_>,
) -> io::Result<(Pid, Pidfd)> {
    let before = block_signals()?;
    let mut pidfd: RawFd = -1;
    let made = match door {
        Door::Clone3 => raw_clone3(group, &mut pidfd),
        Door::CloneThenJoin => raw_clone(&mut pidfd),
    };
    if made == 0 {
        child::run(sheet);
    }
    let refused = io::Error::last_os_error();
    restore_signals(before);
    if made < 0 {
        return Err(refused);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid(i32::try_from(made).unwrap_or(i32::MAX)), Pidfd::from(pidfd)))
}

/// 0 in the child, its pid in the parent, -1 when refused.
fn raw_clone3(group: Option<&Group>, pidfd: &mut RawFd) -> libc::c_long {
    let group = group.map(|group| u64::from(group.as_fd().as_raw_fd().unsigned_abs()));
    let arguments = libc::clone_args {
        flags: CLONE_PIDFD | if group.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: ptr::from_mut(pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: EXIT_SIGNAL,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.unwrap_or(0),
    };
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, as after fork;
    // `pidfd` outlives the call; the caller keeps to async-signal-safe calls in the child.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) }
}

/// The same with the older call. The third argument is where the pidfd goes on every architecture
/// but those with CLONE_BACKWARDS2 (s390), which we do not build for.
fn raw_clone(pidfd: &mut RawFd) -> libc::c_long {
    let no_stack = ptr::null::<libc::c_void>();
    let none = ptr::null::<libc::c_void>();
    let flags = CLONE_PIDFD | EXIT_SIGNAL;
    // SAFETY: as for clone3 above.
    unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, ptr::from_mut(pidfd), none, none) }
}

/// A signal mask as the kernel has it: 64 bits.
pub(super) type Mask = u64;

/// Every signal, also those that the C library keeps for itself. Returns the mask before.
fn block_signals() -> io::Result<Mask> {
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
