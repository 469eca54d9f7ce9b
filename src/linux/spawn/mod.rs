//! Starting a program as a child process that is in its group from its first instant.
//!
//! `child_setup` prepares everything, `clone` makes the process, `child` runs in it until exec,
//! `report` tells the parent how that went. Knows nothing of services and restarts.

mod child;
mod child_setup;
mod clone;
mod confine;
#[cfg(test)]
mod confine_tests;
mod report;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use self::child_setup::ChildSetup;
use self::report::Subjects;
pub use self::report::{ExecFailure, ExecOutcome, ExecReport, Stage};
use super::cgroupfs::Group;
use super::error::Error;
use super::pidfd::Pidfd;
use super::sandbox::Sandbox;
use crate::units::Pid;

/// Everything a new process is given. It gets nothing that is not said here: no other descriptor,
/// no other variable, every signal at its default and unblocked, a session of its own, standard
/// input from `/dev/null`.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: Program<'a>,
    /// The program's own name first.
    pub arguments: Vec<CString>,
    /// `NAME=value`
    pub environment: Vec<CString>,
    /// Names of variables that hold the new process's pid, such as `LISTEN_PID`.
    pub pid_variables: Vec<&'static str>,
    pub working_directory: Option<CString>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// They become 3, 4, ... in this order.
    pub passed: Vec<BorrowedFd<'a>>,
    pub limits: Vec<Limit>,
    pub group: Option<&'a Group>,
    pub sandbox: Sandbox<'a>,
}

/// What is executed.
#[derive(Debug)]
pub enum Program<'a> {
    /// An open executable, such as our own (`fds::own_executable`). Not a script.
    Fd(BorrowedFd<'a>),
    /// A path; it is not looked up in PATH.
    Path(CString),
}

/// A resource limit of the new process; `u64::MAX` is no limit. Only root may raise `hard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub resource: Resource,
    pub soft: u64,
    pub hard: u64,
}

/// `getrlimit(2)`; sizes are bytes, processor time is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    AddressSpace,
    Core,
    CpuTime,
    FileSize,
    LockedMemory,
    OpenFiles,
    Processes,
    Stack,
}

/// How a child gets into its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnMethod {
    /// It is born in it: `clone3` with `CLONE_INTO_CGROUP`, Linux 5.7.
    Clone3,
    /// It joins before it executes: for older kernels, and sandboxes that refuse `clone3`.
    CloneThenJoin,
}

/// A process that was just made.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: Pidfd,
    /// Whether the program was executed, known a little later.
    pub exec: ExecReport,
}

/// Whether this kernel, or the sandbox around us, has refused `clone3` before.
static CLONE3_REFUSED: AtomicBool = AtomicBool::new(false);

/// Makes a process that executes the program. An error means that there is no process; a process
/// that could not execute says so through `Child::exec` and ends with code 127.
///
/// Through `clone3` we wait until the program is executed, which in a frozen group would be until
/// somebody thaws it: there the other method is used.
pub fn spawn(launch: &Launch<'_>) -> Result<Child, Error> {
    let frozen = launch.group.is_some_and(|group| group.frozen().unwrap_or(false));
    if !frozen && !CLONE3_REFUSED.load(Ordering::Relaxed) {
        match spawn_with(SpawnMethod::Clone3, launch) {
            Err(Error::Clone { reason, .. }) if is_clone3_refused(&reason) => {
                CLONE3_REFUSED.store(true, Ordering::Relaxed);
            }
            outcome => return outcome,
        }
    }
    spawn_with(SpawnMethod::CloneThenJoin, launch)
}

/// `spawn` by this method only.
pub fn spawn_with(method: SpawnMethod, launch: &Launch<'_>) -> Result<Child, Error> {
    let (mut setup, report) = ChildSetup::prepare(method, launch)?;
    let (pid, pidfd) = clone::clone(method, launch.group, &mut setup).map_err(|reason| {
        let program = launch.program_name();
        Error::Clone { program, method, reason }
    })?;
    drop(setup);
    Ok(Child { pid, pidfd, exec: ExecReport::new(report, Subjects::of(launch)) })
}

/// Whether `clone3` itself was refused, rather than this one process.
fn is_clone3_refused(reason: &io::Error) -> bool {
    let errno = Errno::from_io_error(reason);
    // No such call; not in this sandbox; flag or structure unknown to Linux 5.3 to 5.6.
    [Errno::NOSYS, Errno::PERM, Errno::TOOBIG, Errno::INVAL].map(Some).contains(&errno)
}

impl Launch<'_> {
    fn program_name(&self) -> String {
        match (&self.program, self.arguments.first()) {
            (Program::Path(path), _) => format!("{path:?}"),
            (Program::Fd(_), Some(name)) => format!("{name:?} (an open file)"),
            (Program::Fd(_), None) => "an open file".to_owned(),
        }
    }
}

impl fmt::Display for SpawnMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone3 => f.pad("clone3"),
            Self::CloneThenJoin => f.pad("clone, then join"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AddressSpace => "RLIMIT_AS",
            Self::Core => "RLIMIT_CORE",
            Self::CpuTime => "RLIMIT_CPU",
            Self::FileSize => "RLIMIT_FSIZE",
            Self::LockedMemory => "RLIMIT_MEMLOCK",
            Self::OpenFiles => "RLIMIT_NOFILE",
            Self::Processes => "RLIMIT_NPROC",
            Self::Stack => "RLIMIT_STACK",
        })
    }
}
