//! Reads the log store: the lines that are kept, in the order in which they were read from
//! services, over several rings; then new ones. A reader that is too slow is told how many lines it
//! missed, and blocks nobody.

use std::collections::VecDeque;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use super::clock::Stamp;
use super::log_store::{LogStore, Logs, ServiceLog};
use super::recognise::Recogniser;
use super::record::{NODE, OwnedRecord};
use super::ring::{Head, Ring};
use crate::units::{InstanceId, NameError, ServiceName};

/// The most records that are copied while the log store is locked.
const BATCH: usize = 256;

/// Whose records are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every service and the node itself.
    All,
    Node,
    Service(ServiceName),
    Instance(InstanceId),
}

impl FromStr for Scope {
    type Err = NameError;

    /// Parses an empty name (all), `node`, a service or an instance.
    fn from_str(name: &str) -> Result<Self, NameError> {
        match name {
            "" => Ok(Self::All),
            NODE => Ok(Self::Node),
            _ => match name.parse() {
                Ok(service) => Ok(Self::Service(service)),
                Err(NameError::LooksLikeInstance) => name.parse().map(Self::Instance),
                Err(wrong) => Err(wrong),
            },
        }
    }
}

/// Which records are read.
#[derive(Debug, Clone)]
pub struct Query {
    pub scope: Scope,
    /// How many of the newest records to begin with; `None`: all that are kept.
    pub tail: Option<u32>,
    /// Only records that were read from the service at or after this time.
    pub since: Option<SystemTime>,
}

/// What a reader does after the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// Ends with the last record that was there when the reader was made.
    Stop,
    /// Waits for more, until the log store is closed.
    Follow,
}

/// A stream of records. Holds at most one batch of them.
#[derive(Debug)]
pub struct Reader {
    log_store: LogStore,
    filter: Filter,
    /// One for each log; a log that is added later is read from its first line.
    cursors: Vec<Cursor>,
    /// The order of the last read to give; `None`: follow.
    until: Option<u64>,
    batch: VecDeque<OwnedRecord>,
    recogniser: Recogniser,
    news: WatchStream<u64>,
}

#[derive(Debug)]
struct Filter {
    service_log: Option<Box<str>>,
    instance: Option<Box<str>>,
    since_us: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    next: u64,
    /// Lines that left the ring before they were given, and are not told of yet.
    skipped: u64,
}

impl LogStore {
    /// A reader of what `query` asks for. `AtEnd::Follow`: it goes on with new records.
    pub fn read(&self, query: Query, at_end: AtEnd) -> Reader {
        Reader::new(self.clone(), query, at_end)
    }

    /// Everything that `query` asks for, in the order in which it was read.
    #[cfg(test)]
    pub fn query(&self, query: Query) -> Vec<OwnedRecord> {
        let mut reader = self.read(query, AtEnd::Stop);
        std::iter::from_fn(|| reader.next_kept()).collect()
    }
}

impl Reader {
    fn new(log_store: LogStore, query: Query, at_end: AtEnd) -> Self {
        let news = log_store.news();
        let filter = Filter::new(&query);
        let (cursors, until) = {
            let log = log_store.lock();
            let until = (at_end == AtEnd::Stop).then_some(log.order);
            (filter.start(&log, query.tail), until)
        };
        let news = WatchStream::from_changes(news);
        let (batch, recogniser) = (VecDeque::new(), Recogniser::default());
        Self { log_store, filter, cursors, until, batch, recogniser, news }
    }

    /// The next record that is already there.
    pub fn next_kept(&mut self) -> Option<OwnedRecord> {
        if self.batch.is_empty() {
            self.fill_batch();
        }
        self.batch.pop_front()
    }

