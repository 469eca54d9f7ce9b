//! The log store: a ring of lines for every service and one for the node itself, and the path of a
//! line into both its ring and the sink. Knows no process and no pipe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::clock::{Clock, Stamp};
use super::escape;
use super::rate::Bucket;
use super::recognise::Recogniser;
use super::record::{NODE, Part, Source, Stream};
use super::render::Frame;
use super::ring::{Head, Ring};
use super::sink::{Account, Chunk, Sent, Sink};
use crate::units::{Level, Pid, ServiceName};

/// How many lines of the node itself are kept.
const NODE_LINES: u32 = 4096;

/// The assumed bytes of a line, where the bytes of a ring follow from its lines.
const USUAL_LINE: usize = 256;

/// The most bytes of one service that are kept, unless more are configured.
const RING_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    #[error("service {service:?} is not registered with the log store")]
    NotRegistered { service: String },
}

/// What the log store knows of the node.
#[derive(Debug, Clone)]
pub struct Settings {
    pub node_id: String,
    /// The orchestrator's process.
    pub pid: Pid,
    /// Lines of the node itself below this level are not recorded, until another level is set.
    /// Services have levels of their own.
    pub node_level: Level,
}

/// The bounds of one service's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Kept in memory; 0: none.
    pub lines: usize,
    /// Kept in memory; counts as at least `LINE_MAX`.
    pub bytes: usize,
    /// Lines a second in the long run, over all instances; 0: no limit.
    pub rate: u32,
    /// Lines at once.
    pub burst: u32,
}

impl Limits {
    /// With 256 bytes a line, but at most 4 MiB.
    pub fn new(lines: u32, rate: u32, burst: u32) -> Self {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        let bytes = lines.saturating_mul(USUAL_LINE).min(RING_BYTES_MAX);
        Self { lines, bytes, rate, burst }
    }
}

/// A handle on the log store; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    sink: Option<Sink>,
    clock: Arc<dyn Clock>,
    node: Arc<Source>,
    /// `None`: there is no sink.
    node_frame: Option<Frame>,
    /// Locked for one read or one batch at a time, never over an await.
    log: Mutex<Logs>,
    /// The order of the newest read, for readers that follow.
    news: watch::Sender<u64>,
}

/// All rings.
#[derive(Debug)]
pub(super) struct Logs {
    /// The order of the newest read.
    pub(super) order: u64,
    node_level: Level,
    /// The node's own log comes first. None is ever removed, so an index stays valid.
    pub(super) services: Vec<ServiceLog>,
    pub(super) closed: bool,
}

/// The log of one service.
#[derive(Debug)]
pub(super) struct ServiceLog {
    pub(super) service: Box<str>,
    pub(super) ring: Ring,
    pub(super) bucket: Bucket,
    /// Lines that the rate limit dropped.
    pub(super) over_rate: u64,
    /// Counts lines that are in the ring and were not delivered.
    pub(super) account: Arc<Account>,
}

impl LogStore {
    /// Without a sink, lines are only kept.
    pub fn new(settings: Settings, sink: Option<Sink>, clock: Arc<dyn Clock>) -> Self {
        let node = Arc::new(Source::node(settings.pid));
        let (order, node_level) = (0, settings.node_level);
        let log = Logs { order, node_level, services: Vec::new(), closed: false };
        let (log, news) = (Mutex::new(log), watch::Sender::new(0));
        let frame = |form| Frame::new(form, &settings.node_id, &node, Stream::Node);
        let node_frame = sink.as_ref().map(|sink| frame(sink.form()));
        let log_store =
            Self(Arc::new(Inner { settings, sink, clock, node, node_frame, log, news }));
        let node_log = log_store.service_log(NODE, Limits::new(NODE_LINES, 0, 0));
        log_store.lock().services.push(node_log);
        log_store
    }

    /// Adds a log for `service`, or changes its limits; its lines stay.
    pub fn register(&self, service: &ServiceName, limits: Limits) {
        let mut log = self.lock();
        match log.services.iter_mut().find(|service_log| *service_log.service == *service.as_str())
        {
            Some(service_log) => {
                service_log.ring.set_bounds(limits.lines, limits.bytes);
                service_log.bucket.set(limits.rate, limits.burst, self.0.clock.tick());
            }
            None => log.services.push(self.service_log(service.as_str(), limits)),
        }
    }

    /// Drops the lines of a service that was removed.
    pub fn clear(&self, service: &ServiceName) {
        let mut log = self.lock();
        if let Some(service_log) = log.services.iter_mut().find(|s| *s.service == *service.as_str())
        {
            service_log.ring.set_bounds(0, 0);
        }
    }

    /// Changes the lowest level at which the node's own lines are recorded.
    pub fn set_node_level(&self, level: Level) {
        self.lock().node_level = level;
    }

