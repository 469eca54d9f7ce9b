//! How observers report to the node's loop what they learn.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use super::notify_message::FdStoreRequest;
use crate::decide::{Event, News};
use crate::units::RunId;

/// How much may wait for the loop. An observer that finds the queue full waits.
pub const QUEUE: usize = 1024;

/// What an observer reports.
#[derive(Debug)]
pub enum Observation {
    Event(Event),
    /// A service leaves descriptors with us, or asks us to drop some.
    FdStore {
        run: RunId,
        request: FdStoreRequest,
        fds: Vec<OwnedFd>,
    },
    /// Something that changes nothing and that an operator should be able to read.
    Warning {
        run: RunId,
        what: String,
    },
}

/// Tells news about one run.
#[derive(Debug, Clone)]
pub struct Reporter {
    run: RunId,
    to_node: mpsc::Sender<Observation>,
}

impl Reporter {
    pub fn new(run: RunId, to_node: mpsc::Sender<Observation>) -> Self {
        Self { run, to_node }
    }

    /// Waits for room. When the loop is gone there is nobody to tell, and nothing is done.
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
