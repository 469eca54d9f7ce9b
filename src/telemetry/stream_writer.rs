//! The path of a stream's bytes into the log store: split, rate limited, kept, rendered, queued for
//! the sink. Knows no pipe; the pump calls it once for each read.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Stamp;
use super::log_store::{LogStore, LogStoreError, ServiceLog, structured_line};
use super::rate::UntoldDrops;
use super::recognise::Recogniser;
use super::record::{Part, Source, Stream};
use super::render::Frame;
use super::ring::Head;
use super::sink::{Account, Chunk, Receipt, Reserved, Room, Sent};
use super::split::{Rest, Splitter};
use super::spool::{Change, Kept, Looked, Records, Spool, kept};
use crate::units::{Level, Tick};

/// The most bytes of spooled records that are sent at once.
const PIECE: u64 = 64 * 1024;

/// The writer for one stream of one run.
#[derive(Debug)]
pub struct StreamWriter {
    log_store: LogStore,
    service_log: usize,
    splitter: Splitter,
    lane: Lane,
    account: Arc<Account>,
    /// `None`: lines that are not delivered are in this process alone.
    spool: Option<Spool>,
}

/// What the lines of the stream share, and the buffer of rendered ones.
#[derive(Debug)]
struct Lane {
    source: Arc<Source>,
    stream: Stream,
    /// `None`: there is no sink.
    frame: Option<Frame>,
    recogniser: Recogniser,
    unsaid: UntoldDrops,
    rendered: Vec<u8>,
    /// How many records are in `rendered`.
    lines: u64,
    /// The same records in the form of the spool; `None`: there is no spool.
    records: Option<Records>,
}

/// The outcome of looking for room for the records.
#[derive(Debug)]
enum Wanted {
    /// Room in the sink, and the position of the records in the spool.
    Room(Room, u64),
    /// There are no records to send.
    Nothing,
    /// There is no room for the records.
    TooMuch,
    Gone,
}

/// One read: the lane, and the service's log while the log store is locked.
struct Reading<'a> {
    lane: &'a mut Lane,
    service_log: &'a mut ServiceLog,
    stamp: Stamp,
    now: Tick,
    order: u64,
}

impl LogStore {
    /// A writer for one stream of one run of a registered service.
    pub fn stream_writer(
        &self,
        source: Source,
        stream: Stream,
    ) -> Result<StreamWriter, LogStoreError> {
        let log = self.lock();
        let service_log =
            log.services.iter().position(|service_log| service_log.service == source.service);
        let Some(service_log) = service_log else {
            return Err(LogStoreError::NotRegistered { service: source.service.into() });
        };
        let account = Arc::clone(&log.services[service_log].account);
        drop(log);
        let frame = self.frame(&source, stream);
        Ok(StreamWriter::new(self.clone(), service_log, source, stream, frame, account))
    }
}

impl StreamWriter {
    fn new(
        log_store: LogStore,
        service_log: usize,
        source: Source,
        stream: Stream,
        frame: Option<Frame>,
        account: Arc<Account>,
    ) -> Self {
        let lane = Lane {
            source: Arc::new(source),
            stream,
            frame,
            recogniser: Recogniser::default(),
            unsaid: UntoldDrops::default(),
            rendered: Vec::new(),
            lines: 0,
            records: None,
        };
        Self { log_store, service_log, splitter: Splitter::default(), lane, account, spool: None }
    }

    /// Waits until everything in the spool was delivered, or the sink was given up.
    pub async fn settled(&self) {
        if let (Some(sink), Some(spool)) = (self.log_store.sink(), &self.spool) {
            sink.settled(&spool.cursor()).await;
        }
    }

    /// Goes on in the middle of a line. To be called first.
    pub fn resume(&mut self, rest: Rest) {
        self.splitter = Splitter::resume(rest);
    }

    /// Keeps everything in `spool` from here on until it is delivered, after the records that are
    /// in it were sent. To be called first, instead of `resume`; `keep_and_hand_over` then replaces
    /// `hand_over`.
    pub async fn keep_in(&mut self, mut spool: Spool) -> io::Result<()> {
        self.splitter = Splitter::resume(spool.rest());
        self.lane.unsaid = UntoldDrops::inherited(spool.unsaid(), self.log_store.clock().tick());
        let untold = spool.untold();
        if let (Some(sink), true) = (self.log_store.sink(), untold > 0) {
            sink.lose(&self.account, untold, Some(&spool.cursor()));
        }
        let (records, head) = (spool.copy(), spool.head());
        self.spool = Some(spool);
        self.send_kept(&records, head).await?;
        self.lane.records = Some(Records::default());
        Ok(())
    }

