//! What only the segment engine can get wrong: footers that are damaged or missing, entries that were overwritten, many
//! shards, recycling.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{EngineKind, GroupId, Offset, ShardId};
use rt::{Disk, Fault, SimDisk};

use super::{SegmentLog, SegmentStripe};
use crate::conformance::{MemoryJournal, batch, shard};
use crate::engine::StripeContents;
use crate::error::LogError;
use crate::journal::SegmentInfo;
use crate::log::{Append, BatchFlags, Change, CommittedBatch, Log, Position, Reach, Selection};
use crate::source::BatchSource;

const GROUP: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);

type Entry = (GroupId, ShardId, CommittedBatch);

/// A stripe with the entries that were given to it, by segment.
struct Rig {
    disk: SimDisk,
    journal: Arc<MemoryJournal>,
    stripe: Arc<SegmentStripe>,
    entries: RefCell<BTreeMap<u64, Vec<Entry>>>,
    rebuilt: RefCell<Vec<u64>>,
    /// What the journal purged of every group.
    purged: u64,
}

fn one(number: u32) -> ShardId {
    shard(EngineKind::Segment, number)
}

impl Rig {
    fn new() -> Rig {
        let (disk, journal) = (SimDisk::new(), Arc::<MemoryJournal>::default());
        let stripe = open(&disk, &journal, 0, &mut |_, _| Ok(())).expect("open");
        Rig { disk, journal, stripe, entries: RefCell::default(), rebuilt: RefCell::default(), purged: 0 }
    }

    fn log(&self, group: GroupId) -> Arc<SegmentLog> {
        self.stripe.group(group)
    }

    /// Commits a batch as entry `index` of a group.
    fn append(&self, group: GroupId, index: u64, shard: ShardId, bytes: &bytes::Bytes) -> Append {
        let location = self.journal.append(group, index, bytes);
        let header = model::batch::BatchHeader::parse(bytes).expect("a sound batch");
        let position = Position { index, ordinal: 0 };
        let batch =
            CommittedBatch { bytes: bytes.clone(), header, flags: BatchFlags::NONE, position, location };
        self.entries.borrow_mut().entry(location.segment).or_default().push((group, shard, batch.clone()));
        let outcome = self.log(group).append(shard, batch).expect("append");
        self.log(group).turn_ended(index).expect("turn_ended");
        outcome
    }

    fn seal(&self) -> u64 {
        let sealed = self.journal.seal();
        let seq = sealed.seq;
        self.stripe.segment_sealed(sealed);
        assert_eq!(self.stripe.write_footers().expect("write footers"), 1);
        seq
    }

    /// Cuts the power and opens again; the entries above what is applied are replayed if `replay`.
    fn restart(&mut self, replay: bool) {
        self.restart_after(7, replay);
    }

    /// As `restart`; what of the unsynced arrived is decided by `seed`.
    fn restart_after(&mut self, seed: u64, replay: bool) {
        self.disk = self.disk.crash(seed);
        self.stripe = open(&self.disk, &self.journal, self.purged, &mut |segment, log| {
            self.rebuilt.borrow_mut().push(segment.seq);
            for (group, shard, batch) in &self.entries.borrow()[&segment.seq] {
                log(*group).append(*shard, batch.clone())?;
                log(*group).turn_ended(batch.position.index)?;
            }
            Ok(())
        })
        .expect("open again");
        if replay {
            let entries = self.entries.borrow();
            let unpurged = |entry: &&Entry| entry.2.position.index > self.purged;
            for (group, shard, batch) in entries.values().flatten().filter(unpurged) {
                self.log(*group).append(*shard, batch.clone()).expect("append");
                self.log(*group).turn_ended(batch.position.index).expect("turn_ended");
            }
        }
    }

    fn read(&self, group: GroupId, shard: ShardId) -> Vec<(u64, bytes::Bytes)> {
        let log = self.log(group);
        let start = log.offsets(shard).expect("offsets").start;
        let read = log.read(shard, start, usize::MAX).expect("read");
        read.into_iter().map(|batch| (batch.base.0, batch.bytes)).collect()
    }

    fn footer(&self, seq: u64) -> String {
        format!("/index/{seq:016x}.idx")
    }
}

