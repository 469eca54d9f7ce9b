//! The rehearsal of an upgrade: the new program is run once as a child, with the orchestrator's
//! arguments and state, and has to say that it can take over.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::Act;
use super::checkpoint::State;
use super::error::ActError;
use super::spawn::c_string;
use crate::linux::fds;
use crate::linux::pidfd::{Pidfd, Reaped};
use crate::linux::spawn::{self as kernel, ExecOutcome, ExecReport, Launch, Program};
use crate::units::{ExitStatus, Signal};

/// The environment variable by which a program knows that it only rehearses.
pub const REHEARSAL: &str = "BLACKHOLE_REHEARSAL";
/// The beginning of what a program prints that can take over; its version follows.
pub const ABLE: &str = "can go on: blackhole-node ";
/// The exit code for a wrong configuration.
const CONFIGURATION: i32 = 78;
/// How long a rehearsal may take. The program starts, reads two configurations and ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of each of its outputs, in bytes. A pipe holds as much while nobody reads.
const SAID_MOST: u64 = 60 << 10;

/// A rehearsal that is under way.
#[derive(Debug)]
pub struct Rehearsal {
    pidfd: Pidfd,
    exec: ExecReport,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Why the program cannot take over.
#[derive(Debug)]
pub enum RehearsalFailure {
    /// It refuses the configuration; its words.
    Configuration(String),
    Otherwise(String),
}

impl Act {
    /// Starts `program` for a rehearsal.
    pub fn rehearse(&mut self, program: &Path, state: State) -> Result<Rehearsal, ActError> {
        let runs = self.saved_runs();
        let kept = self.checkpoint_writer.rehearsed(state, runs).map_err(ActError::State)?;
        let (stdout, stdout_end) = fds::pipe().map_err(ActError::Channel)?;
        let (stderr, stderr_end) = fds::pipe().map_err(ActError::Channel)?;
        let arguments = std::env::args_os().map(|word| c_string(word, "our arguments"));
        let child = kernel::spawn(&Launch {
            program: Program::Path(c_string(program, "its path")?),
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment(&kept)?,
            pid_variables: vec!["LISTEN_PID"],
            working_directory: None,
            stdout: stdout_end.as_fd(),
            stderr: stderr_end.as_fd(),
            passed: kept.iter().map(|(_, fd)| fd.as_fd()).collect(),
            limits: Vec::new(),
            group: None,
            sandbox: crate::linux::sandbox::Sandbox::default(),
        })
        .map_err(ActError::Spawn)?;
        self.rehearsing = Some(child.pid);
        Ok(Rehearsal { pidfd: child.pidfd, exec: child.exec, stdout, stderr })
    }

    /// The rehearsing child has ended and was collected.
    pub fn end_rehearsal(&mut self) {
        self.rehearsing = None;
    }
}

/// The orchestrator's environment, with what differs for a rehearsal.
fn environment(kept: &[(String, OwnedFd)]) -> Result<Vec<CString>, ActError> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for ours in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_PIDFDID"] {
        all.remove(&OsString::from(ours));
    }
    all.insert(REHEARSAL.into(), "1".into());
    all.insert("LISTEN_FDS".into(), kept.len().to_string().into());
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    all.insert("LISTEN_FDNAMES".into(), names.join(":").into());
    let entry = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.as_bytes()).map_err(|_| ActError::Nul { what: "our environment" })
    };
    all.into_iter().map(entry).collect()
}

impl Rehearsal {
    /// The version of the program, or why it cannot take over.
    pub async fn outcome(self) -> Result<String, RehearsalFailure> {
        let otherwise = |error: crate::linux::Error| RehearsalFailure::Otherwise(error.to_string());
        if timeout(PATIENCE, self.pidfd.exited()).await.is_err() {
            self.pidfd.send(Signal::KILL).map_err(otherwise)?;
            self.pidfd.exited().await.map_err(otherwise)?;
            let _killed = self.pidfd.reap();
            return Err(RehearsalFailure::Otherwise(format!(
                "it took more than {} s",
                PATIENCE.as_secs()
            )));
        }
        let ended = match self.pidfd.reap().map_err(otherwise)? {
            Reaped::Ended(status) => status,
            Reaped::StillRunning | Reaped::NotOurChild => ExitStatus::Unseen,
        };
        if let ExecOutcome::Failed(failure) = self.exec.outcome().await.map_err(otherwise)? {
            return Err(RehearsalFailure::Otherwise(failure.to_string()));
        }
        let (out, err) = (said(self.stdout), said(self.stderr));
        match ended {
            ExitStatus::Code(0) => match out.strip_prefix(ABLE) {
                Some(version) => Ok(version.to_owned()),
                None => {
                    Err(RehearsalFailure::Otherwise("it is no blackhole-node that can".to_owned()))
                }
            },
            ExitStatus::Code(CONFIGURATION) => Err(RehearsalFailure::Configuration(err)),
            ExitStatus::Code(_) | ExitStatus::Signal { .. } | ExitStatus::Unseen => {
                Err(RehearsalFailure::Otherwise(format!("it ended with {ended}: {err}")))
            }
        }
    }
}

/// Everything in a pipe whose write ends are all closed.
fn said(pipe: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let _what_there_is = File::from(pipe).take(SAID_MOST).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
