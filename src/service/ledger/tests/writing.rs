//! The writer: groups, callers that leave, and disks that fail.

use std::fs::File;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tonic::{Code, Status};

use super::*;
use crate::service::ledger::store::Chain;

#[test]
fn what_waits_is_flushed_once_and_each_caller_is_told_its_own_place() {
    let ground = Ground::new();
    let store = Arc::new(ground.load().unwrap().store);
    let drafts = (0..20).map(|n| draft(n, &[n])).collect();
    let (answers, tally) = append(&store, drafts);
    assert_eq!(tally, Tally { appended: 20, flushes: 1 });
    for (index, answer) in (0..20_u64).zip(answers) {
        let appended = answer.unwrap();
        let (entry, hash) = store.entry(index).unwrap();
        assert_eq!((appended.index, appended.hash), (index, hash));
        assert_eq!(u64::from(entry.payload[0]), index);
    }
}

#[test]
fn a_write_has_a_limited_size() {
    let ground = Ground::new();
    let store = Arc::new(ground.load().unwrap().store);
    let large = || Draft { payload: vec![0; 3 << 20], ..draft(1, b"") };
    let (_, tally) = append(&store, vec![large(), large(), large()]);
    assert_eq!(tally, Tally { appended: 3, flushes: 2 });
}

#[test]
fn a_caller_that_left_before_the_write_has_nothing_appended() {
    let ground = Ground::new();
    let store = Arc::new(ground.load().unwrap().store);
    let (queue, queued) = mpsc::channel(2);
    let (gone, answered) = waiting(draft(1, b"gone"));
    drop(answered);
    let (stays, answered) = waiting(draft(1, b"stays"));
    queue.try_send(gone).unwrap();
    queue.try_send(stays).unwrap();
    drop(queue);
    assert_eq!(writer::write_until_closed(Arc::clone(&store), queued).appended, 1);
    assert_eq!(answered.blocking_recv().unwrap().unwrap().index, 0);
    assert_eq!(store.entry(0).unwrap().0.payload, b"stays");
}

/// What two appends, one after the other, are told of a ledger in this file.
fn two_appends_to(store: &Arc<Store>, payload: &[u8]) -> [Status; 2] {
    let (queue, queued) = mpsc::channel(1);
    let store = Arc::clone(store);
    let writer = thread::spawn(move || writer::write_until_closed(store, queued));
    let told = [0, 1].map(|_| {
        let (waiting, answered) = waiting(draft(1, payload));
        queue.blocking_send(waiting).unwrap();
        Status::from(&*answered.blocking_recv().unwrap().unwrap_err())
    });
    drop(queue);
    assert_eq!(writer.join().unwrap(), Tally::default());
    told
}

fn store_in(file: File, path: &str) -> Arc<Store> {
    Arc::new(Store::new(Arc::new(file), Path::new(path), [1; 12], Chain::empty(), None))
}

#[test]
fn a_write_that_fails_halfway_is_undone_and_does_not_stop_the_next() {
    let memory = memfd_create("ledger", MemfdFlags::ALLOW_SEALING).unwrap();
    let file = File::from(memory);
    file.set_len(4096).unwrap();
    fcntl_add_seals(&file, SealFlags::GROW).unwrap();
    let seen = file.try_clone().unwrap();
    let store = store_in(file, "memory");
    let [first, second] = two_appends_to(&store, &[7; 5000]);
    for told in [first, second] {
        assert_eq!(told.code(), Code::Internal);
        assert!(told.message().contains("cannot append to \"memory\""), "{told}");
    }
    assert_eq!((store.head().length, seen.metadata().unwrap().len()), (0, store.head().end));
}

#[test]
fn a_full_disk_is_resource_exhausted_and_what_cannot_be_undone_stops_the_pen() {
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let store = store_in(full, "/dev/full");
    let [first, second] = two_appends_to(&store, b"payload");
    assert_eq!(first.code(), Code::ResourceExhausted, "{first}");
    assert_eq!(second.code(), Code::FailedPrecondition, "{second}");
    assert!(second.message().contains("cannot append to \"/dev/full\""), "{second}");
    assert_eq!(store.head().length, 0);
}

#[test]
fn after_a_failed_flush_nothing_is_shown_and_nothing_more_is_appended() {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let store = store_in(null, "/dev/null");
    let [first, second] = two_appends_to(&store, b"payload");
    assert!(first.message().contains("cannot flush \"/dev/null\""), "{first}");
    assert_eq!(second.code(), Code::FailedPrecondition, "{second}");
    assert_eq!(store.head().length, 0);
}
