//! Adoption of the runs that a former orchestrator started, by the descriptors that the service
//! manager's fd store or an upgrade gives us. The processes never notice. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::Act;
use super::checkpoint::{Former, SavedRun, State};
use super::error::ActError;
use super::fd_names::{FdName, InheritedFds, RunFd};
use super::run::{GroupUse, MainProcess, Pipe, RunOrigin, StartedRun};
use super::sockets::file_of;
use super::spawn::{notify_path, oom_kills};
use super::sweep::Spared;
use crate::decide::AdoptedRun;
use crate::linux::connection_broker::ConnectionBroker;
use crate::linux::fds;
use crate::linux::notify::NotifySocket;
use crate::linux::pidfd::Pidfd;
use crate::units::{InstanceId, RunId};

/// The longest beginning of a line that is taken over, in bytes; `LINE_MAX` is below it.
const REST_MOST: u64 = 1 << 20;

/// Pipes of a run that has ended, with output that is still to be read.
#[derive(Debug)]
pub struct Unread {
    pub instance: InstanceId,
    pub run: RunId,
    pub pipes: Vec<(RunFd, Pipe)>,
}

impl InheritedFds {
    /// The newest run of each instance that can be adopted: there is its process, alive or not, and
    /// the pipes into which it writes.
    pub fn adoptable(&self, former: &Former) -> BTreeMap<InstanceId, AdoptedRun> {
        let pid = |run: &RunId, pidfd: &OwnedFd| {
            let known = former.runs.get(run).map(|saved| saved.pid);
            pid_of(pidfd).or(known)
        };
        self.whole_runs()
            .filter_map(|(id, run, pidfd)| {
                let pid = pid(&run, pidfd)?;
                Some((id.clone(), AdoptedRun { run, pid }))
            })
            .collect()
    }

    /// What the sweep must leave alone when `runs` are adopted.
    pub fn spared(&self, runs: BTreeSet<(InstanceId, RunId)>, runtime_dir: &Path) -> Spared {
        let notify = runs.iter().map(|(id, run)| notify_path(runtime_dir, id, *run));
        let mut sockets: BTreeSet<_> = notify.collect();
        sockets.extend(self.listeners.iter().filter_map(|(_, fd)| file_of(fd)));
        Spared { runs, sockets }
    }
}

/// The pipe of a log, with the rest of a line and the spool that belong to it. `None`: the pipe is
/// not among the descriptors.
fn take_pipe(
    parts: &mut BTreeMap<RunFd, OwnedFd>,
    part: RunFd,
    instance: &InstanceId,
) -> Option<Pipe> {
    let (rest, spool) = part.companions()?;
    let pipe = Pipe { spool: parts.remove(&spool), ..parts.remove(&part)?.into() };
    let Some(file) = parts.remove(&rest) else { return Some(pipe) };
    match fds::read_whole(file, REST_MOST) {
        Ok(bytes) => Some(with_rest(pipe, &bytes)),
        Err(error) => {
            tracing::error!(%instance, %error, "the beginning of a line of its log is lost");
            Some(pipe)
        }
    }
}

/// Adds the beginning of a line that goes on in the pipe. `bytes`: how many parts of that line were
/// given out before (four bytes, little-endian), then the beginning itself.
fn with_rest(pipe: Pipe, bytes: &[u8]) -> Pipe {
    let Some((parts, rest)) = bytes.split_first_chunk() else { return pipe };
    Pipe { rest: rest.to_vec(), parts: u32::from_le_bytes(*parts), ..pipe }
}

/// The value, or `None` after the error was logged together with `so`, its consequence.
fn told<T, E: std::fmt::Display>(
    done: Result<T, E>,
    instance: &InstanceId,
    so: &'static str,
) -> Option<T> {
    done.inspect_err(|error| tracing::error!(%instance, %error, "{so}")).ok()
}

fn pid_of(fd: &OwnedFd) -> Option<crate::units::Pid> {
    let pidfd = Pidfd::from(fd.try_clone().ok()?);
    pidfd.pid().ok().flatten()
}

