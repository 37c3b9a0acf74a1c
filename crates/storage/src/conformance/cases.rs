//! One case per promise. Offsets are counted from the shard's first one, because the memory engine's is not 0.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use model::Offset;
use model::batch::{BatchHeader, Records};

use super::harness::{Harness, batch};
use crate::error::LogError;
use crate::log::{Append, BatchFlags, Change, Position, Reach, Selection, TimeHit, TimeQuery};
use crate::tail::Watched;

type Case = (&'static str, fn(&mut Harness));

/// Every case, by the promise it tests.
pub(super) const ALL: &[Case] = &[
    ("a shard that was never appended to is empty", unknown_shard_is_empty),
    ("storage 27: offsets are dense, and an offset never changes content", offsets_are_dense),
    ("whole batches are read, the first one however large", reads_whole_batches),
    ("a read may begin inside a batch", reads_from_within_a_batch),
    ("storage 30: below the start and above the end is out of range", out_of_range),
    ("storage 29: trims raise the start, within the end, for good", trims_are_monotone),
    ("storage 24: a duplicate gets the base of the original", duplicates),
    ("storage 25: producers survive trims, restarts and recycling until they expire", producers_survive),
    ("storage 26: a gap in the sequence and an old epoch are refused", refused_producers),
    ("storage 28: time lookup with timestamps out of order", time_lookup),
    ("storage 32: a dropped shard shows nothing and takes nothing", dropped_shards),
    ("replay of applied entries changes nothing", replay_is_idempotent),
    ("scans are in log order and skip at most once", scans_in_log_order),
    ("a scan goes on from where it stopped", scans_resume),
    ("what is read from the tail is what is read", tail_reads),
    ("a watch resolves when the shard grows beyond its offset", watches),
    ("storage 50: a restart never gives an offset other content", restart_keeps_or_skips_offsets),
    ("storage 52: a refused batch leaves no trace in its entry", refused_batch_leaves_no_trace),
    (
        "storage 52: a batch of which a part was sent before is refused whole",
        half_known_batch_is_refused_whole,
    ),
    ("storage 56: the same entries make the same log", apply_is_deterministic),
    ("describe adds up", describe_adds_up),
];

fn unknown_shard_is_empty(h: &mut Harness) {
    let shard = h.shard(7);
    let (start, end) = h.offsets(shard);
    assert_eq!(start, end);
    assert!(h.log().read(shard, Offset(start), 1000).expect("read").is_empty());
    assert_eq!(h.log().offset_for_time(shard, TimeQuery::Largest).expect("time"), None);
    assert_eq!(h.log().describe(shard).expect("describe").bytes, 0);
}

fn offsets_are_dense(h: &mut Harness) {
    let (one, two) = (h.shard(1), h.shard(2));
    let first = h.offsets(one).0;
    let mut written = Vec::new();
    for round in 0..12_i64 {
        let bytes = batch(&vec![round; round as usize % 4 + 1], None);
        written.push((h.stored(one, &bytes), bytes));
        h.stored(two, &batch(&[round], None));
        if round % 5 == 4 {
            h.subject.settle();
        }
    }
    let mut expected = first;
    for (read, (base, bytes)) in h.read_all(one).iter().zip(&written) {
        assert_eq!((read.base.0, *base, &read.bytes), (expected, expected, bytes));
        expected += u64::from(read.count);
    }
    assert_eq!(h.offsets(one), (first, expected));
    assert_eq!(h.read_all(two).len(), 12);
}

fn reads_whole_batches(h: &mut Harness) {
    let shard = h.shard(1);
    let bytes = batch(&[1, 2, 3], None);
    let first = h.stored(shard, &bytes);
    (0..9).for_each(|_| {
        h.stored(shard, &bytes);
    });
    let read = |max: usize| h.log().read(shard, Offset(first), max).expect("read").len();
    assert_eq!((read(0), read(bytes.len()), read(bytes.len() * 3 + 1), read(usize::MAX)), (1, 1, 3, 10));
    h.subject.settle();
    let read = |max: usize| h.log().read(shard, Offset(first), max).expect("read").len();
    assert_eq!((read(0), read(bytes.len()), read(bytes.len() * 3 + 1), read(usize::MAX)), (1, 1, 3, 10));
}

fn reads_from_within_a_batch(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[1, 2, 3], None));
    h.stored(shard, &batch(&[4, 5], None));
    for (from, base) in [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3)] {
        let read = h.log().read(shard, Offset(first + from), 1).expect("read");
        assert_eq!(read[0].base, Offset(first + base));
    }
}

