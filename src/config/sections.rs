//! Reads every section but the services: their keys, bounds and defaults.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::addresses::{Meaning, endpoint, multiaddrs, port};
use super::exact::exact_duration;
use super::model::{
    Api, Backoff, HealthChecks, LogAggregation, LogFormat, LogTarget, Monitoring, Network,
    NodeConfig, NodeSection, RateLimit, ResourceLimits, RestartPolicy, Supervisor, TierRules,
    Tiers,
};
use super::report::Report;
use super::section::Section;
use super::services;
use super::spellings::{
    BACKOFFS, LEVELS, LOG_FORMATS, LOG_TARGETS, RESOURCE_LIMITS, RESTART_POLICIES,
};
use super::tree::{Table, Value};
use super::values::{
    MAX_SIZE, Reader, SOME_TIME, Wrong, absolute_path, choice, duration, flag, ip_address,
    log_burst, log_rate, node_name, or_none, size, whole,
};
use crate::units::{ByteSize, Level};

/// Reads the whole tree. What was refused has its default in the result, which is of no use then.
pub(super) fn read(tree: &Table, report: &Report) -> NodeConfig {
    let mut top = Section::top(tree, report);
    let node = node(top.section("node"));
    let mut process_management = top.section("process_management");
    let supervisor = supervisor(process_management.section("supervisor"));
    let health_checks = health_checks(process_management.section("health_checks"));
    process_management.finish();
    let network = network(top.section("network"));
    let api = api(top.section("api"));
    let monitoring = monitoring(top.section("monitoring"));
    let memory_budget = memory_budget(top.section("resources"));
    let tiers = tiers(top.section("tiers"));
    let services = services::read(top.section("services"), &supervisor, &monitoring);
    top.finish();
    NodeConfig {
        node,
        supervisor,
        health_checks,
        network,
        api,
        monitoring,
        memory_budget,
        tiers,
        services,
    }
}

/// Every value is there, for the host's defaults are part of the tree; or it was refused.
fn node(mut section: Section<'_>) -> NodeSection {
    let name = section.or("name", String::new(), node_name());
    let data_dir = section.get("data_dir", absolute_path());
    let runtime_dir = section.get("runtime_dir", absolute_path());
    if data_dir.is_some() && data_dir == runtime_dir {
        let what = "data_dir and runtime_dir are the same folder".to_owned();
        section.clash(["runtime_dir", "data_dir"], what, "two folders");
    }
    let resource_limits =
        section.or("resource_limits", ResourceLimits::BestEffort, choice(&RESOURCE_LIMITS));
    section.finish();
    NodeSection {
        name,
        resource_limits,
        data_dir: data_dir.unwrap_or_default(),
        runtime_dir: runtime_dir.unwrap_or_default(),
    }
}

fn supervisor(mut section: Section<'_>) -> Supervisor {
    let time = || duration(SOME_TIME);
    let check_interval = section.get("check_interval", time());
    let what = "has no effect: the kernel tells at once when a process ends, and nothing is polled";
    section.remark("check_interval", what);
    let (restart_policy, backoff) = restart_policy(&mut section);
    let read = Supervisor {
        check_interval,
        restart_policy,
        backoff,
        max_restarts: section.or("max_restarts", 5, whole(0..=1000)),
        restart_window: section.or("restart_window", Duration::from_secs(300), time()),
        backoff_initial: section.or("backoff_initial", Duration::from_secs(1), time()),
        backoff_max: section.or("backoff_max", Duration::from_secs(60), time()),
        stable_after: section.or("stable_after", Duration::from_secs(30), time()),
        start_timeout: section.or("start_timeout", Duration::from_secs(30), time()),
        stop_timeout: section.or("stop_timeout", Duration::from_secs(10), time()),
    };
    let (initial, most) = (read.backoff_initial, read.backoff_max);
    match backoff {
        Backoff::Exponential if initial > most => {
            let what = format!(
                "backoff_initial ({}) is longer than backoff_max ({})",
                exact_duration(initial),
                exact_duration(most)
            );
            let keys = ["backoff_initial", "backoff_max"];
            section.clash(keys, what, "a backoff_initial of at most backoff_max");
        }
        Backoff::Exponential => {}
        Backoff::Constant => {
            let what = "has no effect beside backoff = \"constant\": no delay is longer than \
                        backoff_initial";
            section.remark("backoff_max", what);
        }
    }
    section.finish();
    read
}

