//! Appending, reading back, recycling, and what is refused.

use super::*;
use rt::Fault;

#[test]
fn what_was_appended_is_read_back_before_and_after_reopening() {
    let disk = SimDisk::new();
    let (journal, recovered) = open(&disk);
    assert!(recovered.groups.is_empty() && recovered.quarantined.is_empty());
    let mut big = append_entry(1, b"first");
    big.payload.bodies.push(Bytes::from(vec![7; 20_000]));
    let places = sync(&journal, vec![big.clone(), append_entry(2, b"second")]);
    assert_eq!(journal.read_payload(places[0]).unwrap(), big.payload);
    let body = big.payload.body_location(places[0], 1).unwrap();
    assert_eq!(journal.read(body).unwrap(), big.payload.bodies[1]);
    drop(journal);
    let (journal, recovered) = open(&disk);
    assert_eq!(live(&journal, &recovered), [(1, Bytes::from("first")), (2, Bytes::from("second"))]);
    assert_eq!(recovered.groups[&G].entries[0].location, places[0]);
    assert_eq!(recovered.cut_bytes, 0);
}

#[test]
fn truncate_purge_vote_and_hint_come_back_as_last_written() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let other = GroupId(9);
    sync(&journal, (1..=6).map(|i| append_entry(i, b"a")).collect());
    sync(
        &journal,
        vec![
            entry(EntryKind::Vote, G, 0, b"vote 1"),
            entry(EntryKind::Truncate, G, 5, b""),
            append_entry(5, b"b"),
            entry(EntryKind::Vote, G, 0, b"vote 2"),
            entry(EntryKind::Committed, G, 0, b"committed 4"),
            entry(EntryKind::Purge, G, 2, b""),
            entry(EntryKind::Vote, other, 0, b"other"),
        ],
    );
    drop(journal);
    let (journal, recovered) = open(&disk);
    let group = &recovered.groups[&G];
    assert_eq!(group.vote.as_ref().unwrap().head, "vote 2");
    assert_eq!(group.committed.as_ref().unwrap().head, "committed 4");
    assert_eq!(group.purged, Some(LogPosition { index: 2, term: 1, node: 1 }));
    assert_eq!(
        live(&journal, &recovered),
        [(3, Bytes::from("a")), (4, Bytes::from("a")), (5, Bytes::from("b"))]
    );
    assert_eq!(recovered.groups[&other].vote.as_ref().unwrap().head, "other");
    assert!(group.gaps().is_empty());
}

#[test]
fn everything_queued_becomes_one_frame_with_one_sync() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    let order: Arc<Mutex<Vec<u64>>> = Arc::default();
    for index in 1..=50 {
        let order = Arc::clone(&order);
        let done: Completion = Box::new(move |outcome| {
            outcome.unwrap();
            order.lock().push(index);
        });
        journal.append(vec![append_entry(index, b"x")], Durability::Sync, done).unwrap();
    }
    assert!(journal.queued_bytes() > 50 * 37);
    settle(&journal);
    assert_eq!(*order.lock(), (1..=50).collect::<Vec<_>>());
    assert_eq!((journal.counters().frames, journal.counters().syncs), (1, 1));
    assert_eq!(journal.queued_bytes(), 0);
}

#[test]
fn a_gap_an_oversize_and_a_checkpoint_are_refused_and_leave_no_trace() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    sync(&journal, vec![append_entry(1, b"x")]);
    let gap = write(&journal, vec![append_entry(2, b"y"), append_entry(4, b"z")], Durability::Sync);
    assert!(matches!(gap, Err(JournalError::Gap { index: 4, last: 2, .. })), "{gap:?}");
    let large =
        write(&journal, vec![append_entry(2, &vec![0; journal.append_bytes_max()])], Durability::Sync);
    assert!(matches!(large, Err(JournalError::TooLarge { .. })), "{large:?}");
    let own = write(&journal, vec![entry(EntryKind::Checkpoint, G, 0, b"")], Durability::Sync);
    assert!(matches!(own, Err(JournalError::Refused { .. })), "{own:?}");
    let vote = write(&journal, vec![entry(EntryKind::Vote, G, 0, &[0; 300])], Durability::Sync);
    assert!(matches!(vote, Err(JournalError::Refused { .. })), "{vote:?}");
    sync(&journal, vec![append_entry(2, b"y")]);
    drop(journal);
    assert_eq!(indexes(&open(&disk).1), [1, 2]);
}

