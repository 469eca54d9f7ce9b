//! Sends entries to journald, one datagram each. While journald is stopped or absent, entries wait,
//! until there is no more time. Knows nothing of their content.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::entry::entries;
use super::render::Form;
use super::sink::{Receipt, Sink, SinkError, Unwritten, Waits, Writer};
use crate::linux::journal::{JournalSocket, NotTaken};

/// The interval at which an absent journald is looked for while entries wait.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    /// `None`: journald is absent.
    socket: Option<JournalSocket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Unsendable,
    OutOfTime,
}

/// Whether there is still time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Left,
    Over,
}

/// Starts the thread that sends to the journal at `path`. At most `limit` bytes wait, or one chunk
/// that is larger. `socket` is the first connection.
pub fn start(path: PathBuf, socket: JournalSocket, limit: usize) -> Result<Sink, SinkError> {
    Sink::start(Journal { path, socket: Some(socket) }, Form::Journal, limit)
}

impl Writer for Journal {
    /// The sink of a journal is never given up.
    fn write(
        &mut self,
        lines: &[u8],
        ending: BorrowedFd<'_>,
        mut receipt: Option<&mut Receipt>,
    ) -> Result<(), Unwritten> {
        let (mut lost, mut time) = (0, Time::Left);
        for entry in entries(lines) {
            let fate = self.deliver(entry, ending, &mut time);
            lost += u64::from(fate != Fate::Delivered);
            match (fate, &mut receipt) {
                (Fate::Delivered, Some(receipt)) => receipt.delivered(),
                (Fate::Unsendable, Some(receipt)) => receipt.lost(),
                (Fate::OutOfTime, _) | (_, None) => {}
            }
        }
        if lost == 0 { Ok(()) } else { Err(Unwritten::Lines(lost)) }
    }

    fn waits(&self) -> Waits {
        Waits::UntilTold
    }
}

impl Journal {
    fn deliver(&mut self, entry: &[u8], ending: BorrowedFd<'_>, time: &mut Time) -> Fate {
        while *time == Time::Left {
            let Some(socket) = &self.socket else {
                self.socket = JournalSocket::connect(&self.path).ok();
                if self.socket.is_none() {
                    *time = wait(None, ending);
                }
                continue;
            };
            match socket.send(entry) {
                Ok(()) => return Fate::Delivered,
                Err(NotTaken::Unsendable(_)) => return Fate::Unsendable,
                Err(NotTaken::Full) => *time = wait(Some(socket), ending),
                Err(NotTaken::Away(_)) => {
                    self.socket = None;
                    *time = wait(None, ending);
                }
            }
        }
        Fate::OutOfTime
    }
}

