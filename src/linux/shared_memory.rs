//! Memory that outlives this process in the hands of whoever else has its descriptor: some words
//! that any thread may change, and bytes that one owner may. Knows nothing of what they mean.

#![allow(unsafe_code, reason = "no library maps a file whose words are atomic")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::SealFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::error::{Error, failed};
use super::fds;

/// The bytes begin here; before them are the words. A multiple of every page's size.
const WORDS_SIZE: usize = 64 * 1024;

/// How many words there are.
pub const WORDS: usize = 64;

const SEALS: SealFlags = SealFlags::GROW.union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// New memory. It is all zero, takes up only what is written to, and has a size from the first
/// `map` on, which nobody can change.
pub fn memory(name: &str) -> Result<OwnedFd, Error> {
    fds::memory(name)
}

/// The words, for any thread.
#[derive(Debug, Clone)]
pub struct Words(Arc<Mapping>);

/// The bytes, for one owner: no other process may have them mapped at the same time.
#[derive(Debug)]
pub struct Bytes(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to no thread, and is reached only through `Words`, which gives
// atomics, and through the one `Bytes`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Maps memory that `memory` made: `bytes` bytes beside the words. Refuses any other.
pub fn map(memory: impl AsFd, bytes: usize) -> Result<(Words, Bytes), Error> {
    let memory = memory.as_fd();
    let length = WORDS_SIZE + bytes;
    size(memory, length)?;
    check(memory, length)?;
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, access, flags, memory, 0) };
    let start = start.map_err(failed("map", "shared memory"))?;
    let Some(start) = NonNull::new(start.cast()) else {
        return Err(not_ours("a mapping at address 0".to_owned()));
    };
    let mapping = Arc::new(Mapping { start, length });
    Ok((Words(Arc::clone(&mapping)), Bytes(mapping)))
}

/// Sizes and seals memory that is new, or whose maker died before it had done so.
fn size(memory: BorrowedFd<'_>, length: usize) -> Result<(), Error> {
    let found = rustix::fs::fstat(memory).map_err(failed("stat", "shared memory"))?;
    if found.st_size == 0 {
        let length = length as u64;
        rustix::fs::ftruncate(memory, length).map_err(failed("size", "shared memory"))?;
    }
    let seals = rustix::fs::fcntl_get_seals(memory);
    if seals.is_ok_and(|seals| !seals.intersects(SEALS)) {
        rustix::fs::fcntl_add_seals(memory, SEALS).map_err(failed("seal", "shared memory"))?;
    }
    Ok(())
}

/// Its size must be sealed: whoever could shrink it while it is mapped could end us (SIGBUS).
fn check(memory: BorrowedFd<'_>, length: usize) -> Result<(), Error> {
    let found = rustix::fs::fstat(memory).map_err(failed("stat", "shared memory"))?;
    let seals = rustix::fs::fcntl_get_seals(memory);
    let seals = seals.map_err(failed("read the seals of", "shared memory"))?;
    let is_whole = u64::try_from(found.st_size) == Ok(length as u64);
    if is_whole && seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Ok(());
    }
    Err(not_ours(format!("{} bytes, {seals:?}", found.st_size)))
}

fn not_ours(found: String) -> Error {
    let expected = "memory of our size that nobody can shrink";
    Error::Content { file: "a memfd".to_owned(), expected, found }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it any more: they all hold an `Arc` of it.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "the mapping is whole");
    }
}

impl Words {
    pub fn all(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: the mapping begins with them, at a page's start, and lives as long as `self`;
        // no `Bytes` reaches them; atomics may be shared.
        unsafe { self.0.start.cast().as_ref() }
    }
}

impl Bytes {
    pub fn all(&mut self) -> &mut [u8] {
        let length = self.0.length - WORDS_SIZE;
        // SAFETY: the bytes begin inside the mapping.
        let start = unsafe { self.0.start.add(WORDS_SIZE) };
        // SAFETY: they are mapped as long as `self` lives, and only `self` reaches them.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), length) }
    }

    /// Gives the memory of whole pages back; they read as zeroes afterwards.
    pub fn give_back(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let page = rustix::param::page_size();
        let (from, to) = (from.next_multiple_of(page), to / page * page);
        let bytes = self.all();
        if from >= to || to > bytes.len() {
            return Ok(());
        }
        let part = &mut bytes[from..to];
        // SAFETY: whole pages of this mapping, which nobody else looks into meanwhile.
        unsafe { rustix::mm::madvise(part.as_mut_ptr().cast(), part.len(), Advice::LinuxRemove) }
            .map_err(failed("give back", "shared memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::Ordering;

    const SIZE: usize = 1 << 20;

    #[test]
    fn what_one_wrote_another_finds() {
        let memory = memory("test").unwrap();
        let (words, mut bytes) = map(&memory, SIZE).unwrap();
        assert!(words.all().iter().all(|word| word.load(Ordering::SeqCst) == 0));
        words.all()[WORDS - 1].store(7, Ordering::SeqCst);
        bytes.all()[SIZE - 1] = b'x';
        drop((words, bytes));
        let (words, mut bytes) = map(&memory, SIZE).unwrap();
        assert_eq!(words.all()[WORDS - 1].load(Ordering::SeqCst), 7);
        assert_eq!((bytes.all().len(), bytes.all()[0], bytes.all()[SIZE - 1]), (SIZE, 0, b'x'));
    }

    #[test]
    fn only_what_is_written_to_takes_up_memory_and_it_can_be_given_back() {
        let memory = File::from(memory("test").unwrap());
        let used = || memory.metadata().unwrap().blocks() * 512;
        let (_words, mut bytes) = map(&memory, SIZE).unwrap();
        assert_eq!(used(), 0);
        assert_eq!(memory.metadata().unwrap().len(), (WORDS_SIZE + SIZE) as u64);
        bytes.all().fill(1);
        assert_eq!(used(), SIZE as u64);
        bytes.give_back(1, SIZE - 1).unwrap();
        let page = rustix::param::page_size();
        assert_eq!(used(), 2 * page as u64);
        assert_eq!((bytes.all()[page - 1], bytes.all()[page]), (1, 0));
        bytes.give_back(SIZE, 2 * SIZE).unwrap();
        bytes.give_back(page, page).unwrap();
    }

    #[test]
    fn what_could_end_us_is_not_mapped() {
        let refuse = |memory: OwnedFd| map(memory, SIZE).unwrap_err().to_string();
        let small = memory("test").unwrap();
        map(&small, SIZE - 1).unwrap();
        let small = refuse(small);
        assert!(small.contains("not memory of our size"), "{small}");
        // Without MFD_ALLOW_SEALING nobody can seal it.
        let unsealed = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, (WORDS_SIZE + SIZE) as u64).unwrap();
        assert!(refuse(unsealed).contains("nobody can shrink"));
        assert!(refuse(fds::pipe().unwrap().0).contains("shared memory"));
    }

    #[test]
    fn what_died_before_it_was_sealed_is_sealed_by_the_next() {
        let memory = memory("test").unwrap();
        rustix::fs::ftruncate(&memory, (WORDS_SIZE + SIZE) as u64).unwrap();
        map(&memory, SIZE).unwrap();
        assert!(rustix::fs::fcntl_get_seals(&memory).unwrap().contains(SEALS));
    }
}
