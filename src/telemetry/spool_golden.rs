//! Spools as released versions left them, which a later one goes on from. A layout that changes is
//! a new `LAYOUT`, and another file here; those before it stay.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::record::Part;
use super::split::Rest;
use super::spool::{Kept, Spool, kept};

/// As 5286a20 and later write it: the rows that are not all zero. Its orchestrator died while it
/// took the bytes `second\nnew` out of the pipe, and the last of them, `w`, had come to its place.
const FIRST: &str = include_str!("golden/spool-1.txt");
/// Where that is.
const MARK: u64 = 64 * 1024;

fn memory(golden: &str) -> File {
    let (size, rows) = golden.split_once('\n').unwrap();
    let memory = File::from(Spool::memory().unwrap());
    memory.set_len(size.strip_prefix("size ").unwrap().parse().unwrap()).unwrap();
    for row in rows.lines() {
        let (place, hex) = row.split_once(' ').unwrap();
        let bytes = u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
        memory.write_all_at(&bytes, u64::from_str_radix(place, 16).unwrap()).unwrap();
    }
    memory
}

fn records(spool: &mut Spool) -> Vec<(String, Part)> {
    let (bytes, head) = (spool.copy(), spool.head());
    let one = |record: Kept<'_>| (String::from_utf8(record.line.to_vec()).unwrap(), record.part);
    kept(&bytes, head).map(one).collect()
}

fn rest(bytes: &[u8], parts: u32) -> Rest {
    Rest { bytes: bytes.to_vec(), parts }
}

#[test]
fn the_first_layout_is_read_as_what_it_was() {
    let wrapped = ("wrapped line".to_owned(), Part::WHOLE);
    let part = ("part".to_owned(), Part { number: 2, continues: true });
    let second = ("second".to_owned(), Part::WHOLE);
    let mut taken = Spool::open(OwnedFd::from(memory(FIRST))).unwrap();
    assert_eq!(records(&mut taken), [wrapped.clone(), part.clone(), second]);
    assert_eq!((taken.rest(), taken.unsaid(), taken.untold()), (rest(b"new", 0), 0, 4));
    // The kernel had not come to it: the bytes are still in the pipe.
    let untouched = memory(FIRST);
    untouched.write_all_at(&[!b'w'], MARK).unwrap();
    let mut before = Spool::open(OwnedFd::from(untouched)).unwrap();
    assert_eq!(records(&mut before), [wrapped, part]);
    assert_eq!((before.rest(), before.unsaid(), before.untold()), (rest(b"half", 3), 7, 4));
}
