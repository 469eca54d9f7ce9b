//! Who watches a fresh run: its end, its voice, its health, its logs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::logs::LogSources;
use crate::act::Newborn;
use crate::config::HealthChecks;
use crate::control::server::Desk;
use crate::control::server::Feed;
use crate::observe::clock::Clock;
use crate::observe::health::{self, HealthPlan};
use crate::observe::news::{Heard, Teller};
use crate::observe::notify::{self, Trusted};
use crate::observe::starvation::Scheduling;
use crate::observe::{exits, logs, memory, port};
use crate::plan::{InstancePlan, Readiness};
use crate::rpc;
use crate::telemetry::{LogBook, Source, Stream};
use crate::units::{InstanceId, RunId};

/// What every attachment needs.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) clock: Clock,
    pub(super) book: LogBook,
    pub(super) health_checks: watch::Sender<HealthChecks>,
    pub(super) desk: Desk<LogSources>,
}

/// How long the gateway's last status calls may take when its run ends.
const FEED_DRAIN: Duration = Duration::from_millis(100);

/// Starts the observers of a run. Those in the returned set end with the run; those put into
/// `pumps` read its logs to the end, which comes when all its processes are gone.
pub(super) fn attach(
    around: &Surroundings,
    (id, run): (&InstanceId, RunId),
    plan: &InstancePlan,
    newborn: Newborn,
    pumps: &mut JoinSet<()>,
) -> JoinSet<()> {
    let mut observers = JoinSet::new();
    let teller = Teller::new(run, around.heard.clone());
    let Newborn { pid, pidfd, members, exec, stdout, stderr, notify, status, strangers: _ } =
        newborn;
    for (pipe, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
        let source = Source::instance(id, run, pid);
        pumps.spawn(pump(around.book.clone(), pipe, source, stream, teller.clone()));
    }
    observers.spawn(exits::watch(Arc::clone(&pidfd), members.clone(), exec, teller.clone()));
    if plan.limits.memory.is_some() || plan.limits.memory_high.is_some() {
        observers.spawn(memory::watch(members.clone(), teller.clone()));
    }
    if let (Some(socket), Some(rules)) = (notify, plan.launch.notify) {
        let trusted = Trusted { access: rules.access, main: pid, members: members.clone() };
        observers.spawn(notify::listen(socket, trusted, teller.clone()));
    }
    match plan.rules.readiness {
        Readiness::Started | Readiness::Notify => {}
        Readiness::Port(port) => {
            observers.spawn(port::wait_until_open(port, teller));
        }
        Readiness::Grpc => {
            let rules = around.health_checks.subscribe();
            let checks = HealthPlan { socket: plan.socket.clone(), rules };
            let scheduling = Scheduling::of(members);
            observers.spawn(health::watch(checks, around.clock, scheduling, teller));
        }
    }
    if let Some(stream) = status {
        observers.spawn(serve_feed(stream, around.desk.clone()));
    }
    observers
}

async fn pump(
    book: LogBook,
    pipe: std::os::fd::OwnedFd,
    source: Source,
    stream: Stream,
    teller: Teller,
) {
    if let Err(error) = logs::pump(pipe, source, stream, book, std::future::pending()).await {
        teller.odd(error.to_string()).await;
    }
}

async fn serve_feed(stream: std::os::unix::net::UnixStream, desk: Desk<LogSources>) {
    use crate::rpc::pb::node::status_feed_server::StatusFeedServer;
    let sockets = rpc::Sockets { connected: vec![stream], ..rpc::Sockets::default() };
    let routes = tonic::service::Routes::new(StatusFeedServer::new(Feed(desk)));
    let never = std::future::pending();
    let peers = rpc::Peers::Anyone;
    // It ends when the gateway closes its end; what went wrong then is the gateway's to say.
    let _ended = rpc::serve(sockets, routes, peers, FEED_DRAIN, never).await;
}
