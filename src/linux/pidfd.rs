//! A process held by a descriptor: it cannot be mistaken for a later process of the same number.
//! Knows nothing of services.
#![allow(unsafe_code, reason = "no library asks a pidfd how its process ended")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::Interest;

use super::error::{Error, failed};
use super::fd_readiness;
use crate::units::{Core, ExitStatus, Pid, Signal};

/// One process (`pidfd_open(2)`). Dropping it does nothing to the process.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

/// Whether a signal found its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Delivered,
    AlreadyGone,
}

/// What reaping a process found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// It ended and is gone from the process table.
    Ended(ExitStatus),
    StillRunning,
    /// Another process is its parent (an adopted service), or it was reaped before.
    NotOurChild,
}

impl Pidfd {
    /// `None` when there is no such process. The number may be another process's by now: compare
    /// `procfs::stat`'s start time after this call.
    pub fn open(pid: Pid) -> Result<Option<Self>, Error> {
        let Some(raw) = kernel_pid(pid) else { return Ok(None) };
        match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::SRCH) => Ok(None),
            Err(reason) => Err(failed("open a pidfd for process", pid)(reason)),
        }
    }

    /// Waits until the process has ended, whoever its parent is. One waiter at a time.
    pub async fn exited(&self) -> Result<(), Error> {
        let waited = fd_readiness::ready(self.0.as_fd(), Interest::READABLE).await;
        waited.map_err(failed("wait for", "a pidfd"))
    }

    /// Reaps the process if it has ended; never waits. A child that ended stays a zombie until this
    /// has said `Ended`.
    pub fn reap(&self) -> Result<Reaped, Error> {
        collect(WaitId::PidFd(self.0.as_fd())).map_err(failed("collect", "the child of a pidfd"))
    }

    /// Signals 1 to 31. Reaches a zombie too, without effect.
    pub fn send(&self, signal: Signal) -> Result<Sent, Error> {
        match rustix::process::pidfd_send_signal(&self.0, kernel_signal(signal)?) {
            Ok(()) => Ok(Sent::Delivered),
            Err(Errno::SRCH) => Ok(Sent::AlreadyGone),
            Err(reason) => Err(failed("send through a pidfd", signal)(reason)),
        }
    }
}

/// `struct pidfd_info` of `linux/pidfd.h` in its first form, of 64 bytes.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    mask: u64,
    group: u64,
    /// pid, tgid, ppid, then real, effective, saved and file system ids of user and group.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`, the same on x86 and arm.
const GET_INFO: libc::c_ulong = 0xc040_ff0b;
/// `PIDFD_INFO_EXIT`
const INFO_EXIT: u64 = 1 << 3;

impl Pidfd {
    /// Its pid; `None` when it ended and was reaped.
    pub fn pid(&self) -> Result<Option<Pid>, Error> {
        let file = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let text = std::fs::read_to_string(&file).map_err(failed("read", &file))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        let number = line.and_then(|number| number.trim().parse().ok());
        let number = number.ok_or(Error::Content { file, expected: "a pid", found: text })?;
        Ok((number > 0).then_some(Pid(number)))
    }

    /// How a process ended that its parent has reaped, when we are not that parent (an adopted
    /// service): Linux 6.15 and newer keep that for whoever holds a pidfd. `None`: it still runs,
    /// was not reaped yet, or the kernel is older.
    pub fn recorded_end(&self) -> Option<ExitStatus> {
        let mut info = Info { mask: INFO_EXIT, ..Info::default() };
        // SAFETY: the kernel writes at most as many bytes as the request's number says, which is
        // the size of `info`.
        let told = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO, &raw mut info) };
        (told == 0 && info.mask & INFO_EXIT != 0).then(|| from_wait_status(info.exit_code))
    }
}

/// `wait(2)`: the exit code in the second byte, or the signal in the first.
fn from_wait_status(status: i32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Code((status >> 8) & 0xff),
        number => {
            let core = if status & 0x80 == 0 { Core::None } else { Core::Dumped };
            ExitStatus::Signal { number: Signal(number), core }
        }
    }
}

