//! Bounds that every endpoint of the node shares.

use std::time::Duration;

/// Bytes of one gRPC message, where a service does not allow less.
pub const MESSAGE: usize = 4 << 20;
/// Calls at once on one HTTP/2 connection.
pub const STREAMS: u32 = 256;
/// Bytes of one request's headers: in HTTP/2 as RFC 9113 section 10.5.1 counts them, in HTTP/1.1
/// with the request line; larger ones are answered with 431.
pub const HEADERS: u32 = 16 << 10;
/// Connections at once on one endpoint.
pub const CONNECTIONS: usize = 1024;
/// From the connection to its first byte, where an endpoint says nothing else.
pub const FIRST_BYTE: Duration = Duration::from_secs(10);
/// After the end was told, a connection without calls has this long: to make its first one, if
/// it was accepted just before, and to say good-bye; its peer may be stopped.
pub const FAREWELL: Duration = Duration::from_millis(200);
/// The pause after `accept` failed for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
