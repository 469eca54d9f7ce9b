//! The blocks as files. Knows nothing of gRPC.
//!
//! `blocks/<shard>/<raw cid>` is a block; `tmp/<instance>-<n>` one that is being written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::address::{Address, Digest, shard_of, shards};
use super::error::StorageError;
use super::usage::{Counts, Reservation, Usage};
use crate::service::clock;
use crate::service::durable_file::{self, Doing, FileError};

/// How much of a block is held in memory while it is read or checked.
const PIECE: usize = 256 << 10;

/// What may be stored, in bytes; a quota of 0: no quota.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_block: u64,
    pub quota: u64,
}

/// A block that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub size: u64,
    pub existed: bool,
}

/// A block's size and when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub size: u64,
    pub stored_unix_us: i64,
}

/// The blocks below one folder.
pub struct Blocks {
    blocks: PathBuf,
    beside: PathBuf,
    prefix: String,
    written: AtomicU64,
    usage: Arc<Usage>,
    max_block: u64,
}

impl Blocks {
    /// The blocks below `data_dir`, for the instance with that number (below 64), which no other
    /// live process has. Removes what that instance left half written.
    pub fn open(data_dir: &Path, instance: u16, limits: Limits) -> Result<Self, FileError> {
        let (blocks, beside) = (data_dir.join("blocks"), data_dir.join("tmp"));
        for folder in [&blocks, &beside] {
            durable_file::ensure(folder)?;
        }
        for shard in shards() {
            durable_file::make(&blocks.join(shard))?;
        }
        // Also if all were there: an earlier start may have ended between making and flushing.
        durable_file::flush(&blocks)?;
        let prefix = format!("{instance}-");
        durable_file::remove_leftovers(&beside, &prefix)?;
        let below = blocks.clone();
        let recount = Box::new(move || count(&below));
        let usage = Usage::open(data_dir, usize::from(instance), limits.quota, recount)?;
        let (usage, written) = (Arc::new(usage), AtomicU64::new(0));
        Ok(Self { blocks, beside, prefix, written, usage, max_block: limits.max_block })
    }

    pub fn usage(&self) -> Result<Counts, FileError> {
        self.usage.counts()
    }

    pub fn limits(&self) -> Limits {
        Limits { max_block: self.max_block, quota: self.usage.quota() }
    }

    /// Stores `data`; durable when this returns. A block that is there and intact is not written
    /// again, and needs no room in the quota. `expected`: the cid that `data` must have.
    pub fn put(
        self: &Arc<Self>,
        data: &[u8],
        expected: Option<&Address>,
    ) -> Result<Stored, StorageError> {
        let size = length(data);
        self.check_size(size)?;
        let digest = Digest::of(data);
        agree(expected, digest)?;
        if self.is_intact(&digest)? {
            return self.found(digest, size);
        }
        let mut writer = self.writer()?;
        writer.write(data)?;
        writer.finish(expected)
    }

