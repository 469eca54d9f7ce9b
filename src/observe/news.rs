//! The channel by which observers report to the supervise loop.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use super::notify_message::FdStoreRequest;
use crate::decide::{Event, News};
use crate::units::RunId;

/// How many observations may wait for the loop. An observer that finds the queue full waits.
pub const QUEUE: usize = 1024;

/// What an observer reports.
#[derive(Debug)]
pub enum Observation {
    Event(Event),
    /// A service stores descriptors, or asks to drop some.
    FdStore {
        run: RunId,
        request: FdStoreRequest,
        fds: Vec<OwnedFd>,
    },
    /// Something for the log that changes no state.
    Warning {
        run: RunId,
        what: String,
    },
}

/// Reports news about one run.
#[derive(Debug, Clone)]
pub struct Reporter {
    run: RunId,
    to_node: mpsc::Sender<Observation>,
}

impl Reporter {
    pub fn new(run: RunId, to_node: mpsc::Sender<Observation>) -> Self {
        Self { run, to_node }
    }

    /// Waits for room. Does nothing if the loop has ended.
    pub async fn report(&self, news: News) {
        self.send(Observation::Event(Event::News { run: self.run, news })).await;
    }

    pub async fn store(&self, request: FdStoreRequest, fds: Vec<OwnedFd>) {
        self.send(Observation::FdStore { run: self.run, request, fds }).await;
    }

    pub async fn warn(&self, what: String) {
        self.send(Observation::Warning { run: self.run, what }).await;
    }

    async fn send(&self, observation: Observation) {
        let _the_node_ends = self.to_node.send(observation).await;
    }
}
