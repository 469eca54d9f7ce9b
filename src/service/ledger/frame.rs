//! The layout of the file: a header, then a frame for each entry. Knows no chain and no signatures.
//!
//! Header, 32 bytes: `BHLEDGER`, format version (4 bytes), mark (12), check (8): the first bytes
//! of SHA-256 over the 24 before. Frame: mark (12), behind (4), length (4), check (12), then
//! `length` bytes of body. Integers are big-endian.
//!
//! The *mark* is random for each file and no caller ever sees it, so that no payload can pass for
//! a frame. *behind* is how many bytes before this frame the write began that wrote it: a power
//! cut tears a whole write, and may leave a later frame of it whole. *check* is the first 12 bytes
//! of SHA-256 over mark, behind, length and the SHA-256 of the body.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memchr::memmem;
use sha2::{Digest, Sha256};

use super::entry::{self, Hash};

/// The only format that this version reads and writes.
pub const VERSION: u32 = 1;
/// Bytes before the first frame.
pub const FILE_HEADER: usize = 32;
/// Bytes of a frame before its body.
pub const FRAME_HEADER: usize = 32;
/// Bytes of the largest payload that any configuration allows.
pub const PAYLOAD_MOST: usize = 16 << 20;
/// Bytes of the largest body.
const BODY_MOST: usize = entry::FIXED + PAYLOAD_MOST;
const MAGIC: [u8; 8] = *b"BHLEDGER";
/// How many bytes are searched at once for a later frame.
const WINDOW: usize = 1 << 20;

/// Random bytes that begin every frame of one file.
pub type FrameMark = [u8; 12];

/// Why no frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("the file ends within it")]
    Incomplete,
    #[error("no entry begins there")]
    FrameMark,
    #[error("its length says {0} bytes; at most {BODY_MOST} are possible")]
    Length(u32),
    #[error("its bytes do not have their checksum")]
    Check,
}

/// A frame whose checksum is right.
#[derive(Debug)]
pub struct Frame {
    pub behind: u32,
    pub body: Vec<u8>,
    /// SHA-256 of the body.
    pub hash: Hash,
}

impl Frame {
    /// Bytes in the file, header included.
    pub fn size(&self) -> u64 {
        (FRAME_HEADER + self.body.len()) as u64
    }
}

/// The first bytes of a new file.
pub fn file_header(mark: FrameMark) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    header[12..24].copy_from_slice(&mark);
    let check: [u8; 8] = digest_start(&[&header[..24]]);
    header[24..].copy_from_slice(&check);
    header
}

/// The file's mark, or what is wrong with its header.
pub fn read_file_header(header: &[u8; FILE_HEADER]) -> Result<FrameMark, String> {
    let (magic, rest) = header.split_at(8);
    let (version, rest) = rest.split_at(4);
    let (mark, check) = rest.split_at(12);
    if magic != MAGIC {
        return Err("it is not a ledger".to_owned());
    }
    let version = u32::from_be_bytes(version.try_into().expect("4 bytes were split off"));
    if version != VERSION {
        return Err(format!("its format is version {version}; this program reads {VERSION}"));
    }
    if check != digest_start::<8>(&[&header[..24]]) {
        return Err("its header does not have its checksum".to_owned());
    }
    Ok(mark.try_into().expect("12 bytes were split off"))
}

/// Adds the frame around `body` to `group`, the bytes of one write, and gives the body's hash.
pub fn add(group: &mut Vec<u8>, mark: FrameMark, body: &[u8]) -> Hash {
    let hash = entry::hash(body);
    let behind = u32::try_from(group.len()).expect("a write has a few MiB: the writer holds it");
    let length =
        u32::try_from(body.len()).expect("a body has at most 16 MiB: the service holds it");
    let (behind, length) = (behind.to_be_bytes(), length.to_be_bytes());
    group.extend(mark);
    group.extend(behind);
    group.extend(length);
    group.extend(digest_start::<12>(&[&mark, &behind, &length, &hash]));
    group.extend(body);
    hash
}

