//! The effective configuration, every value written out with the place it comes from: as TOML with
//! comments, or as JSON.

use std::fmt::{self, Display};
use std::time::Duration;

use multiaddr::Multiaddr;

use super::Loaded;
use super::exact::{exact_duration, exact_size};
use super::model::{
    Api, Foreign, Kind, LogAggregation, Monitoring, Network, NodeConfig, OomKill, Readiness,
    Resources, Sandbox, Service, Supervisor, SystemCallFilter,
};
use super::origins::Origins;
use super::own_keys;
use super::problem::Place;
use super::report::path;
use super::sandbox::{FILTER_OFF, FILTER_ON};
use super::spellings::{
    BACKOFFS, LOG_FORMATS, LOG_TARGETS, NOTIFY_ACCESS, RESOURCE_LIMITS, RESTART_POLICIES, TIERS,
};
use crate::catalog::{KeySection, Need};
use crate::units::{ByteSize, ServiceName};

/// The effective configuration as TOML, each value's origin in a comment behind it: loaded again,
/// it gives an equal configuration.
pub fn show(loaded: &Loaded) -> String {
    page(&loaded.config).toml(&loaded.origins, |_, _| true)
}

/// What was written of it, and the whole of `node`, where this host's defaults may be others later:
/// loaded again on this host, it gives an equal configuration, and a default is no demand.
pub fn show_written(loaded: &Loaded) -> String {
    let is_wanted = |section: &str, place: &Place| section == "node" || *place != Place::Default;
    page(&loaded.config).toml(&loaded.origins, is_wanted)
}

/// The effective configuration as one JSON object: of each key with its sections, such as
/// `api.http_port`, the `value` as it is written in TOML and the `source` it comes from.
pub fn show_json(loaded: &Loaded) -> String {
    page(&loaded.config).json(&loaded.origins)
}

fn page(config: &NodeConfig) -> Page {
    let mut page = Page::default();
    page.section("node");
    page.text("name", &config.node.name);
    page.text("data_dir", config.node.data_dir.display());
    page.text("runtime_dir", config.node.runtime_dir.display());
    page.text("resource_limits", word(&RESOURCE_LIMITS, config.node.resource_limits));
    supervisor(&mut page, &config.supervisor);
    page.section("process_management.health_checks");
    page.duration("interval", config.health_checks.interval);
    page.duration("timeout", config.health_checks.timeout);
    page.line("unhealthy_threshold", config.health_checks.unhealthy_threshold);
    network(&mut page, &config.network);
    api(&mut page, &config.api);
    monitoring(&mut page, &config.monitoring);
    if let Some(budget) = config.memory_budget {
        page.section("resources");
        page.text("memory", exact_size(budget));
    }
    for (name, tier) in TIERS {
        page.section(&format!("tiers.{name}"));
        page.line("cpu_weight", config.tiers.rules(tier).cpu_weight);
    }
    for (name, one) in &config.services {
        service(&mut page, name, one);
    }
    page
}

