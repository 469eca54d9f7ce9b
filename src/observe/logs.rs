//! Pumps: each reads one of the two log pipes of a run into the log store. Knows neither the
//! meaning of lines nor their destination.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep};

use crate::linux::fds;
use crate::linux::pipe_peek::{Mirror, Seen};
use crate::telemetry::spool::Looked;
use crate::telemetry::stream_writer::StreamWriter;
use crate::telemetry::{LogStore, LogStoreError, Rest, Source, Spool, Stream};

/// The most bytes of one read, after which other tasks have their turn.
const READ_SIZE: usize = 64 * 1024;
/// How long lines of a fast stream gather before the next read.
const GATHER: Duration = Duration::from_millis(1);
/// A stream is fast if it gives at least this many bytes per millisecond.
const FAST: usize = 1024;
/// Only a pipe that holds this much is left alone for that long: its writer must not block.
const ROOMY: usize = 1 << 20;

thread_local! {
    /// One buffer for all pumps, used for one read at a time: an idle pump has none.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// One buffer for all pumps, used for one look at a time. `None`: the last look failed,
    /// or there was none yet.
    static MIRROR: RefCell<Option<Mirror>> = const { RefCell::new(None) };
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("reading {stream} of {instance}: the descriptor cannot be waited for: {source}")]
    NotAPipe { instance: Box<str>, stream: &'static str, source: io::Error },
    #[error("reading {stream} of {instance} failed: {source}")]
    Read { instance: Box<str>, stream: &'static str, source: io::Error },
    #[error(transparent)]
    Book(#[from] LogStoreError),
}

/// Where bytes that were taken from a pipe are until they are delivered.
#[derive(Debug)]
pub enum Durability {
    /// In this process alone, with which they are lost. Holds the rest of a line of the pump
    /// before.
    InProcess(Rest),
    /// In the spool, and what is not in there still in the pipe. Another process has both of them
    /// too.
    Spooled(Box<Spool>),
}

/// Why a pump ended.
#[derive(Debug)]
pub enum Ended {
    /// All write ends of the pipe are closed.
    EndOfFile,
    /// It was asked to stop. Unread bytes are still in the pipe; `rest` is for the next pump,
    /// unless it is in the spool.
    Stopped { pipe: OwnedFd, rest: Rest },
}

/// How bytes are taken from a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With the read.
    Read,
    /// After they are in the spool.
    Look,
}

impl Way {
    fn once(self, pipe: &Receiver, stream_writer: &mut StreamWriter) -> io::Result<Got> {
        match self {
            Self::Read => read_once(pipe, stream_writer),
            Self::Look => look_once(pipe, stream_writer),
        }
    }
}

#[derive(Debug)]
enum Halt {
    EndOfFile(OwnedFd),
    Asked(OwnedFd),
}

/// The outcome of a read.
enum Got {
    /// The number of bytes; if less than `READ_SIZE`, the pipe is empty.
    Bytes {
        count: usize,
        last: u8,
    },
    Nothing,
    EndOfFile,
}

/// The rate of a stream. The writer of many short lines would otherwise wake the pump for a few of
/// them at a time, which costs both processes more than the lines do.
struct Flow {
    emptied: Instant,
    pipe: PipeSize,
}

enum PipeSize {
    AsItCame,
    Roomy,
    /// The kernel refuses a larger pipe.
    Small,
}

/// Reads `pipe` to its end, or until `stop` is ready, and puts every line into the log store. Makes
/// the read end non-blocking. The service must be registered with the log store.
pub async fn pump(
    pipe: OwnedFd,
    source: Source,
    stream: Stream,
    log_store: LogStore,
    durability: Durability,
    stop: impl Future<Output = ()>,
) -> Result<Ended, LogError> {
    let (instance, name) = (source.instance.clone(), stream.as_str());
    let pipe = Receiver::from_owned_fd(pipe).map_err(|source| LogError::NotAPipe {
        instance: instance.clone(),
        stream: name,
        source,
    })?;
    let mut stream_writer = log_store.stream_writer(source, stream)?;
    let done = match durability {
        Durability::InProcess(rest) => {
            stream_writer.resume(rest);
            read_and_end(pipe, &mut stream_writer, Way::Read, stop).await
        }
        Durability::Spooled(spool) => match stream_writer.keep_in(*spool).await {
            Ok(()) => read_and_end(pipe, &mut stream_writer, Way::Look, stop).await,
            Err(error) => Err(error),
        },
    };
    done.map_err(|source| LogError::Read { instance, stream: name, source })
}

async fn read_and_end(
    pipe: Receiver,
    stream_writer: &mut StreamWriter,
    way: Way,
    stop: impl Future<Output = ()>,
) -> io::Result<Ended> {
    let mut stop = pin!(stop);
    let read = match read_to_end(pipe, stream_writer, way, stop.as_mut()).await {
        Ok(Halt::EndOfFile(pipe)) => Ok(pipe),
        Ok(Halt::Asked(pipe)) => {
            // The rest of the line is in the spool, and so are the drops that no notice has told
            // of.
            let mut rest = Rest::default();
            if way == Way::Read {
                rest = stream_writer.stop();
                stream_writer.hand_over().await;
            }
            return Ok(Ended::Stopped { pipe, rest });
        }
        Err(error) => Err(error),
    };
    stream_writer.finish();
    match way {
        Way::Read => stream_writer.hand_over().await,
        Way::Look => {
            stream_writer.keep_and_hand_over(None).await?;
            tokio::select! {
                // Everything was delivered; the spool is not needed any more.
                () = stream_writer.settled() => {}
                () = stop, if read.is_ok() => {
                    return read.map(|pipe| Ended::Stopped { pipe, rest: Rest::default() });
                }
            }
        }
    }
    read.map(|_| Ended::EndOfFile)
}

async fn read_to_end(
    mut pipe: Receiver,
    stream_writer: &mut StreamWriter,
    way: Way,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> io::Result<Halt> {
    let mut flow = Flow { emptied: Instant::now(), pipe: PipeSize::AsItCame };
    loop {
        let mut is_fast = false;
        let mut seen = None;
        tokio::select! {
            () = &mut stop => return pipe.into_nonblocking_fd().map(Halt::Asked),
            ready = pipe.readable() => {
                ready?;
                match way.once(&pipe, stream_writer)? {
                    Got::Bytes { count, last } => {
                        is_fast = flow.is_fast(count, &pipe);
                        seen = Some((count, last));
                    }
                    Got::Nothing => continue,
                    Got::EndOfFile => return pipe.into_nonblocking_fd().map(Halt::EndOfFile),
                }
            }
            () = notice_due(stream_writer) => stream_writer.say_dropped(),
        }
        match way {
            Way::Read => stream_writer.hand_over().await,
            Way::Look => {
                let looked = seen.map(|(count, last)| Looked { pipe: pipe.as_fd(), count, last });
                stream_writer.keep_and_hand_over(looked).await?;
            }
        }
        if is_fast {
            // Waits for the time only: otherwise every write would wake this task.
            let unwatched = pipe.into_nonblocking_fd()?;
            tokio::select! {
                () = &mut stop => return Ok(Halt::Asked(unwatched)),
                () = sleep(GATHER) => {}
            }
            pipe = Receiver::from_owned_fd_unchecked(unwatched)?;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

impl Flow {
    /// Whether the pipe is empty now, will soon hold much again, and has room for it.
    fn is_fast(&mut self, count: usize, pipe: &Receiver) -> bool {
        if count >= READ_SIZE {
            return false;
        }
        let now = Instant::now();
        let since = now.duration_since(std::mem::replace(&mut self.emptied, now));
        let is_fast = since.as_micros() * FAST as u128 <= count as u128 * GATHER.as_micros();
        if is_fast && matches!(self.pipe, PipeSize::AsItCame) {
            let size = fds::enlarge_pipe(pipe).unwrap_or(0);
            self.pipe = if size >= ROOMY { PipeSize::Roomy } else { PipeSize::Small };
        }
        is_fast && matches!(self.pipe, PipeSize::Roomy)
    }
}

fn read_once(pipe: &Receiver, stream_writer: &mut StreamWriter) -> io::Result<Got> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        buffer.reserve_exact(READ_SIZE);
        match pipe.try_read_buf(buffer) {
            Ok(0) => Ok(Got::EndOfFile),
            Ok(count) => {
                stream_writer.take_in(buffer);
                Ok(Got::Bytes { count, last: buffer[count - 1] })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(error) => Err(error),
        }
    })
}

fn look_once(pipe: &Receiver, stream_writer: &mut StreamWriter) -> io::Result<Got> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(READ_SIZE, 0);
        match pipe.try_io(|| look(pipe, buffer)) {
            Ok(Seen::EndOfFile) => Ok(Got::EndOfFile),
            Ok(Seen::Bytes(count)) => {
                stream_writer.take_in(&buffer[..count]);
                Ok(Got::Bytes { count, last: buffer[count - 1] })
            }
            Ok(Seen::Nothing) => Ok(Got::Nothing),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(error) => Err(error),
        }
    })
}

