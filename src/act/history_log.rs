//! The history of the instances, in memory that the service manager keeps: each record is appended
//! as it happens, and the whole is written anew when most of it is out of date. An orchestrator
//! that is killed while it writes leaves all earlier records whole. Knows nothing of which records
//! are worth keeping.
//!
//! 16 bytes: `BHHIST` and two zeroes, then where the records begin (8 bytes, little-endian). From
//! there on records (`HistoryRecord`) follow one another, each after its length, which is never 0;
//! a 0, and the end of the memory, is the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;

use super::fd_names::FdName;
use super::service_manager::{Reserved, ServiceManager};
use crate::linux::Error;
use crate::linux::kept_memory::KeptMemory;
use crate::rpc::pb::node::HistoryRecord;

const MEMORY: &str = "history";
const MAGIC: [u8; 8] = *b"BHHIST\0\0";
const HEADER: u64 = 16;
/// The largest log that is read, in bytes.
const READ_MOST: usize = 64 << 20;
/// Below this size, in bytes, the log only grows.
const SMALL: u64 = 1 << 20;

/// The log, for the orchestrator that follows.
#[derive(Debug)]
pub struct HistoryLog {
    memory: KeptMemory,
    /// Where the records begin and end in the memory.
    begin: u64,
    end: u64,
    /// The size, in bytes, from which on it is written anew.
    full_at: u64,
    /// Whether the memory is stored with the service manager.
    is_kept: bool,
}

/// Whether the log has to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRoom {
    Enough,
    /// It has: the caller gives the records that are worth keeping to `replace`.
    Full,
}

impl HistoryLog {
    /// Opens what a former orchestrator wrote, or a new log where that cannot be used. Gives the
    /// records in it, oldest first.
    pub(super) fn open(kept: Option<OwnedFd>) -> Result<(Self, Vec<HistoryRecord>), Error> {
        let kept = kept.and_then(|fd| KeptMemory::adopt(fd, MEMORY));
        if let Some(memory) = kept
            && let Ok(Some(opened)) = Self::continued(memory)
        {
            return Ok(opened);
        }
        let memory = KeptMemory::new(MEMORY)?;
        memory.replace(&header(HEADER))?;
        let (begin, end) = (HEADER, HEADER);
        Ok((Self { memory, begin, end, full_at: SMALL, is_kept: false }, Vec::new()))
    }

    /// Stores the memory with the service manager, unless it is stored.
    pub(super) fn keep(&mut self, service_manager: &mut ServiceManager) {
        if !self.is_kept {
            let kept = service_manager.store_reserved(FdName::History, self.as_fd());
            self.is_kept = kept == Reserved::Kept;
        }
    }

    fn continued(memory: KeptMemory) -> Result<Option<(Self, Vec<HistoryRecord>)>, Error> {
        let found = memory.read_at(0, usize::try_from(HEADER).unwrap_or_default())?;
        let begin = found.strip_prefix(&MAGIC).and_then(|rest| Some(*rest.first_chunk()?));
        let size = memory.size()?;
        let begin = begin.map(u64::from_le_bytes).filter(|at| (HEADER..=size).contains(at));
        let Some(begin) = begin else { return Ok(None) };
        let bytes = memory.read_at(begin, READ_MOST)?;
        let (records, length) = records(&bytes);
        let end = begin.saturating_add(length);
        // What is behind the whole records was not written to its end.
        memory.truncate(end)?;
        let full_at = SMALL.max(2 * length);
        Ok(Some((Self { memory, begin, end, full_at, is_kept: true }, records)))
    }

    /// Appends a record.
    pub(super) fn append(&mut self, record: &HistoryRecord) -> Result<HistoryRoom, Error> {
        let bytes = record.encode_length_delimited_to_vec();
        self.memory.write_at(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        let is_full = self.end - self.begin > self.full_at;
        Ok(if is_full { HistoryRoom::Full } else { HistoryRoom::Enough })
    }

    /// Replaces all records.
    pub(super) fn replace<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a HistoryRecord>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(record.encode_length_delimited_to_vec());
        }
        // The byte between the former records and the new ones is 0: until the header names the new
        // ones, a reader does not go on from the former into them.
        let (former_begin, begin) = (self.begin, self.end + 1);
        self.memory.write_at(begin, &bytes)?;
        self.memory.write_at(MAGIC.len() as u64, &begin.to_le_bytes())?;
        self.begin = begin;
        self.end = begin + bytes.len() as u64;
        self.full_at = SMALL.max(2 * bytes.len() as u64);
        self.memory.give_back(former_begin, begin)
    }
}