    /// Takes the bytes of one read. `hand_over` has to follow.
    pub fn take_in(&mut self, data: &[u8]) {
        self.read(|splitter, reading| {
            reading.say_overdue();
            splitter.feed(data, |line, part| reading.line(line, part));
        });
    }

    /// How long until a notice about dropped lines is due; `None`: none were dropped.
    pub fn notice_due(&self) -> Option<Duration> {
        self.lane.unsaid.waits_for(self.log_store.clock().tick())
    }

    /// Writes a notice about dropped lines now. `hand_over` has to follow.
    pub fn say_dropped(&mut self) {
        self.read(|_, reading| reading.say_dropped());
    }

    /// The stream has ended: the rest of a line becomes a line, and a notice tells of all dropped
    /// lines. `hand_over` has to follow.
    pub fn finish(&mut self) {
        self.read(|splitter, reading| {
            splitter.finish(|line, part| reading.line(line, part));
            reading.say_dropped();
        });
    }

    /// Another process goes on with the stream: the rest of a line is returned, and a notice tells
    /// of all dropped lines. `hand_over` has to follow.
    pub fn stop(&mut self) -> Rest {
        self.read(|splitter, reading| {
            reading.say_dropped();
            splitter.take_rest()
        })
    }

    /// Queues the rendered lines for the sink. Waits at most `sink::PATIENCE` for room.
    pub async fn hand_over(&mut self) {
        let bytes = std::mem::take(&mut self.lane.rendered);
        let (Some(sink), false) = (self.log_store.sink(), bytes.is_empty()) else {
            return;
        };
        let lines = std::mem::take(&mut self.lane.lines);
        let chunk = Chunk { bytes, lines, account: Arc::clone(&self.account), receipt: None };
        match sink.send(chunk).await {
            Sent::Queued | Sent::Dropped => {}
            Sent::Gone => self.be_without_sink(),
        }
    }

    /// Writes what was taken in to the spool, takes the bytes it came from out of the pipe, and
    /// queues the rendered lines for the sink. Waits at most `sink::PATIENCE` for room.
    pub async fn keep_and_hand_over(&mut self, looked: Option<Looked<'_>>) -> io::Result<()> {
        let room = self.room().await;
        let (Some(spool), Some(records)) = (&mut self.spool, &mut self.lane.records) else {
            return Ok(());
        };
        let (rest, parts) = self.splitter.rest();
        let unsaid = self.lane.unsaid.lines();
        let lines = std::mem::take(&mut self.lane.lines);
        let change = |records, lost| Change { records, rest, parts, unsaid, lost };
        let bytes = std::mem::take(&mut self.lane.rendered);
        match room {
            Wanted::Room(room, begin) => {
                spool.commit(begin, &change(records.bytes(), 0), looked)?;
                let kept = records.bytes().len();
                let receipt = Receipt::new(spool.cursor(), records.take_ends(begin), kept);
                let (account, receipt) = (Arc::clone(&self.account), Some(receipt));
                room.queue(Chunk { bytes, lines, account, receipt });
            }
            Wanted::Nothing => {
                records.clear();
                spool.commit(spool.tail(), &change(&[], 0), looked)?;
            }
            Wanted::TooMuch => {
                records.clear();
                spool.commit(spool.tail(), &change(&[], lines), looked)?;
                if let Some(sink) = self.log_store.sink() {
                    sink.lose(&self.account, lines, Some(&spool.cursor()));
                }
            }
            Wanted::Gone => {
                records.clear();
                spool.commit(spool.tail(), &change(&[], 0), looked)?;
                self.be_without_sink();
            }
        }
        Ok(())
    }
    fn be_without_sink(&mut self) {
        self.lane.frame = None;
        self.log_store.tell_sink_gone();
    }

    async fn room(&self) -> Wanted {
        let (Some(sink), Some(spool), Some(records)) =
            (self.log_store.sink(), &self.spool, &self.lane.records)
        else {
            return Wanted::Nothing;
        };
        if self.lane.rendered.is_empty() {
            return Wanted::Nothing;
        }
        let kept = records.bytes().len();
        let Some(begin) = spool.room_for(kept) else { return Wanted::TooMuch };
        match sink.reserve(self.lane.rendered.len().max(kept)).await {
            Reserved::Room(room) => Wanted::Room(room, begin),
            Reserved::Nothing => Wanted::TooMuch,
            Reserved::Gone => Wanted::Gone,
        }
    }

