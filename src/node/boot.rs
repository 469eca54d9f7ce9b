//! Coming up: folders, locks, the sweep, the control socket. After it the loop can begin.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host::{self, Host};
use super::logs::{self, LogError, Opened};
use super::marks::Mark;
use crate::act::{Act, ActError, Swept, sweep};
use crate::config::{NodeConfig, ResourceLimits};
use crate::control;
use crate::linux::fds::{self, SocketAccess};
use crate::linux::process::{self, PidLock};
use crate::observe::clock::Clock;
use crate::observe::signals::Signals;
use crate::plan::Plan;
use crate::telemetry::{LogBook, orchestrator_log};
use crate::units::{Level, Pid};

pub(super) const LOCK: &str = "node.lock";

/// What the command line and the configuration ask for.
#[derive(Debug)]
pub struct Settings {
    pub configured: Configured,
    /// Reads the same configuration again.
    pub loader: Loader,
    pub clock: Clock,
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Configured {
    pub config: NodeConfig,
    /// Where it came from, in words.
    pub origin: String,
    /// Its warnings, one a line.
    pub remarks: Vec<String>,
}

/// Reads the configuration, or says everything that is wrong with it. May take its time.
#[derive(Clone)]
pub struct Loader(Arc<dyn Fn() -> Result<Configured, String> + Send + Sync>);

impl Loader {
    pub fn new(read: impl Fn() -> Result<Configured, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(super) fn load(&self) -> Result<Configured, String> {
        (self.0)()
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

/// Why the node did not come up. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("cannot begin: {0}")]
    Runtime(io::Error),
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

/// Everything the loop needs.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) config: NodeConfig,
    pub(super) loader: Loader,
    pub(super) clock: Clock,
    pub(super) book: LogBook,
    pub(super) host: Host,
    pub(super) act: Act,
    pub(super) signals: Signals,
    pub(super) control: std::os::unix::net::UnixListener,
    /// Released when the node ends.
    pub(super) _locks: [PidLock; 2],
}

pub(super) async fn boot(settings: Settings) -> Result<Booted, BootError> {
    let Settings { configured: Configured { config, origin, remarks }, loader, clock } = settings;
    let (runtime_dir, data_dir) = (&config.node.runtime_dir, &config.node.data_dir);
    own_folder(runtime_dir)?;
    own_folder(data_dir)?;
    let locks = [lock(runtime_dir)?, lock(data_dir)?];
    for folder in ["sockets", "notify"] {
        own_folder(&runtime_dir.join(folder))?;
    }
    let signals = Signals::listen().map_err(BootError::Runtime)?;
    let Opened { book, without_journal } = logs::open(&config)?;
    // Fails only where something else in this process reads its events already.
    let _read_already = orchestrator_log::begin(book.clone());
    greet(&book, &config, &origin, &remarks);
    // Where it cannot be taken off, our crash will be taken for a wanted stop.
    let _ends_services_then = Mark::Stopping.take_off(runtime_dir);
    process::become_subreaper()?;
    let plan = Plan::of(&config);
    let host = host::look(runtime_dir, &plan, without_journal);
    if config.node.resource_limits == ResourceLimits::Required
        && let Some(without) = host.without_limits()
    {
        let missing = without.missing.clone();
        if let Some(ground) = host.ground {
            ground.put_away();
        }
        return Err(BootError::NoLimits { missing });
    }
    let services = host.ground.as_ref().map(|ground| &ground.services);
    report_sweep(&book, sweep(services, runtime_dir).await?);
    let control = runtime_dir.join(control::SOCKET);
    let control = fds::unix_listener(&control, SocketAccess::Owner)?;
    let act = Act::new(&config, plan, host.ground.clone())?;
    Ok(Booted { config, loader, clock, book, host, act, signals, control, _locks: locks })
}

/// Makes the folder for us alone, or takes one that is ours and that nobody else may change. What
/// is there already keeps its mode: it may be somebody's home.
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

fn greet(book: &LogBook, config: &NodeConfig, origin: &str, remarks: &[String]) {
    let version = env!("CARGO_PKG_VERSION");
    let pid = process::own_pid();
    let greeting = format!("blackhole-node {version}, node {}, pid {pid}", config.node.name);
    book.node_line(Level::Info, &greeting, &[]);
    book.node_line(Level::Info, &format!("configuration: {origin}"), &[]);
    for remark in remarks {
        book.node_line(Level::Warn, remark, &[]);
    }
}

fn report_sweep(book: &LogBook, swept: Swept) {
    if swept == Swept::default() {
        return;
    }
    let Swept { processes, groups, files } = swept;
    let what = format!(
        "cleared what an earlier node left: {processes} processes, {groups} groups, {files} sockets"
    );
    book.node_line(Level::Warn, &what, &[]);
}