fn network(page: &mut Page, network: &Network) {
    page.section("network");
    let texts = |all: &[Multiaddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (listen, peers) = (texts(&network.listen_addrs), texts(&network.bootstrap_peers));
    for (key, texts) in [("listen_addrs", listen), ("bootstrap_peers", peers)] {
        if !texts.is_empty() {
            page.list(key, texts.iter().map(String::as_str));
        }
    }
}

fn api(page: &mut Page, api: &Api) {
    page.section("api");
    page.text("address", api.address);
    page.line("http_port", api.http_port);
    page.limit("grpc_port", api.grpc_port);
    page.limit("ws_port", api.ws_port);
    page.section("api.rate_limit");
    page.if_written("enabled", api.rate_limit.enabled);
    page.if_written("requests_per_minute", api.rate_limit.requests_per_minute);
}

fn monitoring(page: &mut Page, monitoring: &Monitoring) {
    page.section("monitoring");
    page.text("log_level", monitoring.log_level);
    page.text("log_target", word(&LOG_TARGETS, monitoring.log_target));
    page.text("log_format", word(&LOG_FORMATS, monitoring.log_format));
    page.line("log_rate", monitoring.log_rate);
    page.line("log_burst", monitoring.log_burst);
    page.line("log_buffer_lines", monitoring.log_buffer_lines);
    page.limit("metrics_port", monitoring.metrics_port);
    if let Some(endpoint) = &monitoring.tracing_endpoint {
        page.text("tracing_endpoint", endpoint);
    }
    page.section("monitoring.log_aggregation");
    page.line("enabled", monitoring.log_aggregation == LogAggregation::Kept);
}

fn supervisor(page: &mut Page, supervisor: &Supervisor) {
    page.section("process_management.supervisor");
    if let Some(interval) = supervisor.check_interval {
        page.duration("check_interval", interval);
    }
    page.text("restart_policy", word(&RESTART_POLICIES, supervisor.restart_policy));
    page.text("backoff", word(&BACKOFFS, supervisor.backoff));
    page.line("max_restarts", supervisor.max_restarts);
    page.duration("restart_window", supervisor.restart_window);
    page.duration("backoff_initial", supervisor.backoff_initial);
    page.duration("backoff_max", supervisor.backoff_max);
    page.duration("stable_after", supervisor.stable_after);
    page.duration("start_timeout", supervisor.start_timeout);
    page.duration("stop_timeout", supervisor.stop_timeout);
}

fn own_sizes(page: &mut Page, service: &Service, section: KeySection) {
    let Kind::Builtin(builtin, sizes) = &service.kind else { return };
    for key in own_keys::of(Some(*builtin), section) {
        page.size_limit(key.key, sizes.get(key.key).copied());
    }
}

fn service(page: &mut Page, name: &ServiceName, service: &Service) {
    page.section(&format!("services.{name}"));
    page.line("enabled", service.enabled);
    page.line("instances", service.instances);
    page.list("depends_on", service.depends_on.iter().map(ServiceName::as_str));
    page.list("restart_with", service.restart_with.iter().map(ServiceName::as_str));
    page.text("restart_policy", word(&RESTART_POLICIES, service.restart_policy));
    page.line("max_restarts", service.max_restarts);
    page.duration("start_timeout", service.start_timeout);
    page.duration("stop_timeout", service.stop_timeout);
    page.duration("drain", service.drain);
    page.text("tier", word(&TIERS, service.tier));
    if !service.needs(Need::Api) {
        page.limit("port", service.port);
    }
    if let Some(path) = &service.unix_socket {
        page.text("unix_socket", path.display());
    }
    match &service.kind {
        Kind::Builtin(..) => own_sizes(page, service, KeySection::Service),
        Kind::Foreign(program) => foreign(page, program, service),
    }
    page.section(&format!("services.{name}.resources"));
    resources(page, &service.resources);
    own_sizes(page, service, KeySection::Resources);
    page.section(&format!("services.{name}.logs"));
    page.line("rate", service.log_rate);
    page.line("burst", service.log_burst);
    page.section(&format!("services.{name}.sandbox"));
    sandbox(page, &service.sandbox);
    if let Kind::Foreign(program) = &service.kind
        && !program.environment.is_empty()
    {
        page.section(&format!("services.{name}.environment"));
        for (variable, value) in &program.environment {
            page.text(variable, value);
        }
    }
}

fn foreign(page: &mut Page, program: &Foreign, service: &Service) {
    let arguments = program.command.arguments.iter().map(String::as_str);
    page.list("command", std::iter::once(program.command.program.as_str()).chain(arguments));
    if let Some(folder) = &program.working_directory {
        page.text("working_directory", folder.display());
    }
    let readiness = match service.readiness {
        Readiness::Started => "started",
        Readiness::Notify => "notify",
        Readiness::Grpc => "grpc",
        Readiness::Port(_) => "port",
    };
    page.text("readiness", readiness);
    if let Readiness::Port(port) = service.readiness {
        page.line("ready_port", port);
    }
    if let Some(watchdog) = service.watchdog {
        page.duration("watchdog", watchdog);
    }
    page.text("notify_access", word(&NOTIFY_ACCESS, service.notify_access));
    page.line("fd_store_max", service.fd_store_max);
    page.line("shared_socket", service.shared_socket);
    page.limit("udp_port", service.udp_port);
}

fn resources(page: &mut Page, resources: &Resources) {
    page.size_limit("memory", resources.memory);
    page.size_limit("memory_high", resources.memory_high);
    page.size_limit("memory_low", resources.memory_low);
    page.size_limit("memory_min", resources.memory_min);
    page.size_limit("memory_swap", resources.memory_swap);
    page.line("oom_group", resources.oom_kill == OomKill::Service);
    page.limit("cpu_seconds", resources.cpu_seconds);
    page.limit("cpu_cores", resources.cpu_cores);
    page.if_written("cpu_weight", resources.cpu_weight);
    page.if_written("io_weight", resources.io_weight);
    page.limit("max_tasks", resources.max_tasks);
    page.limit("max_files", resources.max_files);
    page.size_limit("max_core", resources.max_core);
    page.size_limit("max_file_size", resources.max_file_size);
    page.size_limit("max_stack", resources.max_stack);
}

fn sandbox(page: &mut Page, sandbox: &Sandbox) {
    for (key, name) in [("user", &sandbox.user), ("group", &sandbox.group)] {
        if let Some(name) = name {
            page.text(key, name);
        }
    }
    page.line("no_new_privileges", sandbox.no_new_privileges);
    page.list("capabilities", sandbox.capabilities.iter().map(|one| one.name()));
    match &sandbox.system_call_filter {
        SystemCallFilter::On { given_back } => {
            page.text("system_call_filter", FILTER_ON);
            page.list("allow_system_calls", given_back.iter().map(|call| call.name()));
        }
        SystemCallFilter::Off => page.text("system_call_filter", FILTER_OFF),
    }
    page.line("protect_files", sandbox.protect_files);
    if sandbox.protect_files {
        for (key, paths) in [
            ("read_only_paths", &sandbox.read_only_paths),
            ("read_write_paths", &sandbox.read_write_paths),
        ] {
            let texts: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            page.list(key, texts.iter().map(AsRef::as_ref));
        }
    }
}

/// Every section with its keys and their values, in the order in which they are shown.
#[derive(Debug, Default)]
struct Page(Vec<(String, Vec<(String, Shown)>)>);

/// A value as it is shown.
#[derive(Debug)]
enum Shown {
    Text(String),
    Texts(Vec<String>),
    /// A number or a truth value, which TOML and JSON spell alike.
    Bare(String),
}

impl Page {
    fn section(&mut self, path: &str) {
        self.0.push((path.to_owned(), Vec::new()));
    }

    fn line(&mut self, key: &str, value: impl Display) {
        self.put(key, Shown::Bare(value.to_string()));
    }

    fn if_written(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }

    fn text(&mut self, key: &str, text: impl Display) {
        self.put(key, Shown::Text(text.to_string()));
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.text(key, exact_duration(duration));
    }

    fn limit(&mut self, key: &str, limit: Option<impl Display>) {
        match limit {
            Some(limit) => self.line(key, limit),
            None => self.text(key, "none"),
        }
    }

    fn size_limit(&mut self, key: &str, limit: Option<ByteSize>) {
        self.text(key, limit.map_or_else(|| "none".to_owned(), exact_size));
    }

    fn list<'i>(&mut self, key: &str, items: impl Iterator<Item = &'i str>) {
        self.put(key, Shown::Texts(items.map(str::to_owned).collect()));
    }

    fn put(&mut self, key: &str, value: Shown) {
        let (_, lines) = self.0.last_mut().expect("every key is shown behind its section's line");
        lines.push((key.to_owned(), value));
    }

    fn toml(&self, origins: &Origins, is_wanted: impl Fn(&str, &Place) -> bool) -> String {
        let mut text = String::new();
        for (section, lines) in &self.0 {
            let mut begin = format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" });
            for (key, value) in lines {
                let origin = origins.of(&path(section, key));
                if is_wanted(section, &origin) {
                    text.push_str(&std::mem::take(&mut begin));
                    text.push_str(&format!("{key} = {value}  # {}\n", comment(&origin)));
                }
            }
        }
        text
    }

    fn json(&self, origins: &Origins) -> String {
        let mut object = serde_json::Map::new();
        for (section, lines) in &self.0 {
            for (key, value) in lines {
                let key = path(section, key);
                let source = origins.of(&key).to_string();
                let shown = serde_json::json!({ "value": value.json(), "source": source });
                object.insert(key, shown);
            }
        }
        serde_json::Value::Object(object).to_string()
    }
}

impl Shown {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Texts(texts) => texts.as_slice().into(),
            Self::Bare(word) => word.parse().expect("JSON spells numbers and truth values alike"),
        }
    }
}

/// As TOML.
impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Texts(texts) => {
                let items: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Bare(word) => f.write_str(word),
        }
    }
}

/// On one line, whatever the file's name is.
fn comment(origin: &Place) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    origin.to_string().chars().map(plain).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map(|(word, _)| *word).expect("the table has every variant: a test reads each back")
}
