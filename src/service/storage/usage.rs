//! How much is stored, exact over all instances that share the folder.
//!
//! The counts are in one small file. Every change of the stored blocks holds its `flock`, so that a
//! block appears and is counted in one step. A change that a killed process did not finish is
//! marked, and the blocks are counted anew. Bytes of puts in progress are reserved in a slot per
//! instance, which the instance clears when it starts.
//!
//! The file (numbers u64, little endian): `BHUSE 1\n`, 1 while a change is under way, blocks,
//! bytes, 64 reservations. It is not flushed: after a power cut the first instance counts anew.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::error::StorageError;
use crate::catalog::INSTANCES;
use crate::service::durable_file::{Doing, FileError};

const MAGIC: u64 = u64::from_le_bytes(*b"BHUSE 1\n");
/// As many as a service may have instances.
const SLOTS: usize = INSTANCES as usize;
const HEAD: usize = 4;
const NUMBERS: usize = HEAD + SLOTS;

/// The number of blocks, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub blocks: u64,
    pub bytes: u64,
}

type Recount = Box<dyn Fn() -> Result<Counts, FileError> + Send + Sync>;

/// The counts, the quota and this instance's reservations.
pub struct Usage {
    file: File,
    path: PathBuf,
    /// Locked shared as long as this process lives: the process that can lock it exclusively is
    /// alone.
    _presence: File,
    threads: Mutex<()>,
    slot: usize,
    quota: u64,
    recount: Recount,
}

#[derive(Clone, Copy)]
struct Numbers {
    changing: bool,
    counts: Counts,
    reserved: [u64; SLOTS],
}

impl Usage {
    /// The usage of the folder for the instance `slot` (below 64). `quota` in bytes; 0: none.
    /// The first instance counts what is there.
    pub fn open(
        folder: &Path,
        slot: usize,
        quota: u64,
        recount: Recount,
    ) -> Result<Self, FileError> {
        let (path, presence_path) = (folder.join("usage"), folder.join("presence"));
        let (file, presence) = (open_or_make(&path)?, open_or_make(&presence_path)?);
        let alone = flock(&presence, FlockOperation::NonBlockingLockExclusive).is_ok();
        let threads = Mutex::new(());
        let usage = Self { file, path, _presence: presence, threads, slot, quota, recount };
        {
            let held = usage.hold()?;
            let mut numbers = match held.read()? {
                Some(numbers) if !alone => numbers,
                _ => Numbers { changing: true, counts: Counts::default(), reserved: [0; SLOTS] },
            };
            numbers.reserved[slot] = 0;
            held.write(&numbers)?;
            held.settled()?;
        }
        flock(&usage._presence, FlockOperation::LockShared).doing("lock", &presence_path)?;
        Ok(usage)
    }

    pub fn quota(&self) -> u64 {
        self.quota
    }

    pub fn counts(&self) -> Result<Counts, FileError> {
        Ok(self.hold()?.settled()?.counts)
    }

    /// A reservation of nothing.
    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { usage: Arc::clone(self), bytes: 0 }
    }

    /// Runs `change` on the stored blocks and the counts as one step. If it fails, it must have
    /// changed nothing.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Counts) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        self.change_and_give_back(0, change)
    }

    fn change_and_give_back<T>(
        &self,
        reserved: u64,
        change: impl FnOnce(&mut Counts) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        let held = self.hold()?;
        let mut numbers = held.settled()?;
        held.write(&Numbers { changing: true, ..numbers })?;
        let changed = change(&mut numbers.counts);
        let slot = &mut numbers.reserved[self.slot];
        *slot = slot.saturating_sub(reserved);
        held.write(&numbers)?;
        changed
    }

    fn hold(&self) -> Result<Held<'_>, FileError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&self.file, FlockOperation::LockExclusive).doing("lock", &self.path)?;
        Ok(Held { usage: self, _threads: threads })
    }
}

fn open_or_make(path: &Path) -> Result<File, FileError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).doing("open", path)
}

/// The locked counts: no other thread or instance reads or writes them.
struct Held<'a> {
    usage: &'a Usage,
    _threads: MutexGuard<'a, ()>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.usage.file, FlockOperation::Unlock) {
            tracing::error!(%error, "cannot unlock the usage file");
        }
    }
}