type Logs<'a> = &'a dyn Fn(GroupId) -> Arc<SegmentLog>;

fn open(
    disk: &SimDisk,
    journal: &Arc<MemoryJournal>,
    purged: u64,
    rebuild: &mut dyn FnMut(&SegmentInfo, Logs<'_>) -> Result<(), LogError>,
) -> Result<Arc<SegmentStripe>, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let source: Arc<dyn BatchSource> = journal.clone();
    let segments = journal.segments();
    let contents = StripeContents { source: &source, segments: &segments, purged: &|_| purged };
    SegmentStripe::open(&disk, "/index".into(), contents, 0, rebuild)
}

/// Three sealed segments and an open one, two groups, a few shards, a producer.
fn filled() -> Rig {
    let rig = Rig::new();
    let mut index = 0;
    for round in 0..4_i64 {
        for number in 0..3 {
            index += 1;
            rig.append(
                GROUP,
                index,
                one(number),
                &batch(&[round, round + 1], Some((5, 0, round as i32 * 2))),
            );
            rig.append(OTHER, index, one(100 + number), &batch(&[round], None));
        }
        if round < 3 {
            rig.seal();
        }
    }
    rig
}

fn everything(rig: &Rig) -> Vec<Vec<(u64, bytes::Bytes)>> {
    let first = (0..3).map(|number| rig.read(GROUP, one(number)));
    first.chain((0..3).map(|number| rig.read(OTHER, one(100 + number)))).collect()
}

#[test]
fn storage_8_a_missing_or_damaged_footer_is_rebuilt_and_reads_are_identical() {
    let expected = everything(&filled());
    for seq in 1..=3 {
        for (damage, name) in
            ["removed", "flipped", "cut", "empty", "of another segment"].into_iter().enumerate()
        {
            let mut rig = filled();
            let path = rig.footer(seq);
            let path = Path::new(&path);
            let len = rig.disk.contents(path).expect("the footer is there").len() as u64;
            match damage {
                0 => rig.disk.remove(path).expect("remove"),
                1 => rig
                    .disk
                    .inject(Fault::BitFlip { path: path.into(), offset: len / 2, bit: 3 })
                    .expect("flip"),
                2 => rig.disk.open_rw(path).expect("open").set_len(len - 1).expect("cut"),
                3 => rig.disk.open_rw(path).expect("open").set_len(0).expect("cut"),
                _ => {
                    let other =
                        rig.disk.contents(Path::new(&rig.footer(seq % 3 + 1))).expect("another footer");
                    let file = rig.disk.open_rw(path).expect("open");
                    file.set_len(other.len() as u64).expect("resize");
                    file.write_all_at(&other, 0).expect("overwrite");
                }
            }
            if damage != 1 && damage != 0 {
                rig.disk.open_rw(path).expect("open").sync_all().expect("sync");
            }
            rig.disk.sync_dir(Path::new("/index")).expect("sync");
            rig.restart(true);
            assert_eq!(everything(&rig), expected, "footer {seq} {name}");
            // The last footer may simply not have been written yet: its entries are replayed, and it is written again.
            let replayed = damage == 0 && seq == 3;
            assert_eq!(
                *rig.rebuilt.borrow(),
                if replayed { vec![] } else { vec![seq] },
                "footer {seq} {name}"
            );
            rig.stripe.write_footers().expect("write footers");
            rig.rebuilt.borrow_mut().clear();
            rig.restart(true);
            assert_eq!((everything(&rig), rig.rebuilt.borrow().len()), (expected.clone(), 0));
        }
    }
}

#[test]
fn storage_55_a_footer_of_a_later_release_is_refused_and_kept() {
    let rig = filled();
    let path = rig.footer(2);
    let file = rig.disk.open_rw(Path::new(&path)).expect("open");
    let mut head = rig.disk.contents(Path::new(&path)).expect("contents")[..24].to_vec();
    head[4] = 9;
    let crc = crc_fast::crc32_iscsi(&head[..20]);
    head[20..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&head, 0).expect("overwrite");
    let opened = open(&rig.disk, &rig.journal, 0, &mut |_, _| panic!("must not be rebuilt"));
    let Err(LogError::Io { source, .. }) = opened else { panic!("it opened") };
    assert!(source.to_string().contains("version 9"), "{source}");
    assert_eq!(rig.disk.contents(Path::new(&path)).expect("contents")[4], 9);
}

