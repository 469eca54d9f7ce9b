//! Why the node cannot start.

use std::io;
use std::path::PathBuf;

use super::logs::LogError;
use crate::act::ActError;
use crate::units::Pid;

/// Why the node did not start. No service runs then.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{0}")]
    Configuration(String),
    #[error("cannot go on from the state that was given: {0}")]
    NotUnderstood(String),
    #[error("cannot begin: {0}")]
    Runtime(io::Error),
    #[error("cannot take what was kept for us: {0}")]
    Kept(#[from] crate::linux::listen_fds::ListenFdsError),
    #[error("cannot take what was handed over to us: {0}")]
    HandedOver(#[from] crate::linux::exec_handover::HandoverError),
    #[error("cannot make the folder {}: {reason}", path.display())]
    Folder { path: PathBuf, reason: io::Error },
    #[error("{} belongs to uid {owner}, not to us (uid {us}); choose another", path.display())]
    NotOurs { path: PathBuf, owner: u32, us: u32 },
    #[error(
        "others may write into {} (mode {mode:o}); choose another, or take that from them with \
         chmod go-w",
        path.display()
    )]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error(
        "a node already runs {}{}; see `blackhole-node status`, or give this one its own \
         --runtime-dir and --data-dir",
        place.display(),
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    AlreadyRunning { place: PathBuf, holder: Option<Pid> },
    #[error(
        "cannot enforce what services may use: {missing}; node.resource_limits = \"required\" asks \
         for that, \"best_effort\" does without"
    )]
    NoLimits { missing: String },
    #[error("{0}")]
    Linux(#[from] crate::linux::Error),
    #[error("{0}")]
    Act(#[from] ActError),
    #[error("{0}")]
    Log(#[from] LogError),
}
