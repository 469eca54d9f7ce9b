//! The signals the orchestrator itself is sent.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal means to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSignal {
    /// SIGTERM, SIGINT: end; said again: now.
    Terminate,
    /// SIGHUP
    Reload,
    /// SIGCHLD: a child ended, of ours or an orphan.
    ChildExited,
}

#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    child: Signal,
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    pub async fn next(&mut self) -> NodeSignal {
        tokio::select! {
            _ = self.terminate.recv() => NodeSignal::Terminate,
            _ = self.interrupt.recv() => NodeSignal::Terminate,
            _ = self.hang_up.recv() => NodeSignal::Reload,
            _ = self.child.recv() => NodeSignal::ChildExited,
        }
    }
}
