//! The spool of a stream, in memory that outlives this process: records that were read and are not
//! delivered, the rest of a line, and losses that no notice has told of. The next process goes on
//! from there, at whatever point this one dies. Knows no sink and no service.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use super::delivery_cursor::{DeliveryCursor, LAST_SHIFT, State, TAKING, WHICH, index, place};
use super::record::Part;
use super::sink::QUEUE_MAX;
use super::split::{LINE_MAX, Rest};
use crate::linux::shared_memory::{self, Bytes};
use crate::linux::{self, pipe_peek};

/// Bytes of records: as many as may wait in the sink, and those of one read.
const ROOM: usize = QUEUE_MAX + (1 << 20);

/// While records are delivered as fast as they are read, this much of the room is used over and
/// over, and the memory of the rest is given back.
const CALM: usize = 64 * 1024;

/// Room for the rest of a line: `LINE_MAX` and a CR, in whole pages.
const REST_ROOM: usize = LINE_MAX + 4096;

/// The offsets in the shared bytes.
const MARK: usize = 0;
const RESTS: [usize; 2] = [4096, 4096 + REST_ROOM];
const RECORDS: usize = RESTS[1] + REST_ROOM;
const SIZE: usize = RECORDS + ROOM;

/// The number of the layout; another layout has another number. New memory is all zero, which is a
/// valid beginning.
const LAYOUT: u64 = 0x5350_4f4f_4c00_0001;

/// No count reaches this in a century.
const COUNT_MAX: u64 = 1 << 56;

/// The header of a record: its length, and its part (the number doubled, and one more if it
/// continues).
const HEADER: usize = 2 * size_of::<u32>();

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("what was kept of a log cannot be used: {0}")]
    Memory(#[from] linux::Error),
    #[error("what was kept of a log is of another kind: {found:#x}, not {LAYOUT:#x}")]
    Layout { found: u64 },
    #[error("what was kept of a log is damaged: {what}")]
    Damaged { what: &'static str },
}

/// The spool of one stream; used by one reader at a time.
#[derive(Debug)]
pub struct Spool {
    cursor: DeliveryCursor,
    bytes: Bytes,
    state: State,
    /// The end of the room that was written to since memory was given back.
    high: usize,
}

/// Records in the form in which the spool holds them.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<u64>,
}

/// What a read changes in a spool.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) records: &'a [u8],
    pub(super) rest: &'a [u8],
    pub(super) parts: u32,
    pub(super) unsaid: u64,
    /// Lines that are lost by this change.
    pub(super) lost: u64,
}

/// Bytes at the beginning of a pipe that were looked at and are to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Looked<'a> {
    pub pipe: BorrowedFd<'a>,
    /// At least 1.
    pub count: usize,
    pub last: u8,
}

/// A record in the spool, and the position at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept<'a> {
    pub(super) line: &'a [u8],
    pub(super) part: Part,
    pub(super) end: u64,
}

impl Spool {
    /// New memory for a spool, to be kept by another process too. It takes up only as much as is
    /// written to it.
    pub fn memory() -> Result<OwnedFd, SpoolError> {
        Ok(shared_memory::memory("blackhole-log")?)
    }

    /// Opens a spool, which may be new. No other process may have it open.
    pub fn open(memory: impl AsFd) -> Result<Self, SpoolError> {
        let (words, mut bytes) = shared_memory::map(memory, SIZE)?;
        let cursor = DeliveryCursor::new(words);
        match cursor.load(place::LAYOUT) {
            0 => cursor.word(place::LAYOUT).store(LAYOUT, SeqCst),
            LAYOUT => {}
            found => return Err(SpoolError::Layout { found }),
        }
        let which = cursor.which(bytes.all()[MARK]);
        cursor.word(place::PHASE).store(which, SeqCst);
        let state = cursor.state(which);
        let mut spool = Self { cursor, bytes, state, high: ROOM };
        spool.check()?;
        Ok(spool)
    }

    fn check(&mut self) -> Result<(), SpoolError> {
        let State { start, tail, which_rest, rest, parts, unsaid, lost } = self.state;
        let damaged = |what| Err(SpoolError::Damaged { what });
        let late = self.cursor.load(place::LATE);
        if [tail, parts, unsaid, lost, late].iter().any(|count| *count > COUNT_MAX) {
            return damaged("it has counted more than there can be");
        }
        if start > tail || tail - self.head() > ROOM as u64 {
            return damaged("it has more records than room");
        }
        if which_rest > 1 || rest > REST_ROOM as u64 {
            return damaged("the rest of a line is nowhere");
        }
        let records = self.copy();
        let length: usize = kept(&records, 0).map(|record| HEADER + record.line.len()).sum();
        if length < records.len() {
            return damaged("a record is longer than all of them");
        }
        Ok(())
    }

