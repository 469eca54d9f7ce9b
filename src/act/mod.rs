//! Carries out effects: spawn, signal, kill, clear, forget; and the sweep before the first of them.
//! Decides nothing; knows nothing of observers.

mod adoption;
mod binary;
mod checkpoint;
mod degradations;
mod environment;
mod error;
mod fd_budget;
mod fd_names;
mod fd_store;
mod folders;
mod history_log;
mod limits;
mod manager_fd_store;
mod manager_outbox;
mod rehearsal;
mod run;
mod run_limits;
mod sandbox;
mod service_manager;
mod sockets;
mod spawn;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub use adoption::Unread;
pub use binary::Binary;
pub use checkpoint::{Checkpoint, CheckpointError, Former, Known, SavedRun, State, frame};
pub use error::ActError;
pub use fd_names::{CheckpointForm, InheritedFds, RunFd};
pub use history_log::HistoryRoom;
pub use limits::{LimitInForce, LimitThreads};
pub use rehearsal::{ABLE, REHEARSAL, Rehearsal, RehearsalFailure};
pub use run::{LiveRun, Pipe, RunOrigin, StartedRun};
pub use service_manager::ServiceManager;
pub use sweep::{Spared, Swept, sweep};

use crate::config::NodeConfig;
use crate::linux::cgroupfs::{Group, LimitEvents};
use crate::linux::fds;
use crate::linux::members::{Marks, Members};
use crate::linux::pidfd::Pidfd;
use crate::linux::process;
use crate::linux::sandbox::Support;
use crate::plan::{GroupLimits, Plan, SocketId, SocketPlace};
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Pid, RunId, Signal};
use checkpoint::CheckpointWriter;
use fd_names::FdName;
use fd_store::{FdStore, Kept};
use history_log::HistoryLog;
use run::{GroupUse, MainProcess};
use sandbox::Sandboxes;
use sockets::Sockets;

/// Everything the orchestrator holds for what runs.
#[derive(Debug)]
pub struct Act {
    plan: Plan,
    node_name: String,
    executable: OwnedFd,
    /// Which build `executable` is.
    binary: Arc<Binary>,
    /// `None`: the host has no cgroup v2 for us.
    services_cgroup: Option<ServicesCgroup>,
    groups: BTreeMap<InstanceId, Arc<Group>>,
    sockets: Sockets,
    stores: BTreeMap<InstanceId, FdStore>,
    sandboxes: Sandboxes,
    runs: BTreeMap<RunId, LiveRun>,
    /// The events that the removed groups of an instance had counted.
    past_events: BTreeMap<InstanceId, LimitEvents>,
    pub service_manager: ServiceManager,
    checkpoint_writer: CheckpointWriter,
    history_log: HistoryLog,
    /// The child that rehearses an upgrade; it belongs to no run.
    rehearsing: Option<Pid>,
    pub limit_threads: LimitThreads,
}

/// The group in which the groups of the instances are made.
#[derive(Debug, Clone)]
pub struct ServicesCgroup {
    /// It contains the groups `NAME-N`, for which it enables its controllers.
    pub services: Arc<Group>,
    /// The group around `services` if it was made for `services` only; it is removed with it.
    /// `None`: the group around it belongs to the service manager and is left alone.
    pub own_parent: Option<Arc<Group>>,
}

impl ServicesCgroup {
    /// Removes the groups; for the end of the node, when nothing runs any more.
    pub fn clean_up(self) {
        let _left_for_the_next_sweep = self.services.remove();
        let _left_for_the_next_sweep = self.own_parent.map(|group| group.remove());
    }
}

