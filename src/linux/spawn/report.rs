//! How the child tells its parent whether it executed: a pipe that closes on exec.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;

use super::launch::{Launch, Resource};
use crate::linux::error::{Error, failed, words};
use crate::linux::fd_readiness;

/// What the child was doing when it failed, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    JoinGroup,
    NewSession,
    Descriptors,
    WorkingDirectory,
    Limit,
    OomScore,
    User,
    Capabilities,
    NoNewPrivileges,
    Files,
    Filter,
    Execute,
}

const STAGES: [Stage; 12] = [
    Stage::JoinGroup,
    Stage::NewSession,
    Stage::Descriptors,
    Stage::WorkingDirectory,
    Stage::Limit,
    Stage::OomScore,
    Stage::User,
    Stage::Capabilities,
    Stage::NoNewPrivileges,
    Stage::Files,
    Stage::Filter,
    Stage::Execute,
];

/// What goes through the pipe: three native integers, less than PIPE_BUF, so never in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailureNote {
    pub(super) stage: Stage,
    /// Which of the limits.
    pub(super) index: u32,
    pub(super) errno: i32,
}

const NOTE_SIZE: usize = 12;

/// For `map_err` in the child.
pub(super) fn at(stage: Stage, index: u32) -> impl FnOnce(Errno) -> FailureNote {
    move |errno| FailureNote { stage, index, errno: errno.raw_os_error() }
}

/// What became of a child's attempt to execute its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It executed; or it was killed before it could, which its exit status then says.
    Executed,
    Failed(ExecFailure),
}

/// Why a program was not executed: `execute "/x": No such file or directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFailure {
    pub stage: Stage,
    pub object: String,
    pub errno: i32,
}

/// The parent's end of the pipe.
#[derive(Debug)]
pub struct ExecReport {
    pipe: OwnedFd,
    subjects: Subjects,
}

/// The names of what a child can fail on.
#[derive(Debug)]
pub(super) struct Subjects {
    program: String,
    group: String,
    working_directory: String,
    limits: Vec<Resource>,
    user: String,
}

impl ExecReport {
    pub(super) fn new(pipe: OwnedFd, subjects: Subjects) -> Self {
        Self { pipe, subjects }
    }

    /// Waits until the child has executed or failed; both come soon and by themselves.
    pub async fn outcome(self) -> Result<ExecOutcome, Error> {
        let mut bytes = [0; NOTE_SIZE];
        let read = loop {
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(read) => break read,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(reason) => return Err(self.unreadable(reason.into())),
            }
            let waited = fd_readiness::ready(self.pipe.as_fd(), Interest::READABLE).await;
            waited.map_err(|reason| self.unreadable(reason))?;
        };
        match (read, FailureNote::from_bytes(bytes)) {
            (0, _) => Ok(ExecOutcome::Executed),
            (NOTE_SIZE, Some(note)) => Ok(ExecOutcome::Failed(self.subjects.failure(note))),
            (_, _) => Err(Error::Content {
                file: format!("the report of the child for {}", self.subjects.program),
                expected: "a stage and an error number",
                found: format!("{:?}", bytes.get(..read)),
            }),
        }
    }

    fn unreadable(&self, reason: io::Error) -> Error {
        failed("read the report of the child for", &self.subjects.program)(reason)
    }
}

impl FailureNote {
    /// Runs in the child: does not allocate and cannot panic.
    pub(super) fn to_bytes(self) -> [u8; NOTE_SIZE] {
        let [a, b, c, d] = (self.stage as u32).to_ne_bytes();
        let [e, f, g, h] = self.index.to_ne_bytes();
        let [i, j, k, l] = self.errno.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn from_bytes(bytes: [u8; NOTE_SIZE]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let stage = u32::from_ne_bytes([a, b, c, d]);
        let stage = STAGES.into_iter().find(|known| *known as u32 == stage)?;
        let index = u32::from_ne_bytes([e, f, g, h]);
        Some(Self { stage, index, errno: i32::from_ne_bytes([i, j, k, l]) })
    }
}

impl Subjects {
    pub(super) fn of(launch: &Launch<'_>) -> Self {
        let directory = launch.working_directory.as_deref();
        let user = launch.sandbox.user;
        Self {
            program: launch.program_name(),
            group: launch.group.map(|g| g.path().display().to_string()).unwrap_or_default(),
            working_directory: directory.map(|d| format!("{d:?}")).unwrap_or_default(),
            limits: launch.limits.iter().map(|limit| limit.resource).collect(),
            user: user.map(|u| format!("uid {} gid {}", u.uid, u.gid)).unwrap_or_default(),
        }
    }

    fn failure(&self, note: FailureNote) -> ExecFailure {
        let object = match note.stage {
            Stage::JoinGroup => self.group.clone(),
            Stage::NewSession
            | Stage::Descriptors
            | Stage::OomScore
            | Stage::Capabilities
            | Stage::NoNewPrivileges
            | Stage::Files
            | Stage::Filter => format!("of {}", self.program),
            Stage::WorkingDirectory => self.working_directory.clone(),
            Stage::Limit => {
                let index = usize::try_from(note.index).unwrap_or(usize::MAX);
                self.limits.get(index).map(Resource::to_string).unwrap_or_default()
            }
            Stage::User => self.user.clone(),
            Stage::Execute => self.program.clone(),
        };
        ExecFailure { stage: note.stage, object, errno: note.errno }
    }
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.stage {
            Stage::JoinGroup => "join the group",
            Stage::NewSession => "make the session",
            Stage::Descriptors => "pass the descriptors",
            Stage::WorkingDirectory => "chdir to",
            Stage::Limit => "set",
            Stage::OomScore => "raise the oom_score_adj",
            Stage::User => "become",
            Stage::Capabilities => "drop the capabilities",
            Stage::NoNewPrivileges => "set no_new_privs",
            Stage::Files => "protect files from the process",
            Stage::Filter => "filter the system calls",
            Stage::Execute => "execute",
        };
        let reason = words(&io::Error::from_raw_os_error(self.errno));
        write!(f, "{verb} {}: {reason}", self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_the_pipe_for_every_stage() {
        for stage in STAGES {
            let note = FailureNote { stage, index: 3, errno: libc::E2BIG };
            assert_eq!(FailureNote::from_bytes(note.to_bytes()), Some(note));
        }
        assert_eq!(FailureNote::from_bytes([0xff; NOTE_SIZE]), None);
    }
}