    fn fill_batch(&mut self) {
        let log = self.log_store.lock();
        self.cursors.resize(log.services.len(), Cursor::default());
        while self.batch.len() < BATCH {
            let Some(service_log) = self.filter.oldest(&log, &mut self.cursors, self.until) else {
                return;
            };
            let cursor = &mut self.cursors[service_log];
            if let Some(kept) = log.services[service_log].ring.get(cursor.next) {
                let skipped = std::mem::take(&mut cursor.skipped);
                self.batch.push_back(kept.to_record(&mut self.recogniser, skipped));
            }
            cursor.next += 1;
        }
    }

    fn is_at_its_end(&self) -> bool {
        self.until.is_some() || self.log_store.lock().closed
    }
}

impl Stream for Reader {
    type Item = OwnedRecord;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OwnedRecord>> {
        loop {
            let ends = self.is_at_its_end();
            if let Some(record) = self.next_kept() {
                return Poll::Ready(Some(record));
            }
            if ends || ready!(Pin::new(&mut self.news).poll_next(cx)).is_none() {
                return Poll::Ready(None);
            }
        }
    }
}

impl Filter {
    fn new(query: &Query) -> Self {
        let (service_log, instance) = match &query.scope {
            Scope::All => (None, None),
            Scope::Node => (Some(NODE.into()), None),
            Scope::Service(service) => (Some(service.as_str().into()), None),
            Scope::Instance(id) => (Some(id.service.as_str().into()), Some(id.to_string().into())),
        };
        let since_us = query.since.map_or(i64::MIN, |since| Stamp::of(since).unix_us());
        Self { service_log, instance, since_us }
    }

    fn takes_service(&self, service_log: &ServiceLog) -> bool {
        self.service_log.as_ref().is_none_or(|wanted| *wanted == service_log.service)
    }

    fn takes(&self, head: &Head) -> bool {
        let instance = self.instance.as_ref().is_none_or(|wanted| *wanted == head.source.instance);
        instance && head.unix_us >= self.since_us
    }

    /// Where to begin so that `tail` records are given.
    fn start(&self, log: &Logs, tail: Option<u32>) -> Vec<Cursor> {
        let Some(tail) = tail else {
            return log
                .services
                .iter()
                .map(|service_log| Cursor::at(service_log.ring.first()))
                .collect();
        };
        let mut cursors: Vec<_> =
            log.services.iter().map(|service_log| Cursor::at(service_log.ring.next())).collect();
        for _ in 0..tail {
            let newest = (0..cursors.len())
                .filter(|index| self.takes_service(&log.services[*index]))
                .filter_map(|index| {
                    self.before(&log.services[index].ring, cursors[index].next, index)
                })
                .max();
            let Some((_, index, sequence)) = newest else {
                break;
            };
            cursors[index].next = sequence;
        }
        cursors
    }

    /// The newest record before `end` that is asked for: its order, its service log, its number.
    fn before(&self, ring: &Ring, end: u64, service_log: usize) -> Option<(u64, usize, u64)> {
        let taken = |sequence: &u64| ring.head(*sequence).is_some_and(|head| self.takes(head));
        let sequence = (ring.first()..end).rev().find(taken)?;
        Some((ring.head(sequence)?.order, service_log, sequence))
    }

    /// Moves every cursor to the next record that is asked for; the service log with the oldest.
    fn oldest(&self, log: &Logs, cursors: &mut [Cursor], until: Option<u64>) -> Option<usize> {
        let services = log.services.iter().zip(cursors).enumerate();
        let wanted = services.filter(|(_, (service_log, _))| self.takes_service(service_log));
        let heads = wanted.filter_map(|(index, (service_log, cursor))| {
            let head = self.advance(&service_log.ring, cursor)?;
            until.is_none_or(|until| head.order <= until).then_some((head.order, index))
        });
        heads.min().map(|(_, index)| index)
    }

    fn advance<'a>(&self, ring: &'a Ring, cursor: &mut Cursor) -> Option<&'a Head> {
        cursor.skipped += ring.first().saturating_sub(cursor.next);
        cursor.next = cursor.next.max(ring.first());
        while let Some(head) = ring.head(cursor.next) {
            if self.takes(head) {
                return Some(head);
            }
            cursor.next += 1;
        }
        None
    }
}

