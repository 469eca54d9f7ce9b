//! The only writer of the file. Waiting appends are written together and flushed once; only then
//! are they visible to readers and answered.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::author::Author;
use super::entry::{self, Entry, Hash};
use super::error::LedgerError;
use super::frame::{self, FRAME_HEADER};
use super::store::Store;
use crate::service::durable_file::{Doing, FileError};

/// How many appends may wait; further callers wait for room.
pub const QUEUE: usize = 256;
/// A write that has this many bytes takes no further entry.
const GROUP: usize = 4 << 20;

/// An append whose signature was checked.
#[derive(Debug)]
pub struct Draft {
    pub author: Author,
    pub signature: [u8; 64],
    pub payload: Vec<u8>,
}

/// The place of a draft that was appended durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub index: u64,
    pub hash: Hash,
}

/// The outcome that a caller is told.
pub type Answer = Result<Appended, Arc<LedgerError>>;

/// A waiting append.
#[derive(Debug)]
pub struct Waiting {
    pub draft: Draft,
    pub answer: oneshot::Sender<Answer>,
    /// Its part of the memory for payloads.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What the writer has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub appended: u64,
    /// Flushes that made the entries durable.
    pub flushes: u64,
}

/// Writes appends from `queue` until every sender is gone. Blocks its thread.
pub fn write_until_closed(store: Arc<Store>, mut queue: mpsc::Receiver<Waiting>) -> Tally {
    let mut writer = Writer { store, stopped: None, tally: Tally::default() };
    while let Some(first) = queue.blocking_recv() {
        writer.append(gather(first, &mut queue));
    }
    writer.tally
}

fn gather(first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = size(&first);
    let mut group = vec![first];
    while bytes < GROUP && group.len() < QUEUE {
        let Ok(next) = queue.try_recv() else { break };
        bytes += size(&next);
        group.push(next);
    }
    group
}

fn size(waiting: &Waiting) -> usize {
    FRAME_HEADER + entry::FIXED + waiting.draft.payload.len()
}

#[derive(Debug)]
struct Writer {
    store: Arc<Store>,
    /// Set when the end of the file cannot be trusted any more.
    stopped: Option<Arc<LedgerError>>,
    tally: Tally,
}

/// The bytes of one write, and the entries in it.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    appended: Vec<Appended>,
}

impl Writer {
    /// Writes the group and answers the callers. Callers that went away before are left out.
    fn append(&mut self, group: Vec<Waiting>) {
        let present = group.into_iter().filter(|waiting| !waiting.answer.is_closed());
        let (drafts, callers): (Vec<_>, Vec<_>) =
            present.map(|waiting| (waiting.draft, (waiting.answer, waiting.room))).unzip();
        if drafts.is_empty() {
            return;
        }
        let answers = match self.write(drafts) {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); callers.len()],
        };
        for ((caller, _room), answer) in callers.into_iter().zip(answers) {
            // A caller that goes away from here on has its entry appended all the same.
            let _ = caller.send(answer);
        }
    }

    fn write(&mut self, drafts: Vec<Draft>) -> Result<Vec<Appended>, Arc<LedgerError>> {
        if let Some(stopped) = &self.stopped {
            return Err(Arc::clone(stopped));
        }
        let group = self.frame(drafts);
        let end = self.store.head().end;
        let (file, path) = (self.store.file(), self.store.path());
        if let Err(error) = file.write_all_at(&group.bytes, end).doing("append to", path) {
            return Err(self.undo(error, end));
        }
        if let Err(error) = file.sync_data().doing("flush", path) {
            return Err(self.undo_and_stop(error, end));
        }
        self.tally.flushes += 1;
        self.tally.appended += group.appended.len() as u64;
        if let Some(last) = group.appended.last() {
            self.store.publish(&group.starts, end + group.bytes.len() as u64, last.hash);
        }
        Ok(group.appended)
    }

    fn frame(&self, drafts: Vec<Draft>) -> Group {
        let head = self.store.head();
        let mut previous = head.hash;
        let mut group = Group::default();
        let appended_unix_us = now_unix_us();
        for (index, Draft { author, signature, payload }) in (head.length..).zip(drafts) {
            let entry = Entry { index, appended_unix_us, previous, author, signature, payload };
            group.starts.push(head.end + group.bytes.len() as u64);
            previous = frame::add(&mut group.bytes, self.store.mark(), &entry.encode());
            group.appended.push(Appended { index, hash: previous });
        }
        group
    }

    /// After a failed write: cuts off what it left, so that the next append may succeed.
    fn undo(&mut self, error: FileError, end: u64) -> Arc<LedgerError> {
        match self.cut_back(end) {
            Ok(()) => {
                tracing::error!(%error, "nothing of the write was kept");
                Arc::new(error.into())
            }
            Err(cut) => {
                tracing::error!(error = %cut, "a failed write could not be undone");
                self.stop(error)
            }
        }
    }

    /// After a failed flush it is not known which pages of the file are on disk: a later flush may
    /// succeed without having written them (fsync(2)).
    fn undo_and_stop(&mut self, error: FileError, end: u64) -> Arc<LedgerError> {
        if let Err(cut) = self.cut_back(end) {
            tracing::error!(error = %cut, "a write that was not flushed could not be undone");
        }
        self.stop(error)
    }

    /// Durably: an entry whose append was answered with an error must not come back.
    fn cut_back(&self, end: u64) -> Result<(), FileError> {
        let file = self.store.file();
        let cut: io::Result<()> = file.set_len(end).and_then(|()| file.sync_all());
        cut.doing("cut back", self.store.path())
    }

    /// Returns the error for the callers of this write; later ones are told that the writer has
    /// stopped.
    fn stop(&mut self, error: FileError) -> Arc<LedgerError> {
        let reason = Arc::new(LedgerError::from(error));
        let stopped = Arc::new(LedgerError::Stopped(Arc::clone(&reason)));
        tracing::error!(error = %stopped, "the ledger can only be read from now on");
        self.stopped = Some(stopped);
        reason
    }
}

/// The system's clock, which may go back; 0 before 1970.
fn now_unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