    /// A writer for a block that comes in pieces.
    pub fn writer(self: &Arc<Self>) -> Result<Writer, StorageError> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.beside.join(format!("{}{number}", self.prefix));
        let file = durable_file::create_private(&path)?;
        let reservation = Some(self.usage.reservation());
        Ok(Writer {
            blocks: Arc::clone(self),
            file,
            path,
            hash: Sha256::new(),
            size: 0,
            reservation,
        })
    }

    /// Opens the block for reading in pieces.
    pub fn read(&self, address: &Address) -> Result<Pieces, StorageError> {
        let path = self.path(&address.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => return Err(absent(error, address, &path)),
        };
        let left = file.metadata().doing("read", &path)?.len();
        let (digest, hash) = (address.digest, Sha256::new());
        Ok(Pieces { file, path, digest, hash, left, ended: false })
    }

    pub fn facts(&self, address: &Address) -> Result<Facts, StorageError> {
        let path = self.path(&address.digest);
        let about = fs::metadata(&path).map_err(|error| absent(error, address, &path))?;
        let stored = about.modified().doing("read the time of", &path)?;
        Ok(Facts { size: about.len(), stored_unix_us: clock::of(stored) })
    }

    /// Whether the block was there.
    pub fn delete(&self, digest: &Digest) -> Result<bool, StorageError> {
        let path = self.path(digest);
        let deleted = self.usage.change(|counts| {
            let Some(size) = size_of(&path)? else { return Ok(false) };
            fs::remove_file(&path).doing("remove", &path)?;
            counts.blocks = counts.blocks.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(size);
            Ok(true)
        })?;
        self.flush(digest)?;
        Ok(deleted)
    }

    /// At most `most` blocks after the one with the raw cid `after`, with their sizes, in the order
    /// of their raw cids' texts, and whether there are more.
    pub fn list(
        &self,
        after: Option<&Digest>,
        most: usize,
    ) -> Result<(Vec<(Digest, u64)>, bool), StorageError> {
        let after = after.map(|digest| digest.place().1).unwrap_or_default();
        let mut page = Vec::new();
        for shard in shards().into_iter().filter(|shard| shard.as_str() >= shard_of(&after)) {
            for name in durable_file::sorted_names(&self.blocks.join(&shard))? {
                let Some(address) = name.parse::<Address>().ok().filter(|_| name > after) else {
                    continue;
                };
                if page.len() == most {
                    return Ok((page, true));
                }
                // One that was deleted in the meantime has no size and is left out.
                let size = size_of(&self.blocks.join(&shard).join(&name))?;
                page.extend(size.map(|size| (address.digest, size)));
            }
        }
        Ok((page, false))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let (shard, name) = digest.place();
        self.blocks.join(shard).join(name)
    }

    fn flush(&self, digest: &Digest) -> Result<(), FileError> {
        durable_file::flush(&self.blocks.join(digest.place().0))
    }

    fn check_size(&self, size: u64) -> Result<(), StorageError> {
        if size > self.max_block {
            return Err(StorageError::TooLarge { size, most: self.max_block });
        }
        Ok(())
    }

    /// The caller relies on a block that it is told is there, but whoever stored it may not have
    /// flushed the folder yet.
    fn found(&self, digest: Digest, size: u64) -> Result<Stored, StorageError> {
        self.flush(&digest)?;
        Ok(Stored { digest, size, existed: true })
    }

    fn is_intact(&self, digest: &Digest) -> Result<bool, StorageError> {
        let cid = digest.raw_cid();
        let pieces = match self.read(&Address { cid, digest: *digest }) {
            Ok(pieces) => pieces,
            Err(StorageError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        for piece in pieces {
            match piece {
                Ok(_) => {}
                Err(StorageError::Damaged(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn absent(error: io::Error, address: &Address, path: &Path) -> StorageError {
    if error.kind() == io::ErrorKind::NotFound {
        return StorageError::NotFound(address.cid.to_string());
    }
    StorageError::File(FileError { doing: "open", path: path.to_owned(), source: error })
}

fn agree(expected: Option<&Address>, actual: Digest) -> Result<(), StorageError> {
    match expected {
        Some(address) if address.digest != actual => Err(StorageError::OtherCid {
            expected: address.cid.to_string(),
            actual: actual.raw_cid().to_string(),
        }),
        Some(_) | None => Ok(()),
    }
}

fn size_of(path: &Path) -> Result<Option<u64>, FileError> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(about.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("read the size of", path),
    }
}

fn count(blocks: &Path) -> Result<Counts, FileError> {
    let mut counts = Counts::default();
    for shard in shards() {
        let shard = blocks.join(shard);
        for name in durable_file::sorted_names(&shard)? {
            if name.parse::<Address>().is_ok() {
                counts.bytes += size_of(&shard.join(name))?.unwrap_or(0);
                counts.blocks += 1;
            }
        }
    }
    Ok(counts)
}

/// A block that is being written. Dropped before `finish`, it leaves nothing behind.
pub struct Writer {
    blocks: Arc<Blocks>,
    file: File,
    path: PathBuf,
    hash: Sha256,
    size: u64,
    /// `None` after the block was put into place.
    reservation: Option<Reservation>,
}

impl Writer {
    /// Refuses more than the largest block or the quota before it is written.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        let more = length(piece);
        self.blocks.check_size(self.size.saturating_add(more))?;
        if let Some(reservation) = &mut self.reservation {
            reservation.grow(more)?;
        }
        self.file.write_all(piece).doing("write", &self.path)?;
        self.hash.update(piece);
        self.size += more;
        Ok(())
    }

    /// Puts the block into place; durable when this returns.
    pub fn finish(mut self, expected: Option<&Address>) -> Result<Stored, StorageError> {
        let digest = Digest(self.hash.clone().finalize().into());
        agree(expected, digest)?;
        if self.blocks.is_intact(&digest)? {
            return self.blocks.found(digest, self.size);
        }
        self.file.sync_all().doing("flush", &self.path)?;
        let reservation =
            self.reservation.take().expect("only `finish` takes it, and it ends the writer");
        let place = self.blocks.path(&digest);
        let placed = reservation.commit(|counts| {
            // The block that is there now is damaged, or was stored by another call in the
            // meantime.
            let before = size_of(&place)?;
            fs::rename(&self.path, &place).doing("put into place", &place)?;
            counts.blocks += u64::from(before.is_none());
            counts.bytes = counts.bytes.saturating_sub(before.unwrap_or(0)) + self.size;
            Ok(before.is_some())
        });
        let existed = placed?;
        self.blocks.flush(&digest)?;
        Ok(Stored { digest, size: self.size, existed })
    }
}

impl Drop for Writer {
    /// After `finish` there is nothing at `path`.
    fn drop(&mut self) {
        durable_file::remove_quietly(&self.path);
    }
}

/// A block that is being read. The last piece is given only if the whole block is intact.
pub struct Pieces {
    file: File,
    path: PathBuf,
    digest: Digest,
    hash: Sha256,
    left: u64,
    ended: bool,
}

impl Pieces {
    /// How many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        let size = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; size];
        self.file.read_exact(&mut piece).doing("read", &self.path)?;
        self.hash.update(&piece);
        self.left -= length(&piece);
        if self.left > 0 {
            return Ok(Some(piece));
        }
        self.ended = true;
        if self.hash.clone().finalize()[..] != self.digest.0 {
            return Err(StorageError::Damaged(self.digest.raw_cid().to_string()));
        }
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Iterator for Pieces {
    type Item = Result<Vec<u8>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.piece();
        self.ended |= piece.is_err();
        piece.transpose()
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