/// The frame that begins where `from` is.
pub fn read(from: &mut impl Read, mark: FrameMark) -> Result<Frame, Fault> {
    let mut header = [0; FRAME_HEADER];
    fill(from, &mut header)?;
    let (found, rest) = header.split_at(12);
    let (behind, rest) = rest.split_at(4);
    let (length, check) = rest.split_at(4);
    if found != mark {
        return Err(Fault::FrameMark);
    }
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
    let said = number(length);
    let most = usize::try_from(said).ok().filter(|said| *said <= BODY_MOST);
    let mut body = vec![0; most.ok_or(Fault::Length(said))?];
    fill(from, &mut body)?;
    let hash = entry::hash(&body);
    if check != digest_start::<12>(&[&mark, behind, length, &hash]) {
        return Err(Fault::Check);
    }
    Ok(Frame { behind: number(behind), body, hash })
}

/// The place of the first whole frame of a later write than the one at `damaged`. Such a frame
/// proves that the bytes at `damaged` had reached the disk.
pub fn later_write(file: &Arc<File>, mark: FrameMark, damaged: u64) -> io::Result<Option<u64>> {
    let mut window = vec![0; WINDOW + mark.len() - 1];
    let mut from = damaged;
    loop {
        let have = Span::new(file, from, u64::MAX).read_fully(&mut window)?;
        for candidate in memmem::find_iter(&window[..have], &mark) {
            let at = from + candidate as u64;
            let frame = read(&mut Span::new(file, at, u64::MAX), mark);
            if frame.is_ok_and(|frame| at.saturating_sub(frame.behind.into()) > damaged) {
                return Ok(Some(at));
            }
        }
        if have < window.len() {
            return Ok(None);
        }
        from += WINDOW as u64;
    }
}

/// A part of a file, read without moving the position of the file.
#[derive(Debug)]
pub struct Span {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Span {
    /// From `at` to `end`, or to the file's end where that comes first.
    pub fn new(file: &Arc<File>, at: u64, end: u64) -> Self {
        Self { file: Arc::clone(file), at, end }
    }

    /// Reads until `buffer` is full or the span has ended; returns how much.
    fn read_fully(mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < buffer.len() {
            match self.read(&mut buffer[have..])? {
                0 => break,
                more => have += more,
            }
        }
        Ok(have)
    }
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Fault> {
    from.read_exact(bytes).map_err(|error| {
        let ended = error.kind() == io::ErrorKind::UnexpectedEof;
        if ended { Fault::Incomplete } else { Fault::Read(error) }
    })
}

fn digest_start<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part));
    let digest = digest.finalize();
    std::array::from_fn(|n| digest[n])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: FrameMark = *b"mark-of-file";

    #[test]
    fn a_frame_reads_back_and_no_flipped_bit_passes() {
        let mut bytes = Vec::new();
        let hash = add(&mut bytes, MARK, b"body");
        let frame = read(&mut bytes.as_slice(), MARK).unwrap();
        assert_eq!((frame.body.as_slice(), frame.hash, frame.behind), (&b"body"[..], hash, 0));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&mut flipped.as_slice(), MARK).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_version_kind_or_checksum_is_refused_by_name() {
        let good = file_header(MARK);
        assert_eq!(read_file_header(&good), Ok(MARK));
        for (byte, said) in [(0, "not a ledger"), (11, "version 0"), (12, "checksum")] {
            let mut spoiled = good;
            spoiled[byte] ^= 1;
            let refused = read_file_header(&spoiled).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }

    fn file_of(bytes: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(file)
    }

    #[test]
    fn only_a_frame_of_a_later_write_counts_as_later() {
        let mut group = Vec::new();
        add(&mut group, MARK, b"one");
        let second = group.len() as u64;
        add(&mut group, MARK, b"two");
        assert_eq!(later_write(&file_of(&group), MARK, 0).unwrap(), None);
        let next = group.len() as u64;
        let mut other = Vec::new();
        add(&mut other, MARK, b"three");
        let both = file_of(&[group, other].concat());
        assert_eq!(later_write(&both, MARK, 0).unwrap(), Some(next));
        assert_eq!(later_write(&both, MARK, second).unwrap(), Some(next));
        assert_eq!(later_write(&both, MARK, next).unwrap(), None);
    }

    #[test]
    fn a_later_frame_is_found_across_every_edge_of_the_search_windows() {
        let mut frame = Vec::new();
        add(&mut frame, MARK, b"far");
        for before in WINDOW - 40..WINDOW + 20 {
            let file = file_of(&[vec![0; before], frame.clone()].concat());
            assert_eq!(later_write(&file, MARK, 0).unwrap(), Some(before as u64), "{before}");
        }
    }
}