    /// Records a line of the orchestrator itself and queues it for the sink. Never blocks.
    pub fn node_line(&self, level: Level, message: &str, fields: &[(&str, serde_json::Value)]) {
        let line = structured_line(level, message, fields);
        let stamp = Stamp::of(self.0.clock.wall());
        let (order, account) = {
            let mut log = self.lock();
            if level < log.node_level {
                return;
            }
            let order = log.next_order();
            let head = Head {
                unix_us: stamp.unix_us(),
                order,
                source: Arc::clone(&self.0.node),
                stream: Stream::Node,
                part: Part::WHOLE,
            };
            log.services[0].ring.push(head, &line);
            (order, Arc::clone(&log.services[0].account))
        };
        self.announce(order);
        if let (Some(sink), Some(frame)) = (&self.0.sink, &self.0.node_frame) {
            let mut bytes = sink.buffer();
            let found = &mut Recogniser::default();
            frame.render(&mut bytes, &stamp, &found.recognise(&line, Part::WHOLE));
            if sink.offer(Chunk { bytes, lines: 1, account, receipt: None }) == Sent::Gone {
                self.tell_sink_gone();
            }
        }
    }

    /// How many lines of `service` were dropped by its rate limit or not delivered.
    pub fn dropped(&self, service: &ServiceName) -> u64 {
        let log = self.lock();
        let service_log =
            log.services.iter().find(|service_log| *service_log.service == *service.as_str());
        service_log.map_or(0, |service_log| service_log.over_rate + service_log.account.lost())
    }

    pub fn sink(&self) -> Option<&Sink> {
        self.0.sink.as_ref()
    }

    /// Ends every reader that follows, once it has given all that is kept.
    pub fn close(&self) {
        let order = {
            let mut log = self.lock();
            log.closed = true;
            log.order
        };
        self.announce(order);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Logs> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Renders lines of `source` for the sink. `None`: there is no sink.
    pub(super) fn frame(&self, source: &Source, stream: Stream) -> Option<Frame> {
        let node_id = &self.0.settings.node_id;
        self.sink().map(|sink| Frame::new(sink.form(), node_id, source, stream))
    }

    /// The order of the newest read; changes with every read.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// Wakes the readers that follow.
    pub(super) fn announce(&self, order: u64) {
        self.0.news.send_replace(order);
    }

    /// Logs once that the console was given up.
    pub(super) fn tell_sink_gone(&self) {
        let reason = self.0.sink.as_ref().and_then(Sink::take_gone);
        if let Some(reason) = reason {
            let message = "the console was given up; logs are only kept in memory";
            self.node_line(Level::Warn, message, &[("error", reason.to_string().into())]);
        }
    }

    fn service_log(&self, service: &str, limits: Limits) -> ServiceLog {
        ServiceLog {
            service: service.into(),
            ring: Ring::new(limits.lines, limits.bytes),
            bucket: Bucket::new(limits.rate, limits.burst, self.0.clock.tick()),
            over_rate: 0,
            account: Arc::new(self.account(service)),
        }
    }

    /// The account of a service; the node writes its notices, in the name of the service.
    fn account(&self, service: &str) -> Account {
        let clock = Arc::clone(&self.0.clock);
        let Settings { node_id, pid, .. } = &self.0.settings;
        let source =
            Source { service: service.into(), instance: service.into(), ..Source::node(*pid) };
        let form = self.0.sink.as_ref().map(Sink::form);
        let frame = form.map(|form| (form, Frame::new(form, node_id, &source, Stream::Node)));
        Account::new(move |out, lines| {
            if let Some((form, frame)) = &frame {
                let message = format!("{lines} lines {}", form.loss());
                let line = structured_line(Level::Warn, &message, &[("lines", lines.into())]);
                let found = &mut Recogniser::default();
                let found = found.recognise(&line, Part::WHOLE);
                frame.render(out, &Stamp::of(clock.wall()), &found);
            }
        })
    }
}

impl Logs {
    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }
}

