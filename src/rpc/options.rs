//! How an endpoint is served: by whom it may be called, in which protocols, within which times.

use std::time::Duration;

use super::slow_client::SlowClientLimits;
use super::sockets::Peers;
use super::tls::Tls;

/// How it is served.
#[derive(Debug, Clone)]
pub struct Options {
    pub peers: Peers,
    pub protocols: Protocols,
    /// What is spoken on ports; none: plain text. Never on Unix sockets.
    pub tls: Option<Tls>,
    pub slow_client: SlowClientLimits,
    /// What in-flight calls may take after the end was told.
    pub drain: Duration,
}

/// What a client may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    Http2,
    /// Whichever it begins with: HTTP/2 with prior knowledge (RFC 9113 section 3.3), or with TLS
    /// what was agreed on.
    Http1AndHttp2,
}
