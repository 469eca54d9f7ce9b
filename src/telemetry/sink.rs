//! The queue of rendered lines, and the thread that writes them, so that a slow reader never stops
//! the supervisor. Counts lines that are not delivered, and writes a notice about them when lines
//! pass again. Knows neither the content nor the destination.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::delivery_cursor::DeliveryCursor;
use super::render::Form;

/// The most bytes that wait to be written.
pub const QUEUE_MAX: usize = 4 << 20;

/// How long a sender waits for room before it drops its lines.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Room above the bound for the node's own lines only.
const RESERVE: usize = 64 << 10;

/// How many written buffers are kept for the next chunk, and the largest that is kept.
const SPARES: usize = 4;
const SPARE_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("starting the thread that writes logs failed: {0}")]
    Thread(#[source] io::Error),
    #[error("making the signal that ends the thread that writes logs failed: {0}")]
    Ending(#[source] io::Error),
}

/// The destination of the lines.
pub(super) trait Writer: Send + 'static {
    /// Writes whole lines in the form in which they were rendered. `ending` becomes readable when
    /// there is no more time. Either tells `receipt` the outcome of every line, in order, or leaves
    /// that to the caller, for all lines together.
    fn write(
        &mut self,
        lines: &[u8],
        ending: BorrowedFd<'_>,
        receipt: Option<&mut Receipt>,
    ) -> Result<(), Unwritten>;

    fn waits(&self) -> Waits;
}

/// What a writer could not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// This many of the lines; later ones may succeed.
    Lines(u64),
    /// Nothing can be written any more.
    Gone(Errno),
}

/// Whether a blocked writer can be told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// By `ending`.
    UntilTold,
    /// No: it may be blocked in the kernel.
    ForEver,
}

/// Rendered lines of one service.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// How many of the service's records `bytes` holds.
    pub lines: u64,
    /// The account that counts lines that are not delivered.
    pub account: Arc<Account>,
    /// Told which records were delivered, if they are in a spool.
    pub(super) receipt: Option<Receipt>,
}

/// Reports the delivery of the records in a chunk to their spool.
#[derive(Debug)]
pub(super) struct Receipt {
    cursor: DeliveryCursor,
    /// The position at the end of each record.
    ends: Vec<u64>,
    next: usize,
    lost: u64,
    /// Bytes that the records take up in the spool.
    kept: usize,
}

impl Receipt {
    pub(super) fn new(cursor: DeliveryCursor, ends: Vec<u64>, kept: usize) -> Self {
        Self { cursor, ends, next: 0, lost: 0, kept }
    }

    /// The next record was delivered.
    pub(super) fn delivered(&mut self) {
        if let Some(end) = self.ends.get(self.next) {
            self.cursor.settle(*end);
            self.next += 1;
        }
    }

    /// The next record is lost.
    pub(super) fn lost(&mut self) {
        self.lost += 1;
        self.cursor.lose_one();
        self.delivered();
    }

    fn all_delivered(&mut self) {
        if let Some(end) = self.ends.last() {
            self.cursor.settle(*end);
        }
    }
}

/// Counts the lines of one service that were not delivered, and renders the notice about them.
pub struct Account {
    losses: Mutex<Losses>,
    notice: Notice,
}

#[derive(Debug, Default)]
struct Losses {
    lost: u64,
    told: u64,
    /// How many of the lines that no notice has told of each spool's cursor counts too.
    known: Vec<(DeliveryCursor, u64)>,
}

/// Appends a notice about this many lost lines.
type Notice = Box<dyn Fn(&mut Vec<u8>, u64) + Send + Sync>;

impl Account {
    pub fn new(notice: impl Fn(&mut Vec<u8>, u64) + Send + Sync + 'static) -> Self {
        Self { losses: Mutex::default(), notice: Box::new(notice) }
    }