/// Waits until journald has room, or for `LOOK_AGAIN` where it is absent, or until there is no more
/// time.
fn wait(journal: Option<&JournalSocket>, ending: BorrowedFd<'_>) -> Time {
    let over = || PollFd::from_borrowed_fd(ending, PollFlags::IN);
    // A wait that was interrupted is like one that has ended: the caller looks again.
    let (over, _interrupted) = match journal {
        Some(socket) => {
            let mut watched = [over(), PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
            let done = poll(&mut watched, None);
            (watched[0].revents(), done)
        }
        None => {
            let mut watched = [over()];
            let done = poll(&mut watched, Timespec::try_from(LOOK_AGAIN).ok().as_ref());
            (watched[0].revents(), done)
        }
    };
    if over.is_empty() { Time::Left } else { Time::Over }
}

#[cfg(test)]
mod tests {
    use super::super::clock::fixed::FixedClock;
    use super::super::fake_journal::{FakeJournal, Fields};
    use super::super::log_store::tests::stream_writer;
    use super::super::log_store::{LogStore, Settings};
    use super::super::sink::{Flushed, QUEUE_MAX};
    use super::super::stream_writer::StreamWriter;
    use super::*;
    use crate::units::{Level, Pid, ServiceName};
    use std::sync::Arc;
    use std::thread::JoinHandle;
    use tempfile::TempDir;

    const LONG: Duration = Duration::from_secs(60);

    /// A log store that logs to a journal of its own.
    struct Lab {
        folder: TempDir,
        log_store: LogStore,
    }

    impl Lab {
        fn new(limit: usize) -> (Self, FakeJournal) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let journal = FakeJournal::at(&path);
            let socket = JournalSocket::connect(&path).unwrap();
            let sink = start(path, socket, limit).unwrap();
            let node_id = "node-1".to_owned();
            let settings = Settings { node_id, pid: Pid(1), node_level: Level::Info };
            (
                Self { folder, log_store: LogStore::new(settings, Some(sink), FixedClock::new()) },
                journal,
            )
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("socket")
        }

        /// Ends a journal. What it had not read yet.
        fn shut(&self, journal: &FakeJournal) -> Vec<Fields> {
            journal.take_no_more();
            std::fs::remove_file(self.path()).unwrap();
            std::iter::from_fn(|| journal.next()).collect()
        }

        fn dropped(&self, service: &str) -> u64 {
            self.log_store.dropped(&service.parse::<ServiceName>().unwrap())
        }

        async fn close(&self, within: Duration) -> Flushed {
            self.log_store.sink().unwrap().close(within).await
        }
    }

    fn read_on(journal: &Arc<FakeJournal>) -> JoinHandle<Vec<Fields>> {
        let journal = Arc::clone(journal);
        std::thread::spawn(move || std::iter::from_fn(|| journal.next()).collect())
    }

    fn messages(entries: &[Fields]) -> Vec<&str> {
        entries.iter().map(|entry| entry.get("MESSAGE")).collect()
    }

    /// Lines that say their numbers, a few at a time.
    async fn write_numbers(web: &mut StreamWriter, numbers: std::ops::Range<u64>) {
        let numbers: Vec<String> = numbers.map(|n| format!("{n}\n")).collect();
        for some in numbers.chunks(250) {
            web.take_in(some.concat().as_bytes());
            web.hand_over().await;
        }
    }

    /// The numbers that arrived, and how many the notices say are missing.
    fn count(entries: &[Fields]) -> (Vec<u64>, u64) {
        let is_notice = |entry: &&Fields| entry.names().contains(&"LINES");
        let (notices, lines): (Vec<_>, Vec<_>) = entries.iter().partition(is_notice);
        for notice in &notices {
            assert_eq!(notice.get("BLACKHOLE_SERVICE"), "web");
            assert_eq!(notice.get("PRIORITY"), "4");
            let text = "lines missing here: journald did not take them in time";
            assert_eq!(notice.get("MESSAGE"), format!("{} {text}", notice.get("LINES")));
        }
        let told = notices.iter().map(|notice| notice.get("LINES").parse::<u64>().unwrap()).sum();
        (lines.iter().map(|line| line.get("MESSAGE").parse().unwrap()).collect(), told)
    }

    #[tokio::test]
    async fn lines_of_services_and_of_the_node_arrive_as_entries_in_order() {
        let (lab, journal) = Lab::new(QUEUE_MAX);
        let mut web = stream_writer(&lab.log_store, "web-0", 100);
        lab.log_store.node_line(Level::Info, "starting", &[("instance", "web-0".into())]);
        web.take_in(b"{\"level\":\"error\",\"msg\":\"no\\nPRIORITY=0\",\"_PID\":1}\nplain\n");
        web.hand_over().await;
        assert_eq!(lab.close(LONG).await, Flushed::Everything);
        let seen = lab.shut(&journal);
        assert_eq!(messages(&seen), ["starting", "no\nPRIORITY=0", "plain"]);
        let of = |index: usize, name: &str| seen[index].get(name).to_owned();
        assert_eq!(
            (of(0, "SYSLOG_IDENTIFIER"), of(0, "INSTANCE")),
            ("blackhole".into(), "web-0".into())
        );
        assert_eq!((of(1, "SYSLOG_IDENTIFIER"), of(1, "PRIORITY")), ("web-0".into(), "3".into()));
        assert_eq!((of(1, "F__PID"), of(2, "BLACKHOLE_RUN")), ("1".into(), "1".into()));
    }

    #[tokio::test]
    async fn an_entry_of_any_size_arrives_whole() {
        let (lab, journal) = Lab::new(QUEUE_MAX);
        let long = "x".repeat(1 << 20);
        lab.log_store.node_line(Level::Info, &long, &[]);
        lab.log_store.node_line(Level::Info, "next", &[]);
        assert_eq!(lab.close(LONG).await, Flushed::Everything);
        assert_eq!(messages(&lab.shut(&journal)), [long.as_str(), "next"]);
    }

    #[tokio::test]
    async fn entries_wait_for_a_journal_that_is_away() {
        let (lab, journal) = Lab::new(QUEUE_MAX);
        let mut web = stream_writer(&lab.log_store, "web-0", 100);
        assert_eq!(lab.shut(&journal), []);
        drop(journal);
        write_numbers(&mut web, 0..1000).await;
        let journal = Arc::new(FakeJournal::at(&lab.path()));
        let reader = read_on(&journal);
        assert_eq!(lab.close(LONG).await, Flushed::Everything);
        journal.take_no_more();
        assert_eq!(count(&reader.join().unwrap()), ((0..1000).collect(), 0));
        assert_eq!(lab.dropped("web"), 0);
    }

    #[tokio::test]
    async fn every_line_arrives_or_is_counted_whatever_befalls_the_journal() {
        let (lab, journal) = Lab::new(500_000);
        let mut web = stream_writer(&lab.log_store, "web-0", 100);
        // It reads for a while and then stalls.
        let journal = Arc::new(journal);
        let reads = Arc::clone(&journal);
        let reader = std::thread::spawn(move || -> Vec<_> {
            (0..10_000).map(|_| reads.next().unwrap()).collect()
        });
        write_numbers(&mut web, 0..50_000).await;
        let mut seen = reader.join().unwrap();
        assert!(lab.log_store.sink().unwrap().is_stalled());
        // It ends, and is away.
        seen.extend(lab.shut(&journal));
        drop(journal);
        write_numbers(&mut web, 50_000..70_000).await;
        // It comes back.
        let journal = Arc::new(FakeJournal::at(&lab.path()));
        let reader = read_on(&journal);
        assert_eq!(lab.log_store.sink().unwrap().flush(LONG).await, Flushed::Everything);
        write_numbers(&mut web, 70_000..100_000).await;
        assert_eq!(lab.close(LONG).await, Flushed::Everything);
        journal.take_no_more();
        seen.extend(reader.join().unwrap());
        let (arrived, told) = count(&seen);
        assert!(arrived.is_sorted_by(|a, b| a < b));
        assert_eq!(arrived.last(), Some(&99_999));
        assert!(told > 0);
        assert_eq!(told, lab.dropped("web"));
        assert_eq!(arrived.len() as u64 + told, 100_000);
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_a_journal_that_stalls_and_counts_what_is_left() {
        let (lab, journal) = Lab::new(QUEUE_MAX);
        let mut web = stream_writer(&lab.log_store, "web-0", 100);
        write_numbers(&mut web, 0..5000).await;
        assert_eq!(lab.close(Duration::ZERO).await, Flushed::Unfinished);
        let (arrived, told) = count(&lab.shut(&journal));
        assert_eq!((arrived.len() as u64 + lab.dropped("web"), told), (5000, 0));
    }
}
