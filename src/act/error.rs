//! Why an effect could not be carried out.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::checkpoint::CheckpointError;
use crate::linux::Error;
use crate::units::{InstanceId, Pid, ServiceName};

#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("cannot open this program's own file: {0}")]
    Executable(Error),
    #[error("{0} is not in the plan")]
    Unplanned(InstanceId),
    #[error("cannot write down our state: {0}")]
    State(CheckpointError),
    #[error("cannot duplicate a descriptor: {0}")]
    Duplicate(io::Error),
    #[error("the run of {0} was not kept for us as a whole")]
    NotHeld(InstanceId),
    #[error("cannot make the folder {}: {reason}", path.display())]
    Folder { path: PathBuf, reason: io::Error },
    #[error("cannot prepare to keep our state: {0}")]
    Checkpoint(Error),
    #[error("cannot write down what happened: {0}")]
    History(Error),
    #[error("{program:?} is not in {path}; give its absolute path")]
    NotInPath { program: String, path: String },
    #[error("{what} holds a NUL byte")]
    Nul { what: &'static str },
    #[error("cannot listen on {}: {reason}", path.display())]
    UnixSocket { path: PathBuf, reason: Error },
    #[error(
        "cannot listen on {address}: {reason}{}; set another port with {key}",
        holder_words(holder.as_ref())
    )]
    Port {
        address: SocketAddr,
        /// Of the configuration.
        key: String,
        reason: Box<Error>,
        holder: Option<(Pid, String)>,
    },
    #[error("cannot make its pipes or channels: {0}")]
    Channel(Error),
    #[error("cannot use its group: {0}")]
    Group(Error),
    #[error("cannot limit {file} to {value} as configured: {reason}")]
    Limit { file: &'static str, value: String, reason: Error },
    #[error("services.{service}.sandbox: {reason}")]
    Sandbox { service: ServiceName, reason: Box<ActError> },
    #[error("it cannot run as the user {user}: only a node that runs as root can become another")]
    NotRoot { user: String },
    #[error("this host has no user {user}")]
    NoUser { user: String },
    #[error("this host has no group {group}")]
    NoGroup { group: String },
    #[error("cannot find its user: {0}")]
    Users(Error),
    #[error("cannot give its folders to its user: {0}")]
    Owner(Error),
    #[error("cannot make its sandbox: {0}")]
    Files(Error),
    #[error("no thread can be made to change its limits: {0}")]
    Thread(String),
    #[error("cannot start it: {0}")]
    Spawn(Error),
    #[error("cannot signal it: {0}")]
    Signal(Error),
    #[error("cannot kill its processes: {0}")]
    Kill(Error),
    #[error("cannot look for what an earlier node left behind: {0}")]
    Sweep(Error),
    #[error("cannot end process {pid}, left behind by an earlier node here, within {seconds} s")]
    LeftBehind { pid: Pid, seconds: u64 },
    #[error("cannot clear {}: {reason}", path.display())]
    Stale { path: PathBuf, reason: io::Error },
}

fn holder_words(holder: Option<&(Pid, String)>) -> String {
    holder.map(|(pid, name)| format!(", held by {name} (pid {pid})")).unwrap_or_default()
}
