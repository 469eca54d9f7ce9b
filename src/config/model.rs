//! The configuration as the rest of the node sees it: typed, complete, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use multiaddr::Multiaddr;

use crate::catalog::{Builtin, INSTANCES, Need};
use crate::units::{ByteSize, Capability, CpuShare, Level, ServiceName, SystemCall};

/// The whole configuration of a node. Only `config` makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    pub node: NodeSection,
    pub supervisor: Supervisor,
    pub health_checks: HealthChecks,
    pub network: Network,
    pub api: Api,
    pub monitoring: Monitoring,
    /// The most that the memory limits of all services may add up to; none: the memory of the host.
    pub memory_budget: Option<ByteSize>,
    pub tiers: Tiers,
    /// Built-in and foreign, enabled or not.
    pub services: BTreeMap<ServiceName, Service>,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSection {
    pub name: String,
    /// Absolute.
    pub data_dir: PathBuf,
    /// Absolute, and short enough that every socket below it fits `sockaddr_un` (107 bytes).
    pub runtime_dir: PathBuf,
    pub resource_limits: ResourceLimits,
}

/// What the node does on a host that cannot enforce the limits of its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceLimits {
    /// It runs and says so in `status`.
    BestEffort,
    /// It does not start.
    Required,
}

/// `[process_management.supervisor]`: the defaults of every service.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervisor {
    /// Was written; has no effect.
    pub check_interval: Option<Duration>,
    pub restart_policy: RestartPolicy,
    pub backoff: Backoff,
    /// How many restarts within `restart_window` are tried before the service is `failed`.
    pub max_restarts: u32,
    pub restart_window: Duration,
    /// The delay before the second restart in a row; the first is immediate. How the delay grows
    /// from there, `backoff` says; never beyond `backoff_max`.
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    /// A run that was ready this long resets the back-off.
    pub stable_after: Duration,
    pub start_timeout: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
}

/// `[process_management.health_checks]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealthChecks {
    pub interval: Duration,
    /// Shorter than `interval`.
    pub timeout: Duration,
    /// Failed checks in a row after which the service is restarted.
    pub unhealthy_threshold: u32,
}

/// `[network]`: not in force yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Network {
    pub listen_addrs: Vec<Multiaddr>,
    pub bootstrap_peers: Vec<Multiaddr>,
}

/// `[api]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Api {
    pub address: IpAddr,
    /// 0: any free port.
    pub http_port: u16,
    /// Serves the same as `http_port`, as does every port of the API.
    pub grpc_port: Option<u16>,
    pub ws_port: Option<u16>,
    pub rate_limit: RateLimit,
}

/// `[api.rate_limit]`: what was written of it; not in force yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RateLimit {
    pub enabled: Option<bool>,
    pub requests_per_minute: Option<u32>,
}

/// `[monitoring]`
#[derive(Debug, Clone, PartialEq)]
pub struct Monitoring {
    pub log_level: Level,
    pub log_target: LogTarget,
    pub log_format: LogFormat,
    /// Lines a second and service that are kept in the long run; 0: no limit.
    pub log_rate: u32,
    /// Lines that may come at once beyond the rate.
    pub log_burst: u32,
    /// Lines kept in memory for each service, for `logs`.
    pub log_buffer_lines: u32,
    pub log_aggregation: LogAggregation,
    /// A further port of the API.
    pub metrics_port: Option<u16>,
    /// Was written; not in force yet.
    pub tracing_endpoint: Option<String>,
}

/// Whether lines of services are kept for `logs`. They go to the console or the journal either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAggregation {
    Kept,
    PassedOn,
}

impl Monitoring {
    /// Lines of each service that are kept; 0: none.
    pub fn kept_lines(&self) -> u32 {
        match self.log_aggregation {
            LogAggregation::Kept => self.log_buffer_lines,
            LogAggregation::PassedOn => 0,
        }
    }
}

/// Where the logs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// To journald where the node was started by a service manager with a journal.
    Auto,
    Journald,
    Console,
}

/// What the console shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    /// Not after a success: exit code 0, or SIGHUP, SIGINT, SIGTERM or SIGPIPE.
    OnFailure,
    Never,
}

/// How the delay between restarts in a row grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Each is twice as long as the one before it.
    Exponential,
    /// All are `backoff_initial`.
    Constant,
}

/// How important a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Core,
    Production,
    Standard,
    BestEffort,
}

/// `[tiers.NAME]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    pub core: TierRules,
    pub production: TierRules,
    pub standard: TierRules,
    pub best_effort: TierRules,
}

/// What a tier gives each instance of its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRules {
    /// The share of a contended processor, against the other instances: 1..=10000.
    pub cpu_weight: u16,
}

impl Tiers {
    pub fn rules(&self, tier: Tier) -> TierRules {
        match tier {
            Tier::Core => self.core,
            Tier::Production => self.production,
            Tier::Standard => self.standard,
            Tier::BestEffort => self.best_effort,
        }
    }
}

