//! The observers of all runs: their ends, notify messages, health, logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::logs::LogSources;
use crate::act::{Pipe, RunFd, RunOrigin, StartedRun};
use crate::config::HealthChecks;
use crate::control::server::ControlService;
use crate::control::server::StatusFeedService;
use crate::linux::connection_broker::{BrokerRequest, ConnectionBroker};
use crate::linux::fds;
use crate::linux::members::Members;
use crate::observe::clock::Clock;
use crate::observe::exits::{self, MainProcess};
use crate::observe::health::{self, HealthPlan};
use crate::observe::logs::{Durability, Ended};
use crate::observe::news::{Observation, Reporter};
use crate::observe::notify::{self, Trusted};
use crate::observe::starvation::Scheduling;
use crate::observe::{logs, memory, port};
use crate::plan::{InstancePlan, Readiness};
use crate::rpc;
use crate::telemetry::{LogStore, Rest, Source, Spool, Stream};
use crate::units::{InstanceId, Pid, RunId, ServiceName};

/// What every observer needs.
#[derive(Debug, Clone)]
pub(super) struct ObserverContext {
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
    pub(super) log_store: LogStore,
    pub(super) health_checks: watch::Sender<HealthChecks>,
    /// The services whose logs can be asked for.
    pub(super) services: watch::Sender<Arc<[ServiceName]>>,
    pub(super) control_service: ControlService<LogSources>,
    pub(super) stop_pumps: watch::Sender<Pumps>,
}

/// The observers of all runs, and the pumps of their logs.
#[derive(Debug)]
pub(super) struct Observers {
    pub(super) context: ObserverContext,
    /// The observers of each run; they end with it.
    of_runs: BTreeMap<RunId, JoinSet<()>>,
    /// The pumps, which read the logs of a run until all its processes are gone.
    pub(super) pumps: JoinSet<PumpEnded>,
}

impl Observers {
    pub(super) fn new(context: ObserverContext) -> Self {
        Self { context, of_runs: BTreeMap::new(), pumps: JoinSet::new() }
    }

    /// Without a plan the instance is being retired, and only its end is observed.
    pub(super) fn watch(
        &mut self,
        id: &InstanceId,
        run: RunId,
        plan: Option<&InstancePlan>,
        started_run: StartedRun,
    ) {
        let of_run = attach(&self.context, (id, run), plan, started_run, &mut self.pumps);
        self.of_runs.insert(run, of_run);
    }

    /// Kills the members of the run until none is left, and reports that.
    pub(super) fn clear(&mut self, run: RunId, members: Members) {
        let reporter = Reporter::new(run, self.context.observations.clone());
        self.of_runs.entry(run).or_default().spawn(exits::clear(members, reporter));
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.of_runs.remove(&run);
    }

    pub(super) fn forget_all(&mut self) {
        self.of_runs.clear();
    }

    /// Reads a log pipe of a run that has ended.
    pub(super) fn read_on(&mut self, run: (&InstanceId, RunId, Pid), pipe: (Pipe, RunFd)) {
        read_log(&self.context, run, pipe, &mut self.pumps);
    }
}

/// Whether pumps read on, or stop for an exec handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumps {
    Run,
    Stop,
}

/// How long status calls of a gateway that are in flight may take when its run ends.
const STATUS_FEED_DRAIN: Duration = Duration::from_millis(100);

/// A pump has ended.
#[derive(Debug)]
pub(super) struct PumpEnded {
    pub(super) instance: InstanceId,
    pub(super) run: RunId,
    pub(super) pid: Pid,
    pub(super) part: RunFd,
    /// The pipe, if the pump was stopped before its end; `None`: it was read to its end.
    pub(super) unread: Option<Pipe>,
}

