//! Ends and clears what an earlier orchestrator of this node left behind, before anything is
//! started.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::environment::{node_mark, run_mark};
use super::error::ActError;
use super::folders;
use crate::linux::cgroupfs::Group;
use crate::linux::members::{Marks, Members};
use crate::units::{InstanceId, Pid, RunId};

/// How long processes may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much was found and cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub processes: usize,
    pub groups: usize,
    pub files: usize,
}

/// What is adopted from a former orchestrator and must be left alone.
#[derive(Debug, Default)]
pub struct Spared {
    pub runs: BTreeSet<(InstanceId, RunId)>,
    /// Files of sockets that were taken over.
    pub sockets: BTreeSet<PathBuf>,
}

/// Kills all processes below `services` and all that carry this node's mark, removes the groups
/// below `services`, and empties the folders of sockets, except for what is spared. The caller
/// holds the node's lock.
pub async fn sweep(
    services: Option<&Arc<Group>>,
    runtime_dir: &Path,
    spared: &Spared,
) -> Result<Swept, ActError> {
    let mut swept = Swept::default();
    if let Some(services) = services {
        for name in services.children().map_err(ActError::Sweep)? {
            if spared.runs.iter().any(|(id, _)| id.to_string() == name) {
                continue;
            }
            let group = Arc::new(services.child(&name).map_err(ActError::Sweep)?);
            swept.processes += clear(&Members::Group(Arc::clone(&group))).await?;
            group.remove().map_err(ActError::Sweep)?;
            swept.groups += 1;
        }
    }
    let none = spared.runs.iter().map(|(_, run)| run_mark(*run)).collect();
    let marked = Members::Marked(Marks { all: [node_mark(runtime_dir)].into(), none });
    swept.processes += clear(&marked).await?;
    for folder in ["sockets", "notify"] {
        swept.files += remove_files(&runtime_dir.join(folder), spared)?;
    }
    folders::remove_old(runtime_dir);
    Ok(swept)
}

async fn clear(members: &Members) -> Result<usize, ActError> {
    let found = members.pids().map_err(ActError::Sweep)?;
    if found.is_empty() && !members.any().map_err(ActError::Sweep)? {
        return Ok(0);
    }
    match timeout(PATIENCE, members.clear()).await {
        Ok(cleared) => cleared.map_err(ActError::Sweep)?,
        Err(_) => {
            let left = members.pids().map_err(ActError::Sweep)?;
            let pid = left.first().copied().unwrap_or(Pid(0));
            return Err(ActError::LeftBehind { pid, seconds: PATIENCE.as_secs() });
        }
    }
    Ok(found.len())
}

fn remove_files(folder: &Path, spared: &Spared) -> Result<usize, ActError> {
    let stale = |reason| ActError::Stale { path: folder.to_owned(), reason };
    let mut removed = 0;
    let entries = match std::fs::read_dir(folder) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(stale)?,
    };
    for entry in entries {
        let file = entry.map_err(stale)?.path();
        if !spared.sockets.contains(&file) {
            std::fs::remove_file(file).map_err(stale)?;
            removed += 1;
        }
    }
    Ok(removed)
}