#[test]
fn a_damaged_batch_is_reported_and_the_others_are_read() {
    let rig = Rig::new();
    let good = batch(&[1], None);
    let mut bad = good.to_vec();
    rig.append(GROUP, 1, one(1), &good);
    *bad.last_mut().expect("not empty") ^= 1;
    rig.append(GROUP, 2, one(1), &bad.into());
    rig.append(GROUP, 3, one(1), &good);
    let read = |from| rig.log(GROUP).read(one(1), Offset(from), 1);
    assert!(matches!(read(1), Err(LogError::Damaged { what: "record batch" })));
    assert_eq!((read(0).expect("read").len(), read(2).expect("read").len()), (1, 1));
    let greedy = rig.log(GROUP).read(one(1), Offset(0), usize::MAX).expect("what lies before it is readable");
    assert_eq!(greedy.len(), 1, "up to the damage, not beyond");
}

#[test]
fn storage_8_a_lost_footer_whose_entries_are_purged_is_rebuilt_from_the_segment() {
    let expected = everything(&filled());
    for lost in [vec![1], vec![3], vec![2, 3], vec![1, 2, 3]] {
        let mut rig = filled();
        rig.purged = rig.log(GROUP).flush().expect("flush");
        assert_eq!(rig.purged, 9, "three segments of three entries each");
        for seq in &lost {
            rig.disk.remove(Path::new(&rig.footer(*seq))).expect("remove");
        }
        rig.disk.sync_dir(Path::new("/index")).expect("sync");
        rig.restart(true);
        assert_eq!((everything(&rig), &*rig.rebuilt.borrow()), (expected.clone(), &lost));
    }
}

#[test]
fn a_segment_that_had_no_footer_yet_is_left_to_replay() {
    let mut rig = Rig::new();
    // A log's first entry is consensus' own, and has index 0.
    rig.journal.append(GROUP, 0, b"");
    rig.append(GROUP, 1, one(1), &batch(&[1], None));
    rig.journal.seal();
    rig.append(GROUP, 2, one(1), &batch(&[2], None));
    rig.restart(false);
    assert_eq!((rig.log(GROUP).applied(), rig.rebuilt.borrow().len()), (0, 0));
    rig.restart(true);
    assert_eq!((rig.read(GROUP, one(1)).len(), rig.rebuilt.borrow().len()), (2, 0));
}

/// One shard with batches in segments 1 and 3, and nothing readable in segment 2, which is recycled.
fn pinned() -> Rig {
    let rig = Rig::new();
    let bytes = batch(&[1], Some((5, 0, 0)));
    rig.append(GROUP, 1, one(1), &bytes);
    rig.seal();
    rig.append(GROUP, 2, one(2), &bytes);
    rig.seal();
    rig.append(GROUP, 3, one(1), &batch(&[2], Some((5, 0, 1))));
    rig.log(GROUP).change(4, Change::Trim { shard: one(2), to: Offset(1) }).expect("trim");
    rig.log(GROUP).turn_ended(4).expect("turn_ended");
    rig.journal.append(GROUP, 4, b"");
    rig.seal();
    let dead = rig.stripe.dead_segments(|_| u64::MAX).expect("dead");
    assert_eq!(dead, [2]);
    rig.journal.recycle(2);
    rig.stripe.recycled(&dead).expect("recycled");
    rig
}

#[test]
fn a_footer_that_cannot_be_rebuilt_is_reported_to_whoever_reads_there() {
    let mut rig = pinned();
    // The tails are beyond segment 1 already: at which offsets its batches begin, no fold can tell any more.
    rig.disk.remove(Path::new(&rig.footer(1))).expect("remove");
    rig.disk.sync_dir(Path::new("/index")).expect("sync");
    rig.restart(false);
    let read = |from| rig.log(GROUP).read(one(1), Offset(from), usize::MAX);
    assert!(matches!(read(0), Err(LogError::Damaged { what: "footer" })), "not an empty answer for ever");
    assert_eq!(read(1).expect("read").len(), 1);
    assert_eq!(rig.log(GROUP).offsets(one(1)).expect("offsets").end, Offset(2));
}

