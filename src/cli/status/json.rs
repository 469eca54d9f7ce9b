//! `status --json`: one object on one line, for scripts. Its keys are stable.

use serde::Serialize;

use super::super::console::rfc3339;
use crate::rpc::pb::node::{self as pb, Degradation, InstanceStatus, NodeInfo, NodeStatus};

#[derive(Serialize)]
struct Status<'a> {
    node: Node<'a>,
    instances: Vec<Instance<'a>>,
    disabled: &'a [String],
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    version: &'a str,
    pid: Option<i32>,
    phase: &'a str,
    uptime_seconds: f64,
    degradations: Vec<Without<'a>>,
    memory_bytes: u64,
    cpu_percent: f64,
    api: &'a str,
    runtime_dir: &'a str,
    data_dir: &'a str,
    generation: u32,
    build_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Without<'a> {
    name: &'a str,
    missing: &'a str,
    instead: &'a str,
}

#[derive(Serialize)]
struct Instance<'a> {
    service: &'a str,
    instance: &'a str,
    phase: &'a str,
    pid: Option<i32>,
    restarts: u64,
    uptime_seconds: f64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    cpu_percent: f64,
    socket: &'a str,
    reason: &'a str,
    health: &'a str,
    last_health_check: Option<String>,
    status_text: &'a str,
    run: u64,
    ready_seconds: f64,
    tasks: u64,
    log_lines_dropped: u64,
    limits: Vec<Limit<'a>>,
    limit_events: Events,
    binary: Option<Binary<'a>>,
}

/// Null: it is not known.
#[derive(Serialize)]
struct Binary<'a> {
    version: Option<&'a str>,
    build_id: Option<&'a str>,
    current: Option<bool>,
}

#[derive(Serialize)]
struct Events {
    oom_kills: u64,
    memory_max: u64,
    memory_high: u64,
    tasks_max: u64,
    cpu_throttled_periods: u64,
    cpu_throttled_seconds: f64,
}

#[derive(Serialize)]
struct Limit<'a> {
    name: &'a str,
    wanted: &'a str,
    set: Option<&'a str>,
    met: bool,
}

/// One instance as `status --json` shows it.
pub fn instance(status: &InstanceStatus) -> serde_json::Value {
    serde_json::to_value(Instance::from(status)).expect("texts and numbers are always JSON")
}

/// The text of `status --json`.
pub fn render(status: &NodeStatus) -> String {
    let absent = NodeInfo::default();
    let object = Status {
        node: Node::from(status.node.as_ref().unwrap_or(&absent)),
        instances: status.instances.iter().map(Instance::from).collect(),
        disabled: &status.disabled,
    };
    let text = serde_json::to_string(&object).expect("strings and numbers are always JSON");
    text + "\n"
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn running(pid: i32) -> Option<i32> {
    (pid != 0).then_some(pid)
}

impl<'a> From<&'a NodeInfo> for Node<'a> {
    fn from(node: &'a NodeInfo) -> Self {
        Self {
            name: &node.name,
            version: &node.version,
            pid: running(node.pid),
            phase: &node.phase,
            uptime_seconds: node.uptime_seconds,
            degradations: node.degradations.iter().map(Without::from).collect(),
            memory_bytes: node.memory_bytes,
            cpu_percent: node.cpu_percent,
            api: &node.api,
            runtime_dir: &node.runtime_dir,
            data_dir: &node.data_dir,
            generation: node.generation,
            build_id: known(&node.build_id),
        }
    }
}

impl<'a> From<&'a Degradation> for Without<'a> {
    fn from(degradation: &'a Degradation) -> Self {
        Self {
            name: &degradation.name,
            missing: &degradation.missing,
            instead: &degradation.instead,
        }
    }
}

impl<'a> From<&'a pb::Limit> for Limit<'a> {
    fn from(limit: &'a pb::Limit) -> Self {
        Self { name: &limit.name, wanted: &limit.wanted, set: limit.set.as_deref(), met: limit.met }
    }
}

impl<'a> From<&'a pb::Binary> for Binary<'a> {
    fn from(binary: &'a pb::Binary) -> Self {
        let pb::Binary { version, build_id, current } = binary;
        Self { version: known(version), build_id: known(build_id), current: *current }
    }
}

impl From<pb::LimitEvents> for Events {
    fn from(events: pb::LimitEvents) -> Self {
        Self {
            oom_kills: events.oom_kills,
            memory_max: events.memory_max,
            memory_high: events.memory_high,
            tasks_max: events.tasks_max,
            cpu_throttled_periods: events.cpu_throttled_periods,
            cpu_throttled_seconds: events.cpu_throttled_seconds,
        }
    }
}

