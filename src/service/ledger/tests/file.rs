//! What is in the file after a restart, a power cut, or damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::service::ledger::entry::{Hash, NO_ENTRY};
use crate::service::ledger::frame;

/// The chain, checked link by link, as (hash, payload).
fn chain(store: &Store) -> Vec<(Hash, Vec<u8>)> {
    let mut previous = NO_ENTRY;
    let read = |index| {
        let (entry, hash) = store.entry(index).unwrap();
        assert_eq!((entry.index, entry.previous), (index, previous));
        assert_eq!(crate::service::ledger::entry::hash(&entry.encode()), hash);
        previous = hash;
        (hash, entry.payload)
    };
    (0..store.head().length).map(read).collect()
}

fn payloads(store: &Store) -> Vec<Vec<u8>> {
    chain(store).into_iter().map(|(_, payload)| payload).collect()
}

/// Where the frames begin, and where the last one ends.
fn starts(ground: &Ground) -> Vec<usize> {
    let store = ground.load().unwrap().store;
    let mut scan = store.scan(store.head());
    let mut starts = Vec::new();
    while let Some(found) = scan.next().unwrap() {
        starts.push(usize::try_from(found.at).unwrap());
    }
    starts.push(usize::try_from(scan.at()).unwrap());
    starts
}

#[test]
fn a_new_ledger_is_empty_and_private() {
    let ground = Ground::new();
    fs::set_permissions(ground.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(ground.dir.path().join(".new-ledger.log"), b"left by a power cut").unwrap();
    let loaded = ground.load().unwrap();
    assert_eq!((loaded.store.head().length, loaded.store.head().hash), (0, NO_ENTRY));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(ground.path()), mode(ground.dir.path().to_owned())), (0o600, 0o700));
    assert_eq!(fs::read_dir(ground.dir.path()).unwrap().count(), 1);
}

#[test]
fn entries_are_the_same_after_reopening_and_the_chain_goes_on() {
    let ground = Ground::with_entries(&[b"one", b"", b"three"]);
    let store = ground.load().unwrap().store;
    let before = chain(&store);
    drop(store);
    let store = Arc::new(ground.load().unwrap().store);
    assert_eq!(chain(&store), before);
    let (answers, _) = append(&store, vec![draft(2, b"four")]);
    assert_eq!(answers[0].as_ref().unwrap().index, 3);
    assert_eq!(payloads(&store), [&b"one"[..], b"", b"three", b"four"]);
    assert_eq!(store.head().hash, answers[0].as_ref().unwrap().hash);
}

#[test]
fn a_second_process_is_refused() {
    let ground = Ground::new();
    let first = ground.load().unwrap();
    assert!(matches!(ground.load(), Err(LedgerError::InUse(_))));
    drop(first);
    assert!(ground.load().is_ok());
}

/// Reliability 49.
#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_counted() {
    let ground = Ground::with_entries(&[b"one", b"two", b"torn off"]);
    let (bytes, starts) = (ground.bytes(), starts(&ground));
    let (last, end) = (starts[2], starts[3]);
    for torn in last + 1..end {
        let missing = bytes[..torn].to_vec();
        let mut zeroed = bytes.clone();
        zeroed[torn - 1..].fill(0);
        for spoiled in [missing, zeroed] {
            let ground = Ground::with(&spoiled);
            let loaded = ground.load().unwrap();
            assert_eq!(loaded.cut, (spoiled.len() - last) as u64, "torn at {torn}");
            assert_eq!(payloads(&loaded.store), [b"one", b"two"]);
            assert_eq!(ground.bytes(), bytes[..last]);
        }
    }
}

#[test]
fn appending_goes_on_after_a_torn_tail() {
    let ground = Ground::with_entries(&[b"one", b"torn off"]);
    let bytes = ground.bytes();
    let ground = Ground::with(&bytes[..bytes.len() - 1]);
    let store = Arc::new(ground.load().unwrap().store);
    append(&store, vec![draft(1, b"two")]);
    drop(store);
    let loaded = ground.load().unwrap();
    assert_eq!((loaded.cut, payloads(&loaded.store)), (0, vec![b"one".into(), b"two".into()]));
}

