//! The open file and the index of its entries. Any thread may read; only the writer appends. Eight
//! bytes of memory per entry.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::entry::{Entry, Hash};
use super::error::LedgerError;
use super::frame::{self, FrameMark, Span};
use super::scan::{Break, Scan, Why};

/// The ledger on disk.
#[derive(Debug)]
pub struct Store {
    file: Arc<File>,
    path: PathBuf,
    mark: FrameMark,
    chain: RwLock<Chain>,
    /// The lock by which no other process opens the same ledger.
    _lock: Option<File>,
}

/// The durable entries. Bytes beyond `end` belong to none.
#[derive(Debug)]
pub struct Chain {
    /// Where each entry's frame begins.
    pub starts: Vec<u64>,
    pub end: u64,
    pub last: Hash,
}

/// The head of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are.
    pub length: u64,
    /// The hash of the last entry.
    pub hash: Hash,
    /// Where the next frame will begin.
    pub end: u64,
}

#[cfg(test)]
impl Chain {
    /// For tests: of a file that has only its header.
    pub fn empty() -> Self {
        use super::{entry::NO_ENTRY, frame::FILE_HEADER};
        Self { starts: Vec::new(), end: FILE_HEADER as u64, last: NO_ENTRY }
    }
}

impl Store {
    pub fn new(
        file: Arc<File>,
        path: &Path,
        mark: FrameMark,
        chain: Chain,
        lock: Option<File>,
    ) -> Self {
        Self { file, path: path.to_owned(), mark, chain: RwLock::new(chain), _lock: lock }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn mark(&self) -> FrameMark {
        self.mark
    }

    pub fn head(&self) -> Head {
        let chain = self.chain();
        Head { length: chain.starts.len() as u64, hash: chain.last, end: chain.end }
    }

    /// The entry and its hash, read from the file.
    pub fn entry(&self, index: u64) -> Result<(Entry, Hash), LedgerError> {
        let (at, end) = self.place(index)?;
        let broken = |why| self.damaged(Break { index, at, why });
        let frame = frame::read(&mut Span::new(&self.file, at, end), self.mark);
        let frame = frame.map_err(|fault| broken(fault.into()))?;
        let entry = Entry::decode(&frame.body).ok_or_else(|| broken(Why::NotAnEntry))?;
        if entry.index != index {
            return Err(broken(Why::Index(entry.index)));
        }
        Ok((entry, frame.hash))
    }

    /// A walk over what was durable at `head`.
    pub fn scan(&self, head: Head) -> Scan {
        Scan::new(&self.file, self.mark, head.end)
    }

    fn damaged(&self, found: Break) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), found }
    }

    /// Makes what the writer has written and flushed visible to readers.
    pub fn publish(&self, starts: &[u64], end: u64, last: Hash) {
        let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
        chain.starts.extend(starts);
        chain.end = end;
        chain.last = last;
    }

    fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, index: u64) -> Result<(u64, u64), LedgerError> {
        let chain = self.chain();
        let length = chain.starts.len() as u64;
        let beyond = LedgerError::Beyond { index, length };
        let Ok(number) = usize::try_from(index) else { return Err(beyond) };
        let Some(start) = chain.starts.get(number) else { return Err(beyond) };
        Ok((*start, chain.starts.get(number + 1).copied().unwrap_or(chain.end)))
    }
}