#[test]
fn storage_27_without_the_tails_of_recycled_segments_nothing_is_opened() {
    let refused = |rig: &Rig| {
        let opened = open(&rig.disk, &rig.journal, 4, &mut |_, _| panic!("nothing is to be rebuilt"));
        matches!(opened.map(|_| ()), Err(LogError::Damaged { what: "tails" }))
    };
    let rig = pinned();
    assert!(!refused(&rig));
    let tails = Path::new("/index/tails");
    let kept = rig.disk.contents(tails).expect("the tails are there");
    rig.disk.remove(tails).expect("remove");
    assert!(refused(&rig), "missing: shard 2 would begin at offset 0 again");
    let file = rig.disk.create(tails).expect("create");
    file.write_all_at(&kept[..kept.len() - 1], 0).expect("write");
    assert!(refused(&rig), "cut");
    file.write_all_at(&kept, 0).expect("write");
    assert!(!refused(&rig));
    // A later recycling that this file does not know of.
    rig.journal.recycle(3);
    assert!(refused(&rig), "stale");
}

#[test]
fn storage_2_and_3_what_counts_on_a_footer_or_the_tails_does_so_after_their_sync() {
    let changed = |rig: &Rig| {
        for number in 0..3 {
            rig.log(GROUP).change(13, Change::Drop { shard: one(number) }).expect("drop");
            let trim = Change::Trim { shard: one(100 + number), to: Offset(3) };
            rig.log(OTHER).change(13, trim).expect("trim");
        }
        for group in [GROUP, OTHER] {
            rig.log(group).turn_ended(13).expect("turn_ended");
            rig.journal.append(group, 13, b"");
        }
        rig.stripe.segment_sealed(rig.journal.seal());
    };
    let (mut failed, mut recycled) = (0, 0);
    for fault in 0..24_u64 {
        for seed in 0..6 {
            let mut rig = filled();
            changed(&rig);
            let after = fault / 2;
            let fault = if fault % 2 == 0 { Fault::SyncError { after } } else { Fault::PowerCut { after } };
            rig.disk.inject(fault).expect("inject");
            // The failed step is tried again, as the janitor does; without power it fails again.
            for _ in 0..2 {
                failed += usize::from(rig.stripe.write_footers().is_err());
                rig.purged = rig.log(GROUP).flush().unwrap_or(rig.purged);
                let Ok(dead) = rig.stripe.dead_segments(|_| rig.purged) else { continue };
                dead.iter().for_each(|seq| rig.journal.recycle(*seq));
                recycled += dead.len();
                let _ = rig.stripe.recycled(&dead);
            }
            let present = rig.journal.segments();
            rig.entries.borrow_mut().retain(|seq, _| present.iter().any(|segment| segment.seq == *seq));
            rig.restart_after(seed, true);
            assert!(rig.rebuilt.borrow().is_empty(), "a footer that was counted on is lost");
            // The changes of entry 13 are replayed unless a footer told them.
            if rig.purged < 13 {
                changed(&rig);
            }
            for number in 0..3 {
                assert!(matches!(rig.log(GROUP).offsets(one(number)), Err(LogError::Dropped)));
                let offsets = rig.log(OTHER).offsets(one(100 + number)).expect("offsets");
                assert_eq!((offsets.start, offsets.end), (Offset(3), Offset(4)));
                assert_eq!(rig.read(OTHER, one(100 + number)).len(), 1);
            }
        }
    }
    assert!(failed > 20 && recycled > 60, "{failed} failed, {recycled} segments recycled");
}

