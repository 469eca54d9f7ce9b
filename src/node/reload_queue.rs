//! Reload requests, and the reading of the configuration file for them. The file is read on another
//! thread, because its disk may hang; a request that comes during a reading waits for the next.

use std::future::pending;
use std::thread;

use tokio::sync::oneshot;

use super::loader::{Configured, Loader};
use crate::control::Wait;
use crate::control::server::Responder;
use crate::rpc::pb::node as pb;

/// How many requests may wait for the next reading; more than operators can be connected.
const WAITING_MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct ReloadQueue {
    loader: Loader,
    reading: Option<Reading>,
    /// Requests that came after the reading had begun.
    next: Vec<ReloadRequest>,
}

#[derive(Debug)]
struct Reading {
    outcome: oneshot::Receiver<Result<Configured, String>>,
    requests: Vec<ReloadRequest>,
}

/// A request for a reload.
#[derive(Debug)]
pub(super) enum ReloadRequest {
    /// SIGHUP; the outcome is logged.
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
    /// The requests that waited for it.
    pub(super) requests: Vec<ReloadRequest>,
    /// The requests that wait for the next one.
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
        // A signal has no reply: the reading that is to come serves it too.
        let is_served = matches!(request, ReloadRequest::Signal) && !self.next.is_empty();
        if !is_served && self.next.len() < WAITING_MOST {
            self.next.push(request);
        }
    }

    /// The end of the reading that is under way. Cancel safe.
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

/// Reads on a thread that ends with the outcome. Tokio's blocking pool panics where no thread can
/// be made; here the sender is dropped, which the receiver notices.
fn begin_to_read(loader: Loader) -> oneshot::Receiver<Result<Configured, String>> {
    let (tell, outcome) = oneshot::channel();
    let read = move || {
        let _nobody_waits_any_more = tell.send(loader.load());
    };
    let _none_is_told_by_the_channel = thread::Builder::new().name("reload".to_owned()).spawn(read);
    outcome
}
