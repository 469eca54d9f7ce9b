//! The signals that the orchestrator handles.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSignal {
    /// SIGTERM, SIGINT: end in order; the second time at once.
    Terminate,
    /// SIGHUP
    Reload,
    /// SIGCHLD: a child has ended, of the orchestrator or an orphan.
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
    /// Handles these signals from here on, instead of dying by them.
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
