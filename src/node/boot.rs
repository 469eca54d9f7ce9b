//! Starting the node up to the supervise loop: folders, locks, the sweep, the control socket.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::adoption::{AdoptedRuns, Adoption, Resumed};
use super::error::BootError;
use super::host::{self, Host};
use super::in_force::InForce;
use super::loader::{Configured, Loader, Settings};
use super::logs::{self, Opened};
use super::runtime_flags::RuntimeFlag;
use crate::act::{Act, InheritedFds, ServiceManager, Swept, sweep};
use crate::config::ResourceLimits;
use crate::control;
use crate::linux::fds::{self, ListensAt, SocketAccess};
use crate::linux::process::{self, PidLock};
use crate::observe::clock::Clock;
use crate::observe::signals::Signals;
use crate::telemetry::{LogStore, log_store_subscriber};
use crate::units::Level;

pub(super) const LOCK: &str = "node.lock";

/// Everything that the supervise loop needs.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) in_force: InForce,
    /// How many orchestrators there were, with this one.
    pub(super) generation: u32,
    pub(super) loader: Loader,
    pub(super) resumed: Option<Resumed>,
    pub(super) adopted_runs: AdoptedRuns,
    pub(super) clock: Clock,
    pub(super) log_store: LogStore,
    pub(super) host: Host,
    pub(super) act: Act,
    pub(super) signals: Signals,
    pub(super) control: UnixListener,
    /// Held until the node ends: the lock of the runtime folder, and that of the data folder.
    pub(super) _locks: (PidLock, Option<PidLock>),
}

pub(super) async fn boot(settings: Settings, mut adoption: Adoption) -> Result<Booted, BootError> {
    let Settings { loader, clock } = settings;
    let configured = adoption.configuration(&loader)?;
    let in_force = adoption.in_force(&configured)?;
    let (config, plan) = (&in_force.config, &in_force.plan);
    let generation = adoption.generation();
    let clock = match &adoption.former {
        Some(former) => former.began_at.map_or(clock, Clock::begun_at),
        None => clock,
    };
    let (runtime_dir, data_dir) = (&config.node.runtime_dir, &config.node.data_dir);
    own_folder(runtime_dir)?;
    own_folder(data_dir)?;
    let locks = (lock(runtime_dir)?, lock_data(data_dir, &mut adoption)?);
    for folder in ["sockets", "notify"] {
        own_folder(&runtime_dir.join(folder))?;
    }
    let signals = Signals::listen().map_err(BootError::Runtime)?;
    let Opened { log_store, without_journal } = logs::open(config)?;
    // Fails only where this process has a subscriber already.
    let _read_already = log_store_subscriber::install(log_store.clone());
    greet(&log_store, &configured);
    adoption.tell(&log_store);
    // If the flag cannot be removed, a crash of ours is taken for a wanted stop.
    let _ends_services_then = RuntimeFlag::Stopping.clear(runtime_dir);
    process::become_subreaper()?;
    let mut host = host::look(runtime_dir, plan, adoption.arrival, without_journal);
    host.degradations.extend(adoption.degradation());
    if config.node.resource_limits == ResourceLimits::Required
        && let Some(without) = host.without_limits()
    {
        host.clean_up();
        return Err(BootError::NoLimits { missing: without.missing.clone() });
    }
    let mut service_manager = find_service_manager(&log_store);
    let resumed = adoption.resume(&in_force, clock.now());
    let spared = match &resumed {
        Some(resumed) => resumed.spared(&adoption.inherited_fds, runtime_dir),
        None => adoption.inherited_fds.spared(BTreeSet::new(), runtime_dir),
    };
    let begun = async {
        let services = host.services_cgroup.as_ref().map(|made| &made.services);
        report_sweep(&log_store, sweep(services, runtime_dir, &spared).await?);
        let inherited_fds = &mut adoption.inherited_fds;
        let control = control_listener(runtime_dir, inherited_fds, &mut service_manager)?;
        let inherited = (inherited_fds, adoption.former.as_ref());
        let plan = plan.as_ref().clone();
        let act = Act::new(config, plan, host.services_cgroup.clone(), service_manager, inherited);
        Ok::<_, BootError>((control, act?))
    };
    let (control, mut act) = begun.await.inspect_err(|_| host.clean_up())?;
    let adopted_runs = adoption.adopt(resumed.as_ref(), &mut act);
    Ok(Booted {
        in_force,
        generation,
        loader,
        resumed,
        adopted_runs,
        clock,
        log_store,
        host,
        act,
        signals,
        control,
        _locks: locks,
    })
}

