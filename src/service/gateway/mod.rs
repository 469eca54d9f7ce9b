//! The built-in service `gateway`: the node's HTTP interface. So far that is `GET /health` for
//! people and load balancers, and `GET /metrics` for Prometheus.
//!
//! It knows only what the orchestrator tells on the status feed.

mod health;
mod http;
mod instance_health;
mod metrics;
mod status_feed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::service::Routes;
use tonic::transport::Channel;
use tower::service_fn;

use super::builtin::{Beside, BuiltinService};
use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use crate::linux::connection_broker::ConnectionBroker;
use crate::rpc::{
    Options, Peers, Protocols, ServeError, SlowClientLimits, Sockets, client, serve_http,
};
use http::Site;
use status_feed::{Freshness, StatusCache};

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

/// Serves HTTP on each of `http` until `told` returns, then for at most `drain` what is in flight.
/// Idle connections are closed at once when the drain begins. `status` is the line on which the
/// orchestrator, and each that follows it, gives connections to its `StatusFeed`; while that does
/// not answer, both pages say so with 503.
async fn serve(
    http: Vec<StdListener>,
    status: ConnectionBroker,
    drain: Duration,
    told: impl Future<Output = ()>,
) -> Result<(), ServeError> {
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
) -> Result<(), ServeError> {
    let site = Arc::new(Site::new(StatusCache::new(orchestrator, times.freshness)));
    let options = Options {
        peers: Peers::Anyone,
        protocols: Protocols::Http1AndHttp2,
        tls: None,
        slow_client: times.slow_client,
        drain: times.drain,
    };
    let answering = Arc::clone(&site);
    let pages = service_fn(move |request| {
        let site = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    // The orchestrator gives a connection up on which it is asked nothing at first.
    let greeting = async {
        site.greet().await;
        pending().await
    };
    let sockets = Sockets { ports: http, ..Sockets::default() };
    tokio::select! {
        served = serve_http(sockets, pages, options, told) => served,
        never = greeting => never,
    }
}