impl From<OwnedFd> for Pidfd {
    /// `fd` must be a pidfd, such as one from `clone3` or from systemd's descriptor store.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `waitid(2)` without waiting.
pub(super) fn collect(whom: WaitId<'_>) -> Result<Reaped, Errno> {
    match rustix::process::waitid(whom, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => Ok(Reaped::Ended(exit_status(&status))),
        Ok(None) => Ok(Reaped::StillRunning),
        Err(Errno::CHILD) => Ok(Reaped::NotOurChild),
        Err(reason) => Err(reason),
    }
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(number) => {
            let core = if status.dumped() { Core::Dumped } else { Core::None };
            ExitStatus::Signal { number: Signal(number), core }
        }
        None => ExitStatus::Code(status.exit_status().unwrap_or_default()),
    }
}

/// `None` for numbers that are no process and that system calls take for something else.
pub(super) fn kernel_pid(pid: Pid) -> Option<rustix::process::Pid> {
    if pid.0 > 0 { rustix::process::Pid::from_raw(pid.0) } else { None }
}

/// The signals that have names; the rest belong to the C library.
pub(super) fn kernel_signal(signal: Signal) -> Result<rustix::process::Signal, Error> {
    rustix::process::Signal::from_named_raw(signal.0).ok_or(Error::Signal { signal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::process::own_pid;
    use crate::linux::spawn::{Child, spawn};
    use crate::linux::testing::Output;

    #[tokio::test]
    async fn a_process_that_is_gone_takes_no_signal_and_is_no_error() {
        let output = Output::new();
        let Child { pidfd, .. } = spawn(&output.shell("exit 7")).unwrap();
        pidfd.exited().await.unwrap();
        assert_eq!(pidfd.reap().unwrap(), Reaped::Ended(ExitStatus::Code(7)));
        assert_eq!(pidfd.send(Signal::TERM).unwrap(), Sent::AlreadyGone);
        assert_eq!(pidfd.reap().unwrap(), Reaped::NotOurChild);
        // Still so for whoever asks later.
        pidfd.exited().await.unwrap();
    }

    #[tokio::test]
    async fn how_it_ended_is_told_after_it_was_collected_where_the_kernel_keeps_it() {
        for (script, ended) in [
            ("exit 42", ExitStatus::Code(42)),
            ("kill -9 $$", ExitStatus::Signal { number: Signal::KILL, core: Core::None }),
        ] {
            let output = Output::new();
            let Child { pid, pidfd, .. } = spawn(&output.shell(script)).unwrap();
            pidfd.exited().await.unwrap();
            assert_eq!(pidfd.recorded_end(), None);
            assert_eq!(pidfd.pid().unwrap(), Some(pid));
            assert_eq!(pidfd.reap().unwrap(), Reaped::Ended(ended));
            assert_eq!(pidfd.pid().unwrap(), None);
            // Linux before 6.15 does not know.
            assert!(pidfd.recorded_end().is_none_or(|told| told == ended), "{script}");
        }
    }

    #[test]
    fn a_wait_status_is_read_as_the_kernel_writes_it() {
        assert_eq!(from_wait_status(42 << 8), ExitStatus::Code(42));
        let dumped = ExitStatus::Signal { number: Signal(11), core: Core::Dumped };
        assert_eq!(from_wait_status(0x80 | 11), dumped);
        assert_eq!(size_of::<Info>(), 64);
    }

    #[test]
    fn no_process_is_none_and_not_an_error() {
        for nobody in [Pid(i32::MAX), Pid(0), Pid(-1)] {
            assert!(Pidfd::open(nobody).unwrap().is_none(), "{nobody}");
        }
    }

    #[test]
    fn another_ones_child_cannot_be_collected() {
        let init = Pidfd::open(Pid(1)).unwrap().unwrap();
        assert_eq!(init.reap().unwrap(), Reaped::NotOurChild);
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        let own = Pidfd::open(own_pid()).unwrap().unwrap();
        for wrong in [0, -1, 32, 65] {
            let refused = own.send(Signal(wrong)).unwrap_err();
            assert!(matches!(refused, Error::Signal { .. }), "{refused}");
        }
    }
}