/// Starts the observers of a run: those in the returned set end with the run, those in `pumps` read
/// its logs to the end. Without a plan the instance is being retired, and only its end is observed.
fn attach(
    context: &ObserverContext,
    (id, run): (&InstanceId, RunId),
    plan: Option<&InstancePlan>,
    started_run: StartedRun,
    pumps: &mut JoinSet<PumpEnded>,
) -> JoinSet<()> {
    let mut observers = JoinSet::new();
    let reporter = Reporter::new(run, context.observations.clone());
    let StartedRun { pid, pidfd, members, stdout, stderr, notify, status: status_broker, .. } =
        started_run;
    for (pipe, part) in [(stdout, RunFd::Stdout), (stderr, RunFd::Stderr)] {
        read_log(context, (id, run, pid), (pipe, part), pumps);
    }
    let exec = match started_run.origin {
        RunOrigin::Spawned(report) => Some(report),
        RunOrigin::Adopted => None,
    };
    let oom_kills_before = started_run.oom_kills_before;
    let first = MainProcess { pidfd, members: members.clone(), exec, oom_kills_before };
    observers.spawn(exits::watch(first, reporter.clone()));
    let Some(plan) = plan else { return observers };
    let limits = plan.limits.in_force();
    if limits.memory.is_some() || limits.memory_high.is_some() {
        observers.spawn(memory::watch(members.clone(), reporter.clone()));
    }
    if let (Some(socket), Some(rules)) = (notify, plan.launch.notify) {
        let trusted = Trusted { access: rules.access, main: pid, members: members.clone() };
        observers.spawn(notify::listen(socket, trusted, reporter.clone()));
    }
    match plan.rules.readiness {
        Readiness::Started | Readiness::Notify => {}
        Readiness::Port(port) => {
            observers.spawn(port::wait_until_open(port, reporter));
        }
        Readiness::Grpc => {
            let rules = context.health_checks.subscribe();
            let checks = HealthPlan { socket: plan.socket.clone(), rules };
            let scheduling = Scheduling::of(members);
            observers.spawn(health::watch(checks, context.clock, scheduling, reporter));
        }
    }
    if let Some(broker) = status_broker {
        observers.spawn(serve_status_broker(broker, context.control_service.clone()));
    }
    observers
}

/// Reads one pipe of a run to its end.
fn read_log(
    context: &ObserverContext,
    (id, run, pid): (&InstanceId, RunId, Pid),
    (pipe, part): (Pipe, RunFd),
    pumps: &mut JoinSet<PumpEnded>,
) {
    let stream = if part == RunFd::Stderr { Stream::Stderr } else { Stream::Stdout };
    let source = Source::instance(id, run, pid);
    let (log_store, reporter) =
        (context.log_store.clone(), Reporter::new(run, context.observations.clone()));
    let mut ended = PumpEnded { instance: id.clone(), run, pid, part, unread: None };
    let mut stop = context.stop_pumps.subscribe();
    pumps.spawn(async move {
        let Pipe { fd, rest, parts, spool } = pipe;
        let opened = spool.as_ref().map(Spool::open).transpose();
        if let Err(error) = &opened {
            let stream = stream.as_str();
            let what = "what is read from here on is lost with the orchestrator";
            reporter.warn(format!("{stream}: {error}; {what}")).await;
        }
        let fd_names = match opened {
            Ok(Some(spool)) => Durability::Spooled(Box::new(spool)),
            Ok(None) | Err(_) => Durability::InProcess(Rest { bytes: rest, parts }),
        };
        let stopped = async {
            // The sender is gone: nobody stops this pump any more.
            if stop.wait_for(|stop| *stop == Pumps::Stop).await.is_err() {
                std::future::pending().await
            }
        };
        match logs::pump(fd, source, stream, log_store, fd_names, stopped).await {
            Ok(Ended::Stopped { pipe: fd, rest: Rest { bytes, parts } }) => {
                ended.unread = Some(Pipe { fd, rest: bytes, parts, spool });
            }
            Ok(Ended::EndOfFile) => {}
            Err(error) => reporter.warn(error.to_string()).await,
        }
        ended
    });
}

/// Serves the status feed on a new connection for each request of the broker, until it is closed.
async fn serve_status_broker(
    broker: Arc<ConnectionBroker>,
    control_service: ControlService<LogSources>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            asked = broker.next_request() => match asked {
                Ok(BrokerRequest::Connections(_)) => {
                    // One connection for all requests at once: only the last of them is still
                    // waiting.
                    let Ok((ours, theirs)) = fds::socket_pair() else { continue };
                    if broker.hand_out(theirs).is_ok() {
                        connections.spawn(serve_one(ours, control_service.clone()));
                    }
                }
                Ok(BrokerRequest::HungUp) | Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_one(
    stream: std::os::unix::net::UnixStream,
    control_service: ControlService<LogSources>,
) {
    use crate::rpc::pb::node::status_feed_server::StatusFeedServer;
    let sockets = rpc::Sockets { connected: vec![stream], ..rpc::Sockets::default() };
    let routes =
        tonic::service::Routes::new(StatusFeedServer::new(StatusFeedService(control_service)));
    let never = std::future::pending();
    let peers = rpc::Peers::Anyone;
    // It ends when the gateway closes the connection; the gateway reports errors of its own.
    let _ended = rpc::serve(sockets, routes, peers, STATUS_FEED_DRAIN, never).await;
}
