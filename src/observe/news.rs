//! How observers tell the node's loop what they learn.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use super::notices::FdStore;
use crate::decide::{Event, News};
use crate::units::RunId;

/// How much may wait for the loop. An observer that finds the queue full waits.
pub const QUEUE: usize = 1024;

/// Something the loop is told.
#[derive(Debug)]
pub enum Heard {
    Event(Event),
    /// A service leaves descriptors with us, or asks us to drop some.
    Stored {
        run: RunId,
        what: FdStore,
        fds: Vec<OwnedFd>,
    },
    /// Something that changes nothing and that an operator should be able to read.
    Odd {
        run: RunId,
        what: String,
    },
}

/// Tells news about one run.
#[derive(Debug, Clone)]
pub struct Teller {
    run: RunId,
    to_loop: mpsc::Sender<Heard>,
}

impl Teller {
    pub fn new(run: RunId, to_loop: mpsc::Sender<Heard>) -> Self {
        Self { run, to_loop }
    }

    /// Waits for room. When the loop is gone there is nobody to tell, and nothing is done.
    pub async fn tell(&self, news: News) {
        self.send(Heard::Event(Event::News { run: self.run, news })).await;
    }

    pub async fn store(&self, what: FdStore, fds: Vec<OwnedFd>) {
        self.send(Heard::Stored { run: self.run, what, fds }).await;
    }

    pub async fn odd(&self, what: String) {
        self.send(Heard::Odd { run: self.run, what }).await;
    }

    async fn send(&self, heard: Heard) {
        let _to_loopis_gone = self.to_loop.send(heard).await;
    }
}
