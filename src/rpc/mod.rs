//! What every process uses to call and to serve: generated code, serving on passed sockets,
//! clients over Unix sockets. Knows no service in particular.

pub mod client;
pub mod connections;
mod deadline;
pub mod health;
mod in_flight;
pub mod pb;
mod reflection;
mod serve;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use connections::Ending;
pub use health::Health;
pub use reflection::with_reflection;
pub use serve::{Peers, ServeError, Sockets, limits, serve};