impl Act {
    /// Takes over the descriptors that a former orchestrator left, and binds the remaining
    /// listeners. One that cannot be bound is tried again by each spawn that needs it. `former`:
    /// the state that is adopted.
    pub fn new(
        config: &NodeConfig,
        plan: Plan,
        services_cgroup: Option<ServicesCgroup>,
        mut service_manager: ServiceManager,
        (inherited_fds, former): (&mut InheritedFds, Option<&Former>),
    ) -> Result<Self, ActError> {
        sandbox::check_users(&plan)?;
        let executable = fds::own_executable().map_err(ActError::Executable)?;
        let kept = inherited_fds.take_checkpoints();
        let checkpoint_writer =
            CheckpointWriter::new(former, kept).map_err(ActError::Checkpoint)?;
        let kept = inherited_fds.take_history().filter(|_| former.is_some());
        let (mut history_log, recorded) = HistoryLog::open(kept).map_err(ActError::Checkpoint)?;
        if let Some(ServicesCgroup { services, .. }) = &services_cgroup {
            limits::protect(services, &plan)?;
        }
        // From here on nothing fails.
        service_manager.inherit(inherited_fds);
        history_log.keep(&mut service_manager);
        inherited_fds.recorded = recorded;
        let mut sockets = Sockets::default();
        sockets.take_over(std::mem::take(&mut inherited_fds.listeners), &mut service_manager);
        let planned: BTreeSet<&SocketPlace> = plan.sockets.values().collect();
        sockets.match_any_ports(&planned);
        sockets.keep_only(&mut service_manager, |place| planned.contains(place));
        for (id, place) in &plan.sockets {
            let _tried_again_at_spawn = sockets.bind(id, place, &mut service_manager);
        }
        Ok(Self {
            plan,
            node_name: config.node.name.clone(),
            executable,
            binary: Arc::new(Binary::own()),
            services_cgroup,
            groups: BTreeMap::new(),
            sockets,
            stores: BTreeMap::new(),
            sandboxes: Sandboxes::of_this_host(),
            runs: BTreeMap::new(),
            past_events: BTreeMap::new(),
            service_manager,
            checkpoint_writer,
            history_log,
            rehearsing: None,
            limit_threads: LimitThreads::default(),
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Puts `next` in force, together with `leaving`: instances of the plan before that are being
    /// stopped. On an error everything is as it was before.
    pub fn apply_plan(
        &mut self,
        next: Plan,
        leaving: &BTreeSet<InstanceId>,
    ) -> Result<(), ActError> {
        sandbox::check_users(&next)?;
        let next = next.with_leaving(&self.plan, leaving);
        self.bind_and_protect(&next).inspect_err(|_| self.return_to_plan())?;
        self.plan = next;
        self.close_what_is_not_planned();
        Ok(())
    }

    fn bind_and_protect(&mut self, next: &Plan) -> Result<(), ActError> {
        let known: BTreeSet<&SocketPlace> = self.plan.sockets.values().collect();
        for (id, place) in next.sockets.iter().filter(|(_, place)| !known.contains(place)) {
            self.sockets.bind(id, place, &mut self.service_manager)?;
        }
        match &self.services_cgroup {
            Some(ServicesCgroup { services, .. }) => limits::protect(services, next),
            None => Ok(()),
        }
    }

    /// Undoes what `bind_and_protect` did before it failed.
    fn return_to_plan(&mut self) {
        self.close_what_is_not_planned();
        if let Some(ServicesCgroup { services, .. }) = &self.services_cgroup
            && let Err(error) = limits::protect(services, &self.plan)
        {
            tracing::error!(%error, "what protects the memory of services is not as it was");
        }
    }

    /// Releases everything of an instance that was retired and has ended.
    pub fn retire(&mut self, id: &InstanceId) {
        if let Some(store) = self.stores.remove(id) {
            for (name, _) in store.all() {
                self.service_manager.remove_fd(FdName::Stored(id.clone(), name.clone()));
            }
        }
        self.past_events.remove(id);
        folders::remove(&self.plan.runtime_dir, id);
        if let Some(group) = self.groups.remove(id) {
            let _left_for_the_next_sweep = group.remove();
        }
        let plan = std::mem::take(&mut self.plan);
        self.plan = plan.without(&BTreeSet::from([id.clone()]));
        self.close_what_is_not_planned();
    }

    fn close_what_is_not_planned(&mut self) {
        let planned: BTreeSet<&SocketPlace> = self.plan.sockets.values().collect();
        self.sockets.keep_only(&mut self.service_manager, |place| planned.contains(place));
    }

    /// The binary of the orchestrator.
    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// The sandbox features of this kernel.
    pub fn sandbox_support(&self) -> Support {
        self.sandboxes.support()
    }

    pub fn run(&self, run: RunId) -> Option<&LiveRun> {
        self.runs.get(&run)
    }

    /// Whether `pid` is the main process of a run, or a child that is waited for elsewhere.
    pub fn owns(&self, pid: Pid) -> bool {
        self.rehearsing == Some(pid) || self.runs.values().any(|run| run.pid == pid)
    }

    /// The address of the API; `None` until it is bound.
    pub fn api(&self) -> Option<SocketAddr> {
        self.sockets.tcp_address(self.plan.sockets.get(&SocketId::Api)?)
    }

    /// Makes the run one of the live runs.
    fn register_run(
        &mut self,
        (id, run): (&InstanceId, RunId),
        first: MainProcess,
        group: Option<Arc<Group>>,
    ) -> (Arc<Pidfd>, Members) {
        let members = match group {
            Some(group) => Members::Group(group),
            None => {
                let all = environment::marks(&self.plan.runtime_dir, run).into();
                Members::Marked(Marks { all, ..Marks::default() })
            }
        };
        let MainProcess { pid, pidfd, cpu_before, oom_kills_before, .. } = first;
        let pidfd = Arc::new(pidfd);
        let live = LiveRun {
            instance: id.clone(),
            pid,
            pidfd: Arc::clone(&pidfd),
            members: members.clone(),
            cpu_before,
            oom_kills_before,
            binary: first.binary,
            notify_path: first.notify_path,
            notify: first.notify,
            status: first.status,
            group: first.group,
        };
        self.runs.insert(run, live);
        (pidfd, members)
    }

    /// The limits of an instance, as wanted and as the kernel has them.
    pub fn limits(&self, id: &InstanceId, wanted: &GroupLimits) -> Vec<LimitInForce> {
        limits::in_force(self.groups.get(id).map(Arc::as_ref), wanted)
    }

    /// Signals the main process of the run. One that has ended is no error.
    pub fn signal(&self, run: RunId, signal: Signal) -> Result<(), ActError> {
        let Some(live) = self.runs.get(&run) else { return Ok(()) };
        live.pidfd.send(signal).map_err(ActError::Signal)?;
        Ok(())
    }

    /// SIGKILL to every process of the run.
    pub fn kill_group(&mut self, run: RunId) -> Result<(), ActError> {
        let Some(live) = self.runs.get_mut(&run) else { return Ok(()) };
        live.group = GroupUse::Spent;
        let members = live.members.kill().map_err(ActError::Kill);
        // On a host without groups a member is found by its mark, which a program can remove; it
        // can leave its process group too, but few programs do both.
        let process_group = match live.members.group() {
            Some(_) => Ok(()),
            None => process::signal_process_group(live.pid, Signal::KILL).map(|_sent| ()),
        };
        let main = live.pidfd.send(Signal::KILL).map(|_sent| ());
        // Each of the three was tried, whether or not the others failed.
        members.and(process_group.and(main).map_err(ActError::Signal))
    }

    /// The members of the run that have to be killed. From here on its group counts as killed.
    pub fn begin_clear(&mut self, run: RunId) -> Option<Members> {
        let live = self.runs.get_mut(&run)?;
        live.group = GroupUse::Spent;
        Some(live.members.clone())
    }

    /// Releases what the run had. Its sockets and stored descriptors stay for the next run, and its
    /// log pipes are read to the end.
    pub fn forget(&mut self, run: RunId) {
        let Some(live) = self.runs.remove(&run) else { return };
        for part in [RunFd::Pidfd, RunFd::Notify, RunFd::StatusBroker] {
            self.release_fd(part, &live.instance, run);
        }
        if let Some(path) = live.notify_path {
            let _gone_already = std::fs::remove_file(path);
        }
        if live.group == GroupUse::Spent {
            self.drop_group(&live.instance);
        }
    }

    /// Removes the group; what it counted is added to `past_events`.
    fn drop_group(&mut self, id: &InstanceId) {
        let Some(spent) = self.groups.remove(id) else { return };
        let counted = spent.limit_events().unwrap_or_default();
        let past = self.past_events.entry(id.clone()).or_default();
        *past = *past + counted;
        let _left_for_the_next_sweep = spent.remove();
    }

    /// How often the instance reached its limits since the node started.
    pub fn limit_events(&self, id: &InstanceId) -> LimitEvents {
        let past = self.past_events.get(id).copied().unwrap_or_default();
        let now = self.groups.get(id).and_then(|group| group.limit_events().ok());
        past + now.unwrap_or_default()
    }

    /// Keeps descriptors for the next run of the instance (`FDSTORE=1`). Those beyond the
    /// instance's limit are closed; returns how many those were.
    pub fn store(&mut self, id: &InstanceId, name: &str, fds: Vec<OwnedFd>) -> usize {
        let limit = self.plan.instances.get(id).and_then(|plan| plan.launch.notify);
        let limit = limit.map_or(0, |notify| usize::from(notify.fd_store_max));
        let store = self.stores.entry(id.clone()).or_default();
        let Kept { fresh, refused } = store.keep(name, fds, limit);
        let fd_name = FdName::Stored(id.clone(), name.to_owned());
        if fd_name.is_valid() {
            let fresh = fresh.iter().map(|(_, fd)| (fd_name.clone(), Some(fd.as_fd())));
            self.service_manager.store_fds(fresh);
        }
        refused
    }

    /// Releases one descriptor of a run, and those that belong to it.
    pub fn release_fd(&mut self, part: RunFd, id: &InstanceId, run: RunId) {
        let spool = part.companions().map(|(_, spool)| spool);
        self.remove_fds([Some(part), spool].into_iter().flatten(), id, run);
    }

    /// Releases the descriptors of a run whose spawn failed.
    fn release_all_fds(&mut self, id: &InstanceId, run: RunId) {
        self.remove_fds(RunFd::ALL.into_iter().map(|(part, _)| part), id, run);
    }

    fn remove_fds(&mut self, parts: impl Iterator<Item = RunFd>, id: &InstanceId, run: RunId) {
        let names = parts.map(|part| FdName::Run(part, id.clone(), run));
        self.service_manager.remove_fds(names);
    }

    /// Writes the checkpoint.
    pub fn save(&mut self, state: State) -> Result<(), CheckpointError> {
        if !self.service_manager.is_connected() {
            return Ok(());
        }
        let runs = self.saved_runs();
        self.checkpoint_writer.save(state, runs, &mut self.service_manager)
    }

    /// Appends to the history.
    pub fn record(&mut self, record: &pb::HistoryRecord) -> Result<HistoryRoom, ActError> {
        self.history_log.append(record).map_err(ActError::History)
    }

    /// Replaces the whole history.
    pub fn record_anew<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a pb::HistoryRecord>,
    ) -> Result<(), ActError> {
        self.history_log.replace(records).map_err(ActError::History)
    }

    fn saved_runs(&self) -> BTreeMap<RunId, SavedRun> {
        let saved = |live: &LiveRun| SavedRun {
            pid: live.pid,
            cpu_before: live.cpu_before,
            oom_kills_before: live.oom_kills_before,
            binary: live.binary.clone(),
        };
        self.runs.iter().map(|(run, live)| (*run, saved(live))).collect()
    }

    /// Closes the kept descriptors of this name (`FDSTOREREMOVE=1`).
    pub fn unstore(&mut self, id: &InstanceId, name: &str) {
        if let Some(store) = self.stores.get_mut(id) {
            store.remove(name);
            self.service_manager.remove_fd(FdName::Stored(id.clone(), name.to_owned()));
        }
    }

    /// Degradations of the service manager connection, for `status`.
    pub fn degradations(&self) -> Vec<pb::Degradation> {
        degradations::of(&self.service_manager)
    }

    /// Removes everything from the file system and the fd store; for the end of the node, when
    /// nothing runs any more.
    pub fn clean_up(&mut self) {
        self.sockets.keep_only(&mut self.service_manager, |_| false);
        for (id, store) in std::mem::take(&mut self.stores) {
            for (name, _) in store.all() {
                self.service_manager.remove_fd(FdName::Stored(id.clone(), name.clone()));
            }
        }
        CheckpointWriter::remove(&mut self.service_manager);
        self.service_manager.remove_reserved([FdName::History, FdName::Control]);
        folders::clean_up(&self.plan.runtime_dir);
        for group in std::mem::take(&mut self.groups).into_values() {
            let _left_for_the_next_sweep = group.remove();
        }
        if let Some(services_cgroup) = self.services_cgroup.take() {
            services_cgroup.clean_up();
        }
    }

    fn group_of(&mut self, id: &InstanceId) -> Result<Option<Arc<Group>>, ActError> {
        let Some(ServicesCgroup { services, .. }) = &self.services_cgroup else { return Ok(None) };
        if let Some(group) = self.groups.get(id) {
            return Ok(Some(Arc::clone(group)));
        }
        let group = Arc::new(services.create(&id.to_string()).map_err(ActError::Group)?);
        self.groups.insert(id.clone(), Arc::clone(&group));
        Ok(Some(group))
    }
}