impl<'a> From<&'a InstanceStatus> for Instance<'a> {
    fn from(instance: &'a InstanceStatus) -> Self {
        let checked = instance.last_health_check_unix_us;
        Self {
            service: &instance.service,
            instance: &instance.instance,
            phase: &instance.phase,
            pid: running(instance.pid),
            restarts: instance.restarts,
            uptime_seconds: instance.uptime_seconds,
            memory_bytes: instance.memory_bytes,
            memory_limit_bytes: instance.memory_limit_bytes,
            cpu_percent: instance.cpu_percent,
            socket: &instance.socket,
            reason: &instance.reason,
            health: &instance.health,
            last_health_check: (checked != 0).then(|| rfc3339(checked)),
            status_text: &instance.status_text,
            run: instance.run,
            ready_seconds: instance.ready_seconds,
            tasks: instance.tasks,
            log_lines_dropped: instance.log_lines_dropped,
            limits: instance.limits.iter().map(Limit::from).collect(),
            limit_events: instance.limit_events.unwrap_or_default().into(),
            binary: instance.binary.as_ref().map(Binary::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failed, ready, troubled};
    use super::*;
    use crate::rpc::pb::node::NodeStatus;

    #[test]
    fn the_object_has_exactly_the_promised_keys_in_order() {
        let status = NodeStatus { instances: vec![ready("identity")], ..troubled() };
        let expected = concat!(
            r#"{"node":{"name":"alpha","version":"0.1.0","pid":4242,"phase":"degraded","#,
            r#""uptime_seconds":88500.7,"degradations":[{"name":"cgroup limits","#,
            r#""missing":"the memory controller is not delegated","#,
            r#""instead":"rlimits hold"}],"memory_bytes":131072000,"cpu_percent":2.0,"#,
            r#""api":"http://127.0.0.1:8080","runtime_dir":"/run/blackhole","#,
            r#""data_dir":"/var/lib/blackhole","generation":1,"build_id":"c41d170e0bf2a22d"},"#,
            r#""instances":[{"service":"identity","#,
            r#""instance":"identity-0","phase":"ready","pid":1002,"restarts":1,"#,
            r#""uptime_seconds":88499.0,"memory_bytes":256901120,"#,
            r#""memory_limit_bytes":536870912,"cpu_percent":5.04,"#,
            r#""socket":"/run/blackhole/identity-0.sock","#,
            r#""reason":"the run before ended with SIGKILL","health":"healthy","#,
            r#""last_health_check":"2024-01-15T10:30:00.000000Z","status_text":"serving","#,
            r#""run":7,"ready_seconds":0.042,"tasks":12,"log_lines_dropped":3,"#,
            r#""limits":[{"name":"memory.max","wanted":"536870912","set":"536870912","#,
            r#""met":true},{"name":"memory.high","wanted":"max","set":"max","met":true},"#,
            r#"{"name":"cpu.max","wanted":"50000 100000","set":"50000 100000","met":true},"#,
            r#"{"name":"pids.max","wanted":"64","set":null,"met":false}],"#,
            r#""limit_events":{"oom_kills":2,"memory_max":7,"memory_high":0,"tasks_max":0,"#,
            r#""cpu_throttled_periods":31,"cpu_throttled_seconds":1.5},"#,
            r#""binary":{"version":"0.1.0","build_id":"c41d170e0bf2a22d","current":true}}],"#,
            r#""disabled":["social","web"]}"#,
            "\n"
        );
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn what_does_not_exist_is_null() {
        let status = NodeStatus { instances: vec![failed("ledger")], ..NodeStatus::default() };
        let parsed: serde_json::Value = serde_json::from_str(&render(&status)).unwrap();
        let instance = &parsed["instances"][0];
        assert_eq!(instance["pid"], serde_json::Value::Null);
        assert_eq!(instance["last_health_check"], serde_json::Value::Null);
        assert_eq!(instance["binary"], serde_json::Value::Null);
        assert_eq!(parsed["node"]["build_id"], serde_json::Value::Null);
        assert_eq!(instance["reason"], "exit code 1\n5 restarts in 1m");
        let shown = InstanceStatus { binary: Some(pb::Binary::default()), ..ready("identity") };
        let unknown = serde_json::json!({ "version": null, "build_id": null, "current": null });
        assert_eq!(self::instance(&shown)["binary"], unknown);
    }
}
