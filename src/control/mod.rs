//! The operator's API on the control socket. Knows requests and responses, not how they are shown.

pub mod client;
#[cfg(test)]
pub(crate) mod fake;
pub mod server;

/// Until when a verb waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// What was asked for holds, or cannot hold any more.
    Outcome,
    /// The node has accepted the command.
    Accepted,
}

impl Wait {
    /// As `--no-block` and the requests of that name say it.
    pub fn unless(no_block: bool) -> Self {
        if no_block { Self::Accepted } else { Self::Outcome }
    }
}

/// The control socket's name in the runtime folder.
pub const SOCKET: &str = "control.sock";
