//! The build ID of an executable: what the linker wrote into it so that two builds can be told
//! apart (`NT_GNU_BUILD_ID` in elf(5), `readelf -n`). Reads some hundred bytes of the file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes of notes that are looked through, and segments that are looked at.
const NOTES_MOST: u64 = 64 << 10;
const SEGMENTS_MOST: u16 = 64;
/// Bytes of a build ID that are taken; linkers write 8 to 32.
const ID_MOST: usize = 64;

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

/// That of the program that this process runs, in hexadecimal. `None` where it has none or cannot
/// be read.
pub fn of_this_process() -> Option<String> {
    of(&File::open("/proc/self/exe").ok()?).ok().flatten()
}

/// `None` where the file has none or is no 64-bit little-endian ELF.
fn of(file: &File) -> io::Result<Option<String>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    if header[..4] != MAGIC || header[4..6] != [CLASS_64, LITTLE_ENDIAN] {
        return Ok(None);
    }
    let (at, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    for index in 0..count.min(SEGMENTS_MOST) {
        let mut segment = [0; 56];
        let place = at.saturating_add(u64::from(index) * u64::from(size));
        file.read_exact_at(&mut segment, place)?;
        if u32_at(&segment, 0) != PT_NOTE {
            continue;
        }
        let length = u64_at(&segment, 32).min(NOTES_MOST);
        let mut notes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut notes, u64_at(&segment, 8))?;
        if let Some(id) = build_id(&notes) {
            return Ok(Some(id.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    Ok(None)
}

/// Each note: the lengths of its name and its content, its type, then both, in whole words.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (lengths, rest) = notes.split_first_chunk::<12>()?;
        let length = |at| usize::try_from(u32_at(lengths, at)).unwrap_or(usize::MAX);
        let name = 0..length(0);
        let padded = name.end.checked_next_multiple_of(4)?;
        let content = padded..padded.checked_add(length(4))?;
        let found = rest.get(content.clone())?;
        if u32_at(lengths, 8) == NT_GNU_BUILD_ID && rest.get(name) == Some(GNU) {
            return found.get(..found.len().min(ID_MOST)).filter(|id| !id.is_empty());
        }
        notes = rest.get(content.end.checked_next_multiple_of(4)?..)?;
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let place: Range<usize> = at..at + N;
    bytes.get(place).and_then(|found| found.try_into().ok()).unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        let lengths = [name.len(), content.len()].map(|length| u32::try_from(length).unwrap());
        for word in [lengths[0], lengths[1], kind] {
            note.extend(word.to_le_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// A file with nothing but a header, one segment and its notes.
    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..4].copy_from_slice(&MAGIC);
        file[4..6].copy_from_slice(&[CLASS_64, LITTLE_ENDIAN]);
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..58].copy_from_slice(&[56, 0, 1, 0]);
        file[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend(notes);
        file
    }

    fn read(bytes: &[u8]) -> io::Result<Option<String>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        of(&file)
    }

    #[test]
    fn it_is_found_among_other_notes() {
        let others = [note(1, GNU, &[0; 16]), note(3, b"Go\0", b"other")].concat();
        let id = note(NT_GNU_BUILD_ID, GNU, &[0xc4, 0x1d, 0x17, 0x0e, 0x0b]);
        let found = read(&elf(&[others.clone(), id].concat())).unwrap();
        assert_eq!(found.as_deref(), Some("c41d170e0b"));
        assert_eq!(read(&elf(&others)).unwrap(), None);
        assert_eq!(read(&elf(&note(NT_GNU_BUILD_ID, GNU, &[]))).unwrap(), None);
    }

    #[test]
    fn what_is_no_such_file_has_none() {
        assert_eq!(read(&[b'#'; 200]).unwrap(), None);
        assert!(read(b"#!/bin/sh\n").is_err());
        let whole = elf(&note(NT_GNU_BUILD_ID, GNU, &[7; 20]));
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        let mut lies = note(NT_GNU_BUILD_ID, GNU, &[7; 20]);
        lies[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&elf(&lies)).unwrap(), None);
    }
}
