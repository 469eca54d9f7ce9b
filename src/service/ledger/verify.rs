//! Verification of the whole chain: frames, hashes, links, and every author's signature.

use super::error::LedgerError;
use super::scan::{Break, Found, Scan, Why};
use super::steps::{Progress, STEP};
use super::store::{Head, Store};

/// The verification of what was durable at its start, a step at a time.
#[derive(Debug)]
pub struct Check {
    scan: Scan,
    head: Head,
    /// How many entries are valid so far.
    pub checked: u64,
    /// Where and how the chain is broken; `None`: it is not, so far.
    pub problem: Option<String>,
}

impl Check {
    pub fn begin(store: &Store) -> Self {
        let head = store.head();
        Self { scan: store.scan(head), head, checked: 0, problem: None }
    }

    /// Checks about [`STEP`] more bytes. A broken chain is no error; it is in `problem`.
    pub fn step(&mut self) -> Result<Progress, LedgerError> {
        let until = self.scan.at() + STEP;
        while self.scan.at() < until {
            match self.scan.next().and_then(signed) {
                Ok(Some(_)) => self.checked += 1,
                Ok(None) => {
                    self.problem = self.wrong_end();
                    return Ok(Progress::Done);
                }
                Err(found) => {
                    self.problem = Some(found.to_string());
                    return Ok(Progress::Done);
                }
            }
        }
        Ok(Progress::More)
    }

    /// The file is a valid chain, but perhaps not the one that was written.
    fn wrong_end(&self) -> Option<String> {
        let same = (self.checked, self.scan.last()) == (self.head.length, self.head.hash);
        (!same).then(|| {
            let (is, was) = (self.checked, self.head.length);
            format!("the file ends after {is} entries and not with the last of the {was} appended")
        })
    }
}

fn signed(found: Option<Found>) -> Result<Option<Found>, Break> {
    match found {
        Some(Found { at, entry, .. })
            if !entry.author.has_signed(&entry.payload, &entry.signature) =>
        {
            Err(Break { index: entry.index, at, why: Why::Signature })
        }
        good => Ok(good),
    }
}
