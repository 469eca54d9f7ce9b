//! Looks at what is in a pipe without taking it out (`tee(2)`), and takes out what was looked at.
//! Knows nothing of what it is.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::error::Error;
use super::fds;

/// What is in a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Bytes(usize),
    /// The pipe is empty.
    Nothing,
    /// The pipe is empty, and nobody can write to it any more.
    EndOfFile,
}

/// A scratch pipe into which others are copied. Empty between two calls of `look`.
#[derive(Debug)]
pub struct Mirror {
    read: OwnedFd,
    write: OwnedFd,
}

impl Mirror {
    pub fn new() -> Result<Self, Error> {
        let (read, write) = fds::pipe()?;
        // A small one shows less at once.
        let _size = fds::enlarge_pipe(&write);
        Ok(Self { read, write })
    }

    /// Copies the first bytes in `pipe` into `into`, as many as there are and fit. Never waits.
    /// After an error the mirror is of no use any more.
    pub fn look(&self, pipe: impl AsFd, into: &mut [u8]) -> io::Result<Seen> {
        let copied =
            again(|| rustix::pipe::tee(&pipe, &self.write, into.len(), SpliceFlags::NONBLOCK));
        let count = match copied {
            Ok(0) => return Ok(Seen::EndOfFile),
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(Seen::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let mut missing = &mut into[..count];
        while !missing.is_empty() {
            match again(|| rustix::io::read(&self.read, &mut *missing))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => missing = &mut missing[read..],
            }
        }
        Ok(Seen::Bytes(count))
    }
}

thread_local! {
    /// Where bytes go that are taken out after they were looked at.
    static WASTE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes `count` bytes out of `pipe`, which holds them: the last one into `last`. The kernel does
/// it at once, so that whoever dies meanwhile has taken all of them or none, and `last` tells
/// which.
pub fn take(pipe: impl AsFd, count: usize, last: &mut [u8; 1]) -> io::Result<()> {
    let taken = WASTE.with_borrow_mut(|waste| {
        let before = count.saturating_sub(1);
        waste.resize(waste.len().max(before), 0);
        let mut into = [IoSliceMut::new(&mut waste[..before]), IoSliceMut::new(last)];
        again(|| rustix::io::readv(&pipe, &mut into))
    })?;
    if taken == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn a_look_takes_nothing_and_a_taking_takes_exactly_what_was_seen() {
        let (read, write) = fds::pipe().unwrap();
        let mut write = File::from(write);
        let mirror = Mirror::new().unwrap();
        let mut seen = [0; 5];
        assert_eq!(mirror.look(&read, &mut seen).unwrap(), Seen::Nothing);
        write.write_all(b"one").unwrap();
        write.write_all(b"two").unwrap();
        for _ in 0..3 {
            assert_eq!(mirror.look(&read, &mut seen).unwrap(), Seen::Bytes(5));
            assert_eq!(&seen, b"onetw");
        }
        let mut last = [0];
        take(&read, 5, &mut last).unwrap();
        assert_eq!(last, *b"w");
        assert_eq!(mirror.look(&read, &mut seen).unwrap(), Seen::Bytes(1));
        take(&read, 1, &mut last).unwrap();
        assert_eq!(last, *b"o");
        drop(write);
        assert_eq!(mirror.look(&read, &mut seen).unwrap(), Seen::EndOfFile);
    }

    #[test]
    fn a_full_pipe_is_seen_in_several_looks() {
        let (read, write) = fds::pipe().unwrap();
        let size = fds::enlarge_pipe(&write).unwrap();
        let content: Vec<u8> = (0_u8..=250).cycle().take(size).collect();
        File::from(write).write_all(&content).unwrap();
        let mirror = Mirror::new().unwrap();
        let (mut seen, mut all) = (vec![0; 60_000], Vec::new());
        while let Seen::Bytes(count) = mirror.look(&read, &mut seen).unwrap() {
            all.extend_from_slice(&seen[..count]);
            take(&read, count, &mut [0]).unwrap();
        }
        assert_eq!(all, content);
    }
}
