//! What a line costs from the pipe's bytes to the console's queue and the ring: a million lines of
//! 100 bytes, as the orchestrator takes them in, against finding and copying the same lines. Then
//! rendering alone: an entry for journald against the JSON record. Last a whole pump on a real
//! pipe: what it costs that everything is kept in a spool until it has got out.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use blackhole_node::linux::fds;
use blackhole_node::observe::logs::{self, Durability};
use blackhole_node::telemetry::clock::Stamp;
use blackhole_node::telemetry::recognise::Recogniser;
use blackhole_node::telemetry::record::Part;
use blackhole_node::telemetry::render::Frame;
use blackhole_node::telemetry::{
    Colour, Form, Limits, LogStore, Rest, Settings, Source, Spool, Stream, Style, SystemClock,
    console, sink,
};
use blackhole_node::units::{InstanceId, Level, Pid, RunId};

const LINES: usize = 1_000_000;
const READ: usize = 64 * 1024;
const ROUNDS: usize = 5;

/// One kind of line, 100 bytes each with the LF.
struct Kind {
    name: &'static str,
    input: Vec<u8>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for kind in [kind("plain", plain), kind("JSON", json), kind("logfmt", logfmt)] {
        let floor = best(|| Ok(floor(&kind.input)))?;
        report(kind.name, "memchr + copy", floor, floor);
        for (name, style) in [("JSON", Style::Json), ("pretty", Style::Pretty(Colour::Never))] {
            let time = best(|| runtime.block_on(through_the_book(&kind.input, style)))?;
            report(kind.name, name, time, floor);
        }
        let json = best(|| rendering(&kind.input, Form::Console(Style::Json)))?;
        report(kind.name, "rendered JSON", json, json);
        let entries = best(|| rendering(&kind.input, Form::Journal))?;
        report(kind.name, "rendered entry", entries, json);
    }
    let plain = kind("plain", plain).input;
    let ours = best(|| runtime.block_on(pumped(&plain, Durability::InProcess(Rest::default()))))?;
    report("plain", "pumped, ours", ours, ours);
    let shared = || -> io::Result<Durability> {
        let memory = Spool::memory().map_err(io::Error::other)?;
        Ok(Durability::Spooled(Box::new(Spool::open(memory).map_err(io::Error::other)?)))
    };
    let spooled = best(|| runtime.block_on(pumped(&plain, shared()?)))?;
    report("plain", "pumped, shared", spooled, ours);
    Ok(())
}

fn report(kind: &str, what: &str, time: Duration, floor: Duration) {
    let nanos = time.as_secs_f64() * 1e9 / LINES as f64;
    let (rate, ratio) = (1e9 / nanos, time.as_secs_f64() / floor.as_secs_f64());
    println!(
        "{kind:>6} lines, {what:<14}  {rate:>12.0} lines/s  {nanos:>7.1} ns/line  {ratio:>5.1}x"
    );
}

fn best(mut run: impl FnMut() -> io::Result<Duration>) -> io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        best = best.min(run()?);
    }
    Ok(best)
}

/// The least that has to be done with a line.
fn floor(input: &[u8]) -> Duration {
    let start = now();
    let mut out = Vec::with_capacity(2 * READ);
    for read in input.chunks(READ) {
        out.clear();
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', read) {
            out.extend_from_slice(&read[begin..=end]);
            begin = end + 1;
        }
        black_box(&mut out);
    }
    start.elapsed()
}

/// Recognising and rendering, without a ring and a queue.
fn rendering(input: &[u8], form: Form) -> io::Result<Duration> {
    let id: InstanceId = "storage-0".parse().map_err(io::Error::other)?;
    let source = Source::instance(&id, RunId(1), Pid(1003));
    let frame = Frame::new(form, "node-1", &source, Stream::Stdout);
    let stamp = Stamp::of(SystemTime::UNIX_EPOCH);
    let mut recogniser = Recogniser::default();
    let start = now();
    let mut out = Vec::with_capacity(8 * READ);
    for read in input.chunks(READ / 100 * 100) {
        out.clear();
        for line in read.split(|byte| *byte == b'\n') {
            frame.render(&mut out, &stamp, &recogniser.recognise(line, Part::WHOLE));
        }
        black_box(&mut out);
    }
    Ok(start.elapsed())
}

