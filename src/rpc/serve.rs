//! Serves HTTP over passed sockets until told to end, then drains: gRPC for the processes of this
//! host, and whatever a `tower` service answers.
//!
//! tonic's own server hands its connections to tasks that nobody owns and knows no end of a drain;
//! here each connection is a joined task, and the time after the end was told is limited.

use std::future::Future;
use std::time::Duration;

use tonic::service::Routes;

use super::connection::{self, HttpService};
use super::connections::{Bounds, accept_one_of, serve_each};
use super::deadline::Deadlines;
use super::limits;
use super::options::{Options, Protocols};
use super::slow_client::SlowClientLimits;
use super::sockets::{Listener, Peers, ServeError, Sockets};

/// Serves gRPC until `told` returns, then for at most `drain` what is in flight. Clients are
/// processes of this host, and may be idle as long as they like.
pub async fn serve(
    sockets: Sockets,
    routes: Routes,
    peers: Peers,
    drain: Duration,
    told: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let protocols = Protocols::Http2;
    let slow_client = SlowClientLimits::LOCAL;
    let options = Options { peers, protocols, tls: None, slow_client, drain };
    serve_http(sockets, Deadlines::of(routes.prepare()), options, told).await
}

/// Serves `service` until `told` returns, then for at most the drain time what is in flight.
///
/// Without listeners it returns when the connected streams are closed by their peers. When the
/// drain begins, idle connections are closed at once; one that was accepted and has not made its
/// call yet is served that call, if it comes soon: it was taken from a queue that others serve.
pub async fn serve_http(
    sockets: Sockets,
    service: impl HttpService,
    options: Options,
    told: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (listeners, connected) = sockets.ready()?;
    let mut turn = 0;
    let peers = options.peers;
    let accept = async move || {
        if listeners.is_empty() {
            return None;
        }
        loop {
            let stream = accept_one_of(&listeners, &mut turn, Listener::poll_accept).await;
            if peers.may_call(&stream) {
                return Some(stream);
            }
        }
    };
    let bounds = Bounds { connections: limits::CONNECTIONS, drain: options.drain };
    let one = |stream, ending| connection::serve(stream, service.clone(), options.clone(), ending);
    serve_each(bounds, connected, accept, one, told).await;
    Ok(())
}