/// A line in the form that `Recogniser` reads. The fields are nested, so that none is taken for the
/// level or the message.
pub(super) fn structured_line(
    level: Level,
    message: &str,
    fields: &[(&str, serde_json::Value)],
) -> Vec<u8> {
    let mut line = format!("{{\"level\":\"{level}\",\"message\":").into_bytes();
    escape::json_string(&mut line, message.as_bytes());
    line.extend_from_slice(b",\"fields\":{");
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        escape::json_string(&mut line, key.as_bytes());
        line.push(b':');
        line.extend_from_slice(value.to_string().as_bytes());
    }
    line.extend_from_slice(b"}}");
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::clock::fixed::FixedClock;
    use super::super::reader::{Query, Scope};
    use super::super::stream_writer::StreamWriter;
    use super::*;
    use crate::units::RunId;
    use std::time::Duration;

    pub const ALL: Query = Query { scope: Scope::All, tail: None, since: None };

    pub fn log_store(clock: &Arc<FixedClock>) -> LogStore {
        let settings =
            Settings { node_id: "node-1".to_owned(), pid: Pid(1), node_level: Level::Info };
        LogStore::new(settings, None, Arc::clone(clock) as Arc<dyn Clock>)
    }

    /// Registers the service of `instance` without a rate limit.
    pub fn stream_writer(log_store: &LogStore, instance: &str, lines: u32) -> StreamWriter {
        let id: crate::units::InstanceId = instance.parse().unwrap();
        log_store.register(&id.service, Limits::new(lines, 0, 0));
        log_store.stream_writer(Source::instance(&id, RunId(1), Pid(7)), Stream::Stdout).unwrap()
    }

    pub fn messages(records: Vec<crate::telemetry::OwnedRecord>) -> Vec<String> {
        records.into_iter().map(|record| record.message).collect()
    }

    fn scope(name: &str) -> Query {
        Query { scope: name.parse().unwrap(), ..ALL }
    }

    #[test]
    fn what_the_node_says_is_kept_with_its_fields() {
        let log_store = log_store(&FixedClock::new());
        let fields = [("level", "x".into()), ("message", 7.into()), ("a \"b\"", true.into())];
        log_store.node_line(Level::Warn, "careful\n", &fields);
        log_store.node_line(Level::Debug, "below the level", &[]);
        let [record] = <[_; 1]>::try_from(log_store.query(scope("node"))).unwrap();
        assert_eq!((record.level, record.message.as_str()), (Level::Warn, "careful\n"));
        assert_eq!((record.service.as_str(), record.run, record.pid), ("node", RunId(0), Pid(1)));
        assert_eq!(record.unix_us, 1_705_314_600_000_000);
        let fields: Vec<_> = record.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(fields, [("a \"b\"", "true"), ("level", "\"x\""), ("message", "7")]);
    }

    #[test]
    fn records_of_several_services_come_in_the_order_of_reading() {
        let log_store = log_store(&FixedClock::new());
        let (mut web, mut db) =
            (stream_writer(&log_store, "web-0", 100), stream_writer(&log_store, "db-0", 100));
        let mut second = stream_writer(&log_store, "web-1", 100);
        web.take_in(b"1\n2\n");
        db.take_in(b"3\nhalf a ");
        log_store.node_line(Level::Info, "4", &[]);
        second.take_in(b"5\n");
        web.take_in(b"6\n");
        db.take_in(b"line\n");
        let expected = ["1", "2", "3", "4", "5", "6", "half a line"];
        assert_eq!(messages(log_store.query(ALL)), expected);
        assert_eq!(messages(log_store.query(scope("web"))), ["1", "2", "5", "6"]);
        assert_eq!(messages(log_store.query(scope("web-1"))), ["5"]);
        assert_eq!(messages(log_store.query(scope("db"))), ["3", "half a line"]);
        assert!(log_store.query(scope("unknown")).is_empty());
    }

    #[test]
    fn the_tail_is_the_newest_over_all_rings() {
        let log_store = log_store(&FixedClock::new());
        let (mut web, mut db) =
            (stream_writer(&log_store, "web-0", 100), stream_writer(&log_store, "db-0", 100));
        let mut second = stream_writer(&log_store, "web-1", 100);
        web.take_in(b"1\n2\n3\n");
        db.take_in(b"4\n");
        second.take_in(b"5\n6\n");
        let tail =
            |name: &str, n| messages(log_store.query(Query { tail: Some(n), ..scope(name) }));
        assert_eq!(tail("", 4), ["3", "4", "5", "6"]);
        assert_eq!(tail("", 0), [""; 0]);
        assert_eq!(tail("web", 3), ["3", "5", "6"]);
        assert_eq!(tail("web-0", 2), ["2", "3"]);
        assert_eq!(tail("", u32::MAX).len(), 6);
    }

    #[test]
    fn since_takes_what_was_read_at_or_after() {
        let clock = FixedClock::new();
        let log_store = log_store(&clock);
        let mut web = stream_writer(&log_store, "web-0", 100);
        web.take_in(b"early\n");
        clock.advance(Duration::from_secs(1));
        let since = Some(clock.wall());
        web.take_in(b"just\n");
        clock.advance(Duration::from_secs(1));
        web.take_in(b"late\n");
        assert_eq!(messages(log_store.query(Query { since, ..ALL })), ["just", "late"]);
        let tail = Some(5);
        assert_eq!(messages(log_store.query(Query { since, tail, ..ALL })), ["just", "late"]);
    }

    #[test]
    fn registering_again_changes_the_limits_and_keeps_the_lines() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 100);
        web.take_in(b"1\n2\n3\n");
        log_store.register(&"web".parse().unwrap(), Limits::new(2, 1, 1));
        assert_eq!(messages(log_store.query(ALL)), ["2", "3"]);
        web.take_in(b"4\n5\n");
        assert_eq!(messages(log_store.query(ALL)), ["3", "4"]);
        assert_eq!(log_store.dropped(&"web".parse().unwrap()), 1);
    }

    #[test]
    fn a_service_that_is_not_registered_has_no_way_in() {
        let log_store = log_store(&FixedClock::new());
        let source = Source::instance(&"web-0".parse().unwrap(), RunId(1), Pid(7));
        let refused = log_store.stream_writer(source, Stream::Stdout).unwrap_err();
        assert_eq!(refused.to_string(), "service \"web\" is not registered with the log store");
    }
}
