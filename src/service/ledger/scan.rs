//! Reads the file from its first entry on and checks that each is whole and linked to the one
//! before. Holds one entry at a time; does not check signatures.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use super::entry::{Entry, Hash, NO_ENTRY};
use super::frame::{self, FILE_HEADER, Fault, FrameMark, Span};

const BUFFER: usize = 64 << 10;

/// A scan. After an error it is over.
#[derive(Debug)]
pub struct Scan {
    bytes: BufReader<Span>,
    mark: FrameMark,
    at: u64,
    end: u64,
    index: u64,
    previous: Hash,
}

/// An entry that is valid, and where its frame begins.
#[derive(Debug)]
pub struct Found {
    pub at: u64,
    pub hash: Hash,
    pub entry: Entry,
}

/// The first place where the chain is broken.
#[derive(Debug, thiserror::Error)]
#[error("entry {index} at byte {at}: {why}")]
pub struct Break {
    pub index: u64,
    pub at: u64,
    pub why: Why,
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error(transparent)]
    Frame(#[from] Fault),
    #[error("its bytes are whole but are not those of an entry")]
    NotAnEntry,
    #[error("it says that it is entry {0}")]
    Index(u64),
    #[error("it is not linked to the entry before by that entry's hash")]
    Previous,
    #[error("the signature is not by its author")]
    Signature,
}

impl Scan {
    /// From the first entry to the byte `end`.
    pub fn new(file: &Arc<File>, mark: FrameMark, end: u64) -> Self {
        let at = FILE_HEADER as u64;
        let bytes = BufReader::with_capacity(BUFFER, Span::new(file, at, end));
        Self { bytes, mark, at, end, index: 0, previous: NO_ENTRY }
    }

    /// Where the next frame begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The hash of the last valid entry.
    pub fn last(&self) -> Hash {
        self.previous
    }

    /// The next entry; `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Found>, Break> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (index, at) = (self.index, self.at);
        let (found, length) = self.read().map_err(|why| Break { index, at, why })?;
        self.at += length;
        self.index += 1;
        self.previous = found.hash;
        Ok(Some(found))
    }

    fn read(&mut self) -> Result<(Found, u64), Why> {
        let frame = frame::read(&mut self.bytes, self.mark)?;
        let length = frame.size();
        let entry = Entry::decode(&frame.body).ok_or(Why::NotAnEntry)?;
        if entry.index != self.index {
            return Err(Why::Index(entry.index));
        }
        if entry.previous != self.previous {
            return Err(Why::Previous);
        }
        Ok((Found { at: self.at, hash: frame.hash, entry }, length))
    }
}