/// Everything but the read itself; the console's thread writes to /dev/null meanwhile.
async fn through_the_book(input: &[u8], style: Style) -> io::Result<Duration> {
    let null = OwnedFd::from(File::options().write(true).open("/dev/null")?);
    let sink = console::start(null, style, sink::QUEUE_MAX).map_err(io::Error::other)?;
    let settings = Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
    let log_store = LogStore::new(settings, Some(sink.clone()), Arc::new(SystemClock::start()));
    let id: InstanceId = "storage-0".parse().map_err(io::Error::other)?;
    log_store.register(&id.service, Limits::new(10_000, u32::MAX, u32::MAX));
    let source = Source::instance(&id, RunId(1), Pid(1003));
    let mut stream_writer =
        log_store.stream_writer(source, Stream::Stdout).map_err(io::Error::other)?;
    let start = now();
    for read in input.chunks(READ) {
        stream_writer.take_in(read);
        stream_writer.hand_over().await;
    }
    stream_writer.finish();
    stream_writer.hand_over().await;
    sink.close(Duration::from_secs(10)).await;
    let took = start.elapsed();
    assert_eq!(log_store.dropped(&id.service), 0, "a bench that drops lines measures nothing");
    Ok(took)
}

/// From a writer's pipe to /dev/null.
async fn pumped(input: &[u8], custody: Durability) -> io::Result<Duration> {
    let null = OwnedFd::from(File::options().write(true).open("/dev/null")?);
    let sink = console::start(null, Style::Json, sink::QUEUE_MAX).map_err(io::Error::other)?;
    let settings = Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
    let log_store = LogStore::new(settings, Some(sink.clone()), Arc::new(SystemClock::start()));
    let id: InstanceId = "storage-0".parse().map_err(io::Error::other)?;
    log_store.register(&id.service, Limits::new(10_000, u32::MAX, u32::MAX));
    let source = Source::instance(&id, RunId(1), Pid(1003));
    let (pipe, write) = fds::pipe().map_err(io::Error::other)?;
    let (mut write, input) = (File::from(write), input.to_vec());
    let start = now();
    let writer = std::thread::spawn(move || write.write_all(&input));
    let never = std::future::pending();
    let ended = logs::pump(pipe, source, Stream::Stdout, log_store.clone(), custody, never);
    ended.await.map_err(io::Error::other)?;
    sink.close(Duration::from_secs(10)).await;
    let took = start.elapsed();
    writer.join().map_err(|_| io::Error::other("the writer panicked"))??;
    assert_eq!(log_store.dropped(&id.service), 0, "a bench that drops lines measures nothing");
    Ok(took)
}

fn kind(name: &'static str, line: fn(usize) -> String) -> Kind {
    let input: String = (0..LINES).map(line).collect();
    assert_eq!(input.len(), LINES * 100);
    Kind { name, input: input.into_bytes() }
}

fn plain(number: usize) -> String {
    let text = format!("{number} the quick brown fox jumps over the lazy dog ");
    format!("{text:-<99}\n")
}

fn json(number: usize) -> String {
    let head = r#"{"level":"info","message":"Block stored","block_id":"QmYwAPJzv5CZsnA","#;
    let text = format!("{head}\"size\":{number}}}");
    format!("{text:<99}\n")
}

fn logfmt(number: usize) -> String {
    let head = r#"level=info msg="Block stored" block_id=QmYwAPJzv5CZsnA625 "#;
    let text = format!("{head}size={number}");
    format!("{text:<99}\n")
}

#[allow(clippy::disallowed_methods, reason = "a bench measures time itself")]
fn now() -> Instant {
    Instant::now()
}
