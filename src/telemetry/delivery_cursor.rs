//! The shared words of a spool: which of its two states is valid, and how far its records have been
//! delivered. Knows neither the records nor a sink.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use crate::linux::shared_memory::Words;

/// The indices of the shared words.
pub(super) mod place {
    pub const LAYOUT: usize = 0;
    pub const PHASE: usize = 1;
    /// The position of the first record that is not delivered.
    pub const HEAD: usize = 2;
    /// Lines that were in the spool and were lost by the sink.
    pub const LATE: usize = 3;
    /// Lost lines that a notice has told of.
    pub const TOLD: usize = 4;
    pub const STATES: [usize; 2] = [8, 16];
}

/// The bits of the phase: which state is valid; whether bytes are being taken from the pipe; the
/// last of those bytes.
pub(super) const WHICH: u64 = 1;
pub(super) const TAKING: u64 = 2;
pub(super) const LAST_SHIFT: u32 = 8;

/// The part of a spool that changes at once when bytes are taken from the pipe. Positions count
/// bytes of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// All records before this position were delivered.
    pub(super) start: u64,
    /// The position at the end of the records.
    pub(super) tail: u64,
    /// Which of the two places holds the rest of a line.
    pub(super) which_rest: u64,
    pub(super) rest: u64,
    pub(super) parts: u64,
    /// Lines that the rate limit dropped and that no notice has told of.
    pub(super) unsaid: u64,
    /// Lines that were lost because the sink had no room.
    pub(super) lost: u64,
}

/// How far the records of a stream have been delivered. Usable from any thread.
#[derive(Debug, Clone)]
pub struct DeliveryCursor(Words);

impl State {
    pub(super) fn store(&self, cursor: &DeliveryCursor, which: u64) {
        let Self { start, tail, which_rest, rest, parts, unsaid, lost } = *self;
        let values = [start, tail, which_rest, rest, parts, unsaid, lost];
        for (at, value) in (place::STATES[index(which)]..).zip(values) {
            cursor.word(at).store(value, SeqCst);
        }
    }
}

impl DeliveryCursor {
    pub(super) fn new(words: Words) -> Self {
        Self(words)
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        &self.0.all()[at]
    }

    pub(super) fn load(&self, at: usize) -> u64 {
        self.word(at).load(SeqCst)
    }

    /// Which state is valid, at whatever point the process before ended. `mark`: the byte that the
    /// kernel overwrites when the bytes are taken; it differs from the last of them until then.
    pub(super) fn which(&self, mark: u8) -> u64 {
        let phase = self.load(place::PHASE);
        let taken = phase & TAKING != 0 && phase >> LAST_SHIFT == u64::from(mark);
        (phase & WHICH) ^ u64::from(taken)
    }

    pub(super) fn state(&self, which: u64) -> State {
        let mut at = place::STATES[index(which & WHICH)]..;
        let mut next = || at.next().map_or(0, |at| self.load(at));
        State {
            start: next(),
            tail: next(),
            which_rest: next(),
            rest: next(),
            parts: next(),
            unsaid: next(),
            lost: next(),
        }
    }

    pub(super) fn untold(&self, state: &State) -> u64 {
        let lost = state.lost.saturating_add(self.load(place::LATE));
        lost.saturating_sub(self.load(place::TOLD))
    }

    /// Whether every record was delivered or lost.
    pub fn is_settled(&self) -> bool {
        let tail = self.state(self.load(place::PHASE)).tail;
        self.load(place::HEAD) >= tail
    }

    /// Records before `position` were delivered or lost.
    pub(super) fn settle(&self, position: u64) {
        self.word(place::HEAD).store(position, SeqCst);
    }

    /// A record that waited in the sink is lost.
    pub(super) fn lose_one(&self) {
        self.word(place::LATE).fetch_add(1, SeqCst);
    }

    /// A notice has told of this many lost lines.
    pub(super) fn tell(&self, lines: u64) {
        self.word(place::TOLD).fetch_add(lines, SeqCst);
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.all(), other.0.all())
    }
}

/// A number that is known to fit memory.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
