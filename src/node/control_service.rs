//! Serves the operator's API on the control socket.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::logs::LogSources;
use crate::control::server::ControlService;
use crate::rpc::pb::node::control_server::ControlServer;
use crate::rpc::{Peers, Sockets, serve};

/// How long calls that are in flight may take when the node ends.
const DRAIN: Duration = Duration::from_millis(500);

/// The control socket while it is served.
#[derive(Debug)]
pub(super) struct ServedControl {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ServedControl {
    /// Serves a duplicate of the listener: after the end, callers wait in its backlog.
    pub(super) fn on(
        listener: &UnixListener,
        control_service: ControlService<LogSources>,
    ) -> Option<Self> {
        let listener = listener.try_clone();
        let listener = listener
            .inspect_err(|error| tracing::error!(%error, "the control socket cannot be served"));
        let (end, ends) = oneshot::channel();
        let task = tokio::spawn(serve_control(listener.ok()?, control_service, ends));
        Some(Self { end, task })
    }

    /// Stops serving; calls that are in flight have `DRAIN` to finish.
    pub(super) async fn end(self) {
        let _its_end_is_awaited_next = self.end.send(());
        let _ended_either_way = self.task.await;
    }
}

/// Until `end` is sent or dropped.
async fn serve_control(
    listener: UnixListener,
    control_service: ControlService<LogSources>,
    end: oneshot::Receiver<()>,
) {
    let sockets = Sockets { listeners: vec![listener], ..Sockets::default() };
    let routes = tonic::service::Routes::new(ControlServer::new(control_service));
    let told = async {
        let _sent_or_dropped = end.await;
    };
    if let Err(error) = serve(sockets, routes, Peers::SameUserOrRoot, DRAIN, told).await {
        tracing::error!(%error, "the control socket cannot be served");
    }
}