fn find_service_manager(log_store: &LogStore) -> ServiceManager {
    let (service_manager, unheard) = ServiceManager::find();
    if let Some(error) = unheard {
        log_store.node_line(Level::Warn, &format!("without the service manager: {error}"), &[]);
    }
    service_manager
}

/// The inherited listener, on which operators may be waiting, or a new one.
fn control_listener(
    runtime_dir: &Path,
    inherited_fds: &mut InheritedFds,
    service_manager: &mut ServiceManager,
) -> Result<UnixListener, BootError> {
    let path = runtime_dir.join(control::SOCKET);
    let kept = inherited_fds.control.take();
    let ours = |fd: &OwnedFd| fds::listens_at(fd) == Some(ListensAt::Unix(path.clone()));
    match kept.filter(|fd| ours(fd) && path.exists()) {
        Some(fd) => {
            // From now on callers see this process as their peer (`SO_PEERCRED`).
            fds::listen_again(&fd)?;
            Ok(fd.into())
        }
        None => {
            let listener = fds::unix_listener(&path, SocketAccess::Owner)?;
            service_manager.store_control(&listener);
            Ok(listener)
        }
    }
}

/// Makes the folder for the node alone, or accepts one that is owned by it and that no other user
/// may change. An existing folder keeps its mode: it may be somebody's home.
fn own_folder(path: &Path) -> Result<(), BootError> {
    let failed = |reason| BootError::Folder { path: path.to_owned(), reason };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = std::fs::metadata(path).map_err(failed)?;
    let us = process::own_uid();
    if found.uid() != us {
        return Err(BootError::NotOurs { path: path.to_owned(), owner: found.uid(), us });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(BootError::OpenToOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<PidLock, BootError> {
    PidLock::acquire(&folder.join(LOCK)).map_err(|error| {
        if let crate::linux::Error::Locked { holder, .. } = error {
            return BootError::AlreadyRunning { place: folder.to_owned(), holder };
        }
        BootError::Linux(error)
    })
}

/// A data folder that cannot be locked is an error, except after an adoption: the disk may have
/// failed, and the running services would be left without an orchestrator.
fn lock_data(data_dir: &Path, adoption: &mut Adoption) -> Result<Option<PidLock>, BootError> {
    match lock(data_dir) {
        Err(BootError::Linux(error)) if adoption.former.is_some() => {
            adoption.remark(format!("without a lock on the data: {error}"));
            Ok(None)
        }
        lock => lock.map(Some),
    }
}

fn greet(log_store: &LogStore, configured: &Configured) {
    let version = env!("CARGO_PKG_VERSION");
    let pid = process::own_pid();
    let name = &configured.config.node.name;
    let greeting = format!("blackhole-node {version}, node {name}, pid {pid}");
    log_store.node_line(Level::Info, &greeting, &[]);
    log_store.node_line(Level::Info, &format!("configuration: {}", configured.origin), &[]);
    for remark in &configured.remarks {
        log_store.node_line(Level::Warn, remark, &[]);
    }
}

fn report_sweep(log_store: &LogStore, swept: Swept) {
    if swept == Swept::default() {
        return;
    }
    let Swept { processes, groups, files } = swept;
    let what = format!(
        "cleared what an earlier node left: {processes} processes, {groups} groups, {files} sockets"
    );
    log_store.node_line(Level::Warn, &what, &[]);
}
