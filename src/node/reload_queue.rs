//! Who waits for the configuration file to be read. Reading is done beside the loop, for a file may
//! lie on a disk that hangs; who asks while it is being read waits for the next reading.

use std::future::pending;
use std::thread;

use tokio::sync::oneshot;

use super::loader::{Configured, Loader};
use crate::control::Wait;
use crate::control::server::Responder;
use crate::rpc::pb::node as pb;

/// Requests that may wait for the next reading; more than operators that can be connected.
const WAITING_MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct ReloadQueue {
    loader: Loader,
    reading: Option<Reading>,
    /// Who asked after the reading had begun.
    next: Vec<ReloadRequest>,
}

#[derive(Debug)]
struct Reading {
    outcome: oneshot::Receiver<Result<Configured, String>>,
    requests: Vec<ReloadRequest>,
}

/// Somebody who asked for a reload.
#[derive(Debug)]
pub(super) enum ReloadRequest {
    /// By SIGHUP: the log is the answer.
    Signal,
    Operator {
        reply: Responder<pb::ReplanReply>,
        wait: Wait,
    },
}

/// A reading that has ended.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) outcome: Result<Configured, String>,
    /// Who waited for it.
    pub(super) requests: Vec<ReloadRequest>,
    /// Who waits for the next one.
    pub(super) next: Vec<ReloadRequest>,
}

impl ReloadQueue {
    pub(super) fn new(loader: Loader) -> Self {
        Self { loader, reading: None, next: Vec::new() }
    }

    pub(super) fn push(&mut self, request: ReloadRequest) {
        if self.reading.is_none() {
            let outcome = begin_to_read(self.loader.clone());
            self.reading = Some(Reading { outcome, requests: vec![request] });
            return;
        }
        // A signal wants no answer, and one more reading serves all.
        let is_served = matches!(request, ReloadRequest::Signal) && !self.next.is_empty();
        if !is_served && self.next.len() < WAITING_MOST {
            self.next.push(request);
        }
    }

    /// The end of the reading that is under way. May be dropped and called again.
    pub(super) async fn read(&mut self) -> Read {
        let outcome = match &mut self.reading {
            Some(reading) => (&mut reading.outcome).await,
            None => pending().await,
        };
        let requests = self.reading.take().map(|reading| reading.requests).unwrap_or_default();
        let next = std::mem::take(&mut self.next);
        let outcome =
            outcome.unwrap_or_else(|_| Err("no thread can be made to read it".to_owned()));
        Read { outcome, requests, next }
    }
}

/// On a thread that ends with its answer. The runtime's own would panic where none can be made;
/// here that is the end of the channel.
fn begin_to_read(loader: Loader) -> oneshot::Receiver<Result<Configured, String>> {
    let (tell, outcome) = oneshot::channel();
    let read = move || {
        let _nobody_waits_any_more = tell.send(loader.load());
    };
    let _none_is_told_by_the_channel = thread::Builder::new().name("reload".to_owned()).spawn(read);
    outcome
}
