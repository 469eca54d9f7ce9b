//! The page `/health`: the node and its services in one JSON object. Its keys are stable.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::instance_health::InstanceHealth;
use super::status_feed::{FeedError, Snapshot};
use crate::rpc::pb::node::InstanceStatus;
use crate::units::{ByteSize, human_duration};

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Overall {
    Healthy,
    Degraded,
    Unhealthy,
}

#[derive(Serialize)]
struct Health<'a> {
    status: Overall,
    version: &'a str,
    uptime: String,
    node: &'a str,
    degradations: Vec<&'a str>,
    orchestrator: Orchestrator,
    services: BTreeMap<&'a str, Service<'a>>,
}

#[derive(Serialize)]
struct Orchestrator {
    pid: i32,
    memory: String,
    cpu: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Service<'a> {
    Disabled {
        status: InstanceHealth,
        reason: &'static str,
    },
    One(Figures),
    Several {
        #[serde(flatten)]
        together: Figures,
        instances: Vec<Named<'a>>,
    },
}

#[derive(Serialize)]
struct Named<'a> {
    instance: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct Figures {
    status: InstanceHealth,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    pid: Option<i32>,
    restarts: u64,
    memory: String,
    cpu: String,
    last_health_check: Option<String>,
}

#[derive(Serialize)]
struct Unknown {
    status: Overall,
    reason: String,
}

/// The page when the orchestrator answered.
pub fn known(snapshot: &Snapshot) -> String {
    let node = &snapshot.node;
    let wanted = |instance| InstanceHealth::of(instance).is_wanted();
    let all_wanted = snapshot.instances.iter().all(wanted);
    page(&Health {
        status: if all_wanted { Overall::Healthy } else { Overall::Degraded },
        version: &node.version,
        uptime: uptime(node.uptime_seconds),
        node: &node.name,
        degradations: node.degradations.iter().map(|one| one.name.as_str()).collect(),
        orchestrator: Orchestrator {
            pid: node.pid,
            memory: ByteSize(node.memory_bytes).to_string(),
            cpu: percent(node.cpu_percent),
        },
        services: services(snapshot),
    })
}

/// The page when it did not.
pub fn unknown(error: &FeedError) -> String {
    page(&Unknown { status: Overall::Unhealthy, reason: error.to_string() })
}

fn page<T: Serialize>(object: &T) -> String {
    let text = serde_json::to_string_pretty(object);
    text.expect("strings, numbers and maps with string keys are always JSON") + "\n"
}

fn services(snapshot: &Snapshot) -> BTreeMap<&str, Service<'_>> {
    let mut instances: BTreeMap<&str, Vec<&InstanceStatus>> = BTreeMap::new();
    for instance in &snapshot.instances {
        instances.entry(&instance.service).or_default().push(instance);
    }
    let off = || Service::Disabled { status: InstanceHealth::Stopped, reason: "disabled" };
    let mut services: BTreeMap<_, _> =
        snapshot.disabled.iter().map(|name| (name.as_str(), off())).collect();
    // A service that was just disabled may still have an instance that is stopping.
    services.extend(instances.into_iter().map(|(name, of)| (name, service(&of))));
    services
}

fn service<'a>(instances: &[&'a InstanceStatus]) -> Service<'a> {
    if let [only] = instances {
        return Service::One(figures(only));
    }
    let named = |one: &&'a InstanceStatus| Named { instance: &one.instance, figures: figures(one) };
    Service::Several {
        together: figures(&together(instances)),
        instances: instances.iter().map(named).collect(),
    }
}

/// The sums, the first process, and the phase, health and reason of the worst instance. The last
/// health check is the oldest one; `None` while an instance was never checked.
fn together(instances: &[&InstanceStatus]) -> InstanceStatus {
    let worst = instances.iter().rev().max_by_key(|one| InstanceHealth::of(one));
    let worst = worst.map(|worst| InstanceStatus {
        reason: InstanceHealth::of(worst)
            .reason(worst)
            .map(|reason| format!("{}: {reason}", worst.instance))
            .unwrap_or_default(),
        ..(*worst).clone()
    });
    let sum = |part: fn(&InstanceStatus) -> u64| {
        instances.iter().map(|one| part(one)).fold(0, u64::saturating_add)
    };
    let all_limited = instances.iter().all(|one| one.memory_limit_bytes != 0);
    let checks = instances.iter().map(|one| one.last_health_check_unix_us);
    InstanceStatus {
        pid: instances.iter().map(|one| one.pid).find(|pid| *pid != 0).unwrap_or_default(),
        restarts: sum(|one| one.restarts),
        memory_bytes: sum(|one| one.memory_bytes),
        memory_limit_bytes: if all_limited { sum(|one| one.memory_limit_bytes) } else { 0 },
        cpu_percent: instances.iter().map(|one| one.cpu_percent).sum(),
        last_health_check_unix_us: checks.min().unwrap_or_default(),
        ..worst.unwrap_or_default()
    }
}

fn figures(instance: &InstanceStatus) -> Figures {
    let status = InstanceHealth::of(instance);
    Figures {
        status,
        reason: status.reason(instance),
        pid: (instance.pid != 0).then_some(instance.pid),
        restarts: instance.restarts,
        memory: memory(instance.memory_bytes, instance.memory_limit_bytes),
        cpu: percent(instance.cpu_percent),
        last_health_check: rfc3339(instance.last_health_check_unix_us),
    }
}

/// `24h35m`
fn uptime(seconds: f64) -> String {
    human_duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()).replace(' ', "")
}

/// Whole percents of one processor; NaN is 0.
fn percent(percent: f64) -> String {
    format!("{:.0}%", percent.max(0.0))
}

fn memory(used: u64, limit: u64) -> String {
    let used = ByteSize(used);
    if limit == 0 { used.to_string() } else { format!("{used}/{}", ByteSize(limit)) }
}

/// `2024-01-15T10:30:00Z`; `None` for 0, which means never. Times that RFC 3339 cannot write become
/// its first or last.
fn rfc3339(unix_us: i64) -> Option<String> {
    /// 9999-12-31T23:59:59Z
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(unix_us / 1_000_000).unwrap_or(0).min(LAST);
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
    (unix_us != 0).then(|| time.to_string())
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
