//! What the child does between clone and exec.
//!
//! The parent may have other threads, and their locks stay as they were: here nothing
//! allocates, nothing locks, nothing panics; only system calls on what the setup holds.
#![allow(unsafe_code, reason = "signal dispositions, dup2, close_range and exec")]

use std::convert::Infallible;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::child_setup::{ChildSetup, OomProtection, PreparedProgram};
use super::confine::{confine, filter};
use super::errno::{checked, last_error};
use super::report::{FailureNote, Stage, at};
use super::signal_mask::restore_signals;

/// What a child ends with that could not execute, as shells have it.
const EXIT_CODE: i32 = 127;
const SIGNALS: i32 = 64;

/// Becomes the program, or says why not and ends.
pub(super) fn run(setup: &mut ChildSetup<'_>) -> ! {
    let Err(note) = become_program(setup);
    setup.tell(note);
    end()
}

fn become_program(setup: &mut ChildSetup<'_>) -> Result<Infallible, FailureNote> {
    if let Some(procs) = &setup.procs {
        rustix::io::write(procs, b"0").map_err(at(Stage::JoinGroup, 0))?;
    }
    reset_signals();
    rustix::process::setsid().map_err(at(Stage::NewSession, 0))?;
    for (target, fd) in (0..).zip(&setup.descriptors) {
        move_to(fd.as_raw_fd(), target).map_err(at(Stage::Descriptors, 0))?;
    }
    close_on_exec_from(setup.first_free).map_err(at(Stage::Descriptors, 0))?;
    if let Some(directory) = setup.working_directory {
        rustix::process::chdir(directory).map_err(at(Stage::WorkingDirectory, 0))?;
    }
    for (index, (resource, limit)) in (0..).zip(&setup.limits) {
        rustix::process::setrlimit(*resource, *limit).map_err(at(Stage::Limit, index))?;
    }
    match setup.oom_protection {
        OomProtection::Unprotected => {}
        OomProtection::Protected => leave_shelter().map_err(at(Stage::OomScore, 0))?,
    }
    confine(&setup.confinement)?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for entry in &mut setup.pid_entries {
        entry.write(own);
    }
    end_with_parent(setup);
    restore_signals(0);
    filter(&setup.confinement)?;
    Err(at(Stage::Execute, 0)(execute(setup)))
}

/// Everybody may raise its own score. That we borrow our parent's memory does not raise its.
fn leave_shelter() -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, b"0").map(drop)
}

/// Handlers go at exec anyway; ignored signals (Rust ignores SIGPIPE) would stay ignored.
fn reset_signals() {
    // The kernel's sigaction: SIG_DFL, no flags, no restorer, an empty mask. All are zero, so it
    // does not matter in which order the architecture has them.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        let (action, old) = (default.as_ptr(), ptr::null_mut::<u64>());
        // SAFETY: `action` is as large as the kernel's structure. SIGKILL and SIGSTOP are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action, old, size_of::<u64>()) };
    }
}

/// `dup2(2)`; the new descriptor stays open over exec. Source and target are never the same.
fn move_to(fd: RawFd, target: RawFd) -> Result<(), Errno> {
    // SAFETY: nothing in this process uses `target` any more: whatever was there is not for it.
    checked(unsafe { libc::dup2(fd, target) }.into())
}

/// The rest is closed by exec, also what another thread opened or inherited carelessly.
fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    let (call, flag) = (libc::SYS_close_range, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: it changes a flag of descriptors and closes none.
    match checked(unsafe { libc::syscall(call, first, libc::c_uint::MAX, flag) }) {
        Err(Errno::NOSYS | Errno::INVAL) => {
            close_on_exec_one_by_one(first);
            Ok(())
        }
        outcome => outcome,
    }
}

/// For Linux before 5.11. Numbers that are not open are refused, and that is all.
fn close_on_exec_one_by_one(first: RawFd) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let end = RawFd::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(RawFd::MAX).min(1 << 20);
    for fd in first..end {
        // SAFETY: it changes a flag of the descriptor, if there is one.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// A child whose parent died meanwhile is supervised by nobody and must not become a service.
fn end_with_parent(setup: &ChildSetup<'_>) {
    if rustix::process::getppid() != Some(setup.parent) {
        end();
    }
}

/// Returns only when it failed.
fn execute(setup: &ChildSetup<'_>) -> Errno {
    let (argv, envp) = (setup.argv.as_ptr(), setup.envp.as_ptr());
    match &setup.program {
        PreparedProgram::Path(path) => {
            // SAFETY: the path and both lists are NUL-terminated, and the setup keeps them.
            unsafe { libc::execve(path.as_ptr(), argv, envp) };
        }
        PreparedProgram::Fd(fd) => {
            let (fd, nothing, flag) = (fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
            // SAFETY: as above; the empty path means the descriptor itself.
            unsafe { libc::syscall(libc::SYS_execveat, fd, nothing, argv, envp, flag) };
        }
    }
    last_error()
}

fn end() -> ! {
    // SAFETY: it ends the process at once; nothing of the parent's is flushed or run.
    unsafe { libc::_exit(EXIT_CODE) }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn without_close_range_every_descriptor_is_marked_by_hand() {
        let inherited = rustix::io::fcntl_dupfd_cloexec(io::stderr().as_fd(), 100).unwrap();
        fcntl_setfd(&inherited, FdFlags::empty()).unwrap();
        assert_eq!(fcntl_getfd(&inherited), Ok(FdFlags::empty()));
        close_on_exec_one_by_one(inherited.as_raw_fd());
        assert_eq!(fcntl_getfd(&inherited), Ok(FdFlags::CLOEXEC));
    }
}
