//! This process among the others: subreaper, orphans, process groups, the instance lock.
//! Knows nothing of services.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::process::{Flock, FlockOffsetType, FlockType, WaitId};

use super::error::{Error, failed};
use super::pidfd::{self, Reaped, Sent};
use crate::units::{Pid, Signal};

/// Our own process id.
pub fn own_pid() -> Pid {
    Pid(rustix::process::getpid().as_raw_nonzero().get())
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The kernel's monotonic clock (`CLOCK_MONOTONIC`), which all processes of one boot share.
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// Differs at each boot (`random(4)`, boot_id).
pub fn boot_id() -> Result<String, Error> {
    let file = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(file).map_err(failed("read", file))?;
    Ok(text.trim().to_owned())
}

/// Orphans among our descendants become our children from now on (`PR_SET_CHILD_SUBREAPER`).
/// Kept over exec, not inherited by children.
pub fn become_subreaper() -> Result<(), Error> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed("become subreaper", "in this process"))
}

/// Keeps what this process has mapped so far in memory, its program among it: a host that runs out
/// of memory takes such pages from whoever runs and reads them again at each step. What was never
/// touched costs nothing (`mlockall(2)`, `MCL_ONFAULT`). `RLIMIT_MEMLOCK` may forbid it.
pub fn stay_in_memory() -> Result<(), Error> {
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT)
        .map_err(failed("lock in memory", "this process"))
}

/// Reaps a child by its pid, such as an orphan that was reparented to us.
pub fn reap_orphan(pid: Pid) -> Result<Reaped, Error> {
    match pidfd::kernel_pid(pid) {
        Some(raw) => pidfd::collect(WaitId::Pid(raw)).map_err(failed("collect process", pid)),
        None => Ok(Reaped::NotOurChild),
    }
}

/// Signals every process of the group that `leader` leads: what stands in for a cgroup where there
/// is none. Numbers below 2, which mean "everybody" and the like to `kill(2)`, reach nobody.
pub fn signal_process_group(leader: Pid, signal: Signal) -> Result<Sent, Error> {
    let signal = pidfd::kernel_signal(signal)?;
    let group = pidfd::kernel_pid(leader).filter(|group| *group != rustix::process::Pid::INIT);
    let Some(group) = group else { return Ok(Sent::AlreadyGone) };
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) => Ok(Sent::Delivered),
        Err(Errno::SRCH) => Ok(Sent::AlreadyGone),
        Err(reason) => Err(failed("signal process group", leader)(reason)),
    }
}

/// The proof that no other process holds the same file: an `fcntl(2)` write lock. Children do not
/// inherit it, and the kernel releases it when this process ends, however it ends.
///
/// The lock belongs to the process: opening and closing the same file elsewhere in this process
/// releases it. Nothing but this type may touch the file.
#[derive(Debug)]
pub struct PidLock {
    _file: File,
}

impl PidLock {
    /// Creates the file where needed, locks it and writes our pid into it, for people: who holds it
    /// is asked of the kernel. `Error::Locked` names the holder.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o644);
        let opened = rustix::fs::open(path, flags, mode);
        let mut file = File::from(opened.map_err(failed("open", path.display()))?);
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => {
                return Err(Error::Locked { path: path.to_owned(), holder: holder(&file, path)? });
            }
            Err(reason) => return Err(failed("lock", path.display())(reason)),
        }
        // A disk that is full or broken is no reason not to look after the services.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", own_pid()));
        Ok(Self { _file: file })
    }
}

