//! The thread that writes finished text to the console, so that a console that does not read never
//! stops the supervisor. Knows nothing of what it writes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that may wait for the console.
pub const QUEUE_MAX: usize = 4 << 20;

/// How long a sender waits for room before it drops what it has.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Room above the bound that only the node's own few lines may use.
const RESERVE: usize = 64 << 10;

/// Written buffers that are kept for the next chunk, and the largest that is worth keeping.
const SPARES: usize = 4;
const SPARE_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("starting the console's thread failed: {0}")]
    Thread(#[source] io::Error),
}

/// Whole lines of one service.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// How many of the service's records `bytes` holds. Other lines may precede them.
    pub lines: u64,
    /// Where records that are not shown are counted.
    pub lost: Arc<AtomicU64>,
}

impl Chunk {
    fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// There was no room in time; its lines are counted.
    Dropped,
    /// The console was given up; nothing is counted any more.
    Gone,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    Everything,
    /// The deadline passed, or the console was given up before all was written.
    Unfinished,
}

/// A handle on the console; cheap to clone.
#[derive(Debug, Clone)]
pub struct Console(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// There is something to write, or the end.
    work: Condvar,
    /// A chunk was written, or the console was given up.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Chunk>,
    /// Queued or being written.
    bytes: usize,
    spares: Vec<Vec<u8>>,
    /// A sender's patience ended, and nothing was written since.
    stalled: bool,
    closing: bool,
    gone: Option<Gone>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Gone {
    reason: Errno,
    told: bool,
}

impl Console {
    /// Starts the thread that owns `fd`. At most `limit` bytes wait, or one chunk that is larger.
    pub fn start(fd: OwnedFd, limit: usize) -> Result<Self, ConsoleError> {
        let shared = Arc::new(Shared {
            limit,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Notify::new(),
        });
        let writers = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("console".to_owned());
        let thread = builder.spawn(move || writers.write_on(&fd)).map_err(ConsoleError::Thread)?;
        shared.lock().thread = Some(thread);
        Ok(Self(shared))
    }

    /// Hands `chunk` over, waiting up to `PATIENCE` for room. Nobody waits while the console is
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
                return self.0.drop_chunk(&chunk);
            }
        }
    }

    /// Hands `chunk` over if there is room now. For the node's own lines: for them there is room
    /// even where services have filled the queue.
    pub fn offer(&self, chunk: Chunk) -> Sent {
        match self.0.try_queue(chunk, RESERVE) {
            Ok(sent) => sent,
            Err(refused) => {
                refused.lose(refused.lines);
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

    /// Why the console was given up. Says it once.
    pub fn take_gone(&self) -> Option<io::Error> {
        let mut state = self.0.lock();
        let gone = state.gone.as_mut().filter(|gone| !gone.told)?;
        gone.told = true;
        Some(gone.reason.into())
    }

    /// Waits until everything that was handed over is written, at most `within`.
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
                if state.bytes == 0 {
                    return Flushed::Everything;
                }
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Flushed::Unfinished;
            }
        }
    }

    /// Flushes and ends the thread. What could not be written in time is counted as lost, and the
    /// thread then ends as soon as the kernel lets go of it.
    pub async fn close(&self, within: Duration) -> Flushed {
        let flushed = self.flush(within).await;
        let thread = {
            let mut state = self.0.lock();
            state.closing = true;
            for chunk in mem::take(&mut state.queue) {
                chunk.lose(chunk.lines);
            }
            self.0.work.notify_one();
            let is_idle = state.bytes == 0;
            state.thread.take().filter(|_| is_idle)
        };
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
        state.bytes += chunk.bytes.len();
        state.queue.push_back(chunk);
        self.work.notify_one();
        Ok(Sent::Queued)
    }

    fn drop_chunk(&self, chunk: &Chunk) -> Sent {
        self.lock().stalled = true;
        chunk.lose(chunk.lines);
        Sent::Dropped
    }

    /// The thread.
    fn write_on(&self, fd: &OwnedFd) {
        let mut torn = false;
        while let Some(chunk) = self.next_chunk() {
            let outcome = write_chunk(fd, &chunk, &mut torn);
            let mut state = self.lock();
            state.bytes -= chunk.bytes.len();
            state.stalled = false;
            if let Err(reason) = outcome {
                state.gone = Some(Gone { reason, told: false });
                state.queue.clear();
                state.bytes = 0;
            }
            state.keep_spare(chunk.bytes);
            drop(state);
            self.room.notify_waiters();
        }
    }

    /// Waits for one; none: the end.
    fn next_chunk(&self) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            if state.gone.is_some() {
                return None;
            }
            if let Some(chunk) = state.queue.pop_front() {
                return Some(chunk);
            }
            if state.closing {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spares.len() < SPARES && buffer.capacity() <= SPARE_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}

