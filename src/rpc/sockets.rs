//! What is listened on, who may connect, and how a connection begins. Knows no protocol.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

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

pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Sockets {
    /// The listeners and the connected streams, as the runtime waits for them.
    pub(super) fn ready(self) -> Result<(Vec<Listener>, Vec<Stream>), ServeError> {
        let unix = self.listeners.into_iter().map(unix_listener);
        let tcp = self.ports.into_iter().map(tcp_listener);
        let listeners = unix.chain(tcp).collect::<Result<_, _>>()?;
        let connected = self.connected.into_iter().map(stream).collect::<Result<_, _>>()?;
        Ok((listeners, connected))
    }
}

impl Listener {
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
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

fn unix_listener(socket: StdListener) -> Result<Listener, ServeError> {
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

impl Peers {
    pub(super) fn may_call(self, stream: &Stream) -> bool {
        match (stream, self) {
            (_, Self::Anyone) => true,
            // Nobody tells whose process is at the other end.
            (Stream::Tcp(_), Self::SameUserOrRoot) => false,
            (Stream::Unix(stream), Self::SameUserOrRoot) => match stream.peer_cred() {
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
}

fn is_allowed(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

impl Stream {
    /// Waits for the first `N` bytes, or for the end where none comes; takes nothing.
    pub(super) async fn first_bytes<const N: usize>(&self) -> io::Result<[u8; N]> {
        match self {
            Self::Unix(stream) => loop {
                stream.readable().await?;
                let peeked = stream.try_io(Interest::READABLE, || peek(stream));
                if let Some(first) = unless_too_early(peeked)? {
                    return Ok(first);
                }
            },
            Self::Tcp(stream) => {
                // Without this a short answer could wait for the caller's delayed acknowledgement.
                stream.set_nodelay(true)?;
                loop {
                    stream.readable().await?;
                    let peeked = stream.try_io(Interest::READABLE, || peek(stream));
                    if let Some(first) = unless_too_early(peeked)? {
                        return Ok(first);
                    }
                }
            }
        }
    }
}

/// Zeroes at the end of the stream. `WouldBlock` where some bytes are missing: the next one wakes
/// us again.
fn peek<const N: usize>(stream: impl AsFd) -> io::Result<[u8; N]> {
    let mut first = [0; N];
    match recv(stream, &mut first, RecvFlags::PEEK)?.1 {
        some if (1..N).contains(&some) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(first),
    }
}

fn unless_too_early<T>(peeked: io::Result<T>) -> io::Result<Option<T>> {
    match peeked {
        Ok(first) => Ok(Some(first)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
