//! Before anything is started: ends and clears what an earlier life of this node left behind.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::environment::node_mark;
use super::error::ActError;
use super::folders;
use crate::linux::cgroupfs::Group;
use crate::linux::members::Members;
use crate::units::Pid;

/// How long left-overs may take to die of SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found and is gone now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub processes: usize,
    pub groups: usize,
    pub files: usize,
}

/// Kills every process below `services` and every process that carries this node's mark, removes
/// the groups below it, and empties the folders of sockets. The caller holds the node's lock.
pub async fn sweep(services: Option<&Arc<Group>>, runtime_dir: &Path) -> Result<Swept, ActError> {
    let mut swept = Swept::default();
    if let Some(services) = services {
        swept.processes += clear(&Members::Group(Arc::clone(services))).await?;
        swept.groups += remove_groups(services)?;
    }
    let marked = Members::Marked([node_mark(runtime_dir)].into());
    swept.processes += clear(&marked).await?;
    for folder in ["sockets", "notify"] {
        swept.files += remove_files(&runtime_dir.join(folder))?;
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

fn remove_groups(services: &Group) -> Result<usize, ActError> {
    let names = services.children().map_err(ActError::Sweep)?;
    for name in &names {
        let group = services.child(name).map_err(ActError::Sweep)?;
        group.remove().map_err(ActError::Sweep)?;
    }
    Ok(names.len())
}

fn remove_files(folder: &Path) -> Result<usize, ActError> {
    let stale = |reason| ActError::Stale { path: folder.to_owned(), reason };
    let mut removed = 0;
    let entries = match std::fs::read_dir(folder) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(stale)?,
    };
    for entry in entries {
        std::fs::remove_file(entry.map_err(stale)?.path()).map_err(stale)?;
        removed += 1;
    }
    Ok(removed)
}