fn out_of_range(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[1, 2, 3], None));
    h.stored(shard, &batch(&[4], None));
    h.change(Change::Trim { shard, to: Offset(first + 2) });
    for restarted in [false, true] {
        if restarted && h.subject.is_durable() {
            h.restart();
        }
        assert_eq!(h.offsets(shard), (first + 2, first + 4));
        for offset in [first + 1, first + 5] {
            let refused = h.log().read(shard, Offset(offset), 100);
            let (start, end) = (Offset(first + 2), Offset(first + 4));
            assert!(
                matches!(refused, Err(LogError::OutOfRange { start: s, end: e }) if (s, e) == (start, end))
            );
        }
        assert_eq!(h.log().read(shard, Offset(first + 2), 100).expect("read")[0].base, Offset(first));
        assert!(h.log().read(shard, Offset(first + 4), 100).expect("read").is_empty());
    }
}

fn trims_are_monotone(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[1; 10], None));
    h.change(Change::Trim { shard, to: Offset(first + 6) });
    h.change(Change::Trim { shard, to: Offset(first + 3) });
    assert_eq!(h.offsets(shard), (first + 6, first + 10));
    h.change(Change::Trim { shard, to: Offset(first + 99) });
    assert_eq!(h.offsets(shard), (first + 10, first + 10));
    h.subject.settle();
    if h.subject.is_durable() {
        h.restart();
    }
    assert_eq!(h.offsets(shard), (first + 10, first + 10));
    assert_eq!(h.stored(shard, &batch(&[2], None)), first + 10);
    assert_eq!(h.read_all(shard).len(), 1);
}

fn duplicates(h: &mut Harness) {
    let shard = h.shard(1);
    let sent: Vec<_> = (0..7).map(|n| batch(&[n, n], Some((9, 0, n as i32 * 2)))).collect();
    let bases: Vec<_> = sent.iter().map(|bytes| h.stored(shard, bytes)).collect();
    for restarted in [false, true] {
        if restarted {
            if !h.subject.is_durable() {
                return;
            }
            h.subject.settle();
            h.restart();
        }
        for n in 2..7 {
            assert_eq!(h.append(shard, &sent[n]), Append::Duplicate { base: Offset(bases[n]) });
        }
        assert_eq!(h.append(shard, &sent[1]), Append::OutOfOrderSequence, "outside the last five");
    }
    assert_eq!(h.read_all(shard).len(), 7);
    assert_eq!(h.stored(shard, &batch(&[1], Some((9, 0, 14)))), bases[0] + 14);
}

fn producers_survive(h: &mut Harness) {
    let shard = h.shard(1);
    let sent = batch(&[1000, 2000], Some((9, 3, 40)));
    let base = h.stored(shard, &sent);
    h.change(Change::Trim { shard, to: Offset(base + 2) });
    h.subject.settle();
    h.stored(shard, &batch(&[1], None));
    h.subject.settle();
    if h.subject.is_durable() {
        h.restart();
    }
    assert_eq!(h.append(shard, &sent), Append::Duplicate { base: Offset(base) });
    h.change(Change::ExpireProducers { before: 2000 });
    assert_eq!(h.append(shard, &sent), Append::Duplicate { base: Offset(base) }, "not old enough");
    h.change(Change::ExpireProducers { before: 2001 });
    h.subject.settle();
    if h.subject.is_durable() {
        h.restart();
    }
    assert_eq!(h.log().describe(shard).expect("describe").producers, 0);
    assert!(matches!(h.append(shard, &sent), Append::Stored { .. }), "forgotten");
}

fn refused_producers(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[1], Some((9, 2, 0))));
    assert_eq!(h.append(shard, &batch(&[1], Some((9, 2, 2)))), Append::OutOfOrderSequence);
    assert_eq!(h.append(shard, &batch(&[1], Some((9, 1, 1)))), Append::FencedEpoch);
    assert_eq!(h.append(shard, &batch(&[1], Some((9, 3, 1)))), Append::OutOfOrderSequence);
    assert_eq!(h.stored(shard, &batch(&[1], Some((9, 3, 0)))), first + 1);
    assert_eq!(h.stored(shard, &batch(&[1], Some((10, 0, 77)))), first + 2, "unknown producer");
    let other = h.shard(2);
    assert!(matches!(h.append(other, &batch(&[1], Some((9, 0, 5)))), Append::Stored { .. }), "per shard");
    for restarted in [false, true] {
        if restarted {
            if !h.subject.is_durable() {
                return;
            }
            h.subject.settle();
            h.restart();
        }
        assert_eq!(h.append(shard, &batch(&[1], Some((9, 2, 1)))), Append::FencedEpoch);
        assert_eq!(h.append(shard, &batch(&[1], Some((9, 3, 2)))), Append::OutOfOrderSequence);
        assert_eq!(h.append(shard, &batch(&[1], Some((9, 4, 1)))), Append::OutOfOrderSequence);
        assert_eq!(h.append(shard, &batch(&[1], Some((10, 0, 79)))), Append::OutOfOrderSequence);
    }
    assert_eq!(h.stored(shard, &batch(&[1], Some((9, 3, 1)))), first + 3, "nothing refused took an offset");
}