impl Held<'_> {
    /// `None`: the file is new or not one of ours.
    fn read(&self) -> Result<Option<Numbers>, FileError> {
        let mut bytes = [0; NUMBERS * 8];
        match self.usage.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error).doing("read", &self.usage.path),
        }
        let mut numbers = bytes.chunks_exact(8).map(|chunk| {
            u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives 8 bytes each"))
        });
        let mut next = || numbers.next().unwrap_or_default();
        if next() != MAGIC {
            return Ok(None);
        }
        let changing = next() != 0;
        let counts = Counts { blocks: next(), bytes: next() };
        Ok(Some(Numbers { changing, counts, reserved: std::array::from_fn(|_| next()) }))
    }

    /// The numbers; counted anew if a change was not finished.
    fn settled(&self) -> Result<Numbers, FileError> {
        let unknown = Numbers { changing: true, counts: Counts::default(), reserved: [0; SLOTS] };
        let mut numbers = self.read()?.unwrap_or(unknown);
        if numbers.changing {
            numbers.counts = (self.usage.recount)()?;
            numbers.changing = false;
            self.write(&numbers)?;
        }
        Ok(numbers)
    }

    fn write(&self, numbers: &Numbers) -> Result<(), FileError> {
        let Numbers { changing, counts, reserved } = numbers;
        let head = [MAGIC, u64::from(*changing), counts.blocks, counts.bytes];
        let bytes: Vec<u8> = head.into_iter().chain(*reserved).flat_map(u64::to_le_bytes).collect();
        self.usage.file.write_all_at(&bytes, 0).doing("write", &self.usage.path)
    }
}

/// Bytes that are reserved for a put, and given back when this is dropped.
pub struct Reservation {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Reservation {
    /// Reserves `bytes` more, or refuses because they would exceed the quota.
    pub fn grow(&mut self, bytes: u64) -> Result<(), StorageError> {
        let held = self.usage.hold()?;
        let mut numbers = held.settled()?;
        let quota = self.usage.quota;
        let used = numbers.reserved.iter().fold(numbers.counts.bytes, |a, b| a.saturating_add(*b));
        if quota > 0 && used.saturating_add(bytes) > quota {
            return Err(StorageError::OverQuota { used, wanted: bytes, quota });
        }
        let slot = &mut numbers.reserved[self.usage.slot];
        *slot = slot.saturating_add(bytes);
        held.write(&numbers)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Runs `change` and gives the reserved bytes back as one step.
    pub fn commit<T>(
        mut self,
        change: impl FnOnce(&mut Counts) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        self.usage.change_and_give_back(std::mem::take(&mut self.bytes), change)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        if let Err(error) = self.usage.change_and_give_back(self.bytes, |_| Ok(())) {
            tracing::error!(%error, bytes = self.bytes, "cannot give reserved bytes back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn open(folder: &Path, slot: usize, quota: u64, counted: &Arc<AtomicU64>) -> Arc<Usage> {
        let counted = Arc::clone(counted);
        let recount = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Counts { blocks: 1, bytes: 10 })
        };
        Arc::new(Usage::open(folder, slot, quota, Box::new(recount)).unwrap())
    }

    #[test]
    fn the_first_instance_counts_and_the_others_take_its_word() {
        let (dir, counted) = (tempfile::tempdir().unwrap(), Arc::default());
        let first = open(dir.path(), 0, 0, &counted);
        let second = open(dir.path(), 1, 0, &counted);
        let grow = |counts: &mut Counts| {
            counts.bytes += 5;
            Ok(())
        };
        first.change(grow).unwrap();
        assert_eq!(second.counts().unwrap(), Counts { blocks: 1, bytes: 15 });
        assert_eq!(counted.load(Ordering::SeqCst), 1);
        drop((first, second));
        assert_eq!(open(dir.path(), 1, 0, &counted).counts().unwrap().bytes, 10);
        assert_eq!(counted.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_change_that_was_left_half_done_is_counted_anew() {
        let (dir, counted) = (tempfile::tempdir().unwrap(), Arc::default());
        let usage = open(dir.path(), 0, 0, &counted);
        let mut numbers = usage.hold().unwrap().settled().unwrap();
        numbers.changing = true;
        numbers.counts.bytes = 99;
        usage.hold().unwrap().write(&numbers).unwrap();
        assert_eq!(usage.counts().unwrap().bytes, 10);
        assert_eq!(counted.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn reservations_count_for_every_instance_and_end_with_their_own() {
        let (dir, counted) = (tempfile::tempdir().unwrap(), Arc::default());
        let first = open(dir.path(), 0, 100, &counted);
        let second = open(dir.path(), 1, 100, &counted);
        let mut reserved = first.reservation();
        reserved.grow(60).unwrap();
        let refused = second.reservation().grow(31).unwrap_err();
        assert!(matches!(refused, StorageError::OverQuota { used: 70, wanted: 31, quota: 100 }));
        // As after a kill: nothing was given back, and the instance starts again.
        std::mem::forget(reserved);
        drop(first);
        let _first = open(dir.path(), 0, 100, &counted);
        assert!(second.reservation().grow(90).is_ok());
    }
}