    pub fn cursor(&self) -> DeliveryCursor {
        self.cursor.clone()
    }

    /// Lost lines that no notice has told of.
    pub(super) fn untold(&self) -> u64 {
        self.cursor.untold(&self.state)
    }

    pub(super) fn unsaid(&self) -> u64 {
        self.state.unsaid
    }

    pub(super) fn rest(&mut self) -> Rest {
        let begin = RESTS[index(self.state.which_rest)];
        let bytes = self.bytes.all()[begin..begin + index(self.state.rest)].to_vec();
        Rest { bytes, parts: u32::try_from(self.state.parts).unwrap_or(u32::MAX) }
    }

    /// The position of the first record that is not delivered.
    pub(super) fn head(&self) -> u64 {
        self.cursor.load(place::HEAD).clamp(self.state.start, self.state.tail)
    }

    /// A copy of the records that are not delivered, for `kept`.
    pub(super) fn copy(&mut self) -> Vec<u8> {
        let head = self.head();
        let mut records = Vec::with_capacity(index(self.state.tail - head));
        for piece in pieces(head, index(self.state.tail - head)) {
            records.extend_from_slice(&self.bytes.all()[piece]);
        }
        records
    }

    /// The position for the next record, if there is room for `length` bytes.
    pub(super) fn room_for(&self, length: usize) -> Option<u64> {
        let live = index(self.state.tail - self.head());
        if live + length > ROOM {
            return None;
        }
        let is_far = index(self.state.tail % ROOM as u64) > CALM;
        let again = self.state.tail.next_multiple_of(ROOM as u64);
        Some(if live == 0 && is_far { again } else { self.state.tail })
    }

    /// For an empty room: gives memory back that was used in busier times.
    fn calm_down(&mut self) {
        if self.high > 2 * CALM {
            // If it fails, more memory stays in use.
            let _kept = self.bytes.give_back(RECORDS + 2 * CALM, RECORDS + self.high);
        }
        self.high = 0;
    }

    pub(super) fn tail(&self) -> u64 {
        self.state.tail
    }

    /// Writes `change`, its records from `begin` on, and takes the bytes it came from out of the
    /// pipe: both or neither, at whatever point this process dies. After an error nothing has
    /// changed.
    pub(super) fn commit(
        &mut self,
        begin: u64,
        change: &Change<'_>,
        looked: Option<Looked<'_>>,
    ) -> io::Result<()> {
        let next = self.write(begin, change);
        let which = self.cursor.load(place::PHASE) & WHICH;
        let (phase, other) = (self.cursor.word(place::PHASE), which ^ WHICH);
        next.store(&self.cursor, other);
        if let Some(Looked { pipe, count, last }) = looked {
            let mark = self.bytes.all().first_chunk_mut().expect("there is a mark");
            *mark = [!last];
            fence(SeqCst);
            phase.store(which | TAKING | u64::from(last) << LAST_SHIFT, SeqCst);
            let taken = pipe_peek::take(pipe, count, mark);
            if taken.is_err() {
                phase.store(which, SeqCst);
                return taken;
            }
        }
        fence(SeqCst);
        phase.store(other, SeqCst);
        fence(SeqCst);
        self.state = next;
        Ok(())
    }

    /// Writes to places that the valid state does not use.
    fn write(&mut self, begin: u64, change: &Change<'_>) -> State {
        if begin > self.state.tail {
            self.calm_down();
        }
        let mut records = change.records;
        for piece in pieces(begin, records.len()) {
            self.high = self.high.max(piece.end - RECORDS);
            let (now, later) = records.split_at(piece.len());
            self.bytes.all()[piece].copy_from_slice(now);
            records = later;
        }
        let which_rest = self.state.which_rest ^ 1;
        let place = RESTS[index(which_rest)];
        let rest = &change.rest[..change.rest.len().min(REST_ROOM)];
        self.bytes.all()[place..place + rest.len()].copy_from_slice(rest);
        State {
            start: if begin > self.state.tail { begin } else { self.head() },
            tail: begin + change.records.len() as u64,
            which_rest,
            rest: rest.len() as u64,
            parts: change.parts.into(),
            unsaid: change.unsaid,
            lost: self.state.lost + change.lost,
        }
    }
}