fn time_lookup(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[100, 300, 200], None));
    h.stored(shard, &batch(&[50], None));
    h.subject.settle();
    h.stored(shard, &batch(&[250, 400], None));
    h.stored(shard, &batch(&[400, 10], None));
    let hit = |offset: u64, timestamp| Some(TimeHit { offset: Offset(first + offset), timestamp });
    let find = |h: &Harness, query| h.log().offset_for_time(shard, query).expect("time");
    let at = |h: &Harness, timestamp| find(h, TimeQuery::AtOrAfter(timestamp));
    assert_eq!(at(h, i64::MIN), hit(0, 100));
    assert_eq!((at(h, 100), at(h, 101), at(h, 300)), (hit(0, 100), hit(1, 300), hit(1, 300)));
    assert_eq!((at(h, 301), at(h, 401)), (hit(5, 400), None));
    assert_eq!(find(h, TimeQuery::Largest), hit(5, 400), "the first of the largest");
    h.change(Change::Trim { shard, to: Offset(first + 2) });
    assert_eq!((at(h, 0), at(h, 201)), (hit(2, 200), hit(4, 250)), "among readable records");
    h.change(Change::Trim { shard, to: Offset(first + 7) });
    assert_eq!(find(h, TimeQuery::Largest), hit(7, 10));
}

fn dropped_shards(h: &mut Harness) {
    let (dropped, other) = (h.shard(1), h.shard(2));
    let first = h.stored(dropped, &batch(&[1, 2], Some((9, 0, 0))));
    h.subject.settle();
    h.stored(dropped, &batch(&[3], None));
    h.stored(other, &batch(&[4], None));
    h.change(Change::Drop { shard: dropped });
    for restarted in [false, true] {
        if restarted {
            if !h.subject.is_durable() {
                return;
            }
            h.subject.settle();
            h.restart();
        }
        assert!(matches!(h.log().read(dropped, Offset(first), 100), Err(LogError::Dropped)));
        assert!(matches!(h.log().offsets(dropped), Err(LogError::Dropped)));
        assert_eq!(h.append(dropped, &batch(&[5], None)), Append::ShardDropped);
        let scanned = h
            .log()
            .scan(Position::default(), &Selection::All, 100, Reach::Disk)
            .expect("scan")
            .expect("from the disk");
        assert!(scanned.iter().all(|batch| batch.shard == other), "{scanned:?}");
        assert_eq!(h.read_all(other).len(), 1);
    }
}

fn replay_is_idempotent(h: &mut Harness) {
    let shard = h.shard(1);
    let base = h.stored(shard, &batch(&[1, 2], Some((9, 0, 0))));
    h.change(Change::Trim { shard, to: Offset(base + 1) });
    h.stored(shard, &batch(&[3], None));
    let before = (h.offsets(shard), h.read_all(shard), h.log().applied());
    assert_eq!(before.2, h.index());
    h.replay(0);
    assert_eq!(before, (h.offsets(shard), h.read_all(shard), h.log().applied()));
}

fn scans_in_log_order(h: &mut Harness) {
    let (one, two, three) = (h.shard(1), h.shard(2), h.shard(3));
    let bytes = batch(&[1], None);
    h.append_all(&[(two, bytes.clone(), BatchFlags::NONE), (one, bytes.clone(), BatchFlags::NONE)]);
    h.append_all(&[(one, bytes.clone(), BatchFlags::AT_MOST_ONCE), (three, bytes.clone(), BatchFlags::NONE)]);
    h.subject.settle();
    h.append_all(&[(three, bytes.clone(), BatchFlags::NONE), (two, bytes.clone(), BatchFlags::AT_MOST_ONCE)]);
    h.append_all(&[(one, bytes, BatchFlags::NONE)]);
    let scan = |selection: &Selection<'_>| -> Vec<_> {
        let scanned = h
            .log()
            .scan(Position::default(), selection, 100, Reach::Disk)
            .expect("scan")
            .expect("from the disk");
        scanned.iter().map(|batch| (batch.position.index, batch.position.ordinal, batch.shard)).collect()
    };
    let all = vec![(1, 0, two), (1, 1, one), (2, 1, three), (3, 0, three), (4, 0, one)];
    assert_eq!(scan(&Selection::All), all);
    let some: Vec<_> = all.iter().copied().filter(|(_, _, shard)| *shard != three).collect();
    assert_eq!(scan(&Selection::Shards(&[one, two])), some);
    assert_eq!(scan(&Selection::Shards(&[])), []);
    // At most once or not: whoever reads the shard sees every record.
    assert_eq!(h.read_all(two).len(), 2);
}

