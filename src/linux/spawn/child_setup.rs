//! Everything the child needs between clone and exec, prepared where memory may still be allocated.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Rlimit};

use super::confine::Confinement;
use super::launch::{Launch, Limit, Program, Resource};
use super::method::SpawnMethod;
use super::report::FailureNote;
use crate::linux::error::{Error, failed};
use crate::linux::{fds, procfs};

/// The decimal digits of the largest pid, and the NUL behind them.
const PID_ROOM: usize = 11;

/// Prepared by the parent, used by the child while the parent waits, or in a copy of its memory.
///
/// Every descriptor in it is a duplicate above all targets, so that no `dup2` of the child can
/// overwrite one that is still needed. They close on exec, and here when the setup is dropped.
pub(super) struct ChildSetup<'a> {
    pub(super) program: PreparedProgram<'a>,
    /// Ends with a null pointer; points into the launch's strings.
    pub(super) argv: Vec<*const c_char>,
    /// Ends with a null pointer; points into the launch's strings and into `pid_entries`.
    pub(super) envp: Vec<*const c_char>,
    pub(super) pid_entries: Vec<PidEntry>,
    pub(super) working_directory: Option<&'a CStr>,
    /// The one at index N becomes descriptor N.
    pub(super) descriptors: Vec<OwnedFd>,
    /// The lowest descriptor number that the program does not get.
    pub(super) first_free: RawFd,
    pub(super) limits: Vec<(rustix::process::Resource, Rlimit)>,
    pub(super) oom_protection: OomProtection,
    /// The group's `cgroup.procs`, where the child has to join by itself.
    pub(super) procs: Option<OwnedFd>,
    pub(super) confinement: Confinement<'a>,
    pub(super) report: OwnedFd,
    pub(super) parent: Pid,
}

pub(super) enum PreparedProgram<'a> {
    Fd(OwnedFd),
    Path(&'a CStr),
}

/// Whether this process is protected from the OOM killer, which children would inherit: the
/// orchestrator is to survive its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OomProtection {
    Unprotected,
    /// `oom_score_adj` is below 0.
    Protected,
}

impl OomProtection {
    fn ours() -> Self {
        match procfs::own_oom_score_adj() {
            Ok(score) if score < 0 => Self::Protected,
            // Where it cannot be read, there is no /proc that a child could write.
            Ok(_) | Err(_) => Self::Unprotected,
        }
    }
}

/// `NAME=`, then room for the digits that only the child knows.
pub(super) struct PidEntry {
    bytes: Vec<u8>,
    digits_at: usize,
}

impl<'a> ChildSetup<'a> {
    /// The setup, and the end of the pipe from which the parent reads the child's report.
    pub(super) fn prepare(
        method: SpawnMethod,
        launch: &'a Launch<'_>,
    ) -> Result<(Self, OwnedFd), Error> {
        if launch.arguments.is_empty() {
            return Err(Error::NoArguments { program: launch.program_name() });
        }
        let (read_end, write_end) = report_pipe()?;
        let null = fds::open("/dev/null", OFlags::RDONLY, Mode::empty())?;
        let standard = [null.as_fd(), launch.stdout, launch.stderr];
        let given: Vec<_> = standard.into_iter().chain(launch.passed.iter().copied()).collect();
        let first_free = RawFd::try_from(given.len()).unwrap_or(RawFd::MAX);
        let duplicate = |fd: BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(fd, first_free)
                .map_err(failed("duplicate", "a descriptor for a child"))
        };
        let procs = match (method, launch.group) {
            (SpawnMethod::CloneThenJoin, Some(group)) => {
                Some(duplicate(group.open_procs()?.as_fd())?)
            }
            (SpawnMethod::CloneThenJoin, None) | (SpawnMethod::Clone3, _) => None,
        };
        let pid_entries: Vec<_> = launch.pid_variables.iter().map(|n| PidEntry::new(n)).collect();
        let setup = Self {
            program: match &launch.program {
                Program::Fd(fd) => PreparedProgram::Fd(duplicate(*fd)?),
                Program::Path(path) => PreparedProgram::Path(path),
            },
            argv: null_ended(launch.arguments.iter().map(|text| text.as_ptr())),
            envp: null_ended(
                pid_entries
                    .iter()
                    .map(PidEntry::as_ptr)
                    .chain(launch.environment.iter().map(|text| text.as_ptr())),
            ),
            pid_entries,
            working_directory: launch.working_directory.as_deref(),
            descriptors: given.into_iter().map(duplicate).collect::<Result<_, _>>()?,
            first_free,
            limits: launch.limits.iter().map(|l| (l.resource.kernel(), l.kernel())).collect(),
            oom_protection: OomProtection::ours(),
            procs,
            confinement: Confinement::prepare(&launch.sandbox, &launch.program_name(), duplicate)?,
            report: duplicate(write_end.as_fd())?,
            parent: rustix::process::getpid(),
        };
        Ok((setup, read_end))
    }

    /// Sends the child's failure to the parent. That sending failed can be reported to nobody.
    pub(super) fn tell(&self, note: FailureNote) {
        let _ = rustix::io::write(&self.report, &note.to_bytes());
    }
}

impl PidEntry {
    fn new(name: &str) -> Self {
        let mut bytes = format!("{name}=").into_bytes();
        let digits_at = bytes.len();
        bytes.resize(digits_at + PID_ROOM, 0);
        Self { bytes, digits_at }
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    /// Runs in the child: does not allocate and cannot panic.
    pub(super) fn write(&mut self, pid: i32) {
        let mut room = self.bytes.iter_mut().skip(self.digits_at);
        let mut divisor = 1_000_000_000;
        while divisor > 0 {
            let digit = u8::try_from(pid / divisor % 10).unwrap_or_default();
            if pid >= divisor
                && let Some(byte) = room.next()
            {
                *byte = b'0' | digit;
            }
            divisor /= 10;
        }
    }
}

/// Neither end blocks: the parent waits through its runtime, and a note fits the empty pipe.
fn report_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(failed("make", "a pipe for a child's report"))
}

fn null_ended(pointers: impl Iterator<Item = *const c_char>) -> Vec<*const c_char> {
    pointers.chain([ptr::null()]).collect()
}

impl Limit {
    fn kernel(&self) -> Rlimit {
        let finite = |value: u64| (value != u64::MAX).then_some(value);
        Rlimit { current: finite(self.soft), maximum: finite(self.hard) }
    }
}

impl Resource {
    fn kernel(self) -> rustix::process::Resource {
        match self {
            Self::Core => rustix::process::Resource::Core,
            Self::CpuTime => rustix::process::Resource::Cpu,
            Self::FileSize => rustix::process::Resource::Fsize,
            Self::OpenFiles => rustix::process::Resource::Nofile,
            Self::Stack => rustix::process::Resource::Stack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_written_in_plain_digits_without_leading_zeros() {
        for pid in [1, 9, 10, 4_194_304, i32::MAX] {
            let mut entry = PidEntry::new("LISTEN_PID");
            entry.write(pid);
            let text = CStr::from_bytes_until_nul(&entry.bytes).unwrap();
            assert_eq!(text.to_str().unwrap(), format!("LISTEN_PID={pid}"));
        }
    }
}
