//! The queue between the log plane and whoever takes its lines, and the thread that empties it, so
//! that a reader that does not keep up never stops the supervisor. Counts what does not get out,
//! and says so when lines pass again. Knows neither what is written nor where.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// is no more time for it.
    fn write(&mut self, lines: &[u8], ending: BorrowedFd<'_>) -> Result<(), Unwritten>;

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
}

/// The lines of one service that did not get out, and how that is told.
pub struct Account {
    lost: AtomicU64,
    told: AtomicU64,
    notice: Notice,
}

/// Appends a line that tells of so many lost ones.
type Notice = Box<dyn Fn(&mut Vec<u8>, u64) + Send + Sync>;

impl Account {
    pub fn new(notice: impl Fn(&mut Vec<u8>, u64) + Send + Sync + 'static) -> Self {
        Self { lost: AtomicU64::new(0), told: AtomicU64::new(0), notice: Box::new(notice) }
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn untold(&self) -> u64 {
        self.lost().saturating_sub(self.told.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("lost", &self.lost).field("told", &self.told).finish()
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
    pub async fn send(&self, mut chunk: Chunk) -> Sent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            room.as_mut().enable();
            chunk = match self.0.try_queue(chunk, 0) {
                Ok(sent) => return sent,
                Err(refused) => refused,
            };
            if self.is_stalled() || tokio::time::timeout_at(deadline, room).await.is_err() {
                let mut state = self.0.lock();
                state.stalled = true;
                state.lose(&chunk);
                return Sent::Dropped;
            }
        }
    }

    /// Hands `chunk` over if there is room now. For the node's own lines: for them there is room
    /// even where services have filled the queue.
    pub fn offer(&self, chunk: Chunk) -> Sent {
        match self.0.try_queue(chunk, RESERVE) {
            Ok(sent) => sent,
            Err(refused) => {
                self.0.lock().lose(&refused);
                Sent::Dropped
            }
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
                    state.lose(&chunk);
                }
            }
            let ends = !state.writing || self.0.waits == Waits::UntilTold;
            state.thread.take().filter(|_| ends)
        };
        self.0.work.notify_one();
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

    /// Gives the chunk back if there is no room.
    fn try_queue(&self, chunk: Chunk, reserve: usize) -> Result<Sent, Chunk> {
        let mut state = self.lock();
        if state.gone.is_some() || state.closing {
            return Ok(Sent::Gone);
        }
        if state.bytes > 0 && state.bytes + chunk.bytes.len() > self.limit + reserve {
            return Err(chunk);
        }
        if !state.owing.is_empty() {
            let owing = mem::take(&mut state.owing);
            state.queue.push_back(Work::Tell(owing));
        }
        state.bytes += chunk.bytes.len();
        state.queue.push_back(Work::Write(chunk));
        self.work.notify_one();
        Ok(Sent::Queued)
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
        let outcome = writer.write(&chunk.bytes, self.ending.as_fd());
        let mut state = self.lock();
        state.bytes -= chunk.bytes.len();
        state.stalled = false;
        match outcome {
            Ok(()) => {
                let unsaid = mem::take(&mut state.unsaid);
                state.owing.extend(unsaid);
            }
            Err(Unwritten::Lines(lines)) => {
                let lines = lines.min(chunk.lines);
                state.lose_lines(&chunk.account, lines);
            }
            Err(Unwritten::Gone(reason)) => state.give_up(reason),
        }
        state.keep_spare(chunk.bytes);
    }

    fn tell(&self, writer: &mut impl Writer, accounts: &[Arc<Account>]) {
        let mut notice = Vec::new();
        for account in accounts {
            let lost = account.untold();
            if lost == 0 {
                continue;
            }
            notice.clear();
            (account.notice)(&mut notice, lost);
            match writer.write(&notice, self.ending.as_fd()) {
                Ok(()) => {
                    account.told.fetch_add(lost, Ordering::Relaxed);
                }
                Err(Unwritten::Lines(_)) => self.lock().unsaid.push(Arc::clone(account)),
                Err(Unwritten::Gone(reason)) => return self.lock().give_up(reason),
            }
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.owing.is_empty() && !self.writing
    }

    fn lose(&mut self, chunk: &Chunk) {
        self.lose_lines(&chunk.account, chunk.lines);
    }

    fn lose_lines(&mut self, account: &Arc<Account>, lines: u64) {
        account.lost.fetch_add(lines, Ordering::Relaxed);
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
