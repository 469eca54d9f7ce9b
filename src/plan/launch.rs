//! What starting one instance takes: program, environment, descriptors, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sockets::{ApiPort, SocketId};
use crate::catalog::{Builtin, Need, Profile};
use crate::config::{Foreign, Kind, NodeConfig, NotifyAccess, Readiness, Sandbox, Service, Sizes};
use crate::units::{ByteSize, InstanceId, ServiceName};

/// Where foreign programs are looked for; also their PATH, unless they are given another.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Marks every process below a node, so that a later start finds what an earlier one left behind.
pub const MARK: &str = "BLACKHOLE_SUPERVISED";

/// Below the node's runtime folder: where the instances have theirs.
pub const RUNTIME_FOLDERS: &str = "services";

#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    pub program: Program,
    /// Complete but for what depends on the run (`LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_PID`, ...).
    pub environment: BTreeMap<String, String>,
    pub working_directory: PathBuf,
    /// The service's own folder, made before its first start.
    pub data_dir: PathBuf,
    /// What it is handed from fd 3 on, in this order.
    pub passed: Vec<Passed>,
    pub notify: Option<NotifyPlan>,
    pub limits: Vec<Limit>,
    pub sandbox: SandboxPlan,
}

/// What the service is kept from.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxPlan {
    pub profile: Profile,
    pub rules: Sandbox,
    /// The instance's own folder in memory, empty at each start.
    pub runtime_folder: PathBuf,
}

impl SandboxPlan {
    /// Where it makes its temporary files.
    pub fn temporary_folder(&self) -> PathBuf {
        self.runtime_folder.join("tmp")
    }
}

impl LaunchPlan {
    /// The listening sockets it is handed.
    pub fn listeners(&self) -> impl Iterator<Item = &SocketId> {
        self.passed.iter().filter_map(|passed| match &passed.channel {
            Channel::Listener(id) => Some(id),
            Channel::Status | Channel::Sheet => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// This binary, with a launch sheet.
    Own(Settings),
    Foreign {
        program: String,
        arguments: Vec<String>,
    },
}

impl Program {
    pub fn is_own(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Foreign { .. } => false,
        }
    }
}

/// What a built-in service is told beyond its name and folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What the keys say that only this service has.
    pub sizes: Sizes,
    pub log_level: &'static str,
    pub drain: Duration,
}

/// One descriptor a service is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: &'static str,
    pub channel: Channel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A listening socket that outlives the run.
    Listener(SocketId),
    /// One end of a fresh socket pair; on the other the orchestrator serves `StatusFeed`.
    Status,
    /// The sealed launch sheet.
    Sheet,
}

/// How the service may talk to us (sd_notify).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyPlan {
    pub access: NotifyAccess,
    pub fd_store_max: u16,
    pub watchdog: Option<Duration>,
}

/// An rlimit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub kind: LimitKind,
    /// The soft limit.
    pub value: u64,
    pub hard: HardLimit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLimit {
    /// Equal to the soft one.
    Same,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// Seconds of processor time.
    CpuTime,
    Files,
    Core,
    FileSize,
    Stack,
}

pub(super) fn launch_plan(
    config: &NodeConfig,
    name: &ServiceName,
    service: &Service,
    id: &InstanceId,
) -> LaunchPlan {
    let data_dir = config.node.data_dir.join("services").join(name.as_str());
    let sandbox = sandbox(config, service, id);
    let environment = environment(config, service, id, &data_dir, &sandbox);
    let (program, working_directory, passed, notify) = match &service.kind {
        Kind::Builtin(builtin, sizes) => {
            let settings = Settings {
                sizes: sizes.clone(),
                log_level: config.monitoring.log_level.as_str(),
                drain: service.stop_timeout.mul_f64(0.8),
            };
            (
                Program::Own(settings),
                data_dir.clone(),
                passed_to_builtin(config, *builtin, service, id),
                None,
            )
        }
        Kind::Foreign(foreign) => {
            let program = Program::Foreign {
                program: foreign.command.program.clone(),
                arguments: foreign.command.arguments.clone(),
            };
            let folder = foreign.working_directory.clone().unwrap_or_else(|| data_dir.clone());
            (program, folder, passed_to_foreign(service, id), Some(notify_plan(service)))
        }
    };
    let limits = limits(service);
    LaunchPlan {
        program,
        environment,
        working_directory,
        data_dir,
        passed,
        notify,
        limits,
        sandbox,
    }
}

