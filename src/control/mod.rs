//! The operator's API on the control socket. Knows what is asked and answered, not how it is shown.

pub mod client;
#[cfg(test)]
pub(crate) mod fake;
pub mod server;

/// The control socket's name in the runtime folder.
pub const SOCKET: &str = "control.sock";
