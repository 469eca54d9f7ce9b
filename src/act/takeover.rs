//! Runs that a former orchestrator started and that are ours again: held by the descriptors that
//! were kept for us, they never notice. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::custody::{Inheritance, Part};
use super::error::ActError;
use super::spawn::{notify_path, oom_kills};
use super::superior::Superior;
use super::sweep::Spared;
use super::{Act, Beginning, Checkpoint, FirstProcess, Newborn, SavedRun};
use crate::decide::Held;
use crate::linux::line::Line;
use crate::linux::notify::NotifySocket;
use crate::linux::pidfd::Pidfd;
use crate::units::{InstanceId, RunId};

/// Pipes of a run that is over; what was written to them is still to be read.
#[derive(Debug)]
pub struct Unread {
    pub instance: InstanceId,
    pub run: RunId,
    pub pipes: Vec<(Part, OwnedFd)>,
}

impl Inheritance {
    /// The newest run of each instance that can be held: its process, alive or not, and the pipes
    /// into which it writes.
    pub fn held(&self, checkpoint: &Checkpoint) -> BTreeMap<InstanceId, Held> {
        let mut held = BTreeMap::new();
        for ((id, run), parts) in &self.runs {
            let whole = [Part::Stdout, Part::Stderr].iter().all(|part| parts.contains_key(part));
            let pid = parts.get(&Part::Pidfd).and_then(|fd| {
                let known = checkpoint.runs.get(run).map(|saved| saved.pid);
                pid_of(fd).or(known)
            });
            if let (true, Some(pid)) = (whole, pid) {
                held.insert(id.clone(), Held { run: *run, pid });
            }
        }
        held
    }

    /// What is not to be swept when `runs` go on.
    pub fn spared(&self, runs: BTreeSet<(InstanceId, RunId)>, runtime_dir: &Path) -> Spared {
        let notify = runs.iter().map(|(id, run)| notify_path(runtime_dir, id, *run));
        let mut sockets: BTreeSet<_> = notify.collect();
        sockets.extend(self.taken.files());
        Spared { runs, sockets }
    }
}

fn pid_of(fd: &OwnedFd) -> Option<crate::units::Pid> {
    let pidfd = Pidfd::from(fd.try_clone().ok()?);
    pidfd.pid().ok().flatten()
}

impl Act {
    /// Takes over the run of the instance, which is one of those that `held` gave.
    pub fn take_over(
        &mut self,
        inheritance: &mut Inheritance,
        (id, held): (&InstanceId, Held),
        saved: Option<SavedRun>,
    ) -> Result<Newborn, ActError> {
        let Held { run, pid } = held;
        let mut parts = inheritance.runs.remove(&(id.clone(), run)).unwrap_or_default();
        let mut take = |part| parts.remove(&part);
        let (Some(pidfd), Some(stdout), Some(stderr)) =
            (take(Part::Pidfd), take(Part::Stdout), take(Part::Stderr))
        else {
            return Err(ActError::NotHeld(id.clone()));
        };
        let notify = take(Part::Notify).map(NotifySocket::adopt).transpose();
        let notify = notify.map_err(ActError::Channel)?;
        let status = take(Part::StatusLine).map(Line::from);
        let group = self.group_of(id)?;
        let counted = group.as_deref().map(oom_kills).unwrap_or_default();
        // The count began anew if the group's controllers were gone meanwhile.
        let oom_kills_before = saved.map_or(counted, |saved| saved.oom_kills_before.min(counted));
        let first = FirstProcess {
            pid,
            pidfd: Pidfd::from(pidfd),
            cpu_before: saved.map(|saved| saved.cpu_before).unwrap_or_default(),
            oom_kills_before,
            notify_socket: notify.as_ref().map(|_| notify_path(&self.plan.runtime_dir, id, run)),
        };
        let (pidfd, members) = self.enroll((id, run), first, group);
        self.reapply(run)?;
        Ok(Newborn {
            pid,
            pidfd,
            members,
            beginning: Beginning::Adopted,
            oom_kills_before,
            stdout,
            stderr,
            notify,
            status,
            strangers: Vec::new(),
        })
    }

    /// After all runs that go on were taken over: what instances stored is theirs again, and the
    /// rest is let go, but for what was written and not read.
    pub fn settle_estate(&mut self, mut inheritance: Inheritance) -> Vec<Unread> {
        for (id, name, fd) in std::mem::take(&mut inheritance.stored) {
            if self.plan.instances.contains_key(&id) {
                self.stores.entry(id).or_default().keep(&name, vec![fd], usize::MAX);
            } else {
                self.unstore(&id, &name);
            }
        }
        let mut unread = Vec::new();
        for ((instance, run), parts) in inheritance.runs {
            let mut pipes = Vec::new();
            for (part, fd) in parts {
                match part {
                    Part::Stdout | Part::Stderr => pipes.push((part, fd)),
                    Part::Pidfd | Part::Notify | Part::StatusLine => {
                        self.let_go(part, &instance, run);
                    }
                }
            }
            unread.push(Unread { instance, run, pipes });
        }
        unread
    }
}

impl Inheritance {
    /// Makes the listeners ours.
    pub fn take_listeners(&mut self, superior: &mut Superior) {
        self.taken.take_over(std::mem::take(&mut self.listeners), superior);
    }
}