fn sandbox(config: &NodeConfig, service: &Service, id: &InstanceId) -> SandboxPlan {
    let profile = match &service.kind {
        Kind::Builtin(builtin, _) => builtin.entry().profile,
        Kind::Foreign(_) => Profile::Program,
    };
    let runtime_folder = config.node.runtime_dir.join(RUNTIME_FOLDERS).join(id.to_string());
    SandboxPlan { profile, rules: service.sandbox.clone(), runtime_folder }
}

fn environment(
    config: &NodeConfig,
    service: &Service,
    id: &InstanceId,
    data_dir: &Path,
    sandbox: &SandboxPlan,
) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut all = BTreeMap::from([
        ("PATH".to_owned(), SEARCH_PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), text(data_dir)),
        ("STATE_DIRECTORY".to_owned(), text(data_dir)),
        ("RUNTIME_DIRECTORY".to_owned(), text(&sandbox.runtime_folder)),
        ("TMPDIR".to_owned(), text(&sandbox.temporary_folder())),
        ("BLACKHOLE_NODE".to_owned(), config.node.name.clone()),
        ("BLACKHOLE_SERVICE".to_owned(), id.service.to_string()),
        ("BLACKHOLE_INSTANCE".to_owned(), id.to_string()),
    ]);
    if let Some(user) = &sandbox.rules.user {
        all.extend(["USER", "LOGNAME"].map(|name| (name.to_owned(), user.clone())));
    }
    if let Kind::Foreign(Foreign { environment, .. }) = &service.kind {
        all.extend(environment.clone());
    }
    all.insert(MARK.to_owned(), text(&config.node.runtime_dir));
    all
}

fn passed_to_builtin(
    config: &NodeConfig,
    builtin: Builtin,
    service: &Service,
    id: &InstanceId,
) -> Vec<Passed> {
    let listener = |name, socket| Passed { name, channel: Channel::Listener(socket) };
    let mut passed = vec![
        listener("grpc", SocketId::Instance(id.clone())),
        listener("shared", SocketId::Shared(id.service.clone())),
    ];
    for need in builtin.entry().needs {
        match need {
            Need::Api => passed.extend(api(config)),
            Need::Status => passed.push(Passed { name: "status", channel: Channel::Status }),
        }
    }
    passed.extend(port(service, id));
    passed.push(Passed { name: "sheet", channel: Channel::Sheet });
    passed
}

fn api(config: &NodeConfig) -> impl Iterator<Item = Passed> {
    let listener = |name, socket| Passed { name, channel: Channel::Listener(socket) };
    let further = ApiPort::ALL.into_iter().filter(|port| port.of(config).is_some());
    let further = further.map(move |port| {
        let name = match port {
            ApiPort::Grpc => "http-grpc",
            ApiPort::WebSocket => "http-ws",
            ApiPort::Metrics => "http-metrics",
        };
        listener(name, SocketId::FurtherApi(port))
    });
    std::iter::once(listener("http", SocketId::Api)).chain(further)
}

fn port(service: &Service, id: &InstanceId) -> Option<Passed> {
    let channel = Channel::Listener(SocketId::Port(id.service.clone()));
    service.port.map(|_| Passed { name: "port", channel })
}

fn passed_to_foreign(service: &Service, id: &InstanceId) -> Vec<Passed> {
    let listener = |name, socket| Passed { name, channel: Channel::Listener(socket) };
    let mut passed = vec![listener("socket", SocketId::Instance(id.clone()))];
    if service.shared_socket {
        passed.push(listener("shared", SocketId::Shared(id.service.clone())));
    }
    passed.extend(port(service, id));
    let udp = service.udp_port.map(|_| SocketId::UdpPort(id.service.clone()));
    passed.extend(udp.map(|udp| listener("udp-port", udp)));
    passed
}

fn notify_plan(service: &Service) -> NotifyPlan {
    NotifyPlan {
        access: service.notify_access,
        fd_store_max: service.fd_store_max,
        watchdog: service.watchdog.filter(|_| service.readiness == Readiness::Notify),
    }
}

fn limits(service: &Service) -> Vec<Limit> {
    let resources = &service.resources;
    let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
    [
        (LimitKind::CpuTime, resources.cpu_seconds),
        (LimitKind::Files, resources.max_files),
        (LimitKind::Core, bytes(resources.max_core)),
        (LimitKind::FileSize, bytes(resources.max_file_size)),
        (LimitKind::Stack, bytes(resources.max_stack)),
    ]
    .into_iter()
    .filter_map(|(kind, value)| {
        let hard = match kind {
            // A process that has reached its hard limit is killed.
            LimitKind::CpuTime => HardLimit::None,
            LimitKind::Files | LimitKind::Core | LimitKind::FileSize | LimitKind::Stack => {
                HardLimit::Same
            }
        };
        value.map(|value| Limit { kind, value, hard })
    })
    .collect()
}
