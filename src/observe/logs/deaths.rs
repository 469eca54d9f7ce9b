//! Pumps that are killed: each is a process of its own, and the next one goes on with the same pipe
//! and the same spool.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_stream::StreamExt;

use super::*;
use crate::linux::journal::JournalSocket;
use crate::linux::listen_fds;
use crate::telemetry::fake_journal::{FakeJournal, Fields};
use crate::telemetry::{AtEnd, Flushed, Limits, Query, Scope, Settings, SystemClock, journal};
use crate::units::{Level, Pid, RunId};

const LONG: Duration = Duration::from_secs(60);
/// Bytes that may wait in a pump.
const QUEUE: usize = 200_000;

/// What is killed. It ends by itself when nobody writes to the pipe any more.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn a_pump() {
    let mut passed = listen_fds::take().unwrap();
    let (pipe, memory) = (passed.remove("pipe").unwrap(), passed.remove("spool").unwrap());
    let path = PathBuf::from(std::env::var("JOURNAL").unwrap());
    let rate = std::env::var("RATE").unwrap().parse().unwrap();
    let sink = journal::start(path.clone(), JournalSocket::connect(&path).unwrap(), QUEUE).unwrap();
    let settings = Settings { node_id: "node-1".into(), pid: Pid(1), node_level: Level::Info };
    let log_store = LogStore::new(settings, Some(sink.clone()), Arc::new(SystemClock::start()));
    log_store.register(&"web".parse().unwrap(), Limits::new(100, rate, rate));
    let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
    let durability = Durability::Spooled(Box::new(Spool::open(&memory).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ended =
            pump(pipe, source, Stream::Stdout, log_store, durability, std::future::pending());
        assert!(matches!(ended.await.unwrap(), Ended::EndOfFile));
        assert_eq!(sink.close(LONG).await, Flushed::Everything);
    });
}

/// A stream, and the journal to which it comes.
struct Lab {
    _folder: tempfile::TempDir,
    path: PathBuf,
    journal: Arc<FakeJournal>,
    reader: JoinHandle<Arrived>,
    gate: Arc<Gate>,
    pipe: OwnedFd,
    spool: OwnedFd,
    rate: u32,
}

/// Lets a journal read on, or stall.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_shut: bool,
    seen: u64,
}

/// How often each number came, and how many lines were said to be lost.
#[derive(Default)]
struct Arrived {
    numbers: BTreeMap<u64, u64>,
    told: u64,
    torn: Vec<String>,
}

impl Arrived {
    fn take(&mut self, entry: &Fields) {
        if entry.names().contains(&"LINES") {
            self.told += entry.get("LINES").parse::<u64>().unwrap();
            return;
        }
        let message = entry.get("MESSAGE");
        match message.split(' ').next().and_then(|number| number.parse().ok()) {
            Some(number) if line(number).strip_suffix('\n') == Some(message) => {
                *self.numbers.entry(number).or_default() += 1;
            }
            Some(_) | None => self.torn.push(message.to_owned()),
        }
    }

    fn repeated(&self) -> u64 {
        self.numbers.values().map(|times| times - 1).sum()
    }
}

impl Gate {
    fn set(&self, is_shut: bool) {
        self.state.lock().unwrap().is_shut = is_shut;
        self.changed.notify_all();
    }

    /// For the journal, after each entry.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.seen += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.is_shut).unwrap());
    }

    /// Until no more than `most` of so many entries are under way.
    fn wait_until_few(&self, of: u64, most: u64) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| of > state.seen + most).unwrap());
    }

    /// Until so many entries more have come.
    fn wait_for(&self, entries: u64) {
        let state = self.state.lock().unwrap();
        let enough = state.seen + entries;
        drop(self.changed.wait_while(state, |state| state.seen < enough).unwrap());
    }
}

impl Lab {
    fn new(rate: u32) -> (Self, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = Arc::new(FakeJournal::at(&path));
        let gate = Arc::new(Gate::default());
        let reader = read(Arc::clone(&journal), Arc::clone(&gate));
        let (pipe, write) = fds::pipe().unwrap();
        let spool = Spool::memory().unwrap();
        (Self { _folder: folder, path, journal, reader, gate, pipe, spool, rate }, write.into())
    }

    fn start_pump(&self) -> Child {
        let this = std::env::current_exe().unwrap();
        let child = "observe::logs::deaths::a_pump";
        let program = [this.to_str().unwrap(), "--exact", child, "--ignored"];
        let passed =
            [("pipe", self.pipe.try_clone().unwrap()), ("spool", self.spool.try_clone().unwrap())];
        listen_fds::testing::passing(&passed, &program)
            .env("JOURNAL", &self.path)
            .env("RATE", self.rate.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Until nothing is in the pipe.
    fn wait_until_read(&self) {
        while rustix::io::ioctl_fionread(&self.pipe).unwrap() > 0 {
            std::thread::yield_now();
        }
    }

    /// Lets a last pump read to the end.
    fn finish(self) -> Arrived {
        let last = self.start_pump();
        assert!(last.wait_with_output().unwrap().status.success());
        self.journal.take_no_more();
        let arrived = self.reader.join().unwrap();
        assert_eq!(arrived.torn, [""; 0]);
        arrived
    }
}

fn kill(mut pump: Child) {
    assert_eq!(pump.try_wait().unwrap(), None, "it ended by itself");
    pump.kill().unwrap();
    pump.wait().unwrap();
}

fn read(journal: Arc<FakeJournal>, gate: Arc<Gate>) -> JoinHandle<Arrived> {
    std::thread::spawn(move || {
        let mut arrived = Arrived::default();
        while let Some(entry) = journal.next() {
            arrived.take(&entry);
            gate.pass();
        }
        arrived
    })
}

/// Lines of many lengths.
fn line(number: u64) -> String {
    let length = usize::try_from(number * number % 300).unwrap();
    format!("{number} {}\n", "x".repeat(length))
}

/// Writes lines, many of them in two pieces, until it is told to stop. How many.
fn write_numbers(mut pipe: File, gate: Arc<Gate>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            // As many as find room in a queue, so that none may be dropped.
            gate.wait_until_few(number, 300);
            let line = line(number);
            let (one, other) = line.split_at(usize::try_from(number).unwrap() % line.len());
            pipe.write_all(one.as_bytes()).unwrap();
            pipe.write_all(other.as_bytes()).unwrap();
            number += 1;
        }
        number
    })
}

