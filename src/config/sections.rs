//! Reads every section but the services: their keys, bounds and defaults.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::model::{
    Api, HealthChecks, LogFormat, Monitoring, NodeConfig, NodeSection, RestartPolicy, Supervisor,
};
use super::report::Report;
use super::section::Section;
use super::services;
use super::show::exact_duration;
use super::tree::{Table, Value};
use super::values::{
    SOME_TIME, Wrong, absolute_path, choice, duration, ip_address, level, node_name, whole,
};
use crate::units::Level;

pub(super) const RESTART_POLICIES: [(&str, RestartPolicy); 3] = [
    ("always", RestartPolicy::Always),
    ("on_failure", RestartPolicy::OnFailure),
    ("never", RestartPolicy::Never),
];

pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];

/// Reads the whole tree. What was refused has its default in the result, which is of no use then.
pub(super) fn read(tree: &Table, report: &Report) -> NodeConfig {
    let mut top = Section::top(tree, report);
    let node = node(top.section("node"));
    let mut process_management = top.section("process_management");
    let supervisor = supervisor(process_management.section("supervisor"));
    let health_checks = health_checks(process_management.section("health_checks"));
    process_management.finish();
    let api = api(top.section("api"));
    let monitoring = monitoring(top.section("monitoring"));
    let services = services::read(top.section("services"), &supervisor, &monitoring);
    top.finish();
    NodeConfig { node, supervisor, health_checks, api, monitoring, services }
}

/// Every value is there, for the host's defaults are part of the tree; or it was refused.
fn node(mut section: Section<'_>) -> NodeSection {
    let name = section.or("name", String::new(), node_name);
    let data_dir = section.get("data_dir", absolute_path);
    let runtime_dir = section.get("runtime_dir", absolute_path);
    if data_dir.is_some() && data_dir == runtime_dir {
        let what = "data_dir and runtime_dir are the same folder".to_owned();
        section.clash(["runtime_dir", "data_dir"], what, "two folders");
    }
    section.finish();
    NodeSection {
        name,
        data_dir: data_dir.unwrap_or_default(),
        runtime_dir: runtime_dir.unwrap_or_default(),
    }
}

fn supervisor(mut section: Section<'_>) -> Supervisor {
    let time = duration(SOME_TIME);
    let policies = choice(&RESTART_POLICIES);
    let read = Supervisor {
        restart_policy: section.or("restart_policy", RestartPolicy::Always, policies),
        max_restarts: section.or("max_restarts", 5, whole(0..=1000)),
        restart_window: section.or("restart_window", Duration::from_secs(300), &time),
        backoff_initial: section.or("backoff_initial", Duration::from_secs(1), &time),
        backoff_max: section.or("backoff_max", Duration::from_secs(60), &time),
        stable_after: section.or("stable_after", Duration::from_secs(30), &time),
        start_timeout: section.or("start_timeout", Duration::from_secs(30), &time),
        stop_timeout: section.or("stop_timeout", Duration::from_secs(10), &time),
    };
    let (initial, most) = (read.backoff_initial, read.backoff_max);
    if initial > most {
        let what = format!(
            "backoff_initial ({}) is longer than backoff_max ({})",
            exact_duration(initial),
            exact_duration(most)
        );
        let keys = ["backoff_initial", "backoff_max"];
        section.clash(keys, what, "a backoff_initial of at most backoff_max");
    }
    section.finish();
    read
}

fn health_checks(mut section: Section<'_>) -> HealthChecks {
    let time = duration(SOME_TIME);
    let read = HealthChecks {
        interval: section.or("interval", Duration::from_secs(10), &time),
        timeout: section.or("timeout", Duration::from_secs(5), &time),
        unhealthy_threshold: section.or("unhealthy_threshold", 3, whole(1..=100)),
    };
    if read.timeout >= read.interval {
        let what = format!(
            "timeout ({}) is not shorter than interval ({})",
            exact_duration(read.timeout),
            exact_duration(read.interval)
        );
        section.clash(["timeout", "interval"], what, "a timeout shorter than the interval");
    }
    section.finish();
    read
}

fn api(mut section: Section<'_>) -> Api {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let read = Api {
        address: section.or("address", loopback, ip_address),
        http_port: section.or("http_port", 8080, whole(0..=u16::MAX)),
    };
    section.finish();
    read
}

fn monitoring(mut section: Section<'_>) -> Monitoring {
    let read = Monitoring {
        log_level: section.or("log_level", Level::Info, level),
        log_format: section.or("log_format", LogFormat::Pretty, choice(&LOG_FORMATS)),
        log_rate: section.or("log_rate", 10_000, log_rate),
        log_burst: section.or("log_burst", 20_000, log_burst),
        log_buffer_lines: section.or("log_buffer_lines", 10_000, whole(100..=1_000_000)),
    };
    section.finish();
    read
}

/// Lines a second; 0: no limit.
pub(super) fn log_rate(value: &Value) -> Result<u32, Wrong> {
    whole(0..=1_000_000)(value)
}

/// Lines at once.
pub(super) fn log_burst(value: &Value) -> Result<u32, Wrong> {
    whole(1..=10_000_000)(value)
}
