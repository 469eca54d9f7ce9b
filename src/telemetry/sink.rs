//! The queue between the log plane and whoever takes its lines, and the thread that empties it, so
//! that a reader that does not keep up never stops the supervisor. Counts what does not get out,
//! and says so when lines pass again. Knows neither what is written nor where.

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

/// Bytes that may wait to be written.
pub const QUEUE_MAX: usize = 4 << 20;

/// How long a sender waits for room before it drops what it has.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Room above the bound that only the node's own few lines may use.
const RESERVE: usize = 64 << 10;

/// Written buffers that are kept for the next chunk, and the largest that is worth keeping.
const SPARES: usize = 4;
const SPARE_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("starting the thread that writes logs failed: {0}")]
    Thread(#[source] io::Error),
    #[error("making the signal that ends the thread that writes logs failed: {0}")]
    Ending(#[source] io::Error),
}

/// Where the lines go.
pub(super) trait Writer: Send + 'static {
    /// Writes whole lines, in the form they were rendered in. `ending` becomes readable when there
    /// is no more time for it. Says of each line, in order, when it is over with it, or leaves
    /// that to the caller, who then says it of all.
    fn write(
        &mut self,
        lines: &[u8],
        ending: BorrowedFd<'_>,
        receipt: Option<&mut Receipt>,
    ) -> Result<(), Unwritten>;

    fn waits(&self) -> Waits;
}

/// What a writer did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// So many of the lines; the next may fare better.
    Lines(u64),
    /// Nothing can be written any more.
    Gone(Errno),
}

/// Whether a writer that waits can be told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// It heeds `ending`.
    UntilTold,
    /// It may hang in the kernel.
    ForEver,
}

/// Whole lines of one service.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// How many of the service's records `bytes` holds.
    pub lines: u64,
    /// Where those are counted that do not get out.
    pub account: Arc<Account>,
    /// Whom to tell what has got out.
    pub(super) receipt: Option<Receipt>,
}

/// For the records of a chunk that are kept until they have got out.
#[derive(Debug)]
pub(super) struct Receipt {
    cursor: DeliveryCursor,
    /// Where each record ends.
    ends: Vec<u64>,
    next: usize,
    lost: u64,
    /// Bytes that are kept for them.
    kept: usize,
}

impl Receipt {
    pub(super) fn new(cursor: DeliveryCursor, ends: Vec<u64>, kept: usize) -> Self {
        Self { cursor, ends, next: 0, lost: 0, kept }
    }

    /// The next line has got out.
    pub(super) fn delivered(&mut self) {
        if let Some(end) = self.ends.get(self.next) {
            self.cursor.settle(*end);
            self.next += 1;
        }
    }

    /// The next line never will.
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

/// The lines of one service that did not get out, and how that is told.
pub struct Account {
    losses: Mutex<Losses>,
    notice: Notice,
}

#[derive(Debug, Default)]
struct Losses {
    lost: u64,
    told: u64,
    /// Which of those that were not told of are known to a stream's cursor.
    known: Vec<(DeliveryCursor, u64)>,
}

/// Appends a line that tells of so many lost ones.
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
    /// What is to be told of now.
    fn untold(&mut self) -> (u64, Vec<(DeliveryCursor, u64)>) {
        (self.lost - self.told, mem::take(&mut self.known))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("losses", &self.losses).finish_non_exhaustive()
    }
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// There was no room in time; its lines are counted.
    Dropped,
    /// The sink was given up; nothing is counted any more.
    Gone,
}

/// What became of a wish for room.
#[derive(Debug)]
pub(super) enum Reserved {
    Room(Room),
    /// There was none in time.
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

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    Everything,
    /// The deadline passed, or the sink was given up before all was written.
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
    /// Readable once there is no more time to write.
    ending: OwnedFd,
    state: Mutex<State>,
    /// There is something to write, or the end.
    work: Condvar,
    /// Something was written, or the sink was given up.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Work>,
    /// Queued or being written.
    bytes: usize,
    /// The thread has taken something and not finished it.
    writing: bool,
    spares: Vec<Vec<u8>>,
    /// A sender's patience ended, and nothing was written since.
    stalled: bool,
    closing: bool,
    /// Accounts whose losses are to be told of before the next chunk that finds room.
    owing: Vec<Arc<Account>>,
    /// Accounts whose losses could not be told; they owe again when something was written.
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

    /// In which form its lines are rendered.
    pub fn form(&self) -> Form {
        self.0.form
    }

    /// Hands `chunk` over, waiting up to `PATIENCE` for room. Nobody waits while the sink is
    /// stalled: it has had its time.
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

    /// Waits like `send` for room for a chunk of that size.
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

    /// Counts lines as lost. Those that `cursor` has counted too are told of to it.
    pub(super) fn lose(&self, account: &Arc<Account>, lines: u64, cursor: Option<&DeliveryCursor>) {
        self.0.lock().lose(account, lines, cursor);
    }

    /// Waits until all records of a stream have got out, or the sink was given up.
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

    /// Hands `chunk` over if there is room now. For the node's own lines: for them there is room
    /// even where services have filled the queue.
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

    /// Whether lines are being dropped because nothing is read at the other end.
    pub fn is_stalled(&self) -> bool {
        self.0.lock().stalled
    }

    /// Why the sink was given up. Says it once.
    pub fn take_gone(&self) -> Option<io::Error> {
        let mut state = self.0.lock();
        let gone = state.gone.as_mut().filter(|gone| !gone.told)?;
        gone.told = true;
        Some(gone.reason.into())
    }

    /// Waits until everything that was handed over is written, and every loss told of, at most
    /// `within`.
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

    /// Flushes and ends the thread. What could not be written in time is counted as lost. A thread
    /// that hangs in the kernel is not waited for; it ends as soon as the kernel lets go of it.
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
        // Fails only where it was closed 2^64 times before.
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

    /// None: there is no room now.
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

    /// The thread.
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

    /// Waits for some; none: the end.
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
        // Now it is the chunk's.
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
    /// The room that it takes up: what is kept for it is bounded too.
    fn size(&self) -> usize {
        let kept = self.receipt.as_ref().map_or(0, |receipt| receipt.kept);
        self.bytes.len().max(kept)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.owing.is_empty() && !self.writing
    }

    /// Nothing more is taken.
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