impl AsFd for HistoryLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn header(begin: u64) -> Vec<u8> {
    [MAGIC, begin.to_le_bytes()].concat()
}

/// The whole records at the beginning of `bytes`, and how many bytes they take up.
fn records(bytes: &[u8]) -> (Vec<HistoryRecord>, u64) {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while rest.first().is_some_and(|length| *length != 0) {
        let mut behind = rest;
        match HistoryRecord::decode_length_delimited(&mut behind) {
            Ok(record) => records.push(record),
            Err(_) => break,
        }
        rest = behind;
    }
    (records, (bytes.len() - rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::linux::fds;
    use crate::rpc::pb::node::HistoryEvent;

    fn record(number: u64) -> HistoryRecord {
        let what = format!("event {number}");
        let level = "info".to_owned();
        let event = HistoryEvent { unix_us: 7, run: number, level, what };
        HistoryRecord { instance: "web-0".to_owned(), event: Some(event) }
    }

    fn open(kept: Option<OwnedFd>) -> (HistoryLog, Vec<u64>) {
        let (log, records) = HistoryLog::open(kept).unwrap();
        let runs = records.into_iter().filter_map(|record| Some(record.event?.run));
        (log, runs.collect())
    }

    fn duplicate(log: &HistoryLog) -> OwnedFd {
        log.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn the_next_one_goes_on_with_what_was_written_down() {
        let (mut log, none) = open(None);
        assert_eq!(none, [0; 0]);
        for number in 1..=3 {
            assert_eq!(log.append(&record(number)).unwrap(), HistoryRoom::Enough);
        }
        let (mut next, runs) = open(Some(duplicate(&log)));
        assert_eq!(runs, [1, 2, 3]);
        next.append(&record(4)).unwrap();
        next.replace([&record(3), &record(4)]).unwrap();
        next.append(&record(5)).unwrap();
        assert_eq!(open(Some(duplicate(&next))).1, [3, 4, 5]);
    }

    #[test]
    fn whenever_one_dies_what_was_whole_is_there() {
        let (mut log, _) = open(None);
        log.append(&record(1)).unwrap();
        let whole = log.end;
        log.append(&record(2)).unwrap();
        for size in whole..log.end {
            let torn = KeptMemory::new("torn").unwrap();
            torn.replace(&log.memory.read_at(0, usize::try_from(size).unwrap()).unwrap()).unwrap();
            let (mut next, runs) = open(Some(torn.as_fd().try_clone_to_owned().unwrap()));
            assert_eq!(runs, [1], "{size}");
            next.append(&record(3)).unwrap();
            assert_eq!(open(Some(duplicate(&next))).1, [1, 3]);
        }
        // As if the orchestrator died before the header named the new records.
        log.memory.write_at(log.end + 1, &record(2).encode_length_delimited_to_vec()).unwrap();
        assert_eq!(open(Some(duplicate(&log))).1, [1, 2]);
    }

    #[test]
    fn it_is_written_anew_when_it_is_full_and_takes_up_what_is_kept() {
        let (mut log, _) = open(None);
        let (mut number, mut kept) = (0, Vec::new());
        for _ in 0..3 {
            loop {
                number += 1;
                kept.push(record(number));
                if log.append(&record(number)).unwrap() == HistoryRoom::Full {
                    break;
                }
            }
            assert!(log.end - log.begin > SMALL);
            kept.drain(..kept.len() - 10);
            log.replace(&kept).unwrap();
            let used = File::from(duplicate(&log)).metadata().unwrap().blocks() * 512;
            assert!(used < 64 << 10, "{used}");
        }
        let expected: Vec<u64> = (number - 9..=number).collect();
        assert_eq!(open(Some(duplicate(&log))).1, expected);
    }

    #[test]
    fn what_is_none_begins_anew_and_nothing_in_it_is_believed() {
        let memory = |content: &[u8]| {
            let memory = KeptMemory::new("other").unwrap();
            memory.replace(content).unwrap();
            open(Some(memory.as_fd().try_clone_to_owned().unwrap())).1
        };
        for content in [b"".as_slice(), b"BHHIST", b"something else that is long enough"] {
            assert_eq!(memory(content), [0; 0]);
        }
        for begin in [0, 15, 17, 1 << 40, u64::MAX] {
            assert_eq!(memory(&header(begin)), [0; 0], "{begin}");
        }
        let long = [header(HEADER), vec![0xff; 100]].concat();
        assert_eq!(memory(&long), [0; 0]);
        assert_eq!(open(Some(fds::pipe().unwrap().0)).1, [0; 0]);
    }
}
