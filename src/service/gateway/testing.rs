//! For tests: statuses, and an orchestrator that tells them.

use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::status_feed::Snapshot;
use crate::rpc::pb::node::status_feed_server::{StatusFeed, StatusFeedServer};
use crate::rpc::pb::node::{
    Degradation, InstanceStatus, LimitEvents, NodeInfo, NodeStatus, StatusFeedRequest,
};
use crate::rpc::{Peers, Sockets, serve};

/// 2024-01-15T10:30:00Z
pub const CHECKED: i64 = 1_705_314_600_000_000;
pub const MIB: u64 = 1 << 20;

pub fn snapshot(instances: Vec<InstanceStatus>, disabled: &[&str]) -> Snapshot {
    let node = NodeInfo {
        name: "alpha".into(),
        version: "0.1.0".into(),
        pid: 4242,
        phase: "ready".into(),
        uptime_seconds: 88_500.7,
        memory_bytes: 125 * MIB,
        cpu_percent: 2.04,
        ..NodeInfo::default()
    };
    let disabled = disabled.iter().map(ToString::to_string).collect();
    Snapshot { node, instances, disabled }
}

/// With a limit of 512 MiB, restarted once, healthy.
pub fn ready(instance: &str) -> InstanceStatus {
    let (service, _) = instance.rsplit_once('-').unwrap();
    InstanceStatus {
        service: service.into(),
        instance: instance.into(),
        phase: "ready".into(),
        pid: 1002,
        restarts: 1,
        uptime_seconds: 60.5,
        memory_bytes: 245 * MIB,
        memory_limit_bytes: 512 * MIB,
        cpu_percent: 5.04,
        reason: "last run: SIGKILL".into(),
        health: "healthy".into(),
        last_health_check_unix_us: CHECKED,
        log_lines_dropped: 3,
        tasks: 12,
        limit_events: Some(LimitEvents {
            oom_kills: 2,
            memory_max: 7,
            memory_high: 5,
            tasks_max: 4,
            cpu_throttled_periods: 31,
            cpu_throttled_seconds: 1.5,
        }),
        ..InstanceStatus::default()
    }
}

/// Without a process, a limit or a health check.
pub fn failed(instance: &str) -> InstanceStatus {
    InstanceStatus {
        phase: "failed".into(),
        pid: 0,
        restarts: 5,
        uptime_seconds: 0.0,
        memory_bytes: 0,
        memory_limit_bytes: 0,
        cpu_percent: 0.0,
        reason: "exit code 1\n5 restarts in 1m".into(),
        health: "unknown".into(),
        last_health_check_unix_us: 0,
        tasks: 0,
        ..ready(instance)
    }
}

pub fn without(name: &str) -> Degradation {
    Degradation { name: name.into(), ..Degradation::default() }
}

impl From<Snapshot> for NodeStatus {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { node, instances, disabled } = snapshot;
        Self { node: Some(node), instances, disabled }
    }
}

type StatusStream = Pin<Box<dyn Stream<Item = Result<NodeStatus, Status>> + Send>>;

/// Tells `status`, once `gate` has a permit, and after `failures` wrong starts.
struct Told {
    failures: usize,
    status: NodeStatus,
    gate: Arc<Semaphore>,
    asked: watch::Sender<usize>,
    /// None: it is of a version that tells of no changes.
    changes: Option<watch::Receiver<u64>>,
}

#[tonic::async_trait]
impl StatusFeed for Told {
    async fn get(&self, _: Request<StatusFeedRequest>) -> Result<Response<NodeStatus>, Status> {
        self.asked.send_modify(|count| *count += 1);
        if *self.asked.borrow() <= self.failures {
            return Err(Status::internal("not yet"));
        }
        let _passing = self.gate.acquire().await.unwrap();
        Ok(Response::new(self.status.clone()))
    }

    type WatchStream = StatusStream;

    async fn watch(&self, _: Request<StatusFeedRequest>) -> Result<Response<StatusStream>, Status> {
        let Some(changes) = self.changes.clone() else {
            return Err(Status::unimplemented("no such method"));
        };
        let status = self.status.clone();
        let statuses = WatchStream::new(changes).map(move |_| Ok(status.clone()));
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// A served `StatusFeed`.
pub struct Orchestrator {
    gate: Arc<Semaphore>,
    asked: watch::Receiver<usize>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Orchestrator {
    /// Tells nothing until it is opened.
    pub fn silent(status: impl Into<NodeStatus>) -> (Self, UnixStream) {
        Self::start(status, 0, None)
    }

    pub fn telling(status: impl Into<NodeStatus>) -> (Self, UnixStream) {
        Self::failing(status, 0)
    }

    /// Tells after it failed so often.
    pub fn failing(status: impl Into<NodeStatus>, failures: usize) -> (Self, UnixStream) {
        let (orchestrator, stream) = Self::start(status, failures, None);
        orchestrator.open();
        (orchestrator, stream)
    }

    /// Tells of a change whenever `changes` does.
    pub fn changing(
        status: impl Into<NodeStatus>,
        changes: watch::Receiver<u64>,
    ) -> (Self, UnixStream) {
        let (orchestrator, stream) = Self::start(status, 0, Some(changes));
        orchestrator.open();
        (orchestrator, stream)
    }

    fn start(
        status: impl Into<NodeStatus>,
        failures: usize,
        changes: Option<watch::Receiver<u64>>,
    ) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (asked, count) = watch::channel(0);
        let gate = Arc::new(Semaphore::new(0));
        let (status, told_gate) = (status.into(), Arc::clone(&gate));
        let told = Told { failures, status, gate: told_gate, asked, changes };
        let routes = Routes::new(StatusFeedServer::new(told));
        let sockets = Sockets { connected: vec![ours], ..Sockets::default() };
        let (end, ending) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let told = async { ending.await.unwrap_or(()) };
            serve(sockets, routes, Peers::Anyone, Duration::ZERO, told).await.unwrap();
        });
        (Self { gate, asked: count, end, task }, theirs)
    }

    pub fn open(&self) {
        self.gate.add_permits(1);
    }

    /// From here on it tells nothing until it is opened.
    pub fn shut(&self) {
        assert_eq!(self.gate.forget_permits(1), 1);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    pub async fn until_asked(&mut self, times: usize) {
        self.asked.wait_for(|count| *count >= times).await.unwrap();
    }

    /// Closes its end of the connection.
    pub async fn die(self) {
        self.end.send(()).unwrap();
        self.task.await.unwrap();
    }
}
