//! Opens the file at the start of the service: makes it where there is none, checks every entry,
//! cuts off what a power cut tore, and refuses a file that is damaged before its tail.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LedgerError;
use super::frame::{self, FILE_HEADER, Fault, FrameMark};
use super::scan::{Break, Scan, Why};
use super::steps::{Progress, STEP};
use super::store::{Chain, Store};
use crate::service::durable_file::{self, Doing, FileError};

const NAME: &str = "ledger.log";
const BESIDE: &str = ".new-ledger.log";

/// A file that is being checked, a step at a time.
#[derive(Debug)]
pub struct Recovery {
    lock: File,
    file: Arc<File>,
    path: PathBuf,
    mark: FrameMark,
    length: u64,
    scan: Scan,
    starts: Vec<u64>,
}

/// A ledger that may be read and written.
#[derive(Debug)]
pub struct Loaded {
    pub store: Store,
    /// Bytes of an unfinished write that were cut off.
    pub cut: u64,
}

impl Recovery {
    /// Opens the ledger of `folder`, which must exist; makes an empty one if there is none.
    pub fn begin(folder: &Path) -> Result<Self, LedgerError> {
        let lock = lock(folder)?;
        let path = folder.join(NAME);
        if !path.try_exists().doing("look for", &path)? {
            make(folder, &path)?;
        }
        let mut options = File::options();
        let file = options.read(true).write(true).open(&path).doing("open", &path)?;
        let mark = header(&file, &path)?;
        let length = file.metadata().doing("look at", &path)?.len();
        let file = Arc::new(file);
        let scan = Scan::new(&file, mark, length);
        Ok(Self { lock, file, path, mark, length, scan, starts: Vec::new() })
    }

    /// Checks about [`STEP`] more bytes.
    pub fn step(&mut self) -> Result<Progress, LedgerError> {
        let until = self.scan.at() + STEP;
        while self.scan.at() < until {
            match self.scan.next() {
                Ok(Some(found)) => self.starts.push(found.at),
                Ok(None) => return Ok(Progress::Done),
                Err(found) => return self.judge(found).map(|()| Progress::Done),
            }
        }
        Ok(Progress::More)
    }

    /// Flushes the entries that were found: the process before this one may have ended between a
    /// write and its flush, and from now on readers see them.
    pub fn finish(self) -> Result<Loaded, LedgerError> {
        let end = self.scan.at();
        if end < self.length {
            self.file.set_len(end).doing("cut the torn end off", &self.path)?;
        }
        self.file.sync_all().doing("flush", &self.path)?;
        let chain = Chain { starts: self.starts, end, last: self.scan.last() };
        let store = Store::new(self.file, &self.path, self.mark, chain, Some(self.lock));
        Ok(Loaded { store, cut: self.length - end })
    }

    /// `Ok`: what was found is the torn end of the file.
    fn judge(&self, found: Break) -> Result<(), LedgerError> {
        let torn = match found.why {
            Why::Frame(Fault::Read(source)) => {
                let (doing, path) = ("read", self.path.clone());
                return Err(FileError { doing, path, source }.into());
            }
            Why::Frame(Fault::Incomplete | Fault::FrameMark | Fault::Length(_) | Fault::Check) => {
                let later = frame::later_write(&self.file, self.mark, found.at);
                later.doing("read", &self.path)?.is_none()
            }
            Why::NotAnEntry | Why::Index(_) | Why::Previous | Why::Signature => false,
        };
        if torn { Ok(()) } else { Err(LedgerError::Damaged { path: self.path.clone(), found }) }
    }
}

fn lock(folder: &Path) -> Result<File, LedgerError> {
    let opened = File::open(folder).doing("open the folder", folder)?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Ok(Err(error).doing("lock the folder", folder)?),
    }
}

fn make(folder: &Path, path: &Path) -> Result<(), LedgerError> {
    durable_file::remove_leftovers(folder, BESIDE)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700)).doing("close to others", folder)?;
    let mut mark: FrameMark = [0; 12];
    let drawn = getrandom::fill(&mut mark).map_err(|error| io::Error::other(error.to_string()));
    drawn.doing("draw random bytes for", path)?;
    durable_file::write_durably(path, &folder.join(BESIDE), &frame::file_header(mark))?;
    Ok(())
}

fn header(file: &File, path: &Path) -> Result<FrameMark, LedgerError> {
    let refuse = |problem| LedgerError::Header { path: path.to_owned(), problem };
    let mut bytes = [0; FILE_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => frame::read_file_header(&bytes).map_err(refuse),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(refuse(format!("it is not a ledger: it ends within its first {FILE_HEADER} bytes")))
        }
        Err(error) => Ok(Err(error).doing("read", path)?),
    }
}