fn holder(file: impl AsFd, path: &Path) -> Result<Option<Pid>, Error> {
    let whole = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = rustix::process::fcntl_getlk(file, &whole);
    let found = found.map_err(failed("ask who locks", path.display()))?;
    Ok(found.and_then(|lock| lock.pid).map(|pid| Pid(pid.as_raw_nonzero().get())))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::AsFd;

    use super::*;
    use crate::linux::pidfd::Pidfd;
    use crate::linux::spawn::{Program, spawn};
    use crate::linux::testing::{Output, text};
    use crate::linux::{fds, procfs};
    use crate::units::{Core, ExitStatus};

    #[tokio::test]
    async fn an_orphan_comes_to_the_subreaper_and_is_collected() {
        become_subreaper().unwrap();
        let (read_end, write_end) = fds::pipe().unwrap();
        let output = Output::new();
        let mut launch = output.shell("sh -c 'read x; exit 3' <&3 >/dev/null 2>&1 & echo $!");
        launch.passed = vec![read_end.as_fd()];
        let child = spawn(&launch).unwrap();
        let printed = output.finish(child).await.output;
        let orphan = Pid(printed.trim().parse().unwrap());
        assert!(procfs::own_children().unwrap().contains(&orphan));
        assert_eq!(reap_orphan(orphan).unwrap(), Reaped::StillRunning);
        let pidfd = Pidfd::open(orphan).unwrap().unwrap();
        drop(write_end);
        pidfd.exited().await.unwrap();
        assert_eq!(reap_orphan(orphan).unwrap(), Reaped::Ended(ExitStatus::Code(3)));
        assert_eq!(reap_orphan(orphan).unwrap(), Reaped::NotOurChild);
    }

    #[tokio::test]
    async fn a_signal_reaches_a_process_group_and_never_everybody() {
        let output = Output::new();
        let child = spawn(&output.shell("sleep 30 & wait")).unwrap();
        let pid = child.pid;
        for nobody in [Pid(1), Pid(0), Pid(-1)] {
            assert_eq!(signal_process_group(nobody, Signal::TERM).unwrap(), Sent::AlreadyGone);
        }
        child.exec.outcome().await.unwrap();
        assert_eq!(signal_process_group(pid, Signal::TERM).unwrap(), Sent::Delivered);
        child.pidfd.exited().await.unwrap();
        // The sleeper held the pipe; it is gone too.
        assert_eq!(output.into_text(), "");
        let ended = ExitStatus::Signal { number: Signal::TERM, core: Core::None };
        assert_eq!(child.pidfd.reap().unwrap(), Reaped::Ended(ended));
    }

    const LOCK_VARIABLE: &str = "BLACKHOLE_TEST_LOCK";

    /// Not a test: what the other process of the next one does.
    #[test]
    #[ignore = "run by a_lock_is_held_by_one_process_and_named_to_the_others"]
    fn the_holder_of_a_lock() {
        let Some(path) = std::env::var_os(LOCK_VARIABLE) else { return };
        let _lock = PidLock::acquire(Path::new(&path)).unwrap();
        println!("holds it");
        std::fs::read("/proc/self/fd/3").unwrap();
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one_process_and_named_to_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.lock");
        let (read_end, write_end) = fds::pipe().unwrap();
        let executable = fds::own_executable().unwrap();
        let output = Output::new();
        let name = "linux::process::tests::the_holder_of_a_lock";
        let mut launch = output.launch("holder", &["--ignored", "--exact", name, "--nocapture"]);
        launch.program = Program::Fd(executable.as_fd());
        launch.environment = vec![text(&format!("{LOCK_VARIABLE}={}", path.display()))];
        launch.passed = vec![read_end.as_fd()];
        let child = spawn(&launch).unwrap();
        let mut lines = BufReader::new(output.into_reader()).lines();
        assert!(lines.any(|line| line.unwrap().contains("holds it")));

        let refused = PidLock::acquire(&path).unwrap_err();
        assert!(
            matches!(refused, Error::Locked { holder: Some(pid), .. } if pid == child.pid),
            "{refused}"
        );
        assert!(refused.to_string().ends_with(&format!("locked by process {}", child.pid)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", child.pid));

        // Killed, it cannot release anything itself.
        child.pidfd.send(Signal::KILL).unwrap();
        child.pidfd.exited().await.unwrap();
        let _lock = PidLock::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", own_pid()));
        assert!(matches!(child.pidfd.reap().unwrap(), Reaped::Ended(_)));
        drop(write_end);
    }
}
