//! `status`: asks once or every second, and shows the answer as a table, in detail, or as JSON.

mod detail;
mod json;
mod security;
mod table;
mod words;

pub(super) use json::instance as instance_json;
pub(super) use words::colour;

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::args::StatusArgs;
use super::console::{Console, Kind, Paint};
use super::error::Error;
use super::exit::ExitCode;
use super::logs;
use crate::control::client::Client;
use crate::rpc::pb::node::{InstancePhase, LogsRequest, NodeStatus};

/// How many log lines `status NAME` shows of each instance.
const NEWEST_LINES: u32 = 10;

/// Shows the status once.
pub async fn once(
    node: &mut Client,
    args: &StatusArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let (text, code) = render(node, args, console.paint).await?;
    console.out.write_all(text.as_bytes())?;
    console.out.flush()?;
    Ok(code)
}

/// Shows the status again and again until `end`, or until the node is gone, which is an error.
pub async fn watch(
    node: &mut Client,
    args: &StatusArgs,
    console: &mut Console<'_>,
    every: Duration,
    end: impl Future<Output = ()>,
) -> Result<ExitCode, Error> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return Ok(ExitCode::Ok),
            _ = ticks.tick() => {}
        }
        let (text, _) = render(node, args, console.paint).await?;
        let frame = match (console.kind, args.json) {
            (Kind::Terminal, false) => redraw(&text),
            (Kind::Stream, false) => format!("{text}\n"),
            (Kind::Terminal | Kind::Stream, true) => text,
        };
        console.out.write_all(frame.as_bytes())?;
        console.out.flush()?;
    }
}

