//! Serves the operator's API on the control socket.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::sync::oneshot;

use super::logs::LogSources;
use crate::control::server::Desk;
use crate::rpc::pb::node::control_server::ControlServer;
use crate::rpc::{Peers, Sockets, serve};

/// How long answers that are under way may take when the node ends.
const DRAIN: Duration = Duration::from_millis(500);

/// Until `end` is sent or dropped.
pub(super) async fn serve_control(
    listener: UnixListener,
    desk: Desk<LogSources>,
    end: oneshot::Receiver<()>,
) {
    let sockets = Sockets { listeners: vec![listener], ..Sockets::default() };
    let routes = tonic::service::Routes::new(ControlServer::new(desk));
    let told = async {
        let _sent_or_dropped = end.await;
    };
    if let Err(error) = serve(sockets, routes, Peers::SameUserOrRoot, DRAIN, told).await {
        tracing::error!(%error, "the control socket cannot be served");
    }
}
