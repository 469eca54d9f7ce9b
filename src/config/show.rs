//! The effective configuration as TOML, every value written out.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::foreign::NOTIFY_ACCESS;
use super::model::{
    FileLimits, Foreign, Kind, NodeConfig, Readiness, Resources, Service, Supervisor,
};
use super::sections::{LOG_FORMATS, RESTART_POLICIES};
use crate::catalog::Builtin;
use crate::units::{ByteSize, ServiceName};

/// The effective configuration: loaded again, it gives an equal one.
pub fn show(config: &NodeConfig) -> String {
    let mut page = Page::default();
    page.section("node");
    page.text("name", &config.node.name);
    page.text("data_dir", config.node.data_dir.display());
    page.text("runtime_dir", config.node.runtime_dir.display());
    supervisor(&mut page, &config.supervisor);
    page.section("process_management.health_checks");
    page.duration("interval", config.health_checks.interval);
    page.duration("timeout", config.health_checks.timeout);
    page.line("unhealthy_threshold", config.health_checks.unhealthy_threshold);
    page.section("api");
    page.text("address", config.api.address);
    page.line("http_port", config.api.http_port);
    page.section("monitoring");
    page.text("log_level", config.monitoring.log_level);
    page.text("log_format", word(&LOG_FORMATS, config.monitoring.log_format));
    page.line("log_rate", config.monitoring.log_rate);
    page.line("log_burst", config.monitoring.log_burst);
    page.line("log_buffer_lines", config.monitoring.log_buffer_lines);
    for (name, one) in &config.services {
        service(&mut page, name, one);
    }
    page.0
}

fn supervisor(page: &mut Page, supervisor: &Supervisor) {
    page.section("process_management.supervisor");
    page.text("restart_policy", word(&RESTART_POLICIES, supervisor.restart_policy));
    page.line("max_restarts", supervisor.max_restarts);
    page.duration("restart_window", supervisor.restart_window);
    page.duration("backoff_initial", supervisor.backoff_initial);
    page.duration("backoff_max", supervisor.backoff_max);
    page.duration("stable_after", supervisor.stable_after);
    page.duration("start_timeout", supervisor.start_timeout);
    page.duration("stop_timeout", supervisor.stop_timeout);
}

fn service(page: &mut Page, name: &ServiceName, service: &Service) {
    page.section(&format!("services.{name}"));
    page.line("enabled", service.enabled);
    page.line("instances", service.instances);
    page.list("depends_on", service.depends_on.iter().map(ServiceName::as_str));
    page.text("restart_policy", word(&RESTART_POLICIES, service.restart_policy));
    page.line("max_restarts", service.max_restarts);
    page.duration("start_timeout", service.start_timeout);
    page.duration("stop_timeout", service.stop_timeout);
    page.duration("drain", service.drain);
    match &service.kind {
        Kind::Builtin(Builtin::Storage, limits) => page.size("max_block", limits.max_item),
        Kind::Builtin(Builtin::Ledger, limits) => page.size("max_entry", limits.max_item),
        Kind::Builtin(Builtin::Identity | Builtin::Gateway, _) => {}
        Kind::Foreign(program) => foreign(page, program, service),
    }
    page.section(&format!("services.{name}.resources"));
    resources(page, &service.resources);
    if let Kind::Builtin(Builtin::Storage, FileLimits { quota, .. }) = service.kind {
        page.limit("disk", (quota != 0).then_some(ByteSize(quota)).map(quoted_size));
    }
    page.section(&format!("services.{name}.logs"));
    page.line("rate", service.log_rate);
    page.line("burst", service.log_burst);
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
}

fn resources(page: &mut Page, resources: &Resources) {
    page.limit("memory", resources.memory.map(quoted_size));
    page.limit("cpu_cores", resources.cpu_cores);
    page.limit("max_tasks", resources.max_tasks);
    page.limit("max_files", resources.max_files);
    page.limit("max_core", resources.max_core.map(quoted_size));
    page.limit("max_file_size", resources.max_file_size.map(quoted_size));
    page.limit("max_stack", resources.max_stack.map(quoted_size));
}

/// The text so far.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn section(&mut self, path: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.put(format_args!("{gap}[{path}]\n"));
    }

    fn line(&mut self, key: &str, value: impl Display) {
        self.put(format_args!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, text: impl Display) {
        self.line(key, quoted(&text.to_string()));
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.text(key, exact_duration(duration));
    }

    fn size(&mut self, key: &str, bytes: u64) {
        self.line(key, quoted_size(ByteSize(bytes)));
    }

    fn limit(&mut self, key: &str, limit: Option<impl Display>) {
        match limit {
            Some(limit) => self.line(key, limit),
            None => self.text(key, "none"),
        }
    }

    fn list<'i>(&mut self, key: &str, items: impl Iterator<Item = &'i str>) {
        let items: Vec<String> = items.map(quoted).collect();
        self.line(key, format_args!("[{}]", items.join(", ")));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a String does not fail");
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// In the unit in which it is exact.
fn quoted_size(size: ByteSize) -> String {
    let shown = size.to_string();
    let is_exact = shown.parse() == Ok(size);
    quoted(&if is_exact { shown } else { format!("{}B", size.0) })
}

/// Exact to the nanosecond, and no unit that is zero: `1h 30m`.
pub(super) fn exact_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("days", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanos) in UNITS {
        if rest >= nanos {
            parts.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map(|(word, _)| *word).expect("the table has every variant: a test reads each back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::parse_duration;

    #[test]
    fn durations_and_sizes_are_shown_exactly() {
        for nanos in
            [0, 1, 999, 1_500_000, 61_000_000_000, 86_400_000_000_001, 31_536_000_000_000_000]
        {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&exact_duration(duration)), Ok(duration));
        }
        assert_eq!(exact_duration(Duration::from_secs(5400)), "1h 30m");
        assert_eq!(quoted_size(ByteSize::mib(512)), "\"512MiB\"");
        assert_eq!(quoted_size(ByteSize((1 << 20) + 1)), "\"1048577B\"");
    }
}