impl Records {
    pub(super) fn push(&mut self, line: &[u8], part: Part) {
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        let mark = part.number.wrapping_mul(2) | u32::from(part.continues);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&mark.to_le_bytes());
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len() as u64);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each record ends if the first begins at `begin`.
    pub(super) fn take_ends(&mut self, begin: u64) -> Vec<u64> {
        self.bytes.clear();
        let mut ends = std::mem::take(&mut self.ends);
        ends.iter_mut().for_each(|end| *end += begin);
        ends
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The records in `bytes`, of which the first begins at the position `begin`.
pub(super) fn kept(bytes: &[u8], begin: u64) -> impl Iterator<Item = Kept<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk()?;
        let (mark, behind) = behind.split_first_chunk()?;
        let (length, mark) = (u32::from_le_bytes(*length), u32::from_le_bytes(*mark));
        let (line, behind) = behind.split_at_checked(usize::try_from(length).ok()?)?;
        rest = behind;
        let part = Part { number: mark >> 1, continues: mark & 1 == 1 };
        Some(Kept { line, part, end: begin + (bytes.len() - behind.len()) as u64 })
    })
}

/// The pieces of memory for `length` bytes from a position on: the room is a ring.
fn pieces(position: u64, length: usize) -> impl Iterator<Item = Range<usize>> {
    let from = index(position % ROOM as u64);
    let first = length.min(ROOM - from);
    let of_first = RECORDS + from..RECORDS + from + first;
    let of_second = RECORDS..RECORDS + length - first;
    [of_first, of_second].into_iter().filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fds;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    const NOTHING: Change<'_> = Change { records: &[], rest: &[], parts: 0, unsaid: 0, lost: 0 };

    fn records(lines: &[&str]) -> Records {
        let mut records = Records::default();
        lines.iter().for_each(|line| records.push(line.as_bytes(), Part::WHOLE));
        records
    }

    fn lines(spool: &mut Spool) -> Vec<String> {
        let (bytes, head) = (spool.copy(), spool.head());
        let text = |record: Kept<'_>| String::from_utf8(record.line.to_vec()).unwrap();
        kept(&bytes, head).map(text).collect()
    }

    #[test]
    fn the_next_one_finds_everything_that_was_written_down() {
        let memory = Spool::memory().unwrap();
        let mut first = Spool::open(&memory).unwrap();
        assert_eq!((first.rest(), lines(&mut first)), (Rest::default(), vec![]));
        let records = records(&["one", "", "three"]);
        let change =
            Change { records: records.bytes(), rest: b"half", parts: 2, unsaid: 7, lost: 5 };
        first.commit(0, &change, None).unwrap();
        first.cursor().settle(records.ends[0]);
        first.cursor().lose_one();
        first.cursor().tell(2);
        drop(first);
        let mut next = Spool::open(&memory).unwrap();
        assert_eq!(next.rest(), Rest { bytes: b"half".to_vec(), parts: 2 });
        assert_eq!((next.unsaid(), next.untold()), (7, 4));
        assert_eq!(lines(&mut next), ["", "three"]);
        assert!(!next.cursor().is_settled());
        next.cursor().settle(next.tail());
        assert!(next.cursor().is_settled() && lines(&mut next).is_empty());
    }

    /// Does what `commit` does up to the taking, and that as well if the kernel comes to it.
    fn die_in_the_taking(memory: &OwnedFd, pipe: &OwnedFd, comes_to_it: bool) {
        let mut spool = Spool::open(memory).unwrap();
        let records = records(&["second"]);
        let change = Change { records: records.bytes(), rest: b"new", ..NOTHING };
        let next = spool.write(spool.tail(), &change);
        let which = spool.cursor.load(place::PHASE) & WHICH;
        next.store(&spool.cursor, which ^ WHICH);
        let mark = spool.bytes.all().first_chunk_mut().unwrap();
        *mark = [!b'w'];
        let phase = which | TAKING | u64::from(b'w') << LAST_SHIFT;
        spool.cursor.word(place::PHASE).store(phase, SeqCst);
        if comes_to_it {
            pipe_peek::take(pipe, "second\nnew".len(), mark).unwrap();
        }
    }

    #[test]
    fn what_was_taken_is_written_down_and_what_was_not_is_still_in_the_pipe() {
        for comes_to_it in [false, true] {
            let (pipe, write) = fds::pipe().unwrap();
            File::from(write).write_all(b"first\nold second\nnew").unwrap();
            let memory = Spool::memory().unwrap();
            let mut spool = Spool::open(&memory).unwrap();
            let records = records(&["first"]);
            let change = Change { records: records.bytes(), rest: b"old ", ..NOTHING };
            let looked = Looked { pipe: pipe.as_fd(), count: 10, last: b' ' };
            spool.commit(0, &change, Some(looked)).unwrap();
            drop(spool);
            die_in_the_taking(&memory, &pipe, comes_to_it);
            let mut next = Spool::open(&memory).unwrap();
            let mut left = String::new();
            File::from(pipe).read_to_string(&mut left).unwrap();
            let found = (lines(&mut next), next.rest().bytes, left.as_str());
            if comes_to_it {
                assert_eq!(found, (vec!["first".into(), "second".into()], b"new".to_vec(), ""));
            } else {
                assert_eq!(found, (vec!["first".into()], b"old ".to_vec(), "second\nnew"));
            }
        }
    }

    #[test]
    fn what_cannot_be_taken_changes_nothing() {
        let (pipe, write) = fds::pipe().unwrap();
        drop(write);
        let mut spool = Spool::open(Spool::memory().unwrap()).unwrap();
        let change = Change { rest: b"x", ..NOTHING };
        let looked = Looked { pipe: pipe.as_fd(), count: 1, last: b'x' };
        spool.commit(0, &change, Some(looked)).unwrap_err();
        assert_eq!(spool.rest(), Rest::default());
    }

    #[test]
    fn a_stream_that_was_busy_once_takes_up_little_again() {
        let memory = File::from(Spool::memory().unwrap());
        let used = || memory.metadata().unwrap().blocks() * 512;
        let mut spool = Spool::open(&memory).unwrap();
        let mut records = Records::default();
        records.push(&[b'x'; 60_000], Part::WHOLE);
        let write = |spool: &mut Spool| {
            let change = Change { records: records.bytes(), ..NOTHING };
            let begin = spool.room_for(records.bytes().len());
            begin.map(|begin| spool.commit(begin, &change, None).unwrap())
        };
        while write(&mut spool).is_some() {}
        let most = used();
        assert!(most > QUEUE_MAX as u64, "{most}");
        for _ in 0..3 {
            spool.cursor().settle(spool.tail());
            write(&mut spool).unwrap();
        }
        assert!(used() < 5 * CALM as u64, "{}", used());
        assert_eq!(lines(&mut spool).len(), 1);
    }

    #[test]
    fn memory_of_another_kind_and_damaged_memory_is_refused() {
        let memory = Spool::memory().unwrap();
        let refused = |at: usize, value: u64| {
            let spool = Spool::open(&memory).unwrap();
            let word = spool.cursor.word(at);
            let before = word.swap(value, SeqCst);
            let refused = Spool::open(&memory).unwrap_err().to_string();
            word.store(before, SeqCst);
            refused
        };
        let state = place::STATES[0];
        assert!(refused(place::LAYOUT, 7).contains("of another kind: 0x7"));
        assert!(refused(state, 1).contains("more records than room"));
        assert!(refused(state + 1, 6 << 20).contains("more records than room"));
        assert!(refused(state + 1, 9).contains("longer than all of them"));
        assert!(refused(state + 2, 2).contains("nowhere"));
        assert!(refused(state + 3, 1 << 20).contains("nowhere"));
        assert!(refused(state + 6, u64::MAX).contains("more than there can be"));
        assert!(Spool::open(fds::pipe().unwrap().0).is_err());
    }

    proptest! {
        #[test]
        fn records_come_back_in_order_whenever_they_get_out(
            steps in proptest::collection::vec((1usize..20, 0usize..70_000, 0usize..40), 1..200),
        ) {
            let memory = Spool::memory().unwrap();
            let mut spool = Spool::open(&memory).unwrap();
            let (mut waiting, mut number) = (std::collections::VecDeque::new(), 0);
            for (count, length, settled) in steps {
                let mut records = Records::default();
                let new: Vec<String> = (0..count)
                    .map(|_| { number += 1; format!("{number}{}", "x".repeat(length / count)) })
                    .collect();
                new.iter().for_each(|line| records.push(line.as_bytes(), Part::WHOLE));
                if let Some(begin) = spool.room_for(records.bytes().len()) {
                    let change = Change { records: records.bytes(), ..NOTHING };
                    spool.commit(begin, &change, None).unwrap();
                    waiting.extend(new.into_iter().zip(records.take_ends(begin)));
                }
                for _ in 0..settled {
                    let Some((_, end)) = waiting.pop_front() else { break };
                    spool.cursor().settle(end);
                }
            }
            drop(spool);
            let mut next = Spool::open(&memory).unwrap();
            let left: Vec<String> = waiting.into_iter().map(|(line, _)| line).collect();
            prop_assert_eq!(lines(&mut next), left);
        }
    }
}