    pub fn lost(&self) -> u64 {
        self.losses().lost
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, lines: u64, cursor: Option<&DeliveryCursor>) {
        let mut losses = self.losses();
        losses.lost += lines;
        let Some(cursor) = cursor.filter(|_| lines > 0) else { return };
        match losses.known.iter_mut().find(|(known, _)| known.is_same(cursor)) {
            Some((_, untold)) => *untold += lines,
            None => losses.known.push((cursor.clone(), lines)),
        }
    }
}

impl Losses {
    /// How many lines a notice has to tell of now.
    fn untold(&mut self) -> (u64, Vec<(DeliveryCursor, u64)>) {
        (self.lost - self.told, mem::take(&mut self.known))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("losses", &self.losses).finish_non_exhaustive()
    }
}

/// The outcome of sending a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// There was no room in time; its lines are counted as lost.
    Dropped,
    /// The sink was given up; nothing is counted any more.
    Gone,
}

/// The outcome of reserving room.
#[derive(Debug)]
pub(super) enum Reserved {
    Room(Room),
    /// There was no room in time.
    Nothing,
    /// The sink was given up, or is being closed.
    Gone,
}

/// Room in the queue for one chunk.
#[derive(Debug)]
pub(super) struct Room {
    shared: Arc<Shared>,
    bytes: usize,
}

/// The outcome of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    Everything,
    /// The deadline passed, or the sink was given up, before everything was written.
    Unfinished,
}

/// A handle on the queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    form: Form,
    limit: usize,
    waits: Waits,
    /// An eventfd that becomes readable when there is no more time to write.
    ending: OwnedFd,
    state: Mutex<State>,
    /// Signalled when there is something to write, or at the end.
    work: Condvar,
    /// Signalled when something was written, or the sink was given up.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Work>,
    /// Bytes that are queued or being written.
    bytes: usize,
    /// Whether the thread is writing a chunk.
    writing: bool,
    spares: Vec<Vec<u8>>,
    /// Whether a sender waited in vain, and nothing was written since.
    stalled: bool,
    closing: bool,
    /// Accounts with losses that a notice has to tell of before the next chunk that finds room.
    owing: Vec<Arc<Account>>,
    /// Accounts whose notice could not be written; it is tried again after the next write.
    unsaid: Vec<Arc<Account>>,
    gone: Option<Gone>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Work {
    Write(Chunk),
    Tell(Vec<Arc<Account>>),
}

#[derive(Debug)]
struct Gone {
    reason: Errno,
    told: bool,
}

impl Sink {
    /// Starts the thread that owns `writer`. At most `limit` bytes wait, or one chunk that is
    /// larger.
    pub(super) fn start(writer: impl Writer, form: Form, limit: usize) -> Result<Self, SinkError> {
        let ending = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let ending = ending.map_err(|errno| SinkError::Ending(errno.into()))?;
        let shared = Arc::new(Shared {
            form,
            limit,
            waits: writer.waits(),
            ending,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Notify::new(),
        });
        let workers = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("logs".to_owned());
        let thread = builder.spawn(move || workers.work_on(writer)).map_err(SinkError::Thread)?;
        shared.lock().thread = Some(thread);
        Ok(Self(shared))
    }

    /// The form in which lines have to be rendered.
    pub fn form(&self) -> Form {
        self.0.form
    }

    /// Queues `chunk`, and waits up to `PATIENCE` for room. While the sink is stalled, it does not
    /// wait.
    pub async fn send(&self, chunk: Chunk) -> Sent {
        match self.reserve(chunk.size()).await {
            Reserved::Room(room) => room.queue(chunk),
            Reserved::Nothing => {
                self.lose(&chunk.account, chunk.lines, None);
                Sent::Dropped
            }
            Reserved::Gone => Sent::Gone,
        }
    }

    /// Reserves room for a chunk of this size, with the same waits as `send`.
    pub(super) async fn reserve(&self, bytes: usize) -> Reserved {
        if let Some(reserved) = self.0.try_reserve(bytes, 0) {
            return reserved;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            if let Some(reserved) = self.0.try_reserve(bytes, 0) {
                return reserved;
            }
            if self.is_stalled() || tokio::time::timeout_at(deadline, room).await.is_err() {
                self.0.lock().stalled = true;
                return Reserved::Nothing;
            }
        }
    }

