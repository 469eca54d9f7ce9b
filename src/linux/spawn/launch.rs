//! What is asked of `spawn`: the program, and everything that its process is given.

use std::ffi::CString;
use std::fmt;
use std::os::fd::BorrowedFd;

use crate::linux::cgroupfs::Group;
use crate::linux::sandbox::Sandbox;

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
    Core,
    CpuTime,
    FileSize,
    OpenFiles,
    Stack,
}

impl Launch<'_> {
    /// As an error names it.
    pub(super) fn program_name(&self) -> String {
        match (&self.program, self.arguments.first()) {
            (Program::Path(path), _) => format!("{path:?}"),
            (Program::Fd(_), Some(name)) => format!("{name:?} (an open file)"),
            (Program::Fd(_), None) => "an open file".to_owned(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Core => "RLIMIT_CORE",
            Self::CpuTime => "RLIMIT_CPU",
            Self::FileSize => "RLIMIT_FSIZE",
            Self::OpenFiles => "RLIMIT_NOFILE",
            Self::Stack => "RLIMIT_STACK",
        })
    }
}