fn look(pipe: &Receiver, into: &mut [u8]) -> io::Result<Seen> {
    MIRROR.with_borrow_mut(|mirror| {
        let ours = match mirror.take() {
            Some(mirror) => mirror,
            None => Mirror::new().map_err(io::Error::other)?,
        };
        let seen = ours.look(pipe, into)?;
        *mirror = Some(ours);
        if seen == Seen::Nothing { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(seen) }
    })
}

async fn notice_due(stream_writer: &StreamWriter) {
    match stream_writer.notice_due() {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod deaths;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{AtEnd, Limits, OwnedRecord, Query, Scope, Settings, SystemClock};
    use crate::units::{InstanceId, Level, Pid, RunId};
    use rustix::pipe::pipe;
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;
    use tokio_stream::StreamExt;

    const ALL: Query = Query { scope: Scope::All, tail: None, since: None };
    const LINES: usize = 200_000;

    fn log_store() -> LogStore {
        let settings =
            Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
        LogStore::new(settings, None, Arc::new(SystemClock::start()))
    }

    fn start(
        log_store: &LogStore,
        pipe: OwnedFd,
        instance: &str,
    ) -> impl Future<Output = Ended> + use<> {
        start_with(log_store, pipe, instance, ours())
    }

    fn start_with(
        log_store: &LogStore,
        pipe: OwnedFd,
        instance: &str,
        durability: Durability,
    ) -> impl Future<Output = Ended> + use<> {
        let id: InstanceId = instance.parse().unwrap();
        let source = Source::instance(&id, RunId(1), Pid(7));
        let log_store = log_store.clone();
        let pumped =
            pump(pipe, source, Stream::Stdout, log_store, durability, std::future::pending());
        async { pumped.await.unwrap() }
    }

    fn ours() -> Durability {
        Durability::InProcess(Rest::default())
    }

    fn shared(memory: &OwnedFd) -> Durability {
        Durability::Spooled(Box::new(Spool::open(memory).unwrap()))
    }

    fn either() -> [Durability; 2] {
        [ours(), shared(&Spool::memory().unwrap())]
    }

    fn register(log_store: &LogStore, service: &str, limits: Limits) {
        log_store.register(&service.parse().unwrap(), limits);
    }

    fn messages(records: Vec<OwnedRecord>) -> Vec<String> {
        records.into_iter().map(|record| record.message).collect()
    }

    #[tokio::test]
    async fn every_line_of_a_flood_arrives_in_order() {
        for durability in either() {
            let log_store = log_store();
            register(&log_store, "web", Limits { bytes: 1 << 30, ..Limits::new(1_000_000, 0, 0) });
            let (read, write) = pipe().unwrap();
            let writer = std::thread::spawn(move || {
                let mut file = std::io::BufWriter::new(File::from(write));
                (0..LINES).for_each(|n| writeln!(file, "line {n}").unwrap());
                write!(file, "half a line at exit").unwrap();
            });
            assert!(matches!(
                start_with(&log_store, read, "web-0", durability).await,
                Ended::EndOfFile
            ));
            writer.join().unwrap();
            let mut seen = messages(log_store.query(ALL));
            assert_eq!(seen.pop().unwrap(), "half a line at exit");
            assert_eq!(seen.len(), LINES);
            assert!(seen.iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
        }
    }

    #[tokio::test]
    async fn a_flood_over_the_rate_is_kept_or_counted_and_told() {
        for durability in either() {
            let log_store = log_store();
            register(&log_store, "web", Limits::new(1_000_000, 1000, 100));
            let (read, write) = pipe().unwrap();
            let writer = std::thread::spawn(move || {
                let mut file = std::io::BufWriter::new(File::from(write));
                (0..LINES).for_each(|_| writeln!(file, "x").unwrap());
            });
            assert!(matches!(
                start_with(&log_store, read, "web-0", durability).await,
                Ended::EndOfFile
            ));
            writer.join().unwrap();
            let (notices, kept): (Vec<_>, Vec<_>) =
                log_store.query(ALL).into_iter().partition(|record| record.level == Level::Warn);
            let told: usize =
                notices.iter().map(|r| r.fields["lines"].parse::<usize>().unwrap()).sum();
            assert_eq!(kept.len() + told, LINES);
            assert_eq!(log_store.dropped(&"web".parse().unwrap()), told as u64);
        }
    }

    #[tokio::test]
    async fn dropped_lines_are_told_of_while_the_service_stays_silent() {
        let log_store = log_store();
        register(&log_store, "web", Limits { rate: 1, ..Limits::new(100, 1, 1) });
        let (read, write) = pipe().unwrap();
        let mut file = File::from(write);
        file.write_all(b"kept\ndropped\n").unwrap();
        let follower = log_store.read(ALL, AtEnd::Follow);
        let seen = tokio::select! {
            ended = start(&log_store, read, "web-0") => panic!("{ended:?}"),
            seen = follower.take(2).collect::<Vec<_>>() => messages(seen),
        };
        assert_eq!(seen, ["kept", "1 lines dropped by the rate limit"]);
        drop(file);
    }

    #[tokio::test]
    async fn a_flood_does_not_starve_a_quiet_service() {
        let log_store = log_store();
        register(&log_store, "loud", Limits::new(100, 0, 0));
        register(&log_store, "quiet", Limits::new(100, 0, 0));
        let (loud, flood) = pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = File::from(flood);
            while file.write_all(&b"noise\n".repeat(10_000)).is_ok() {}
        });
        let (quiet, write) = pipe().unwrap();
        let mut file = File::from(write);
        let scope = Scope::Service("quiet".parse().unwrap());
        let mut follower = log_store.read(Query { scope, ..ALL }, AtEnd::Follow);
        let conversation = async {
            for n in 0..20 {
                writeln!(file, "{n}").unwrap();
                assert_eq!(follower.next().await.unwrap().message, n.to_string());
            }
        };
        tokio::select! {
            ended = start(&log_store, loud, "loud-0") => panic!("{ended:?}"),
            ended = start(&log_store, quiet, "quiet-0") => panic!("{ended:?}"),
            () = conversation => {}
        }
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn a_pump_that_is_stopped_leaves_every_byte_to_the_next() {
        let log_store = log_store();
        register(&log_store, "web", Limits::new(100, 0, 0));
        let (read, write) = pipe().unwrap();
        let kept = read.try_clone().unwrap();
        let mut file = File::from(write);
        file.write_all(b"read\nhalf").unwrap();
        let mut follower = log_store.read(ALL, AtEnd::Follow);
        let stop = async {
            follower.next().await;
        };
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let first = pump(read, source.clone(), Stream::Stderr, log_store.clone(), ours(), stop);
        let Ended::Stopped { rest, .. } = first.await.unwrap() else { panic!("nobody closed it") };
        assert_eq!(rest, Rest { bytes: b"half".to_vec(), parts: 0 });
        file.write_all(b" a line\nlast").unwrap();
        drop(file);
        let never = std::future::pending();
        let durability = Durability::InProcess(rest);
        let second = pump(kept, source, Stream::Stderr, log_store.clone(), durability, never);
        assert!(matches!(second.await.unwrap(), Ended::EndOfFile));
        assert_eq!(messages(log_store.query(ALL)), ["read", "half a line", "last"]);
    }

    #[tokio::test]
    async fn a_pump_that_is_stopped_has_the_rest_of_a_line_in_its_spool() {
        let log_store = log_store();
        register(&log_store, "web", Limits::new(100, 0, 0));
        let (read, write) = pipe().unwrap();
        let memory = Spool::memory().unwrap();
        let mut file = File::from(write);
        file.write_all(b"read\nhalf").unwrap();
        let mut follower = log_store.read(ALL, AtEnd::Follow);
        let stop = async {
            follower.next().await;
        };
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let kept = read.try_clone().unwrap();
        let first = pump(kept, source, Stream::Stdout, log_store.clone(), shared(&memory), stop);
        let Ended::Stopped { rest, .. } = first.await.unwrap() else { panic!("nobody closed it") };
        assert_eq!(rest, Rest::default());
        file.write_all(b" a line\nlast").unwrap();
        drop(file);
        let second = start_with(&log_store, read, "web-0", shared(&memory));
        assert!(matches!(second.await, Ended::EndOfFile));
        assert_eq!(messages(log_store.query(ALL)), ["read", "half a line", "last"]);
    }

    #[tokio::test]
    async fn what_is_not_a_pipe_is_refused_by_name() {
        let log_store = log_store();
        register(&log_store, "web", Limits::new(100, 0, 0));
        let null = File::open("/dev/null").unwrap().into();
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let never = std::future::pending();
        let refused = pump(null, source, Stream::Stdout, log_store, ours(), never).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with("reading stdout of web-0: the descriptor cannot"), "{text}");
    }
}