    /// Counts lines as lost. `cursor`: the spool's cursor, if that has counted them too.
    pub(super) fn lose(&self, account: &Arc<Account>, lines: u64, cursor: Option<&DeliveryCursor>) {
        self.0.lock().lose(account, lines, cursor);
    }

    /// Waits until all records of a spool were delivered, or the sink was given up.
    pub(super) async fn settled(&self, cursor: &DeliveryCursor) {
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            if cursor.is_settled() || self.0.lock().is_over() {
                return;
            }
            room.await;
        }
    }

    /// Queues `chunk` if there is room now. For the node's own lines, for which there is room even
    /// when services have filled the queue.
    pub fn offer(&self, chunk: Chunk) -> Sent {
        match self.0.try_reserve(chunk.size(), RESERVE) {
            Some(Reserved::Room(room)) => room.queue(chunk),
            Some(Reserved::Nothing) | None => {
                self.lose(&chunk.account, chunk.lines, None);
                Sent::Dropped
            }
            Some(Reserved::Gone) => Sent::Gone,
        }
    }

    /// An empty buffer for the next chunk.
    pub fn buffer(&self) -> Vec<u8> {
        self.0.lock().spares.pop().unwrap_or_default()
    }

    /// Whether lines are being dropped because the destination takes none.
    pub fn is_stalled(&self) -> bool {
        self.0.lock().stalled
    }

    /// Why the sink was given up; told once.
    pub fn take_gone(&self) -> Option<io::Error> {
        let mut state = self.0.lock();
        let gone = state.gone.as_mut().filter(|gone| !gone.told)?;
        gone.told = true;
        Some(gone.reason.into())
    }

    /// Waits until all queued lines and all notices are written, for at most `within`.
    pub async fn flush(&self, within: Duration) -> Flushed {
        let deadline = Instant::now() + within;
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            {
                let state = self.0.lock();
                if state.gone.is_some() {
                    return Flushed::Unfinished;
                }
                if state.is_idle() {
                    return Flushed::Everything;
                }
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Flushed::Unfinished;
            }
        }
    }

    /// Flushes and ends the thread. Lines that are not written in time are counted as lost. A
    /// thread that is blocked in the kernel is not waited for; it ends when its call returns.
    pub async fn close(&self, within: Duration) -> Flushed {
        let flushed = self.flush(within).await;
        let thread = {
            let mut state = self.0.lock();
            state.closing = true;
            for work in mem::take(&mut state.queue) {
                if let Work::Write(chunk) = work {
                    state.lose(&chunk.account, chunk.lines, None);
                }
            }
            let ends = !state.writing || self.0.waits == Waits::UntilTold;
            state.thread.take().filter(|_| ends)
        };
        self.0.work.notify_one();
        self.0.room.notify_waiters();
        // Fails only if the counter of the eventfd is full.
        let _told = rustix::io::write(&self.0.ending, &1_u64.to_ne_bytes());
        if let Some(thread) = thread {
            drop(thread.join());
        }
        flushed
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: there is no room now.
    fn try_reserve(self: &Arc<Self>, bytes: usize, reserve: usize) -> Option<Reserved> {
        let mut state = self.lock();
        if state.is_over() {
            return Some(Reserved::Gone);
        }
        if state.bytes > 0 && state.bytes + bytes > self.limit + reserve {
            return None;
        }
        state.bytes += bytes;
        Some(Reserved::Room(Room { shared: Arc::clone(self), bytes }))
    }

    /// The writing thread.
    fn work_on(&self, mut writer: impl Writer) {
        while let Some(work) = self.next_work() {
            match work {
                Work::Write(chunk) => self.write(&mut writer, chunk),
                Work::Tell(accounts) => self.tell(&mut writer, &accounts),
            }
            self.lock().writing = false;
            self.room.notify_waiters();
        }
    }

    /// Waits for a chunk or a notice; `None`: the end.
    fn next_work(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.gone.is_some() {
                return None;
            }
            let mut work = state.queue.pop_front();
            if work.is_none() && state.closing {
                return None;
            }
            if work.is_none() && !state.owing.is_empty() {
                work = Some(Work::Tell(mem::take(&mut state.owing)));
            }
            if work.is_some() {
                state.writing = true;
                return work;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, writer: &mut impl Writer, chunk: Chunk) {
        let (size, Chunk { bytes, lines, account, mut receipt }) = (chunk.size(), chunk);
        let outcome = writer.write(&bytes, self.ending.as_fd(), receipt.as_mut());
        let mut state = self.lock();
        state.bytes -= size;
        state.stalled = false;
        match outcome {
            Ok(()) => {
                if let Some(receipt) = &mut receipt {
                    receipt.all_delivered();
                }
                let unsaid = mem::take(&mut state.unsaid);
                state.owing.extend(unsaid);
            }
            Err(Unwritten::Lines(unwritten)) => {
                let unwritten = unwritten.min(lines);
                let known = receipt.as_ref().map_or(0, |receipt| receipt.lost.min(unwritten));
                let cursor = receipt.as_ref().map(|receipt| &receipt.cursor);
                state.lose(&account, known, cursor);
                state.lose(&account, unwritten - known, None);
            }
            Err(Unwritten::Gone(reason)) => state.give_up(reason),
        }
        state.keep_spare(bytes);
    }

    fn tell(&self, writer: &mut impl Writer, accounts: &[Arc<Account>]) {
        let mut notice = Vec::new();
        for account in accounts {
            let (lost, known) = account.losses().untold();
            if lost == 0 {
                continue;
            }
            notice.clear();
            (account.notice)(&mut notice, lost);
            match writer.write(&notice, self.ending.as_fd(), None) {
                Ok(()) => {
                    account.losses().told += lost;
                    known.iter().for_each(|(cursor, lines)| cursor.tell(*lines));
                }
                Err(Unwritten::Lines(_)) => {
                    account.losses().known.extend(known);
                    self.lock().unsaid.push(Arc::clone(account));
                }
                Err(Unwritten::Gone(reason)) => return self.lock().give_up(reason),
            }
        }
    }
}

impl Room {
    pub(super) fn queue(mut self, chunk: Chunk) -> Sent {
        let mut state = self.shared.lock();
        if state.is_over() {
            return Sent::Gone;
        }
        if !state.owing.is_empty() {
            let owing = mem::take(&mut state.owing);
            state.queue.push_back(Work::Tell(owing));
        }
        state.queue.push_back(Work::Write(chunk));
        drop(state);
        // The chunk takes the room over.
        self.bytes = 0;
        self.shared.work.notify_one();
        Sent::Queued
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut state = self.shared.lock();
            state.bytes = state.bytes.saturating_sub(self.bytes);
            drop(state);
            self.shared.room.notify_waiters();
        }
    }
}

impl Chunk {
    /// The room of a chunk: that of its lines, or of its records in the spool if that is larger.
    fn size(&self) -> usize {
        let kept = self.receipt.as_ref().map_or(0, |receipt| receipt.kept);
        self.bytes.len().max(kept)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.owing.is_empty() && !self.writing
    }

    /// Nothing is accepted any more.
    fn is_over(&self) -> bool {
        self.gone.is_some() || self.closing
    }

    fn lose(&mut self, account: &Arc<Account>, lines: u64, cursor: Option<&DeliveryCursor>) {
        account.lose(lines, cursor);
        if lines > 0 && !self.owing.iter().any(|owing| Arc::ptr_eq(owing, account)) {
            self.owing.push(Arc::clone(account));
        }
    }

    fn give_up(&mut self, reason: Errno) {
        self.gone = Some(Gone { reason, told: false });
        self.queue.clear();
        self.bytes = 0;
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spares.len() < SPARES && buffer.capacity() <= SPARE_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}