    /// Sends the records in the spool, from `begin` on, a piece at a time. If the sink has no room,
    /// the rest is lost, as it is for lines that are read.
    async fn send_kept(&mut self, records: &[u8], mut begin: u64) -> io::Result<()> {
        let mut left = kept(records, begin).peekable();
        while left.peek().is_some() {
            let mut ends = Vec::new();
            self.read(|_, reading| {
                let fits = |record: &Kept<'_>| record.end - begin <= PIECE;
                while let Some(record) = left.next_if(|record| ends.is_empty() || fits(record)) {
                    reading.record(record.line, record.part);
                    ends.push(record.end);
                }
            });
            let end = ends.last().copied().unwrap_or(begin);
            if !self.send_piece(begin..end, ends).await {
                let lost = std::mem::take(&mut self.lane.lines) + left.count() as u64;
                return self.give_up_kept(begin, lost);
            }
            begin = end;
        }
        Ok(())
    }

    /// Whether the sink has accepted the piece.
    async fn send_piece(&mut self, place: Range<u64>, ends: Vec<u64>) -> bool {
        let bytes = std::mem::take(&mut self.lane.rendered);
        let (Some(sink), Some(spool), false) =
            (self.log_store.sink(), &self.spool, bytes.is_empty())
        else {
            return false;
        };
        let kept = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
        match sink.reserve(bytes.len().max(kept)).await {
            Reserved::Room(room) => {
                let receipt = Some(Receipt::new(spool.cursor(), ends, kept));
                let lines = std::mem::take(&mut self.lane.lines);
                room.queue(Chunk { bytes, lines, account: Arc::clone(&self.account), receipt });
                true
            }
            Reserved::Nothing => false,
            Reserved::Gone => {
                self.be_without_sink();
                false
            }
        }
    }

    /// Drops the records in the spool from `begin` on.
    fn give_up_kept(&mut self, begin: u64, lines: u64) -> io::Result<()> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        let sink = self.log_store.sink().filter(|_| self.lane.frame.is_some());
        let lost = if sink.is_some() { lines } else { 0 };
        let (rest, parts) = self.splitter.rest();
        let unsaid = self.lane.unsaid.lines();
        spool.commit(begin, &Change { records: &[], rest, parts, unsaid, lost }, None)?;
        if let Some(sink) = sink {
            sink.lose(&self.account, lost, Some(&spool.cursor()));
        }
        Ok(())
    }

    fn read<T>(&mut self, work: impl FnOnce(&mut Splitter, &mut Reading<'_>) -> T) -> T {
        let (stamp, now) =
            (Stamp::of(self.log_store.clock().wall()), self.log_store.clock().tick());
        self.begin_rendering();
        let mut log = self.log_store.lock();
        let order = log.next_order();
        let service_log = &mut log.services[self.service_log];
        service_log.bucket.refill(now);
        let mut reading = Reading { lane: &mut self.lane, service_log, stamp, now, order };
        let outcome = work(&mut self.splitter, &mut reading);
        drop(log);
        self.log_store.announce(order);
        outcome
    }

    fn begin_rendering(&mut self) {
        if let (Some(sink), true) = (self.log_store.sink(), self.lane.rendered.is_empty()) {
            self.lane.rendered = sink.buffer();
        }
    }
}

impl Lane {
    fn render(&mut self, stamp: &Stamp, line: &[u8], part: Part) {
        if let Some(frame) = &self.frame {
            frame.render(&mut self.rendered, stamp, &self.recogniser.recognise(line, part));
        }
    }
}