#[test]
fn entries_that_were_overwritten_by_a_new_leader_do_not_count_for_a_footer() {
    let mut rig = Rig::new();
    let bytes = batch(&[1], None);
    rig.append(GROUP, 1, one(1), &bytes);
    // Entries 2 and 3 were written here but never committed: the next leader's are in the next segment.
    rig.journal.append(GROUP, 2, &bytes);
    rig.journal.append(GROUP, 3, &bytes);
    let sealed = rig.journal.seal();
    rig.stripe.segment_sealed(sealed);
    assert_eq!(rig.stripe.write_footers().expect("write"), 0, "not all its entries are applied");
    rig.append(GROUP, 2, one(1), &bytes);
    rig.append(GROUP, 3, one(2), &bytes);
    assert_eq!(rig.stripe.write_footers().expect("write"), 1);
    assert_eq!(rig.log(GROUP).flush().expect("flush"), 1, "2 and 3 are not told by any footer");
    rig.restart(false);
    assert_eq!(rig.log(GROUP).applied(), 1);
    rig.restart(true);
    assert_eq!((rig.read(GROUP, one(1)).len(), rig.read(GROUP, one(2)).len()), (2, 1));
}

#[test]
fn storage_33_a_full_disk_stops_footers_and_not_readers_and_nothing_is_lost() {
    let mut rig = filled();
    let expected = everything(&rig);
    rig.disk.inject(Fault::Capacity { bytes: 1 }).expect("inject");
    let sealed = rig.journal.seal();
    rig.stripe.segment_sealed(sealed);
    assert!(rig.stripe.write_footers().is_err());
    assert_eq!(everything(&rig), expected);
    let more = batch(&[9], None);
    let outcome = rig.append(GROUP, 13, one(0), &more);
    assert!(matches!(outcome, Append::Stored { .. }), "the index needs no disk to grow");
    rig.disk.inject(Fault::Capacity { bytes: 1 << 30 }).expect("inject");
    assert_eq!(rig.stripe.write_footers().expect("write"), 1, "space returned");
    rig.restart(true);
    let read = everything(&rig);
    assert_eq!(read[0].len(), expected[0].len() + 1);
    assert_eq!(read[1..], expected[1..]);
}

#[test]
fn segments_are_dead_when_trimmed_and_purged_and_recycling_loses_no_offset() {
    let mut rig = filled();
    assert!(rig.stripe.dead_segments(|_| u64::MAX).expect("dead").is_empty(), "still readable");
    for number in 0..3 {
        let to = Offset(4);
        rig.log(GROUP).change(13, Change::Trim { shard: one(number), to }).expect("trim");
        rig.log(OTHER).change(13, Change::Trim { shard: one(100 + number), to: Offset(2) }).expect("trim");
    }
    rig.log(GROUP).turn_ended(13).expect("turn_ended");
    rig.log(OTHER).turn_ended(13).expect("turn_ended");
    assert_eq!(rig.stripe.dead_segments(|_| 2).expect("dead"), Vec::<u64>::new(), "not purged");
    assert_eq!(rig.stripe.dead_segments(|_| 3).expect("dead"), [1]);
    let dead = rig.stripe.dead_segments(|_| u64::MAX).expect("dead");
    assert_eq!(dead, [1, 2]);
    let expected = everything(&rig);
    dead.iter().for_each(|seq| rig.journal.recycle(*seq));
    rig.stripe.recycled(&dead).expect("recycled");
    assert_eq!(rig.disk.list(Path::new("/index")).expect("list"), ["0000000000000003.idx", "tails"]);
    rig.entries.borrow_mut().retain(|seq, _| *seq > 2);
    // The trims were not in a footer yet: the caller replays them.
    rig.restart(true);
    for number in 0..3 {
        rig.log(GROUP).change(13, Change::Trim { shard: one(number), to: Offset(4) }).expect("trim");
        rig.log(OTHER).change(13, Change::Trim { shard: one(100 + number), to: Offset(2) }).expect("trim");
    }
    assert_eq!(everything(&rig), expected);
    let again = rig.append(GROUP, 14, one(0), &batch(&[0, 1], Some((5, 0, 0))));
    assert_eq!(again, Append::Duplicate { base: Offset(0) }, "its batch is gone, its producer is not");
}