impl Cursor {
    fn at(next: u64) -> Self {
        Self { next, skipped: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::fixed::FixedClock;
    use super::super::log_store::tests::{ALL, log_store, messages, stream_writer};
    use super::*;
    use crate::units::Level;
    use tokio_stream::StreamExt;

    async fn take(reader: &mut Reader, n: usize) -> Vec<OwnedRecord> {
        reader.take(n).collect().await
    }

    #[test]
    fn a_scope_is_nothing_the_node_a_service_or_an_instance() {
        assert_eq!("".parse(), Ok(Scope::All));
        assert_eq!("node".parse(), Ok(Scope::Node));
        assert_eq!("web".parse(), Ok(Scope::Service("web".parse().unwrap())));
        assert_eq!("web-2".parse(), Ok(Scope::Instance("web-2".parse().unwrap())));
        assert_eq!("web-02".parse::<Scope>(), Err(NameError::NotAnInstance));
        assert_eq!("Web".parse::<Scope>(), Err(NameError::Start('W')));
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_kept_and_then_what_comes() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 100);
        web.take_in(b"1\n2\n");
        let mut follower = log_store.read(Query { tail: Some(1), ..ALL }, AtEnd::Follow);
        assert_eq!(messages(take(&mut follower, 1).await), ["2"]);
        let writer = async {
            tokio::task::yield_now().await;
            web.take_in(b"3\n");
            tokio::task::yield_now().await;
            stream_writer(&log_store, "new-0", 100).take_in(b"from a service that came later\n");
            log_store.close();
        };
        let (rest, ()) = tokio::join!(follower.collect::<Vec<_>>(), writer);
        assert_eq!(messages(rest), ["3", "from a service that came later"]);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_exactly_how_many_it_missed() {
        let log_store = log_store(&FixedClock::new());
        let (mut web, mut db) =
            (stream_writer(&log_store, "web-0", 10), stream_writer(&log_store, "db-0", 10));
        let mut follower = log_store.read(ALL, AtEnd::Follow);
        web.take_in(b"first\n");
        assert_eq!(take(&mut follower, 1).await[0].skipped, 0);
        (0..1000).for_each(|n| web.take_in(format!("{n}\n").as_bytes()));
        db.take_in(b"on time\n");
        let seen = take(&mut follower, 11).await;
        assert_eq!((seen[0].message.as_str(), seen[0].skipped), ("990", 990));
        assert!(seen[1..].iter().all(|record| record.skipped == 0));
        assert_eq!(seen[10].message, "on time");
    }

    #[tokio::test]
    async fn every_line_is_given_or_counted_as_skipped_however_slow_the_follower() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 300);
        let mut follower = log_store.read(ALL, AtEnd::Follow);
        let (mut given, mut skipped) = (0, 0);
        for round in 0..200_u64 {
            web.take_in("x\n".repeat(usize::try_from(round % 50).unwrap() * 9).as_bytes());
            for _ in 0..round % 7 {
                let Some(record) = follower.next_kept() else { break };
                (given, skipped) = (given + 1, skipped + record.skipped);
            }
        }
        while let Some(record) = follower.next_kept() {
            (given, skipped) = (given + 1, skipped + record.skipped);
        }
        let written: u64 = (0..200).map(|round| round % 50 * 9).sum();
        assert_eq!(given + skipped, written);
        assert!(skipped > 0);
    }

    #[tokio::test]
    async fn a_reader_that_stops_does_not_chase_new_lines() {
        let log_store = log_store(&FixedClock::new());
        let mut web = stream_writer(&log_store, "web-0", 10_000);
        web.take_in("x\n".repeat(1000).as_bytes());
        let mut reader = log_store.read(ALL, AtEnd::Stop);
        let mut seen = 0;
        while reader.next().await.is_some() {
            seen += 1;
            web.take_in(b"new\n");
            log_store.node_line(Level::Info, "new", &[]);
        }
        assert_eq!(seen, 1000);
    }
}