/// One `[services.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub kind: Kind,
    pub enabled: bool,
    /// 1..=64
    pub instances: u16,
    /// All exist, and those of an enabled service are enabled; no cycles among the enabled ones.
    pub depends_on: Vec<ServiceName>,
    /// Services after whose restart this one is restarted too; as `depends_on` checked.
    pub restart_with: Vec<ServiceName>,
    pub restart_policy: RestartPolicy,
    pub max_restarts: u32,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
    /// How long the service is out of service before SIGTERM; zero: not at all.
    pub drain: Duration,
    pub readiness: Readiness,
    /// The service must send `WATCHDOG=1` at least this often.
    pub watchdog: Option<Duration>,
    pub notify_access: NotifyAccess,
    /// Descriptors kept for the service over its restarts (`FDSTORE=1`), at most 64.
    pub fd_store_max: u16,
    /// Whether a foreign service is also handed the service's shared socket, as fd 4.
    pub shared_socket: bool,
    /// Where the service's shared socket is; none: below `runtime_dir`.
    pub unix_socket: Option<PathBuf>,
    /// A TCP port of 127.0.0.1 that all instances share.
    pub port: Option<u16>,
    /// A UDP port of 127.0.0.1 that all instances of a foreign service share.
    pub udp_port: Option<u16>,
    pub tier: Tier,
    pub resources: Resources,
    /// The same with what an operator set while the node runs (`set-limits`); none: nothing.
    pub operator_resources: Option<Resources>,
    pub log_rate: u32,
    pub log_burst: u32,
    pub sandbox: Sandbox,
}

impl Service {
    pub fn resources_in_force(&self) -> &Resources {
        self.operator_resources.as_ref().unwrap_or(&self.resources)
    }

    /// The memory limits of all its instances together; none: it has no limit.
    pub fn promised_memory(&self) -> Option<ByteSize> {
        let each = self.resources_in_force().memory?;
        Some(ByteSize(each.0.saturating_mul(u64::from(self.instances))))
    }

    /// Whether it is handed this; a foreign program is handed nothing of the kind.
    pub fn needs(&self, need: Need) -> bool {
        match &self.kind {
            Kind::Builtin(builtin, _) => builtin.needs(need),
            Kind::Foreign(_) => false,
        }
    }

    /// The most instances it may have.
    pub fn most_instances(&self) -> u16 {
        match &self.kind {
            Kind::Builtin(builtin, _) => builtin.entry().instances,
            Kind::Foreign(_) => INSTANCES,
        }
    }
}

/// What is run.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// With what the keys say that only this one has.
    Builtin(Builtin, Sizes),
    Foreign(Foreign),
}

/// What the keys of the catalog say that only one built-in service has; one that is not there: no
/// limit.
pub type Sizes = BTreeMap<&'static str, ByteSize>;

/// Any program.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    pub command: Command,
    pub environment: BTreeMap<String, String>,
    /// Absolute; none: the service's data folder.
    pub working_directory: Option<PathBuf>,
}

/// A program and its arguments. The program is an absolute path, or a bare name looked up in PATH
/// when it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub program: String,
    pub arguments: Vec<String>,
}

/// How the node knows that a service may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The program was executed.
    Started,
    /// It said `READY=1` (sd_notify).
    Notify,
    /// `grpc.health.v1` on its own socket answers SERVING for "".
    Grpc,
    /// Something accepts connections on this TCP port of the loopback interface.
    Port(u16),
}

/// Whose sd_notify messages count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyAccess {
    /// The service's first process only.
    Main,
    /// Every process of the service.
    All,
}

/// What the kernel kills when a service has used up its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OomKill {
    /// All of its processes (`memory.oom.group`): no half of it is left.
    #[default]
    Service,
    /// The one that the OOM killer chooses.
    Process,
}

/// `[services.NAME.resources]`; none: no limit, no protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Of `memory_min`, `memory_low`, `memory_high` and `memory` none is more than a later one.
    pub memory: Option<ByteSize>,
    /// Beyond it the service is throttled and its memory reclaimed.
    pub memory_high: Option<ByteSize>,
    /// Not reclaimed while there is other memory to reclaim.
    pub memory_low: Option<ByteSize>,
    /// Never reclaimed.
    pub memory_min: Option<ByteSize>,
    /// Of its memory, what may be in swap.
    pub memory_swap: Option<ByteSize>,
    pub oom_kill: OomKill,
    /// Processor time of a process in seconds, after which it gets SIGXCPU (RLIMIT_CPU, soft).
    pub cpu_seconds: Option<u64>,
    pub cpu_cores: Option<CpuShare>,
    /// 1..=10000; none: the tier's.
    pub cpu_weight: Option<u16>,
    /// The share of a contended disk: 1..=10000; none: the kernel's default, 100.
    pub io_weight: Option<u16>,
    /// Processes and threads.
    pub max_tasks: Option<u64>,
    /// RLIMIT_NOFILE
    pub max_files: Option<u64>,
    /// RLIMIT_CORE
    pub max_core: Option<ByteSize>,
    /// RLIMIT_FSIZE
    pub max_file_size: Option<ByteSize>,
    /// RLIMIT_STACK
    pub max_stack: Option<ByteSize>,
}

/// `[services.NAME.sandbox]`: beyond what the service's profile takes from every service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The user it runs as; none: the user of the node. Only a node that was started as root can.
    pub user: Option<String>,
    /// None: the user's own.
    pub group: Option<String>,
    /// Without it there is neither a filter nor protection of files.
    pub no_new_privileges: bool,
    /// Those that it keeps.
    pub capabilities: BTreeSet<Capability>,
    pub system_call_filter: SystemCallFilter,
    /// Whether it can use only its own folders, the system's programs, and the paths below.
    pub protect_files: bool,
    /// Absolute; they have to exist when it is started.
    pub read_only_paths: BTreeSet<PathBuf>,
    pub read_write_paths: BTreeSet<PathBuf>,
}

/// Whether system calls that no service needs are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemCallFilter {
    On { given_back: BTreeSet<SystemCall> },
    Off,
}
