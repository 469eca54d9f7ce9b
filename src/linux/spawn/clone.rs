//! Making the process: `clone3(2)` or `clone(2)`, with every signal blocked across it.
//!
//! Through `clone3` the child borrows our memory until it executes, on a stack of its own, as with
//! posix_spawn(3): see `docs/decisions/0008-children-borrow-memory.md`.
#![allow(unsafe_code, reason = "no library offers clone3 into a cgroup")]

use std::arch::asm;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::child;
use super::child_setup::ChildSetup;
use super::method::SpawnMethod;
use super::signal_mask::{block_signals, restore_signals};
use crate::linux::cgroupfs::Group;
use crate::linux::pidfd::Pidfd;
use crate::units::Pid;

/// `linux/sched.h`. The C library's headers, and so the libc crate, give 0 for it on glibc.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VM: u64 = 0x100;
/// Our thread waits until the child has executed or ended.
const CLONE_VFORK: u64 = 0x4000;
/// SIGCHLD, as after fork: `waitid` does not see children with another one.
const EXIT_SIGNAL: u64 = 17;

/// Makes the child, which never returns from here.
///
/// Signals are blocked meanwhile, so that none is taken by the parent's handlers inside the child,
/// where they would write into the runtime's shared wake-up pipe. The child unblocks them when
/// every one has its default again.
pub(super) fn clone(
    method: SpawnMethod,
    group: Option<&Group>,
    setup: &mut ChildSetup<'_>,
) -> io::Result<(Pid, Pidfd)> {
    let before = block_signals()?;
    let mut pidfd: RawFd = -1;
    let made = match method {
        SpawnMethod::Clone3 => clone3(group, &mut pidfd, setup),
        SpawnMethod::CloneThenJoin => fork(&mut pidfd, setup),
    };
    restore_signals(before);
    let pid = made?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid(i32::try_from(pid).unwrap_or(i32::MAX)), Pidfd::from(pidfd)))
}

/// What the child needs between clone and exec, in debug builds too, several times over.
const STACK_SIZE: usize = 64 * 1024;

/// The child's stack until it executes. It lies on ours, as we do not run meanwhile.
#[repr(C, align(16))]
struct Stack(MaybeUninit<[u8; STACK_SIZE]>);

/// Returns when the child has executed or ended; with a copy of our memory, when it is made.
fn clone3(group: Option<&Group>, pidfd: &mut RawFd, setup: &mut ChildSetup<'_>) -> io::Result<i64> {
    let group = group.map(|group| u64::from(group.as_fd().as_raw_fd().unsigned_abs()));
    let into_group = if group.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let mut stack = Stack(MaybeUninit::uninit());
    let (memory, stack_address, stack_size) = if setup.confinement.changes_user() {
        // A copy, in which it goes on upon the copy of our own stack.
        (0, 0, 0)
    } else {
        (CLONE_VM | CLONE_VFORK, stack.0.as_mut_ptr().addr() as u64, STACK_SIZE as u64)
    };
    let arguments = libc::clone_args {
        flags: CLONE_PIDFD | memory | into_group,
        pidfd: ptr::from_mut(pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: EXIT_SIGNAL,
        stack: stack_address,
        stack_size,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.unwrap_or(0),
    };
    // SAFETY: the child runs on `stack`, with our memory, while this thread does not run, or on a
    // copy of all. It keeps to async-signal-safe calls, writes to nothing but its stack, the setup
    // and `errno`, and never returns. The kernel writes to `pidfd`, which outlives the call.
    let made = unsafe { clone3_and_run(&raw const arguments, ptr::from_mut(setup).cast()) };
    if made < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-made).unwrap_or(i32::MAX)));
    }
    Ok(made)
}

/// The process that borrows our memory begins here.
extern "C" fn begin(setup: *mut ChildSetup<'_>) -> ! {
    // SAFETY: it is the setup that `clone3` was given, and the parent does not run meanwhile.
    child::run(unsafe { &mut *setup })
}

/// The child's pid, or a negative error number. The child goes to `begin` and stays there.
///
/// # Safety
///
/// `arguments` make a child with a stack of its own; `setup` is a setup that only the child uses.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_and_run(arguments: *const libc::clone_args, setup: *mut libc::c_void) -> i64 {
    let made: i64;
    // SAFETY: only the child is on the new stack, whose top is aligned for a call; for us this is
    // a system call like any other.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {setup}",
            "xor ebp, ebp",
            "call {begin}",
            "ud2",
            "2:",
            setup = in(reg) setup,
            begin = sym begin,
            inlateout("rax") libc::SYS_clone3 => made,
            in("rdi") arguments,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    made
}

/// As above.
///
/// # Safety
///
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3_and_run(arguments: *const libc::clone_args, setup: *mut libc::c_void) -> i64 {
    let made: i64;
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, {setup}",
            "mov x29, xzr",
            "bl {begin}",
            "brk 1",
            "2:",
            setup = in(reg) setup,
            begin = sym begin,
            inlateout("x0") arguments.addr() as i64 => made,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    made
}

/// With the older call and a copy of our memory. The third argument is where the pidfd goes on
/// every architecture but those with CLONE_BACKWARDS2 (s390), which we do not build for.
fn fork(pidfd: &mut RawFd, setup: &mut ChildSetup<'_>) -> io::Result<i64> {
    let no_stack = ptr::null::<libc::c_void>();
    let none = ptr::null::<libc::c_void>();
    let flags = CLONE_PIDFD | EXIT_SIGNAL;
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, as after fork;
    // `pidfd` outlives the call; the child keeps to async-signal-safe calls.
    let made = unsafe {
        libc::syscall(libc::SYS_clone, flags, no_stack, ptr::from_mut(pidfd), none, none)
    };
    match made {
        0 => child::run(setup),
        refused if refused < 0 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}