fn scans_resume(h: &mut Harness) {
    let shards = [h.shard(1), h.shard(2), h.shard(3)];
    for round in 0..40_usize {
        let shard = shards[round % 3];
        h.append_all(&[
            (shard, batch(&[1], None), BatchFlags::NONE),
            (shards[0], batch(&[2], None), BatchFlags::NONE),
        ]);
        if round % 9 == 8 {
            h.subject.settle();
        }
    }
    for selection in [Selection::All, Selection::Shards(&shards)] {
        let mut after = Position::default();
        let mut seen = Vec::new();
        loop {
            let some = h.log().scan(after, &selection, 7, Reach::Disk).expect("scan").expect("from the disk");
            let Some(last) = some.last() else { break };
            after = last.position;
            seen.extend(some.iter().map(|batch| (batch.position.index, batch.position.ordinal)));
        }
        let expected: Vec<_> = (1..=40).flat_map(|index| [(index, 0), (index, 1)]).collect();
        assert_eq!(seen, expected);
        assert_eq!(
            h.log()
                .scan(Position::end_of(39), &selection, 7, Reach::Disk)
                .expect("scan")
                .expect("from the disk")
                .len(),
            2
        );
    }
    h.change(Change::Trim { shard: shards[0], to: Offset(h.offsets(shards[0]).1) });
    let left = h
        .log()
        .scan(Position::default(), &Selection::All, 1000, Reach::Disk)
        .expect("scan")
        .expect("from the disk");
    assert!(
        left.iter().all(|batch| batch.shard != shards[0]) && left.len() == 26,
        "trimmed batches are not shown"
    );
}

