//! Serves gRPC over passed sockets until told to end, then drains.
//!
//! tonic's own server hands its connections to tasks that nobody owns and knows no end of a drain;
//! here each connection is a joined task, and the time after the end was told is limited.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;

use super::connections::{Bounds, Ending, accept_one_of, serve_each};
use super::deadline;
use super::in_flight::InFlight;

/// Bounds that every gRPC endpoint of the node shares.
pub mod limits {
    use std::time::Duration;

    /// Bytes of one message, where a service does not allow less.
    pub const MESSAGE: usize = 4 << 20;
    /// Calls at once on one connection.
    pub const STREAMS: u32 = 256;
    /// Bytes of one request's headers, as RFC 9113 section 10.5.1 counts them.
    pub const HEADERS: u32 = 16 << 10;
    /// Connections at once on one endpoint.
    pub const CONNECTIONS: usize = 1024;
    /// From the connection to its first byte.
    pub const FIRST_BYTE: Duration = Duration::from_secs(10);
    /// After the end was told, a connection without calls has this long: to make its first one, if
    /// it was accepted just before, and to say good-bye; its peer may be stopped.
    pub const FAREWELL: Duration = Duration::from_millis(200);
    /// The pause after `accept` failed for want of descriptors or memory.
    pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
}

/// What is served on.
#[derive(Debug, Default)]
pub struct Sockets {
    pub listeners: Vec<StdListener>,
    /// TCP, on which whoever can connect may call.
    pub ports: Vec<StdTcpListener>,
    /// Already connected; each is served as one connection.
    pub connected: Vec<StdStream>,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// The socket's folder and mode decide.
    Anyone,
    /// Only processes of this process's user, or of root (`SO_PEERCRED`).
    SameUserOrRoot,
}

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot use the passed {what} socket: {source}")]
    Socket { what: &'static str, source: io::Error },
}

/// Serves `routes` until `told` returns, then for at most `drain` what is in flight.
///
/// Without listeners it returns when the connected streams are closed by their peers. When the
/// drain begins, idle connections are closed at once; one that was accepted and has not made its
/// call yet is served that call, if it comes soon: it was taken from a queue that others serve.
pub async fn serve(
    sockets: Sockets,
    routes: Routes,
    peers: Peers,
    drain: Duration,
    told: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut listeners: Vec<Listener> =
        sockets.listeners.into_iter().map(listener).collect::<Result<_, _>>()?;
    for port in sockets.ports {
        listeners.push(tcp_listener(port)?);
    }
    let connected = sockets.connected.into_iter().map(stream).collect::<Result<_, _>>()?;
    let routes = routes.prepare();
    let mut turn = 0;
    let accept = async move || {
        if listeners.is_empty() {
            return None;
        }
        loop {
            let stream = accept_one_of(&listeners, &mut turn, Listener::poll_accept).await;
            if may_call(&stream, peers) {
                return Some(stream);
            }
        }
    };
    let bounds = Bounds { connections: limits::CONNECTIONS, drain };
    let one = |stream, ending| {
        let routes = routes.clone();
        async move {
            match stream {
                Stream::Unix(stream) => connection(stream, routes, ending).await,
                Stream::Tcp(stream) => connection(stream, routes, ending).await,
            }
        }
    };
    serve_each(bounds, connected, accept, one, told).await;
    Ok(())
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Unix(listener) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Stream::Unix(stream))
            }
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Stream::Tcp(stream))
            }
        }
    }
}

fn listener(socket: StdListener) -> Result<Listener, ServeError> {
    let ready = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
    ready.map(Listener::Unix).map_err(|source| ServeError::Socket { what: "listening", source })
}

fn tcp_listener(socket: StdTcpListener) -> Result<Listener, ServeError> {
    let ready = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
    ready.map(Listener::Tcp).map_err(|source| ServeError::Socket { what: "listening", source })
}

fn stream(socket: StdStream) -> Result<Stream, ServeError> {
    let ready = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    ready.map(Stream::Unix).map_err(|source| ServeError::Socket { what: "connected", source })
}

fn may_call(stream: &Stream, peers: Peers) -> bool {
    match (stream, peers) {
        (_, Peers::Anyone) => true,
        // Nobody tells whose process is at the other end.
        (Stream::Tcp(_), Peers::SameUserOrRoot) => false,
        (Stream::Unix(stream), Peers::SameUserOrRoot) => match stream.peer_cred() {
            Ok(peer) if is_allowed(peer.uid()) => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "refused a caller of another user");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "refused a caller whose user is unknown");
                false
            }
        },
    }
}

fn is_allowed(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn connection<S>(stream: S, routes: Routes, mut ending: Ending)
where
    S: Peek + AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    // hyper ends no connection in its handshake, so it gets none that has not begun to speak.
    tokio::select! {
        begun = stream.first_byte() => if begun.is_err() { return },
        () = a_while_after(&mut ending) => return,
        () = tokio::time::sleep(limits::FIRST_BYTE) => return,
    }
    let in_flight = InFlight::default();
    let counted = in_flight.clone();
    let answer = service_fn(move |request| {
        let call = call(routes.clone(), request);
        counted.clone().until_answered(call)
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADERS)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = ending.begun() => {
            tokio::select! {
                _ended = serving.as_mut() => return,
                () = in_flight.first() => {}
                () = tokio::time::sleep(limits::FAREWELL) => {}
            }
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = in_flight.none_for_a_while() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn a_while_after(ending: &mut Ending) {
    ending.begun().await;
    tokio::time::sleep(limits::FAREWELL).await;
}

/// A stream that can be looked into.
trait Peek {
    /// Waits until there is something to read, the end included; takes nothing.
    fn first_byte(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl Peek for TcpStream {
    async fn first_byte(&self) -> io::Result<()> {
        // Without this a short answer could wait for the caller's delayed acknowledgement.
        self.set_nodelay(true)?;
        self.peek(&mut [0_u8; 1]).await.map(|_| ())
    }
}

impl Peek for UnixStream {
    async fn first_byte(&self) -> io::Result<()> {
        loop {
            self.readable().await?;
            let peek = || Ok(recv(self, &mut [0_u8; 1], RecvFlags::PEEK)?);
            match self.try_io(Interest::READABLE, peek) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One call, ended with DEADLINE_EXCEEDED when it has no answer within the caller's timeout.
async fn call(
    mut routes: Routes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Some(limit) = deadline::from_headers(request.headers()) else {
        return routes.call(request).await;
    };
    match tokio::time::timeout(limit, routes.call(request)).await {
        Ok(answered) => answered,
        Err(_) => Ok(Status::deadline_exceeded("the caller's deadline has passed").into_http()),
    }
}