/// A full disk costs the lines that did not fit; the console stays. Any other error ends it.
/// `torn`: the last thing written was half a line.
fn write_chunk(fd: &OwnedFd, chunk: &Chunk, torn: &mut bool) -> Result<(), Errno> {
    if *torn && write_all(fd, b"\n").is_ok() {
        *torn = false;
    }
    let Err((rest, reason)) = write_all(fd, &chunk.bytes) else {
        return Ok(());
    };
    if !matches!(reason, Errno::NOSPC | Errno::DQUOT) {
        return Err(reason);
    }
    let written = chunk.bytes.len() - rest.len();
    *torn |= written > 0 && chunk.bytes[written - 1] != b'\n';
    let unwritten = memchr::memchr_iter(b'\n', rest).count() as u64;
    chunk.lose(unwritten.min(chunk.lines));
    Ok(())
}

/// The bytes that were not written, and why.
fn write_all<'a>(fd: &OwnedFd, mut bytes: &'a [u8]) -> Result<(), (&'a [u8], Errno)> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_writable(fd).map_err(|errno| (bytes, errno))?,
            Err(errno) => return Err((bytes, errno)),
        }
    }
    Ok(())
}

/// Somebody who shares the console has made it non-blocking.
fn wait_writable(fd: &OwnedFd) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::pipe::{PipeFlags, pipe, pipe_with};
    use std::fs::File;
    use std::io::Read;

    const LONG: Duration = Duration::from_secs(60);

    fn chunk(lost: &Arc<AtomicU64>, lines: u64, length: usize) -> Chunk {
        let line = "x".repeat(length - 1) + "\n";
        let bytes = line.repeat(usize::try_from(lines).unwrap()).into_bytes();
        Chunk { bytes, lines, lost: Arc::clone(lost) }
    }

    fn count(lost: &AtomicU64) -> u64 {
        lost.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn what_is_sent_is_written_in_order_and_the_thread_ends() {
        let (read, write) = pipe().unwrap();
        let console = Console::start(write, QUEUE_MAX).unwrap();
        for text in ["a\n", "b\n", "c\n"] {
            let chunk = Chunk { bytes: text.into(), lines: 1, lost: Arc::default() };
            assert_eq!(console.send(chunk).await, Sent::Queued);
        }
        assert_eq!(console.close(LONG).await, Flushed::Everything);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\nc\n");
    }

    #[tokio::test]
    async fn a_console_that_does_not_read_stalls_loses_an_exact_count_and_recovers() {
        let (read, write) = pipe().unwrap();
        let console = Console::start(write, 100_000).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        let mut sent = 0;
        while console.send(chunk(&lost, 500, 100)).await == Sent::Queued {
            sent += 500;
        }
        assert!(console.is_stalled());
        assert_eq!(console.send(chunk(&lost, 7, 10_000)).await, Sent::Dropped);
        assert_eq!(count(&lost), 507);
        assert_eq!(console.flush(Duration::ZERO).await, Flushed::Unfinished);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::from(read).read_to_string(&mut text).unwrap();
            text.lines().count()
        });
        assert_eq!(console.flush(LONG).await, Flushed::Everything);
        assert!(!console.is_stalled());
        assert_eq!(console.send(chunk(&lost, 1, 10)).await, Sent::Queued);
        assert_eq!(console.close(LONG).await, Flushed::Everything);
        assert_eq!(reader.join().unwrap(), sent + 1);
        assert_eq!(count(&lost), 507);
    }

    #[tokio::test]
    async fn the_nodes_own_lines_find_room_in_a_full_queue() {
        let (_read, write) = pipe().unwrap();
        let console = Console::start(write, 100_000).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        while console.send(chunk(&lost, 500, 100)).await == Sent::Queued {}
        let own = Arc::new(AtomicU64::new(0));
        assert_eq!(console.offer(chunk(&own, 1, 100)), Sent::Queued);
        while console.offer(chunk(&own, 1, 10_000)) == Sent::Queued {}
        assert_eq!(count(&own), 1);
    }

    #[tokio::test]
    async fn a_closed_console_is_given_up_and_says_so_once() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let console = Console::start(write, QUEUE_MAX).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        while console.send(chunk(&lost, 1, 10)).await != Sent::Gone {
            console.flush(LONG).await;
        }
        let reason = console.take_gone().unwrap();
        assert_eq!(reason.kind(), io::ErrorKind::BrokenPipe);
        assert!(console.take_gone().is_none());
        assert_eq!(console.close(LONG).await, Flushed::Unfinished);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_but_not_the_console() {
        let full = rustix::fs::open("/dev/full", OFlags::WRONLY, Mode::empty()).unwrap();
        let console = Console::start(full, QUEUE_MAX).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        for _ in 0..3 {
            assert_eq!(console.send(chunk(&lost, 5, 10)).await, Sent::Queued);
        }
        assert_eq!(console.close(LONG).await, Flushed::Everything);
        assert_eq!(count(&lost), 15);
        assert!(console.take_gone().is_none());
    }

    #[tokio::test]
    async fn a_console_made_non_blocking_by_others_is_waited_for() {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        rustix::fs::fcntl_setfl(&read, OFlags::empty()).unwrap();
        let console = Console::start(write, QUEUE_MAX).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        assert_eq!(console.send(chunk(&lost, 10_000, 100)).await, Sent::Queued);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::from(read).read_to_string(&mut text).unwrap();
            text.lines().count()
        });
        assert_eq!(console.close(LONG).await, Flushed::Everything);
        assert_eq!(reader.join().unwrap(), 10_000);
    }
}