impl Reading<'_> {
    fn line(&mut self, line: &[u8], part: Part) {
        if !self.service_log.bucket.take() {
            self.service_log.over_rate += 1;
            self.lane.unsaid.drop_one(self.now);
            return;
        }
        if let Some(lines) = self.lane.unsaid.before_a_line(self.now) {
            self.notice(lines);
        }
        self.record(line, part);
    }

    fn say_overdue(&mut self) {
        if let Some(lines) = self.lane.unsaid.overdue(self.now) {
            self.notice(lines);
        }
    }

    fn say_dropped(&mut self) {
        if let Some(lines) = self.lane.unsaid.take(self.now) {
            self.notice(lines);
        }
    }

    fn notice(&mut self, lines: u64) {
        let message = format!("{lines} lines dropped by the rate limit");
        let line = structured_line(Level::Warn, &message, &[("lines", lines.into())]);
        self.record(&line, Part::WHOLE);
    }

    fn record(&mut self, line: &[u8], part: Part) {
        let head = Head {
            unix_us: self.stamp.unix_us(),
            order: self.order,
            source: Arc::clone(&self.lane.source),
            stream: self.lane.stream,
            part,
        };
        self.service_log.ring.push(head, line);
        self.lane.lines += 1;
        self.lane.render(&self.stamp, line, part);
        if let Some(records) = &mut self.lane.records {
            records.push(line, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::fixed::FixedClock;
    use super::super::console;
    use super::super::log_store::tests::{ALL, log_store, messages, stream_writer};
    use super::super::log_store::{Limits, Settings};
    use super::super::render::{Colour, Style};
    use super::super::sink::Flushed;
    use super::*;
    use crate::units::{Pid, RunId};
    use rustix::pipe::pipe;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    const LONG: Duration = Duration::from_secs(60);

    fn shown_book(fd: OwnedFd, queue: usize) -> LogStore {
        let settings =
            Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
        let sink = console::start(fd, Style::Pretty(Colour::Never), queue).unwrap();
        LogStore::new(settings, Some(sink), FixedClock::new())
    }

    fn read_all(fd: OwnedFd) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            text
        })
    }

    async fn close(log_store: &LogStore) -> Flushed {
        log_store.sink().unwrap().close(LONG).await
    }

    #[test]
    fn lines_over_the_rate_are_dropped_and_counted_exactly() {
        let clock = FixedClock::new();
        let log_store = log_store(&clock);
        let mut web = stream_writer(&log_store, "web-0", 1000);
        let service = "web".parse().unwrap();
        log_store.register(&service, Limits::new(1000, 10, 3));
        web.take_in(b"1\n2\n3\n4\n5\n");
        assert_eq!(log_store.dropped(&service), 2);
        assert_eq!(web.notice_due(), Some(Duration::from_secs(1)));
        clock.advance(Duration::from_millis(100));
        web.take_in(b"6\n7\n");
        assert_eq!(web.notice_due(), Some(Duration::from_secs(1)));
        web.take_in(b"8");
        web.finish();
        assert_eq!(web.notice_due(), None);
        let notice = |n| format!("{n} lines dropped by the rate limit");
        let seen = log_store.query(ALL);
        assert_eq!(seen[3].level, Level::Warn);
        assert_eq!(seen[3].fields["lines"], "2");
        assert_eq!(messages(seen), ["1", "2", "3", &notice(2), "6", &notice(2)]);
        assert_eq!(log_store.dropped(&service), 4);
    }

    #[test]
    fn both_streams_of_all_instances_share_one_bucket() {
        let log_store = log_store(&FixedClock::new());
        let (mut first, mut second) =
            (stream_writer(&log_store, "web-0", 100), stream_writer(&log_store, "web-1", 100));
        log_store.register(&"web".parse().unwrap(), Limits::new(100, 1, 3));
        first.take_in(b"1\n2\n");
        second.take_in(b"3\n4\n");
        assert_eq!(messages(log_store.query(ALL)), ["1", "2", "3"]);
        assert_eq!((first.notice_due(), second.notice_due()), (None, Some(Duration::from_secs(1))));
    }

    #[test]
    fn a_flood_of_drops_alone_is_told_of_every_second() {
        let clock = FixedClock::new();
        let log_store = log_store(&clock);
        let mut web = stream_writer(&log_store, "web-0", 100);
        log_store.register(&"web".parse().unwrap(), Limits { rate: 1, ..Limits::new(100, 1, 1) });
        web.take_in(b"1\n");
        for _ in 0..20 {
            clock.advance(Duration::from_millis(99));
            web.take_in(b"x\nx\n");
        }
        web.say_dropped();
        let seen = log_store.query(ALL);
        let told: u64 =
            seen.iter().filter_map(|r| r.fields.get("lines")?.parse::<u64>().ok()).sum();
        let shown = seen.iter().filter(|record| record.fields.is_empty()).count() as u64;
        assert_eq!((told + shown, told), (41, log_store.dropped(&"web".parse().unwrap())));
        assert!(seen.len() < 8);
    }

    #[test]
    fn bytes_of_any_kind_are_kept_and_shown_as_text() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 100);
        web.take_in(b"bad \xff\xfe\nnul \0\n\x1b[31mred\x1b[0m\r\n");
        let expected = ["bad \u{fffd}\u{fffd}", "nul \0", "\x1b[31mred\x1b[0m"];
        assert_eq!(messages(log_store.query(ALL)), expected);
    }

    #[test]
    fn a_line_of_a_mebibyte_is_kept_in_marked_parts() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 100_000);
        "z".repeat(1 << 20).as_bytes().chunks(1000).for_each(|chunk| web.take_in(chunk));
        web.finish();
        let seen = log_store.query(ALL);
        assert_eq!(seen.iter().map(|record| record.message.len()).sum::<usize>(), 1 << 20);
        assert_eq!((seen.len(), seen[0].fields["part"].as_str()), (16, "1"));
        assert!(seen[..15].iter().all(|record| record.fields["continues"] == "true"));
        assert!(!seen[15].fields.contains_key("continues"));
    }

    #[tokio::test]
    async fn the_console_shows_what_the_ring_keeps() {
        let (read, write) = pipe().unwrap();
        let log_store = shown_book(write, 1 << 20);
        let reader = read_all(read);
        let mut web = stream_writer(&log_store, "web-0", 100);
        log_store.node_line(Level::Info, "starting", &[("instance", "web-0".into())]);
        web.take_in(b"{\"level\":\"error\",\"msg\":\"no\"}\nplain\n");
        web.hand_over().await;
        assert_eq!(close(&log_store).await, Flushed::Everything);
        let expected = "\
            10:30:00.000  INFO  node            starting  instance=web-0\n\
            10:30:00.000  ERROR web-0           no\n\
            10:30:00.000  INFO  web-0           plain\n";
        assert_eq!(reader.join().unwrap(), expected);
    }

    #[tokio::test]
    async fn what_a_slow_console_misses_is_counted_told_and_still_kept() {
        let (read, write) = pipe().unwrap();
        let log_store = shown_book(write, 100_000);
        let mut web = stream_writer(&log_store, "web-0", 100_000);
        let service = "web".parse().unwrap();
        let mut taken = 0;
        while log_store.dropped(&service) == 0 {
            web.take_in("line\n".repeat(500).as_bytes());
            web.hand_over().await;
            taken += 500;
        }
        web.take_in("line\n".repeat(1000).as_bytes());
        web.hand_over().await;
        assert_eq!(log_store.dropped(&service), 1500);
        let reader = read_all(read);
        assert_eq!(log_store.sink().unwrap().flush(LONG).await, Flushed::Everything);
        web.take_in(b"after\n");
        web.hand_over().await;
        assert_eq!(close(&log_store).await, Flushed::Everything);
        let shown = reader.join().unwrap();
        let note = "1500 lines not shown: the console was too slow  lines=1500\n";
        assert!(shown.contains(note), "{}", &shown[shown.len() - 300..]);
        assert_eq!(shown.lines().count(), taken - 500 + 2);
        assert_eq!(log_store.query(ALL).len(), taken + 1001);
    }

    #[tokio::test]
    async fn a_console_that_goes_away_is_mentioned_once_and_the_rings_go_on() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let log_store = shown_book(write, 1 << 20);
        let (mut web, mut db) =
            (stream_writer(&log_store, "web-0", 100), stream_writer(&log_store, "db-0", 100));
        web.take_in(b"1\n");
        web.hand_over().await;
        assert_eq!(log_store.sink().unwrap().flush(LONG).await, Flushed::Unfinished);
        for stream_writer in [&mut web, &mut db] {
            stream_writer.take_in(b"2\n");
            stream_writer.hand_over().await;
        }
        log_store.node_line(Level::Info, "3", &[]);
        let gone = "the console was given up; logs are only kept in memory";
        assert_eq!(messages(log_store.query(ALL)), ["1", "2", gone, "2", "3"]);
    }

    #[test]
    fn the_handle_and_the_intake_may_be_used_by_any_task() {
        fn is_send<T: Send + 'static>(_: &T) {}
        let log_store = log_store(&FixedClock::new());
        is_send(&log_store);
        is_send(&stream_writer(&log_store, "web-0", 1));
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(1));
        is_send(&log_store.stream_writer(source, Stream::Stderr));
    }
}