/// From the top left corner, each line clearing its rest and the last one everything below: no
/// flicker (ECMA-48 CUP, EL and ED).
fn redraw(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

async fn render(
    node: &mut Client,
    args: &StatusArgs,
    paint: Paint,
) -> Result<(String, ExitCode), Error> {
    let name = args.name.as_deref().unwrap_or_default();
    if args.security {
        let instances = node.security(name).await?;
        let text = if args.json {
            security::json(&instances)
        } else if instances.is_empty() && !name.is_empty() {
            disabled(name)
        } else {
            security::table(&instances, paint)
        };
        return Ok((text, ExitCode::Ok));
    }
    let status = node.status(name).await?;
    let code = if name.is_empty() { ExitCode::Ok } else { readiness(&status) };
    if args.json {
        return Ok((json::render(&status), code));
    }
    if name.is_empty() {
        return Ok((table::render(&status, paint), code));
    }
    if status.instances.is_empty() {
        return Ok((disabled(name), code));
    }
    let mut text = String::new();
    for instance in &status.instances {
        let separator = if text.is_empty() { "" } else { "\n" };
        let lines = newest_lines(node, &instance.instance, paint).await?;
        text += &format!("{separator}{}{lines}", detail::render(instance, paint));
    }
    Ok((text, code))
}

fn disabled(name: &str) -> String {
    format!("{name} is disabled in the configuration\n")
}

/// The newest log lines of an instance, after an empty line; nothing where there are none.
pub(super) async fn newest_lines(
    node: &mut Client,
    instance: &str,
    paint: Paint,
) -> Result<String, Error> {
    let tail = Some(NEWEST_LINES);
    let request = LogsRequest { name: instance.to_owned(), tail, ..LogsRequest::default() };
    let mut records = node.logs(request).await?;
    let mut lines = String::new();
    while let Some(record) = records.next().await? {
        lines += &logs::pretty(&record, paint);
    }
    Ok(if lines.is_empty() { lines } else { format!("\n{lines}") })
}

/// LSB: 0 when it runs, 3 when it does not. A service without an instance is a disabled one.
fn readiness(status: &NodeStatus) -> ExitCode {
    let all_ready = status
        .instances
        .iter()
        .all(|instance| instance.known_phase() == Some(InstancePhase::Ready));
    if all_ready && !status.instances.is_empty() { ExitCode::Ok } else { ExitCode::NotReady }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rpc::pb::node::{
        Binary, Degradation, InstanceHealth, InstanceStatus, Limit, LimitEvents, NodeInfo,
        NodePhase,
    };

    /// A node in trouble: every kind of line has something to say.
    pub(crate) fn troubled() -> NodeStatus {
        let degradation = Degradation {
            name: "cgroup limits".to_owned(),
            missing: "the memory controller is not delegated".to_owned(),
            instead: "rlimits hold".to_owned(),
        };
        let node = NodeInfo {
            name: "alpha".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 4242,
            phase: "degraded".to_owned(),
            node_phase: NodePhase::Degraded.into(),
            uptime_seconds: 88_500.7,
            degradations: vec![degradation],
            memory_bytes: 125 << 20,
            cpu_percent: 2.0,
            api: "http://127.0.0.1:8080".to_owned(),
            runtime_dir: "/run/blackhole".to_owned(),
            data_dir: "/var/lib/blackhole".to_owned(),
            generation: 1,
            build_id: "c41d170e0bf2a22d".to_owned(),
        };
        NodeStatus {
            node: Some(node),
            instances: vec![ready("identity"), waiting("storage"), failed("ledger")],
            disabled: vec!["social".to_owned(), "web".to_owned()],
        }
    }

    pub(crate) fn ready(service: &str) -> InstanceStatus {
        InstanceStatus {
            service: service.to_owned(),
            instance: format!("{service}-0"),
            phase: "ready".to_owned(),
            instance_phase: InstancePhase::Ready.into(),
            pid: 1002,
            restarts: 1,
            uptime_seconds: 88_499.0,
            memory_bytes: 245 << 20,
            memory_limit_bytes: 512 << 20,
            cpu_percent: 5.04,
            socket: format!("/run/blackhole/{service}-0.sock"),
            reason: "the run before ended with SIGKILL".to_owned(),
            health: "healthy".to_owned(),
            instance_health: InstanceHealth::Healthy.into(),
            last_health_check_unix_us: 1_705_314_600_000_000,
            status_text: "serving".to_owned(),
            run: 7,
            ready_seconds: 0.042,
            log_lines_dropped: 3,
            tasks: 12,
            limits: vec![
                limit("memory.max", "536870912", Some("536870912")),
                limit("memory.high", "max", Some("max")),
                limit("cpu.max", "50000 100000", Some("50000 100000")),
                limit("pids.max", "64", None),
            ],
            limit_events: Some(LimitEvents {
                oom_kills: 2,
                memory_max: 7,
                cpu_throttled_periods: 31,
                cpu_throttled_seconds: 1.5,
                ..LimitEvents::default()
            }),
            binary: Some(binary(Some(true))),
        }
    }

    pub(crate) fn binary(current: Option<bool>) -> Binary {
        let (version, build_id) = ("0.1.0".to_owned(), "c41d170e0bf2a22d".to_owned());
        Binary { version, build_id, current }
    }

    fn limit(name: &str, wanted: &str, set: Option<&str>) -> Limit {
        Limit {
            name: name.to_owned(),
            wanted: wanted.to_owned(),
            set: set.map(str::to_owned),
            met: set == Some(wanted),
            matters: wanted != "max",
        }
    }

    fn waiting(service: &str) -> InstanceStatus {
        InstanceStatus {
            service: service.to_owned(),
            instance: format!("{service}-0"),
            phase: "waiting".to_owned(),
            instance_phase: InstancePhase::Waiting.into(),
            reason: "waits for identity".to_owned(),
            health: "unknown".to_owned(),
            memory_limit_bytes: 2 << 30,
            ..InstanceStatus::default()
        }
    }

    pub(crate) fn failed(service: &str) -> InstanceStatus {
        InstanceStatus {
            phase: "failed".to_owned(),
            instance_phase: InstancePhase::Failed.into(),
            restarts: 5,
            reason: "exit code 1\n5 restarts in 1m".to_owned(),
            ..waiting(service)
        }
    }

    #[test]
    fn only_what_is_ready_counts_as_running() {
        let of = |instances| readiness(&NodeStatus { instances, ..NodeStatus::default() });
        assert_eq!(of(vec![ready("a"), ready("b")]), ExitCode::Ok);
        assert_eq!(of(vec![ready("a"), failed("b")]), ExitCode::NotReady);
        assert_eq!(of(vec![]), ExitCode::NotReady);
    }

    #[test]
    fn a_redraw_clears_what_stood_there() {
        assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