/// "exponential_backoff" says both which ends are followed by a restart and after what time.
fn restart_policy(section: &mut Section<'_>) -> (RestartPolicy, Backoff) {
    let both = RESTART_POLICIES.map(|(word, policy)| (word, (policy, None)));
    let exponential = (RestartPolicy::Always, Some(Backoff::Exponential));
    let words: Vec<_> = both.into_iter().chain([("exponential_backoff", exponential)]).collect();
    let (policy, said) =
        section.or("restart_policy", (RestartPolicy::Always, None), choice(&words));
    let backoff = section.get("backoff", choice(&BACKOFFS));
    if said.is_some() && backoff == Some(Backoff::Constant) {
        let what = "restart_policy = \"exponential_backoff\" and backoff = \"constant\" do not \
                    go together"
            .to_owned();
        let allowed = "restart_policy = \"always\" beside backoff = \"constant\"";
        section.clash(["restart_policy", "backoff"], what, allowed);
    }
    (policy, backoff.or(said).unwrap_or(Backoff::Exponential))
}

fn health_checks(mut section: Section<'_>) -> HealthChecks {
    let time = || duration(SOME_TIME);
    let read = HealthChecks {
        interval: section.or("interval", Duration::from_secs(10), time()),
        timeout: section.or("timeout", Duration::from_secs(5), time()),
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

fn network(mut section: Section<'_>) -> Network {
    let read = Network {
        listen_addrs: multiaddrs(&mut section, "listen_addrs", Meaning::Listen),
        bootstrap_peers: multiaddrs(&mut section, "bootstrap_peers", Meaning::Peer),
    };
    section.not_in_force(&["listen_addrs", "bootstrap_peers"]);
    section.finish();
    read
}

fn api(mut section: Section<'_>) -> Api {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut limit = section.section("rate_limit");
    let rate_limit = RateLimit {
        enabled: limit.get("enabled", flag()),
        requests_per_minute: limit.get("requests_per_minute", whole(1..=1_000_000_000)),
    };
    limit.not_in_force(&["enabled", "requests_per_minute"]);
    limit.finish();
    let read = Api {
        address: section.or("address", loopback, ip_address()),
        http_port: section.or("http_port", 8080, whole(0..=u16::MAX)),
        grpc_port: section.or("grpc_port", None, or_none(port())),
        ws_port: section.or("ws_port", None, or_none(port())),
        rate_limit,
    };
    section.finish();
    read
}

fn monitoring(mut section: Section<'_>) -> Monitoring {
    let mut aggregation = section.section("log_aggregation");
    let log_aggregation = match aggregation.or("enabled", true, flag()) {
        true => LogAggregation::Kept,
        false => LogAggregation::PassedOn,
    };
    let buffer_size = aggregation.get("buffer_size", buffer_lines());
    let lines = section.get("log_buffer_lines", buffer_lines());
    if let (Some(lines), Some(size)) = (lines, buffer_size)
        && lines != size
    {
        let what = format!("log_buffer_lines is {lines} and log_aggregation.buffer_size {size}");
        section.clash(["log_buffer_lines", "log_aggregation"], what, "one of the two");
    }
    aggregation.finish();
    let read = Monitoring {
        log_level: section.or("log_level", Level::Info, level()),
        log_target: section.or("log_target", LogTarget::Auto, choice(&LOG_TARGETS)),
        log_format: section.or("log_format", LogFormat::Pretty, choice(&LOG_FORMATS)),
        log_rate: section.or("log_rate", 10_000, log_rate()),
        log_burst: section.or("log_burst", 20_000, log_burst()),
        log_buffer_lines: lines.or(buffer_size).unwrap_or(10_000),
        log_aggregation,
        metrics_port: section.or("metrics_port", None, or_none(port())),
        tracing_endpoint: section.get("tracing_endpoint", endpoint()),
    };
    section.not_in_force(&["tracing_endpoint"]);
    section.finish();
    read
}

/// The most that the memory limits of all services may add up to.
fn memory_budget(mut section: Section<'_>) -> Option<ByteSize> {
    let budget = section.get("memory", size(ByteSize::mib(1)..=MAX_SIZE));
    section.finish();
    budget
}

fn tiers(mut section: Section<'_>) -> Tiers {
    let mut rules = |key, cpu_weight| {
        let mut tier = section.section(key);
        let cpu_weight = tier.or("cpu_weight", cpu_weight, whole(1..=10_000));
        tier.finish();
        TierRules { cpu_weight }
    };
    let read = Tiers {
        core: rules("core", 400),
        production: rules("production", 200),
        standard: rules("standard", 100),
        best_effort: rules("best_effort", 10),
    };
    section.finish();
    read
}

fn level() -> Reader<impl Fn(&Value) -> Result<Level, Wrong>> {
    choice(&LEVELS)
}

fn buffer_lines() -> Reader<impl Fn(&Value) -> Result<u32, Wrong>> {
    whole(100..=1_000_000)
}