impl Act {
    /// Adopts a run that `adoptable` named.
    pub fn adopt_run(
        &mut self,
        inherited_fds: &mut InheritedFds,
        (id, adopted): (&InstanceId, AdoptedRun),
        saved: Option<SavedRun>,
    ) -> Result<StartedRun, ActError> {
        let AdoptedRun { run, pid } = adopted;
        let mut parts = inherited_fds.runs.remove(&(id.clone(), run)).unwrap_or_default();
        let mut pipe = |part| take_pipe(&mut parts, part, id);
        let pipes = (pipe(RunFd::Stdout), pipe(RunFd::Stderr));
        let mut take = |part| parts.remove(&part);
        let (Some(pidfd), (Some(stdout), Some(stderr))) = (take(RunFd::Pidfd), pipes) else {
            self.release_all_fds(id, run);
            return Err(ActError::NotHeld(id.clone()));
        };
        // From here on nothing fails: the process runs and has to be supervised.
        let notify = take(RunFd::Notify).map(NotifySocket::adopt).transpose();
        let notify = told(notify, id, "what it says to us is not heard").flatten().map(Arc::new);
        let status = take(RunFd::StatusBroker).map(|fd| Arc::new(ConnectionBroker::from(fd)));
        let group = told(self.group_of(id), id, "its processes are found by their mark").flatten();
        let counted = group.as_deref().map(oom_kills).unwrap_or_default();
        // The count began anew if the group's controllers were gone between the two orchestrators.
        let oom_kills_before =
            saved.as_ref().map_or(counted, |saved| saved.oom_kills_before.min(counted));
        let first = MainProcess {
            pid,
            pidfd: Pidfd::from(pidfd),
            cpu_before: saved.as_ref().map(|saved| saved.cpu_before).unwrap_or_default(),
            oom_kills_before,
            binary: saved.and_then(|saved| saved.binary),
            notify_path: notify.as_ref().map(|_| notify_path(&self.plan.runtime_dir, id, run)),
            notify: notify.clone(),
            status: status.clone(),
            group: GroupUse::Spent,
        };
        let (pidfd, members) = self.register_run((id, run), first, group);
        Ok(StartedRun {
            pid,
            pidfd,
            members,
            origin: RunOrigin::Adopted,
            oom_kills_before,
            stdout,
            stderr,
            notify,
            status,
            intruders: Vec::new(),
        })
    }

    /// After the last adoption: gives stored descriptors back to their instances and drops all
    /// others, except for pipes with output that was not read.
    pub fn settle_unadopted(&mut self, mut inherited_fds: InheritedFds) -> Vec<Unread> {
        for (id, name, fd) in std::mem::take(&mut inherited_fds.stored) {
            if self.plan.instances.contains_key(&id) {
                self.stores.entry(id).or_default().keep(&name, vec![fd], usize::MAX);
            } else {
                self.unstore(&id, &name);
            }
        }
        let mut unread = Vec::new();
        for ((instance, run), mut parts) in inherited_fds.runs {
            let mut pipes = Vec::new();
            for part in [RunFd::Stdout, RunFd::Stderr] {
                pipes.extend(take_pipe(&mut parts, part, &instance).map(|pipe| (part, pipe)));
            }
            for part in parts.into_keys() {
                self.release_fd(part, &instance, run);
            }
            unread.push(Unread { instance, run, pipes });
        }
        unread
    }
}

impl Act {
    /// All descriptors for the program of an exec handover, with the names by which it finds them.
    /// `pipes`: the log pipes of the runs, whose readers have stopped.
    pub fn handed_fds<'a>(
        &mut self,
        state: State,
        pipes: impl Iterator<Item = (RunFd, &'a InstanceId, RunId, &'a Pipe)>,
    ) -> Result<Vec<(String, OwnedFd)>, ActError> {
        let runs = self.saved_runs();
        let saved = self.checkpoint_writer.save(state, runs, &mut self.service_manager);
        saved.map_err(ActError::State)?;
        let mut all = Vec::new();
        let mut add = |fd_name: FdName, fd: BorrowedFd<'_>| {
            let ours = fd.try_clone_to_owned().map_err(ActError::Duplicate)?;
            all.push((fd_name.to_string(), ours));
            Ok::<(), ActError>(())
        };
        for (name, memory) in self.checkpoint_writer.memories() {
            add(name, memory.as_fd())?;
        }
        add(FdName::History, self.history_log.as_fd())?;
        let not_stored: Vec<String> = self.service_manager.not_stored().into_iter().collect();
        if !not_stored.is_empty() {
            let list = fds::sealed_memory("not-stored", not_stored.join("\n").as_bytes());
            add(FdName::NotStored, list.map_err(ActError::Channel)?.as_fd())?;
        }
        for (number, fd) in self.sockets.numbered() {
            add(FdName::Listener(number), fd)?;
        }
        for (run, live) in &self.runs {
            let part = |part| FdName::Run(part, live.instance.clone(), *run);
            add(part(RunFd::Pidfd), live.pidfd.as_fd())?;
            if let Some(socket) = &live.notify {
                add(part(RunFd::Notify), socket.as_fd())?;
            }
            if let Some(line) = &live.status {
                add(part(RunFd::StatusBroker), line.as_fd())?;
            }
        }
        for (id, store) in &self.stores {
            for (name, fd) in store.all() {
                add(FdName::Stored(id.clone(), name.clone()), fd.as_fd())?;
            }
        }
        for (part, id, run, Pipe { fd, rest, parts, spool }) in pipes {
            let mut add = |part, fd: BorrowedFd<'_>| add(FdName::Run(part, id.clone(), run), fd);
            add(part, fd.as_fd())?;
            let Some((rest_of, spool_of)) = part.companions() else { continue };
            if !rest.is_empty() {
                let content = [parts.to_le_bytes().as_slice(), rest].concat();
                let file = fds::sealed_memory("rest", &content).map_err(ActError::Channel)?;
                add(rest_of, file.as_fd())?;
            }
            if let Some(spool) = spool {
                add(spool_of, spool.as_fd())?;
            }
        }
        Ok(all)
    }
}
