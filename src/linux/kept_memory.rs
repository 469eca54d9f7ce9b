//! Memory as a file that somebody else keeps while we go on writing to it (`memfd_create(2)`). It
//! is never mapped, and whoever has it may change its size. Knows nothing of what is in it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, SealFlags};

use super::error::{Error, failed};
use super::fds;

#[derive(Debug)]
pub struct KeptMemory {
    file: File,
    name: &'static str,
}

impl KeptMemory {
    /// New memory, empty.
    pub fn new(name: &'static str) -> Result<Self, Error> {
        Ok(Self { file: fds::memory(name)?.into(), name })
    }

    /// One that was made before; `None`: it is no memory, or cannot be written to.
    pub fn adopt(fd: OwnedFd, name: &'static str) -> Option<Self> {
        let fixed = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        let seals = rustix::fs::fcntl_get_seals(&fd).ok()?;
        (!seals.intersects(fixed)).then(|| Self { file: fd.into(), name })
    }

    /// From now on it holds this and nothing else. Whoever is killed meanwhile leaves a part of it
    /// from its beginning on, perhaps nothing.
    pub fn replace(&self, content: &[u8]) -> Result<(), Error> {
        self.file.set_len(0).map_err(failed("empty", self.name))?;
        self.write_at(0, content)
    }

    pub fn write_at(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, position).map_err(failed("write into", self.name))
    }

    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(failed("look at", self.name))?.len())
    }

    /// Cuts off what is behind this position.
    pub fn truncate(&self, size: u64) -> Result<(), Error> {
        self.file.set_len(size).map_err(failed("cut", self.name))
    }

    /// Reads up to `most` bytes from a position on; fewer where it ends.
    pub fn read_at(&self, position: u64, most: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; most];
        let mut read = 0;
        while read < most {
            let place = position + read as u64;
            match self.file.read_at(&mut bytes[read..], place) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(reason) => return Err(failed("read", self.name)(reason)),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Gives the memory of these bytes back; they read as zeroes afterwards.
    pub fn give_back(&self, from: u64, to: u64) -> Result<(), Error> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match to.checked_sub(from).filter(|length| *length > 0) {
            Some(length) => rustix::fs::fallocate(&self.file, hole, from, length)
                .map_err(failed("give back memory of", self.name)),
            None => Ok(()),
        }
    }
}

impl AsFd for KeptMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_written_is_found_by_who_has_it_and_can_be_written_anew() {
        let memory = KeptMemory::new("kept").unwrap();
        memory.replace(b"the first content").unwrap();
        memory.replace(b"second").unwrap();
        let duplicate = memory.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(fds::read_whole(&duplicate, 100).unwrap(), b"second");
        let next = KeptMemory::adopt(duplicate, "kept").unwrap();
        next.write_at(6, b" and third").unwrap();
        assert_eq!(memory.read_at(7, 100).unwrap(), b"and third");
        assert_eq!(memory.read_at(7, 3).unwrap(), b"and");
        next.truncate(3).unwrap();
        assert_eq!((memory.size().unwrap(), memory.read_at(9, 9).unwrap()), (3, Vec::new()));
    }

    #[test]
    fn what_cannot_be_written_to_is_not_adopted() {
        let sealed = fds::sealed_memory("sealed", b"content").unwrap();
        assert!(KeptMemory::adopt(sealed, "kept").is_none());
        assert!(KeptMemory::adopt(fds::pipe().unwrap().0, "kept").is_none());
    }

    #[test]
    fn memory_that_is_given_back_is_not_used_any_more() {
        let memory = KeptMemory::new("kept").unwrap();
        memory.replace(&[1; 1 << 20]).unwrap();
        memory.give_back(0, 1 << 20).unwrap();
        memory.give_back(5, 5).unwrap();
        let found = memory.file.metadata().unwrap();
        assert_eq!((found.blocks(), found.len()), (0, 1 << 20));
        assert_eq!(memory.read_at(0, 2).unwrap(), [0, 0]);
    }
}
