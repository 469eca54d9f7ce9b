//! The newest lines of one service, bounded in lines and in bytes. Lines are kept as they came;
//! their structure is recognised when they are read.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::recognise::Recogniser;
use super::record::{OwnedRecord, Part, Source, Stream};
use super::render::{fields_of, message_of};
use super::split::LINE_MAX;

/// What is kept of a line beside its bytes.
#[derive(Debug, Clone)]
pub struct Head {
    pub unix_us: i64,
    /// The order of the read that brought the line: increases over all rings of a log store; the
    /// lines of one read share it.
    pub order: u64,
    pub source: Arc<Source>,
    pub stream: Stream,
    pub part: Part,
}

/// The memory grows with what is kept, up to about `max_bytes` and 56 bytes per line.
#[derive(Debug)]
pub struct Ring {
    max_lines: usize,
    max_bytes: usize,
    heads: VecDeque<(Head, u64)>,
    bytes: VecDeque<u8>,
    /// The sequence number of the oldest line that is kept.
    first: u64,
    /// Where the oldest line begins, in bytes since the ring was made.
    first_byte: u64,
}

/// A line that is kept.
#[derive(Debug)]
pub struct Kept<'a> {
    pub head: &'a Head,
    pub line: Cow<'a, [u8]>,
}

impl Ring {
    /// `max_lines` 0: nothing is kept; else at least `LINE_MAX` bytes are.
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self {
            max_lines,
            max_bytes: max_bytes.max(LINE_MAX),
            heads: VecDeque::new(),
            bytes: VecDeque::new(),
            first: 0,
            first_byte: 0,
        }
    }

    /// Changes the bounds; lines beyond them are dropped, oldest first.
    pub fn set_bounds(&mut self, max_lines: usize, max_bytes: usize) {
        (self.max_lines, self.max_bytes) = (max_lines, max_bytes.max(LINE_MAX));
        self.make_room(0, 0);
        self.bytes.shrink_to(self.max_bytes);
        self.heads.shrink_to(self.max_lines);
    }

    /// Keeps at most `LINE_MAX` bytes of `line`, and drops the oldest lines to make room.
    pub fn push(&mut self, head: Head, line: &[u8]) {
        if self.max_lines == 0 {
            self.first += 1;
            return;
        }
        let line = &line[..line.len().min(LINE_MAX)];
        self.make_room(1, line.len());
        self.grow_for(line.len());
        let start = self.first_byte + self.bytes.len() as u64;
        self.heads.push_back((head, start));
        self.bytes.extend(line);
    }

    /// The sequence number of the oldest line that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The sequence number that the next line will have.
    pub fn next(&self) -> u64 {
        self.first + self.heads.len() as u64
    }

    /// `None`: the line was dropped, or has not come yet.
    pub fn head(&self, sequence: u64) -> Option<&Head> {
        self.heads.get(self.index(sequence)?).map(|(head, _)| head)
    }

    /// `None`: the line was dropped, or has not come yet.
    pub fn get(&self, sequence: u64) -> Option<Kept<'_>> {
        let index = self.index(sequence)?;
        let (head, start) = self.heads.get(index)?;
        let end = self.heads.get(index + 1).map(|(_, next)| self.offset(*next));
        let (start, end) = (self.offset(*start), end.unwrap_or(self.bytes.len()));
        let (front, back) = self.bytes.as_slices();
        let line = if end <= front.len() {
            Cow::Borrowed(&front[start..end])
        } else if start >= front.len() {
            Cow::Borrowed(&back[start - front.len()..end - front.len()])
        } else {
            Cow::Owned([&front[start..], &back[..end - front.len()]].concat())
        };
        Some(Kept { head, line })
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }

    fn offset(&self, byte: u64) -> usize {
        usize::try_from(byte - self.first_byte).expect("an offset into a buffer in memory")
    }

    fn make_room(&mut self, lines: usize, bytes: usize) {
        while self.heads.len() + lines > self.max_lines || self.bytes.len() + bytes > self.max_bytes
        {
            if self.heads.pop_front().is_none() {
                return;
            }
            let end = self.heads.front().map(|(_, start)| self.offset(*start));
            let gone = end.unwrap_or(self.bytes.len());
            self.bytes.drain(..gone);
            self.first += 1;
            self.first_byte += gone as u64;
        }
    }

    /// Doubles the capacity like a vector, but never beyond the bound.
    fn grow_for(&mut self, bytes: usize) {
        let needed = self.bytes.len() + bytes;
        if needed > self.bytes.capacity() {
            let wanted = (self.bytes.capacity() * 2).max(needed).min(self.max_bytes);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

impl Kept<'_> {
    /// Recognises the line and copies it out of the ring.
    pub fn to_record(&self, recogniser: &mut Recogniser, skipped: u64) -> OwnedRecord {
        let found = recogniser.recognise(&self.line, self.head.part);
        let source = &self.head.source;
        OwnedRecord {
            unix_us: self.head.unix_us,
            service: source.service.to_string(),
            instance: source.instance.to_string(),
            run: source.run,
            pid: source.pid,
            stream: self.head.stream,
            level: found.level,
            message: message_of(&found),
            fields: fields_of(&found),
            skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;
    use proptest::prelude::*;

    fn head(order: u64) -> Head {
        let source = Arc::new(Source::node(Pid(1)));
        Head { unix_us: 0, order, source, stream: Stream::Node, part: Part::WHOLE }
    }

    fn kept(ring: &Ring) -> Vec<Vec<u8>> {
        (ring.first()..ring.next()).map(|s| ring.get(s).unwrap().line.into_owned()).collect()
    }

    #[test]
    fn the_oldest_line_goes_first_when_there_are_too_many() {
        let mut ring = Ring::new(3, 0);
        for n in 0..5 {
            ring.push(head(n), format!("line {n}").as_bytes());
        }
        assert_eq!(kept(&ring), [b"line 2", b"line 3", b"line 4"]);
        assert_eq!((ring.first(), ring.next()), (2, 5));
        assert!(ring.get(1).is_none() && ring.get(5).is_none());
        assert_eq!(ring.head(4).unwrap().order, 4);
    }

    #[test]
    fn bytes_are_bounded_however_long_the_lines_are() {
        let mut ring = Ring::new(1_000_000, 100_000);
        for n in 0..50 {
            ring.push(head(n), &vec![b'x'; 30_000]);
            assert!(ring.bytes.len() <= 100_000);
        }
        assert_eq!(kept(&ring).len(), 3);
        ring.push(head(50), &vec![b'y'; 2 * LINE_MAX]);
        assert_eq!(kept(&ring).last().unwrap().len(), LINE_MAX);
    }

    #[test]
    fn memory_grows_with_content_and_stays_at_the_bound() {
        let mut ring = Ring::new(100_000, 1 << 20);
        ring.push(head(0), b"short");
        assert!(ring.bytes.capacity() <= 64);
        for n in 0..50_000 {
            ring.push(head(n), &[b'x'; 100]);
        }
        assert!((1 << 20..(1 << 20) + 64).contains(&ring.bytes.capacity()));
    }

    #[test]
    fn narrower_bounds_let_the_oldest_go_at_once() {
        let mut ring = Ring::new(10, 0);
        (0..10).for_each(|n| ring.push(head(n), b"x"));
        ring.set_bounds(4, 0);
        assert_eq!((ring.first(), ring.next()), (6, 10));
    }

    proptest! {
        #[test]
        fn it_keeps_exactly_the_newest_that_fit(
            lengths in proptest::collection::vec(0..LINE_MAX, 0..60),
            max_lines in 0usize..20,
        ) {
            let max_bytes = 3 * LINE_MAX;
            let mut ring = Ring::new(max_lines, max_bytes);
            let mut all: Vec<Vec<u8>> = Vec::new();
            for (n, length) in lengths.into_iter().enumerate() {
                let line = vec![u8::try_from(n % 251).unwrap(); length];
                ring.push(head(0), &line);
                all.push(line);
            }
            let mut room = max_bytes;
            let fits = |line: &&Vec<u8>| {
                let left = room.checked_sub(line.len());
                room = left.unwrap_or(0);
                left.is_some()
            };
            let expected = all.iter().rev().take(max_lines).take_while(fits).count();
            prop_assert_eq!(kept(&ring), &all[all.len() - expected..]);
            prop_assert_eq!(ring.next(), all.len() as u64);
        }
    }
}