#[test]
fn a_crash_between_recycling_and_the_removal_of_the_footer_loses_nothing() {
    let mut rig = filled();
    for number in 0..3 {
        rig.log(GROUP).change(13, Change::Drop { shard: one(number) }).expect("drop");
        rig.log(OTHER).change(13, Change::Trim { shard: one(100 + number), to: Offset(3) }).expect("trim");
    }
    rig.log(GROUP).turn_ended(13).expect("turn_ended");
    rig.log(OTHER).turn_ended(13).expect("turn_ended");
    rig.journal.append(GROUP, 13, b"");
    rig.journal.append(OTHER, 13, b"");
    rig.seal();
    let before = rig.stripe.dead_segments(|_| u64::MAX).expect("dead");
    assert_eq!(before, [1, 2, 3]);
    // The journal recycled one segment, then the power went; its footer is still there.
    rig.journal.recycle(2);
    rig.restart(false);
    assert_eq!(rig.log(OTHER).applied(), 13);
    for number in 0..3 {
        assert!(matches!(rig.log(GROUP).offsets(one(number)), Err(LogError::Dropped)));
        assert_eq!(rig.log(OTHER).offsets(one(100 + number)).expect("offsets").end, Offset(4));
        assert_eq!(rig.read(OTHER, one(100 + number)).len(), 1);
    }
    assert_eq!(rig.stripe.dead_segments(|_| u64::MAX).expect("dead"), [1, 3]);
}

/// A subscriber that came back read the footers of sealed segments on the thread that serves connections.
#[test]
fn a_scan_from_memory_reads_no_footer() {
    let mut rig = Rig::new();
    let bytes = batch(&[1], None);
    for index in 1..=9 {
        rig.append(GROUP, index, one(index as u32 % 2), &bytes);
        if index % 3 == 0 {
            rig.seal();
        }
    }
    rig.restart(false);
    let two = [one(0), one(1)];
    for selection in [Selection::All, Selection::Shards(&two)] {
        let scan = |after: u64, reach| rig.log(GROUP).scan(Position::end_of(after), &selection, 99, reach);
        let count = |after, reach| scan(after, reach).expect("scan").map(|found| found.len());
        assert_eq!(count(0, Reach::Memory), None, "{selection:?}");
        assert_eq!(count(9, Reach::Memory), Some(0), "{selection:?}: nothing is left on the disk");
        assert_eq!(count(0, Reach::Disk), Some(9), "{selection:?}");
        assert_eq!(count(0, Reach::Memory), Some(9), "{selection:?}: it was read just now");
    }
}

/// One segment that could not be read kept a scan from all of them, and what was asked for went on as if nothing were there.
#[test]
fn a_scan_passes_over_a_segment_that_cannot_be_read_and_no_other() {
    let mut rig = Rig::new();
    let bytes = batch(&[1], None);
    for index in 1..=9 {
        rig.append(GROUP, index, one(index as u32 % 3), &bytes);
        if index % 3 == 0 {
            rig.seal();
        }
    }
    rig.restart(false);
    rig.disk.remove(Path::new(&rig.footer(2))).expect("remove");
    rig.stripe.sealed.forget_cached(2);
    let all = [one(0), one(1), one(2)];
    for selection in [Selection::All, Selection::Shards(&all)] {
        let scanned = rig.log(GROUP).scan(Position::default(), &selection, 99, Reach::Disk);
        let indexes: Vec<_> =
            scanned.expect("scan").expect("from the disk").iter().map(|found| found.position.index).collect();
        assert_eq!(indexes, [1, 2, 3, 7, 8, 9], "{selection:?}");
    }
}

#[test]
fn storage_51_a_hundred_thousand_shards_of_one_record_open_in_time() {
    const SHARDS: u32 = 100_000;
    let mut rig = Rig::new();
    let bytes = batch(&[1], None);
    for number in 0..SHARDS {
        rig.append(GROUP, u64::from(number) + 1, one(number), &bytes);
        if number % 25_000 == 24_999 {
            rig.seal();
        }
    }
    rig.entries.borrow_mut().clear();
    let started = std::time::Instant::now();
    rig.restart(false);
    let opened = started.elapsed();
    assert!(opened.as_secs() < 10, "opening took {opened:?}");
    assert_eq!(rig.log(GROUP).applied(), u64::from(SHARDS));
    for number in (0..SHARDS).step_by(997) {
        assert_eq!(rig.read(GROUP, one(number)).len(), 1, "shard {number}");
    }
    let scanned = rig
        .log(GROUP)
        .scan(Position::default(), &Selection::All, usize::MAX, Reach::Disk)
        .expect("scan")
        .expect("from the disk");
    assert_eq!(scanned.len(), SHARDS as usize);
}
