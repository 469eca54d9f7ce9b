//! All processes of a run, not only its main process: by their cgroup, or without cgroups by
//! variables in their environment.

use std::sync::Arc;

use super::cgroupfs::Group;
use super::error::Error;
use super::pidfd::Pidfd;
use super::procfs;
use crate::units::{Pid, Signal};

#[derive(Debug, Clone)]
pub enum Members {
    Group(Arc<Group>),
    Marked(Marks),
}

/// The `NAME=value` entries of their environments by which processes are known.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// They were started with all of these,
    pub all: Arc<[String]>,
    /// and with none of these.
    pub none: Arc<[String]>,
}

impl Members {
    pub fn any(&self) -> Result<bool, Error> {
        match self {
            Self::Group(group) => group.populated(),
            Self::Marked(marks) => Ok(!marked(marks)?.is_empty()),
        }
    }

    pub fn pids(&self) -> Result<Vec<Pid>, Error> {
        match self {
            Self::Group(group) => group.procs(),
            Self::Marked(marks) => marked(marks),
        }
    }

    pub fn contains(&self, pid: Pid) -> Result<bool, Error> {
        match self {
            Self::Group(group) => group.contains(pid),
            Self::Marked(marks) => carries(pid, marks),
        }
    }

    pub fn group(&self) -> Option<&Arc<Group>> {
        match self {
            Self::Group(group) => Some(group),
            Self::Marked(_) => None,
        }
    }

    /// SIGKILL to all there are now.
    pub fn kill(&self) -> Result<(), Error> {
        match self {
            Self::Group(group) => group.kill(),
            Self::Marked(marks) => {
                for pid in marked(marks)? {
                    kill_if_marked(pid, marks)?;
                }
                Ok(())
            }
        }
    }

    /// Kills until none is left.
    pub async fn clear(&self) -> Result<(), Error> {
        match self {
            Self::Group(group) => {
                group.kill()?;
                group.emptied().await
            }
            Self::Marked(marks) => loop {
                let ending = marked(marks)?.into_iter().map(|pid| kill_if_marked(pid, marks));
                let ending: Vec<Pidfd> =
                    ending.filter_map(Result::transpose).collect::<Result<_, _>>()?;
                if ending.is_empty() {
                    return Ok(());
                }
                for process in ending {
                    process.exited().await?;
                }
            },
        }
    }
}

/// A zombie's environment is gone, so only what still runs is found.
fn marked(marks: &Marks) -> Result<Vec<Pid>, Error> {
    let all = procfs::processes()?;
    all.into_iter()
        .filter_map(|pid| match carries(pid, marks) {
            Ok(true) => Some(Ok(pid)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
}

/// A process that we may not look into is not one that we started.
fn carries(pid: Pid, marks: &Marks) -> Result<bool, Error> {
    let wanted = marks.all.iter().map(|mark| (mark, true));
    for (mark, wanted) in wanted.chain(marks.none.iter().map(|mark| (mark, false))) {
        match procfs::environ_contains(pid, mark.as_bytes()) {
            Ok(found) if found == wanted => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_denied() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Looks at the marks again once a pidfd holds the process: the pid may be another process's.
fn kill_if_marked(pid: Pid, marks: &Marks) -> Result<Option<Pidfd>, Error> {
    let Some(process) = Pidfd::open(pid)? else { return Ok(None) };
    if !carries(pid, marks)? {
        return Ok(None);
    }
    process.send(Signal::KILL)?;
    Ok(Some(process))
}