#[test]
fn a_full_queue_gives_the_append_back() {
    let disk = SimDisk::new();
    let mut config = config();
    config.queue_len_max = 2;
    let (journal, _) = open_with(&disk, config, 1).unwrap();
    let called: Arc<Mutex<u32>> = Arc::default();
    let append = |index| {
        let called = Arc::clone(&called);
        journal.append(
            vec![append_entry(index, b"x")],
            Durability::Sync,
            Box::new(move |_| *called.lock() += 1),
        )
    };
    append(1).unwrap();
    append(2).unwrap();
    let full = append(3).unwrap_err();
    assert_eq!(full.entries, [append_entry(3, b"x")]);
    settle(&journal);
    assert_eq!(*called.lock(), 2);
    journal.append(full.entries, Durability::Sync, full.done).unwrap();
    settle(&journal);
    assert_eq!(*called.lock(), 3);
}

/// Appends until `segments` segments are sealed; answers the next index.
pub(super) fn fill(journal: &Journal, mut index: u64, segments: usize) -> u64 {
    let goal = journal.segments().iter().filter(|info| info.sealed).count() + segments;
    while journal.segments().iter().filter(|info| info.sealed).count() < goal {
        sync(journal, vec![append_entry(index, &[index as u8; 6000])]);
        settle(journal);
        index += 1;
    }
    index
}

#[test]
fn sealed_segments_are_announced_with_their_ranges() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let seen: Arc<Mutex<Vec<SegmentInfo>>> = Arc::default();
    let observer = Arc::clone(&seen);
    journal.on_seal(Box::new(move |info| observer.lock().push(info.clone())));
    let next = fill(&journal, 1, 3);
    let seen = seen.lock().clone();
    assert_eq!(seen, journal.segments()[..3]);
    assert_eq!(seen.iter().map(|info| info.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(seen.iter().all(|info| info.sealed));
    let (_, first, last) = seen[0].groups[0];
    assert_eq!((first, seen[1].groups[0].1), (1, last + 1));
    assert_eq!(journal.segments()[3].groups, [(G, next - 1, next - 1)]);
    drop(journal);
    let infos = open(&disk).0.segments();
    assert_eq!(infos[..3], seen, "ranges survive a restart");
}

#[test]
fn recycled_segments_are_used_again_and_never_resurrect() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 3);
    assert!(matches!(journal.recycle(99), Err(JournalError::NoSegment { segment: 99 })));
    assert!(matches!(journal.recycle(4), Err(JournalError::NoSegment { segment: 4 })), "not sealed");
    let place = open(&disk.fork()).1.groups[&G].entries[0].location;
    sync(&journal, vec![entry(EntryKind::Purge, G, next - 2, b"")]);
    for seq in 1..=3 {
        journal.recycle(seq).unwrap();
    }
    settle(&journal);
    assert!(matches!(journal.read(place), Err(JournalError::NoSegment { segment: 1 })));
    assert_eq!(journal.segments().iter().map(|info| info.seq).collect::<Vec<_>>(), [4]);
    // Until every recycled file is in use again, old frames stand behind the new ones.
    let next = fill(&journal, next, 4);
    let stale = journal.segments().iter().any(|info| {
        let bytes = disk.contents(&segment_file(info.seq)).unwrap();
        bytes
            .chunks(4096)
            .any(|block| super::super::format::FrameHeader::decode(block).is_some_and(|h| h.frame < 20))
    });
    assert!(stale, "the test would prove nothing");
    let (reopened, recovered) = open(&disk.kill());
    assert!(recovered.quarantined.is_empty() && recovered.missing_segments.is_empty(), "{recovered:?}");
    let first = recovered.groups[&G].purged.unwrap().index + 1;
    assert_eq!(indexes(&recovered), (first..next).collect::<Vec<_>>());
    assert!(live(&reopened, &recovered).iter().all(|(i, body)| body[..] == [*i as u8; 6000]));
}

#[test]
fn a_purged_segment_is_not_read_at_opening() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 2);
    sync(&journal, vec![entry(EntryKind::Vote, G, 0, b"v"), entry(EntryKind::Purge, G, next - 2, b"")]);
    let mut image = image(&disk, &journal);
    // Destroy everything of segment 1 behind its first frame: nobody may notice.
    image[0].1[12_288..].fill(0xee);
    let (_, recovered) = open(&disk_of(&image));
    assert!(recovered.quarantined.is_empty(), "{recovered:?}");
    assert_eq!(recovered.groups[&G].vote.as_ref().unwrap().head, "v");
    assert_eq!(indexes(&recovered), [next - 1]);
}

