//! What every process uses to call and to serve: generated code, serving HTTP and gRPC on passed
//! sockets, clients over Unix sockets. Knows no service in particular.

pub mod client;
mod connection;
mod connections;
mod deadline;
pub mod health;
#[cfg(test)]
mod http_tests;
mod in_flight;
pub mod limits;
mod options;
pub mod pb;
mod reflection;
mod serve;
mod slow_client;
mod sockets;
mod status_words;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;

pub use connections::Ending;
pub use health::Health;
pub use options::{Options, Protocols};
pub use reflection::with_reflection;
pub use serve::{serve, serve_http};
pub use slow_client::SlowClientLimits;
pub use sockets::{Peers, ServeError, Sockets};
pub use tls::{Tls, TlsError};
