//! Clients over Unix sockets.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A channel to the gRPC server at `path`. It connects at the first call, within 1 s, and again
/// after the connection was lost.
pub fn channel_to(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    endpoint().connect_with_connector_lazy(service_fn(connect))
}

/// A channel over connections that `connect` gives. One that is lost is followed by another.
pub fn channel_by<C, F>(connect: C) -> Channel
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = io::Result<StdStream>> + Send + 'static,
{
    let connect = move |_: Uri| {
        let connected = connect();
        async move {
            let stream = connected.await?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream).map(TokioIo::new)
        }
    };
    endpoint().connect_with_connector_lazy(service_fn(connect))
}

/// The address is only what HTTP/2 asks for as `:authority`; the connector ignores it.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT)
}