fn tail_reads(h: &mut Harness) {
    let shard = h.shard(1);
    let first = h.stored(shard, &batch(&[1], None));
    (0..20).for_each(|n| {
        h.stored(shard, &batch(&[n], None));
    });
    let end = h.offsets(shard).1;
    assert_eq!(h.log().read_tail(shard, Offset(end), 100).expect("tail").map(|tail| tail.len()), Some(0));
    for offset in first..end {
        if let Some(tail) = h.log().read_tail(shard, Offset(offset), 200).expect("tail") {
            let read = h.log().read(shard, Offset(offset), 200).expect("read");
            assert!(!tail.is_empty() && read.starts_with(&tail));
        }
    }
    let beyond = h.log().read_tail(shard, Offset(end + 1), 100);
    assert!(matches!(beyond, Err(LogError::OutOfRange { .. })));
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn watches(h: &mut Harness) {
    let (shard, other) = (h.shard(1), h.shard(2));
    let first = h.stored(shard, &batch(&[1], None));
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let log = h.log();
    let mut grown = log.watch(shard, Offset(first + 2));
    let mut dropped = log.watch(shard, Offset(first + 1000));
    assert_eq!(
        Pin::new(&mut log.watch(shard, Offset(first))).poll(&mut context),
        Poll::Ready(Watched::Grown { end: Offset(first + 1) })
    );
    assert!(Pin::new(&mut grown).poll(&mut context).is_pending());
    assert!(Pin::new(&mut dropped).poll(&mut context).is_pending());
    h.stored(other, &batch(&[1], None));
    h.stored(shard, &batch(&[1], None));
    assert_eq!(woken.0.load(Ordering::SeqCst), 0, "nobody is woken for what he does not wait for");
    h.stored(shard, &batch(&[1], None));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(
        Pin::new(&mut grown).poll(&mut context),
        Poll::Ready(Watched::Grown { end: Offset(first + 3) })
    );
    h.change(Change::Drop { shard });
    assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    assert_eq!(Pin::new(&mut dropped).poll(&mut context), Poll::Ready(Watched::Dropped));
}

fn restart_keeps_or_skips_offsets(h: &mut Harness) {
    let shard = h.shard(1);
    let bytes = batch(&[1, 2, 3], None);
    h.stored(shard, &bytes);
    let (start, end) = h.offsets(shard);
    h.restart();
    if h.subject.is_durable() {
        assert_eq!(h.offsets(shard), (start, end));
        assert_eq!(h.read_all(shard)[0].bytes, bytes);
    } else {
        let (start, again) = h.offsets(shard);
        assert_eq!(start, again, "what was in memory is gone");
        assert!(h.stored(shard, &bytes) >= end, "and its offsets are not used again");
    }
}

fn refused_batch_leaves_no_trace(h: &mut Harness) {
    let (one, two) = (h.shard(1), h.shard(2));
    let first = h.stored(one, &batch(&[1], Some((9, 0, 0))));
    let gap = batch(&[1, 1], Some((9, 0, 5)));
    let outcomes = h.append_all(&[
        (two, batch(&[1], None), BatchFlags::NONE),
        (one, gap, BatchFlags::NONE),
        (one, batch(&[2], Some((9, 0, 1))), BatchFlags::NONE),
    ]);
    assert!(matches!(outcomes[0], Append::Stored { .. }));
    assert_eq!(outcomes[1..], [Append::OutOfOrderSequence, Append::Stored { base: Offset(first + 1) }]);
    assert_eq!(h.offsets(one), (first, first + 2));
    assert_eq!(
        h.log()
            .scan(Position::end_of(1), &Selection::All, 9, Reach::Disk)
            .expect("scan")
            .expect("from the disk")
            .len(),
        2
    );
}

fn half_known_batch_is_refused_whole(h: &mut Harness) {
    let shard = h.shard(1);
    let thousand = |sequence| batch(&[7; 1000], Some((9, 0, sequence)));
    let base = h.stored(shard, &thousand(0));
    for sequence in [1, 500, 999, 1001] {
        assert_eq!(h.append(shard, &thousand(sequence)), Append::OutOfOrderSequence, "from {sequence}");
        assert_eq!(h.offsets(shard), (base, base + 1000));
        assert_eq!(h.read_all(shard).len(), 1);
    }
    assert_eq!(h.stored(shard, &thousand(1000)), base + 1000);
    assert_eq!(h.append(shard, &thousand(0)), Append::Duplicate { base: Offset(base) });
}

fn apply_is_deterministic(h: &mut Harness) {
    let shards: Vec<_> = (0..5).map(|n| h.shard(n)).collect();
    let mut outcomes = Vec::new();
    for step in 0..60_u64 {
        let shard = shards[(step * 7 % 5) as usize];
        // Every fourth batch comes again, from every producer that the shard knows.
        let producer = Some((1, 0, (step / 5 - u64::from(step > 5 && step % 4 == 0)) as i32));
        let first = h.offsets(shards[0]).0.min(h.offsets(shard).0);
        let outcome = h.append(shard, &batch(&[step as i64], producer.filter(|_| step % 9 != 0)));
        outcomes.push(match outcome {
            Append::Stored { base } => base.0 - first,
            Append::Duplicate { base } => 1000 + base.0 - first,
            Append::OutOfOrderSequence => 2000,
            Append::FencedEpoch | Append::ShardDropped | Append::AlreadyApplied => 3000,
        });
    }
    let sum = outcomes.iter().fold(0_u64, |sum, outcome| sum.wrapping_mul(31).wrapping_add(*outcome));
    // The same for every engine and every run: it is part of what replicas must agree on.
    assert_eq!(sum, 12_811_802_738_625_219_055, "{outcomes:?}");
}

fn describe_adds_up(h: &mut Harness) {
    let shard = h.shard(1);
    let sizes: u64 = (0..6)
        .map(|n| {
            let bytes = batch(&[n, n + 100], None);
            h.stored(shard, &bytes);
            bytes.len() as u64
        })
        .sum();
    let described = h.log().describe(shard).expect("describe");
    assert_eq!(described.bytes, sizes);
    assert_eq!(described.pieces.iter().map(|piece| piece.bytes).sum::<u64>(), sizes);
    assert_eq!(
        described.pieces.last().map(|piece| (piece.end.0, piece.timestamp_max)),
        Some((h.offsets(shard).1, 105))
    );
    for batch in h.read_all(shard) {
        let header = BatchHeader::parse(&batch.bytes).expect("a sound header");
        let records = Records::decode(&batch.bytes, 1 << 20).expect("sound records");
        assert_eq!((records.len() as u32, header.max_timestamp), (batch.count, batch.timestamp_max));
    }
}