#[test]
fn a_torn_write_is_cut_off_whole_even_where_its_later_entries_reached_the_disk() {
    let ground = Ground::with_entries(&[b"one"]);
    let store = Arc::new(ground.load().unwrap().store);
    append(&store, vec![draft(1, b"two"), draft(1, b"three"), draft(1, b"four")]);
    drop(store);
    let (mut bytes, starts) = (ground.bytes(), starts(&ground));
    bytes[starts[2]..starts[3]].fill(0);
    let loaded = Ground::with(&bytes).load().unwrap();
    assert_eq!(loaded.cut, (starts[4] - starts[2]) as u64);
    assert_eq!(payloads(&loaded.store), [b"one", b"two"]);
}

#[test]
fn a_payload_that_looks_like_an_entry_does_not_keep_a_torn_tail_from_being_cut() {
    let other = Ground::with_entries(&[b"one", b"two"]);
    let copied = other.bytes();
    let ground = Ground::with_entries(&[b"one", &copied]);
    let bytes = ground.bytes();
    let loaded = Ground::with(&bytes[..bytes.len() - 1]).load().unwrap();
    assert_eq!(payloads(&loaded.store), [b"one"]);
}

/// Reliability 49.
#[test]
fn any_flipped_bit_of_a_middle_entry_is_named_and_nothing_is_changed() {
    let ground = Ground::with_entries(&[b"one", b"two", b"three"]);
    let (bytes, starts) = (ground.bytes(), starts(&ground));
    for bit in starts[1] * 8..starts[2] * 8 {
        let byte = bit / 8;
        let mut spoiled = bytes.clone();
        spoiled[byte] ^= 1 << (bit % 8);
        let ground = Ground::with(&spoiled);
        let error = ground.load().unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "byte {byte}: {error}");
        let said = error.to_string();
        let named = format!("entry 1 at byte {}", starts[1]);
        assert!(said.contains("ledger.log") && said.contains(&named), "byte {byte}: {said}");
        assert_eq!(ground.bytes(), spoiled);
    }
}

#[test]
fn a_missing_middle_entry_is_named() {
    let ground = Ground::with_entries(&[b"one", b"two", b"three"]);
    let (mut bytes, starts) = (ground.bytes(), starts(&ground));
    bytes.drain(starts[1]..starts[2]);
    let said = Ground::with(&bytes).load().unwrap_err().to_string();
    assert!(said.contains("entry 1") && said.contains("it says that it is entry 2"), "{said}");
}

#[test]
fn an_entry_that_was_replaced_by_a_whole_one_breaks_the_chain_at_the_next() {
    let ground = Ground::with_entries(&[b"one", b"two", b"three"]);
    let (mut bytes, starts) = (ground.bytes(), starts(&ground));
    let store = ground.load().unwrap().store;
    let mut entry = store.entry(1).unwrap().0;
    entry.payload = b"TWO".to_vec();
    let mut replaced = Vec::new();
    frame::add(&mut replaced, store.mark(), &entry.encode());
    bytes.splice(starts[1]..starts[2], replaced);
    let said = Ground::with(&bytes).load().unwrap_err().to_string();
    assert!(said.contains("entry 2") && said.contains("not linked"), "{said}");
}

#[test]
fn what_is_no_ledger_of_this_version_is_refused_and_left_as_it_is() {
    let good = Ground::with_entries(&[b"one"]).bytes();
    let mut newer = good.clone();
    newer[11] = 2;
    let cases: [(&[u8], &str); 4] = [
        (b"", "ends within its first 32 bytes"),
        (&good[..31], "ends within its first 32 bytes"),
        (&[b'x'; 64], "not a ledger"),
        (&newer, "version 2; this program reads 1"),
    ];
    for (bytes, why) in cases {
        let ground = Ground::with(bytes);
        let said = ground.load().unwrap_err().to_string();
        assert!(said.contains("ledger.log") && said.contains(why), "{said}");
        assert_eq!(ground.bytes(), bytes);
    }
}
