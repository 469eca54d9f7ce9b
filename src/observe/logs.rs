//! Reads what a service writes: one pump for each of its two pipes. Knows neither what lines mean
//! nor where they go.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep};

use crate::linux::fds;
use crate::telemetry::intake::Intake;
use crate::telemetry::{BookError, LogBook, Rest, Source, Stream};

/// Bytes of one read, and so the most that is done before other tasks have their turn.
const READ_SIZE: usize = 64 * 1024;
/// How long a stream that flows fast gathers lines before it is read again.
const GATHER: Duration = Duration::from_millis(1);
/// It flows fast when it gives at least this much in a millisecond.
const FAST: usize = 1024;
/// Only a pipe that holds this much is left alone for so long: its writer must not wait for us.
const ROOMY: usize = 1 << 20;

thread_local! {
    /// For one read at a time; idle pumps hold no buffer of their own.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("reading {stream} of {instance}: the descriptor cannot be waited for: {source}")]
    NotAPipe { instance: Box<str>, stream: &'static str, source: io::Error },
    #[error("reading {stream} of {instance} failed: {source}")]
    Read { instance: Box<str>, stream: &'static str, source: io::Error },
    #[error(transparent)]
    Book(#[from] BookError),
}

/// Who has what was taken from a pipe and has not got out yet.
#[derive(Debug)]
pub enum Custody {
    /// This process alone, and with it it is lost. A pump before had read the rest of a line.
    Ours(Rest),
}

/// Why a pump has ended.
#[derive(Debug)]
pub enum Ended {
    /// Nobody has the other end any more.
    EndOfFile,
    /// It was asked to. What was not read is still in the pipe; `rest` is for the next pump.
    Stopped { pipe: OwnedFd, rest: Rest },
}

enum Halt {
    EndOfFile,
    Asked(OwnedFd),
}

/// What one read gave.
enum Got {
    /// So many bytes; less than `READ_SIZE` is all there was.
    Bytes(usize),
    Nothing,
    EndOfFile,
}

/// How fast a stream flows. A writer of many short lines would else wake us for a few of them at a
/// time, which costs both more than the lines.
struct Flow {
    emptied: Instant,
    pipe: PipeSize,
}

enum PipeSize {
    AsItCame,
    Roomy,
    /// It cannot be had larger.
    Small,
}

/// Reads `pipe` to its end, or until `stop` is ready, and puts every line into `book`. Sets the
/// pipe's read end non-blocking. The service must be registered with the book.
pub async fn pump(
    pipe: OwnedFd,
    source: Source,
    stream: Stream,
    book: LogBook,
    custody: Custody,
    stop: impl Future<Output = ()>,
) -> Result<Ended, LogError> {
    let (instance, name) = (source.instance.clone(), stream.as_str());
    let pipe = Receiver::from_owned_fd(pipe).map_err(|source| LogError::NotAPipe {
        instance: instance.clone(),
        stream: name,
        source,
    })?;
    let mut intake = book.intake(source, stream)?;
    let Custody::Ours(rest) = custody;
    intake.resume(rest);
    let ended = match read_to_end(pipe, &mut intake, stop).await {
        Ok(Halt::Asked(pipe)) => Ok(Ended::Stopped { pipe, rest: intake.stop() }),
        Ok(Halt::EndOfFile) => {
            intake.finish();
            Ok(Ended::EndOfFile)
        }
        Err(source) => {
            intake.finish();
            Err(LogError::Read { instance, stream: name, source })
        }
    };
    intake.hand_over().await;
    ended
}

async fn read_to_end(
    mut pipe: Receiver,
    intake: &mut Intake,
    stop: impl Future<Output = ()>,
) -> io::Result<Halt> {
    let mut stop = pin!(stop);
    let mut flow = Flow { emptied: Instant::now(), pipe: PipeSize::AsItCame };
    loop {
        let mut is_fast = false;
        tokio::select! {
            () = &mut stop => return pipe.into_nonblocking_fd().map(Halt::Asked),
            ready = pipe.readable() => {
                ready?;
                match read_once(&pipe, intake)? {
                    Got::Bytes(count) => is_fast = flow.is_fast(count, &pipe),
                    Got::Nothing => continue,
                    Got::EndOfFile => return Ok(Halt::EndOfFile),
                }
            }
            () = notice_due(intake) => intake.say_dropped(),
        }
        intake.hand_over().await;
        if is_fast {
            // Waiting for nothing but time: else every write would wake us.
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
    /// Whether the pipe is empty now, will soon have much again, and can hold it meanwhile.
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

fn read_once(pipe: &Receiver, intake: &mut Intake) -> io::Result<Got> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        buffer.reserve_exact(READ_SIZE);
        match pipe.try_read_buf(buffer) {
            Ok(0) => Ok(Got::EndOfFile),
            Ok(count) => {
                intake.take_in(buffer);
                Ok(Got::Bytes(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(error) => Err(error),
        }
    })
}

async fn notice_due(intake: &Intake) {
    match intake.notice_due() {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

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

    fn book() -> LogBook {
        let settings =
            Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
        LogBook::new(settings, None, Arc::new(SystemClock::start()))
    }

    fn start(book: &LogBook, pipe: OwnedFd, instance: &str) -> impl Future<Output = Ended> + use<> {
        let id: InstanceId = instance.parse().unwrap();
        let source = Source::instance(&id, RunId(1), Pid(7));
        let book = book.clone();
        let pumped = pump(pipe, source, Stream::Stdout, book, ours(), std::future::pending());
        async { pumped.await.unwrap() }
    }

    fn ours() -> Custody {
        Custody::Ours(Rest::default())
    }

    fn register(book: &LogBook, service: &str, limits: Limits) {
        book.register(&service.parse().unwrap(), limits);
    }

    fn messages(records: Vec<OwnedRecord>) -> Vec<String> {
        records.into_iter().map(|record| record.message).collect()
    }

    #[tokio::test]
    async fn every_line_of_a_flood_arrives_in_order() {
        let book = book();
        register(&book, "web", Limits { bytes: 1 << 30, ..Limits::new(1_000_000, 0, 0) });
        let (read, write) = pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = std::io::BufWriter::new(File::from(write));
            (0..LINES).for_each(|n| writeln!(file, "line {n}").unwrap());
            write!(file, "half a line at exit").unwrap();
        });
        assert!(matches!(start(&book, read, "web-0").await, Ended::EndOfFile));
        writer.join().unwrap();
        let mut seen = messages(book.query(ALL));
        assert_eq!(seen.pop().unwrap(), "half a line at exit");
        assert_eq!(seen.len(), LINES);
        assert!(seen.iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
    }

    #[tokio::test]
    async fn a_flood_over_the_rate_is_kept_or_counted_and_told() {
        let book = book();
        register(&book, "web", Limits::new(1_000_000, 1000, 100));
        let (read, write) = pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = std::io::BufWriter::new(File::from(write));
            (0..LINES).for_each(|_| writeln!(file, "x").unwrap());
        });
        assert!(matches!(start(&book, read, "web-0").await, Ended::EndOfFile));
        writer.join().unwrap();
        let (notices, kept): (Vec<_>, Vec<_>) =
            book.query(ALL).into_iter().partition(|record| record.level == Level::Warn);
        let told: usize = notices.iter().map(|r| r.fields["lines"].parse::<usize>().unwrap()).sum();
        assert_eq!(kept.len() + told, LINES);
        assert_eq!(book.dropped(&"web".parse().unwrap()), told as u64);
    }

    #[tokio::test]
    async fn dropped_lines_are_told_of_while_the_service_stays_silent() {
        let book = book();
        register(&book, "web", Limits { rate: 1, ..Limits::new(100, 1, 1) });
        let (read, write) = pipe().unwrap();
        let mut file = File::from(write);
        file.write_all(b"kept\ndropped\n").unwrap();
        let follower = book.read(ALL, AtEnd::Follow);
        let seen = tokio::select! {
            ended = start(&book, read, "web-0") => panic!("{ended:?}"),
            seen = follower.take(2).collect::<Vec<_>>() => messages(seen),
        };
        assert_eq!(seen, ["kept", "1 lines dropped by the rate limit"]);
        drop(file);
    }

    #[tokio::test]
    async fn a_flood_does_not_starve_a_quiet_service() {
        let book = book();
        register(&book, "loud", Limits::new(100, 0, 0));
        register(&book, "quiet", Limits::new(100, 0, 0));
        let (loud, flood) = pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = File::from(flood);
            while file.write_all(&b"noise\n".repeat(10_000)).is_ok() {}
        });
        let (quiet, write) = pipe().unwrap();
        let mut file = File::from(write);
        let scope = Scope::Service("quiet".parse().unwrap());
        let mut follower = book.read(Query { scope, ..ALL }, AtEnd::Follow);
        let conversation = async {
            for n in 0..20 {
                writeln!(file, "{n}").unwrap();
                assert_eq!(follower.next().await.unwrap().message, n.to_string());
            }
        };
        tokio::select! {
            ended = start(&book, loud, "loud-0") => panic!("{ended:?}"),
            ended = start(&book, quiet, "quiet-0") => panic!("{ended:?}"),
            () = conversation => {}
        }
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn a_pump_that_is_stopped_leaves_every_byte_to_the_next() {
        let book = book();
        register(&book, "web", Limits::new(100, 0, 0));
        let (read, write) = pipe().unwrap();
        let kept = read.try_clone().unwrap();
        let mut file = File::from(write);
        file.write_all(b"read\nhalf").unwrap();
        let mut follower = book.read(ALL, AtEnd::Follow);
        let stop = async {
            follower.next().await;
        };
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let first = pump(read, source.clone(), Stream::Stderr, book.clone(), ours(), stop);
        let Ended::Stopped { rest, .. } = first.await.unwrap() else { panic!("nobody closed it") };
        assert_eq!(rest, Rest { bytes: b"half".to_vec(), parts: 0 });
        file.write_all(b" a line\nlast").unwrap();
        drop(file);
        let never = std::future::pending();
        let custody = Custody::Ours(rest);
        let second = pump(kept, source, Stream::Stderr, book.clone(), custody, never);
        assert!(matches!(second.await.unwrap(), Ended::EndOfFile));
        assert_eq!(messages(book.query(ALL)), ["read", "half a line", "last"]);
    }

    #[tokio::test]
    async fn what_is_not_a_pipe_is_refused_by_name() {
        let book = book();
        register(&book, "web", Limits::new(100, 0, 0));
        let null = File::open("/dev/null").unwrap().into();
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let never = std::future::pending();
        let refused = pump(null, source, Stream::Stdout, book, ours(), never).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with("reading stdout of web-0: the descriptor cannot"), "{text}");
    }
}