#[test]
fn hard_state_does_not_depend_on_an_older_segment() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    sync(&journal, vec![entry(EntryKind::Vote, G, 0, b"v"), entry(EntryKind::Committed, G, 0, b"c")]);
    let next = fill(&journal, 1, 2);
    sync(&journal, vec![entry(EntryKind::Purge, G, next - 1, b"")]);
    journal.recycle(1).unwrap();
    journal.recycle(2).unwrap();
    settle(&journal);
    drop(journal);
    let (journal, recovered) = open(&disk);
    let group = &recovered.groups[&G];
    assert_eq!(group.vote.as_ref().unwrap().head, "v");
    assert_eq!(group.committed.as_ref().unwrap().head, "c");
    assert_eq!(group.purged.unwrap().index, next - 1);
    assert!(group.entries.is_empty());
    let gap = write(&journal, vec![append_entry(next + 1, b"x")], Durability::Sync);
    assert!(matches!(gap, Err(JournalError::Gap { .. })), "the last index survives too: {gap:?}");
    sync(&journal, vec![append_entry(next, b"x")]);
}

#[test]
fn a_failed_sync_seals_the_stripe_for_good() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let place = sync(&journal, vec![append_entry(1, b"kept")])[0];
    settle(&journal);
    disk.inject(Fault::SyncError { after: 0 }).unwrap();
    let failed = write(&journal, vec![append_entry(2, b"lost")], Durability::Sync);
    assert!(matches!(failed, Err(JournalError::Sealed)), "{failed:?}");
    assert_eq!(journal.state(), JournalState::Sealed);
    let syncs = journal.counters().syncs;
    for durability in [Durability::Sync, Durability::OsBuffered] {
        // The disk would answer well again, which proves nothing.
        let later = write(&journal, vec![append_entry(2, b"again")], durability);
        assert!(matches!(later, Err(JournalError::Sealed)), "{later:?}");
    }
    assert_eq!(journal.counters().syncs, syncs);
    assert!(matches!(journal.recycle(1), Err(JournalError::Sealed)));
    assert_eq!(journal.read_payload(place).unwrap().bodies[0], "kept", "reads go on");
    drop(journal);
    assert_eq!(indexes(&open(&disk.crash(3)).1), [1]);
}

#[test]
fn a_failed_write_seals_too_and_a_short_write_does_not() {
    let disk = SimDisk::new();
    disk.inject(Fault::ShortWrites { max: 1000 }).unwrap();
    let (journal, _) = open(&disk);
    sync(&journal, vec![append_entry(1, &[1; 5000])]);
    settle(&journal);
    disk.inject(Fault::WriteError { after: 2 }).unwrap();
    let failed = write(&journal, vec![append_entry(2, &[2; 5000])], Durability::OsBuffered);
    assert!(matches!(failed, Err(JournalError::Sealed)), "{failed:?}");
    drop(journal);
    assert_eq!(indexes(&open(&disk.kill()).1), [1]);
}

#[test]
fn buffered_appends_are_synced_when_idle_and_covered_by_a_later_sync() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    write(&journal, vec![append_entry(1, b"x")], Durability::OsBuffered).unwrap();
    write(&journal, vec![], Durability::Sync).unwrap();
    write(&journal, vec![append_entry(2, b"x")], Durability::OsBuffered).unwrap();
    sync(&journal, vec![append_entry(3, b"x")]);
    write(&journal, vec![append_entry(4, b"x")], Durability::OsBuffered).unwrap();
    let syncs = journal.counters().syncs;
    settle(&journal);
    assert_eq!(journal.counters().syncs, syncs + 1, "an idle turn syncs");
    for seed in 0..8 {
        assert_eq!(indexes(&open(&disk.fork().crash(seed)).1), [1, 2, 3, 4]);
    }
}

#[test]
fn a_second_opening_another_owner_and_a_bad_setting_are_refused() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    sync(&journal, vec![append_entry(1, b"x")]);
    assert!(matches!(open_with(&disk, config(), 1), Err(JournalError::Locked { .. })));
    drop(journal);
    for (what, change) in [("cluster", 1), ("node", 2)] {
        let mut foreign = config();
        match change {
            1 => foreign.identity.cluster = 8,
            _ => foreign.identity.node = 2,
        }
        let refused = open_with(&disk, foreign, 1).map(|_| ());
        assert!(
            matches!(&refused, Err(JournalError::Foreign { what: found, .. }) if *found == what),
            "{refused:?}"
        );
    }
    for bad in [4096, 65_537, 2 << 30] {
        let mut config = config();
        config.segment_bytes = bad;
        assert!(matches!(open_with(&disk, config, 1), Err(JournalError::Config { .. })), "{bad}");
    }
    open(&disk);
}
