//! The built-in service `gateway`: what the node shows to the outside over HTTP/1.1. So far that is
//! `GET /health` for people and load balancers and `GET /metrics` for Prometheus.
//!
//! It knows only what the orchestrator tells over the status connection.

mod health;
mod http;
mod instance_health;
mod metrics;
mod slow_client;
mod status_feed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::future::{Future, pending};
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tonic::service::Routes;
use tonic::transport::Channel;

use super::builtin::{Beside, BuiltinService};
use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use crate::linux::connection_broker::ConnectionBroker;
use crate::rpc::connections::{Bounds, accept_one_of, serve_each};
use crate::rpc::{Ending, client, limits};
use http::Site;
use slow_client::{SlowClientLimits, TimeLimited};
use status_feed::{Freshness, StatusCache};

/// Bytes of one request's line and headers; larger ones are answered with 431.
const HEAD_MOST: usize = 16 << 10;

/// Why the gateway cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("cannot use the passed HTTP listener: {0}")]
    Listener(#[source] io::Error),
}

impl From<GatewayError> for ServiceError {
    fn from(error: GatewayError) -> Self {
        Self::Own(Box::new(error))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Gateway;

impl BuiltinService for Gateway {
    type Settings = ();

    fn settings(_: &Launch) -> Result<(), LaunchError> {
        Ok(())
    }

    async fn open(
        launch: &mut Launch,
        (): (),
        beside: &mut Beside,
    ) -> Result<Routes, ServiceError> {
        let http = std::mem::take(&mut launch.api);
        let status = launch.status.take().ok_or(LaunchError::Missing("status"))?;
        let first = http.first().and_then(|listener| listener.local_addr().ok());
        if let Some(address) = first {
            tracing::info!(api = %format_args!("http://{address}"), "answering HTTP");
        }
        let (drain, mut ending) = (launch.drain, beside.ending());
        beside.spawn(async move {
            Ok(serve(http, status.into(), drain, async { ending.begun().await }).await?)
        });
        Ok(Routes::default())
    }
}

#[derive(Debug, Clone, Copy)]
struct Times {
    slow_client: SlowClientLimits,
    freshness: Freshness,
    drain: Duration,
}

/// Serves HTTP/1.1 on each of `http` until `told` returns, then for at most `drain` what is in
/// flight. Idle connections are closed at once when the drain begins. `status` is the line on which
/// the orchestrator, and each that follows it, gives connections to its `StatusFeed`; while that
/// does not answer, both pages say so with 503.
async fn serve(
    http: Vec<StdListener>,
    status: ConnectionBroker,
    drain: Duration,
    told: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let times = Times { slow_client: SlowClientLimits::USUAL, freshness: Freshness::USUAL, drain };
    serve_with(times, http, over(status), told).await
}

fn over(line: ConnectionBroker) -> Channel {
    let line = Arc::new(Mutex::new(line));
    client::channel_by(move || {
        let line = Arc::clone(&line);
        async move { line.lock().await.connect().await.map_err(io::Error::other) }
    })
}

async fn serve_with(
    times: Times,
    http: Vec<StdListener>,
    orchestrator: Channel,
    told: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let ready = |http: StdListener| {
        let ready = http.set_nonblocking(true).and_then(|()| TcpListener::from_std(http));
        ready.map_err(GatewayError::Listener)
    };
    let listeners: Vec<TcpListener> = http.into_iter().map(ready).collect::<Result<_, _>>()?;
    let site = Arc::new(Site::new(StatusCache::new(orchestrator, times.freshness)));
    let bounds = Bounds { connections: limits::CONNECTIONS, drain: times.drain };
    let mut turn = 0;
    let accept =
        async move || Some(accept_one_of(&listeners, &mut turn, TcpListener::poll_accept).await.0);
    let one = |stream, ending| connection(stream, times.slow_client, Arc::clone(&site), ending);
    // The orchestrator gives a connection up on which it is asked nothing at first.
    let greeting = async {
        site.greet().await;
        pending().await
    };
    tokio::select! {
        () = serve_each(bounds, Vec::new(), accept, one, told) => Ok(()),
        never = greeting => never,
    }
}

async fn connection(
    stream: TcpStream,
    slow_client: SlowClientLimits,
    site: Arc<Site>,
    mut ending: Ending,
) {
    // Without this the last part of a page could wait for the client's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let serving = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(HEAD_MOST)
        .max_buf_size(HEAD_MOST)
        .serve_connection(
            TokioIo::new(TimeLimited::new(stream, slow_client)),
            service_fn(move |request| Arc::clone(&site).answer(request)),
        );
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = ending.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