fn deaths() -> u64 {
    std::env::var("DEATHS").map_or(40, |deaths| deaths.parse().unwrap())
}

#[test]
fn no_line_is_lost_and_at_most_one_is_sent_twice_when_a_pump_is_killed() {
    let (lab, write) = Lab::new(0);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write_numbers(write, Arc::clone(&lab.gate), Arc::clone(&stop));
    for death in 0..deaths() {
        let pump = lab.start_pump();
        lab.gate.wait_for(1 + death * 7919 % 1000);
        kill(pump);
    }
    stop.store(true, Ordering::SeqCst);
    let arrived = lab.finish();
    let written = writer.join().unwrap();
    let missing = (0..written).find(|number| !arrived.numbers.contains_key(number));
    assert_eq!((missing, arrived.told), (None, 0), "of {written}");
    assert_eq!(arrived.numbers.len() as u64, written);
    let repeated = arrived.repeated();
    assert!(repeated <= deaths(), "{repeated} lines came again");
    eprintln!("{written} lines, {} deaths, {repeated} sent twice", deaths());
}

#[test]
fn what_waits_for_a_journal_that_stalls_outlives_a_pump_and_losses_are_told_exactly() {
    let (lab, mut write) = Lab::new(0);
    lab.gate.set(true);
    let mut written = 0;
    for _ in 0..5 {
        let pump = lab.start_pump();
        for _ in 0..4000 {
            write.write_all(line(written).as_bytes()).unwrap();
            written += 1;
        }
        lab.wait_until_read();
        kill(pump);
    }
    // Half a line outlives it too.
    let last = line(written);
    let (one, other) = last.split_at(last.len() / 2);
    write.write_all(one.as_bytes()).unwrap();
    let pump = lab.start_pump();
    lab.wait_until_read();
    kill(pump);
    write.write_all(other.as_bytes()).unwrap();
    drop(write);
    written += 1;
    lab.gate.set(false);
    let arrived = lab.finish();
    let came = arrived.numbers.len() as u64;
    assert!(came > 0 && arrived.told > 0);
    assert_eq!(came + arrived.told, written);
    assert!(arrived.repeated() <= 6);
}

#[test]
fn lines_over_the_rate_are_counted_over_the_death_of_a_pump() {
    let (lab, mut write) = Lab::new(50);
    // No notice gets out before the last pump, so that none may be sent twice.
    lab.gate.set(true);
    let mut written = 0;
    for _ in 0..10 {
        let pump = lab.start_pump();
        for _ in 0..500 {
            write.write_all(line(written).as_bytes()).unwrap();
            written += 1;
        }
        lab.wait_until_read();
        kill(pump);
    }
    drop(write);
    lab.gate.set(false);
    let arrived = lab.finish();
    let came = arrived.numbers.len() as u64;
    assert!(came >= 50, "{came}");
    assert_eq!(came + arrived.told, written);
    assert!(arrived.repeated() <= 10);
}

#[tokio::test]
async fn a_pump_that_is_stopped_at_the_end_leaves_what_waits_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _stalled = FakeJournal::at(&path);
    let sink = journal::start(path.clone(), JournalSocket::connect(&path).unwrap(), QUEUE).unwrap();
    let settings = Settings { node_id: "node-1".into(), pid: Pid(1), node_level: Level::Info };
    let log_store = LogStore::new(settings, Some(sink.clone()), Arc::new(SystemClock::start()));
    log_store.register(&"web".parse().unwrap(), Limits::new(10_000, 0, 0));
    let (pipe, write) = fds::pipe().unwrap();
    let mut write = File::from(write);
    write.write_all("line\n".repeat(1000).as_bytes()).unwrap();
    write.write_all(b"half a line at the end").unwrap();
    drop(write);
    let all = Query { scope: Scope::All, tail: None, since: None };
    let mut follower = log_store.read(all, AtEnd::Follow);
    let at_the_end =
        async { while follower.next().await.unwrap().message != "half a line at the end" {} };
    let memory = Spool::memory().unwrap();
    let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
    let durability = Durability::Spooled(Box::new(Spool::open(&memory).unwrap()));
    let pumped = pump(pipe, source, Stream::Stdout, log_store.clone(), durability, at_the_end);
    assert!(matches!(pumped.await.unwrap(), Ended::Stopped { .. }));
    assert_eq!(sink.close(Duration::ZERO).await, Flushed::Unfinished);
    assert!(!Spool::open(&memory).unwrap().cursor().is_settled());
}
