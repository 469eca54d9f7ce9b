//! What the block files promise.

use super::*;

const LIMITS: Limits = Limits { max_block: 1 << 20, quota: 0 };

fn open(dir: &Path, limits: Limits) -> Arc<Blocks> {
    Arc::new(Blocks::open(dir, 0, limits).unwrap())
}

fn address(data: &[u8]) -> Address {
    let digest = Digest::of(data);
    Address { cid: digest.raw_cid(), digest }
}

fn get(blocks: &Blocks, data: &[u8]) -> Result<Vec<u8>, StorageError> {
    let pieces: Result<Vec<_>, _> = blocks.read(&address(data))?.collect();
    Ok(pieces?.concat())
}

fn left_in_tmp(dir: &Path) -> usize {
    fs::read_dir(dir.join("tmp")).unwrap().count()
}

#[test]
fn a_block_is_there_after_reopening_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), LIMITS);
    assert!(!blocks.put(b"one", None).unwrap().existed);
    assert!(blocks.put(b"one", Some(&address(b"one"))).unwrap().existed);
    assert!(!blocks.put(b"", None).unwrap().existed);
    drop(blocks);
    let blocks = open(dir.path(), LIMITS);
    assert_eq!(get(&blocks, b"one").unwrap(), b"one");
    assert_eq!(get(&blocks, b"").unwrap(), b"");
    assert_eq!(blocks.usage().unwrap(), Counts { blocks: 2, bytes: 3 });
    assert_eq!(blocks.facts(&address(b"one")).unwrap().size, 3);
    assert!(matches!(get(&blocks, b"two"), Err(StorageError::NotFound(_))));
}

#[test]
fn a_large_block_goes_in_and_out_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), LIMITS);
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(PIECE * 2 + 77).collect();
    let mut writer = blocks.writer().unwrap();
    for piece in data.chunks(1000) {
        writer.write(piece).unwrap();
    }
    let stored = writer.finish(None).unwrap();
    assert_eq!((stored.digest, stored.size), (Digest::of(&data), length(&data)));
    assert_eq!(blocks.read(&address(&data)).unwrap().count(), 3);
    assert_eq!(get(&blocks, &data).unwrap(), data);
    assert_eq!(left_in_tmp(dir.path()), 0);
}

#[test]
fn refused_blocks_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), Limits { max_block: 10, quota: 15 });
    let large = blocks.put(&[0; 11], None).unwrap_err();
    assert!(matches!(large, StorageError::TooLarge { size: 11, most: 10 }));
    let other = blocks.put(b"one", Some(&address(b"two"))).unwrap_err();
    assert!(matches!(other, StorageError::OtherCid { .. }));
    blocks.put(&[1; 10], None).unwrap();
    let mut writer = blocks.writer().unwrap();
    writer.write(&[2; 5]).unwrap();
    let over = writer.write(&[2; 1]).unwrap_err();
    assert!(matches!(over, StorageError::OverQuota { used: 15, wanted: 1, quota: 15 }));
    drop(writer);
    assert!(blocks.put(&[1; 10], None).unwrap().existed, "what is there needs no room");
    blocks.put(&[3; 5], None).unwrap();
    assert_eq!(blocks.usage().unwrap(), Counts { blocks: 2, bytes: 15 });
    assert_eq!(left_in_tmp(dir.path()), 0);
}

#[test]
fn what_a_killed_put_left_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), LIMITS);
    let mut writer = blocks.writer().unwrap();
    writer.write(b"half").unwrap();
    std::mem::forget(writer);
    drop(blocks);
    fs::write(dir.path().join("tmp/1-0"), b"of a living instance").unwrap();
    let blocks = open(dir.path(), LIMITS);
    assert_eq!(left_in_tmp(dir.path()), 1);
    assert_eq!(blocks.usage().unwrap(), Counts::default());
}

#[test]
fn a_damaged_block_is_never_given_out_and_mended_by_putting_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), LIMITS);
    let data = vec![7; PIECE + 1];
    blocks.put(&data, None).unwrap();
    let path = blocks.path(&Digest::of(&data));
    for damage in [&data[..PIECE], &[&data[..PIECE], b"x"].concat(), b""] {
        fs::write(&path, damage).unwrap();
        assert!(matches!(get(&blocks, &data), Err(StorageError::Damaged(_))));
        blocks.put(&data, None).unwrap();
        assert_eq!(get(&blocks, &data).unwrap(), data);
    }
    drop(blocks);
    let counts = open(dir.path(), LIMITS).usage().unwrap();
    assert_eq!(counts, Counts { blocks: 1, bytes: length(&data) });
}

#[test]
fn deleting_is_idempotent_and_gives_the_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), Limits { max_block: 10, quota: 10 });
    blocks.put(&[1; 10], None).unwrap();
    assert!(blocks.delete(&Digest::of(&[1; 10])).unwrap());
    assert!(!blocks.delete(&Digest::of(&[1; 10])).unwrap());
    blocks.put(&[2; 10], None).unwrap();
    assert_eq!(blocks.usage().unwrap(), Counts { blocks: 1, bytes: 10 });
}

#[test]
fn the_list_is_in_the_order_of_the_cid_texts_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = open(dir.path(), LIMITS);
    let mut cids: Vec<String> =
        (0..40_u8).map(|n| blocks.put(&[n], None).unwrap().digest.raw_cid().to_string()).collect();
    cids.sort();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, more) = blocks.list(after.as_ref(), 7).unwrap();
        seen.extend(page.iter().map(|(digest, _)| digest.raw_cid().to_string()));
        after = page.last().map(|(digest, _)| *digest);
        if !more {
            break;
        }
    }
    assert_eq!(seen, cids);
}

#[test]
fn usage_and_quota_are_exact_for_instances_and_threads_together() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_block: 100, quota: 1000 };
    let instances: Vec<_> =
        (0..3).map(|n| Arc::new(Blocks::open(dir.path(), n, limits).unwrap())).collect();
    let stored: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..9_u8)
            .map(|thread| {
                let blocks = &instances[usize::from(thread) % 3];
                scope.spawn(move || {
                    let mut stored = 0;
                    for n in 0..20_u8 {
                        // Every third content is put by all threads.
                        let owner = if n % 3 == 0 { u8::MAX } else { thread };
                        match blocks.put(&[&[owner, n][..], &[0; 48]].concat(), None) {
                            Ok(put) => stored += u64::from(!put.existed),
                            Err(StorageError::OverQuota { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        if n % 5 == 4
                            && blocks
                                .delete(&Digest::of(&[&[owner, n][..], &[0; 48]].concat()))
                                .unwrap()
                        {
                            stored -= 1;
                        }
                    }
                    stored
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(0, u64::wrapping_add)
    });
    let counted = count(&dir.path().join("blocks")).unwrap();
    assert!(counted.bytes <= 1000);
    assert_eq!(counted, Counts { blocks: stored, bytes: stored * 50 });
    for blocks in instances {
        assert_eq!(blocks.usage().unwrap(), counted);
        assert_eq!(blocks.list(None, 1000).unwrap().0.len(), usize::try_from(stored).unwrap());
    }
}
