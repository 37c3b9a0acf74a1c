//! Random histories against a model that is too simple to be wrong: a vector of batches per shard.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{Offset, ShardId};
use rt::{Rng, SeededRng};

use super::harness::{Harness, batch};
use crate::error::LogError;
use crate::log::{Append, BatchFlags, Change, Position, Reach, Selection, TimeHit, TimeQuery};

/// Shards of a history.
const SHARDS: u32 = 5;
/// Steps of a history.
const STEPS: u64 = 120;

#[derive(Default)]
struct Model {
    shards: BTreeMap<ShardId, ModelShard>,
    /// Stored batches in log order: position, shard, offset after the last record, whether a scan shows it.
    order: Vec<(Position, ShardId, u64, bool)>,
}

#[derive(Default)]
struct ModelShard {
    start: u64,
    end: u64,
    dropped: bool,
    /// Base, timestamps, bytes.
    batches: Vec<(u64, Vec<i64>, Bytes)>,
    /// Per producer: next sequence, and what it sent: sequence, records, base.
    producers: BTreeMap<i64, Vec<(i32, i32, u64)>>,
}

/// Plays the history of a seed and compares everything that can be asked, now and then and after every restart.
pub(super) fn history(h: &mut Harness, seed: u64) {
    let rng = SeededRng::new(seed);
    let mut model = Model::default();
    for number in 0..SHARDS {
        let shard = h.shard(number);
        let origin = h.offsets(shard).0;
        model.shards.insert(shard, ModelShard { start: origin, end: origin, ..ModelShard::default() });
    }
    for _ in 0..STEPS {
        let shard = h.shard(rng.below(u64::from(SHARDS)) as u32);
        match rng.below(20) {
            0 => h.subject.settle(),
            1 if h.subject.is_durable() => h.restart(),
            1 | 2 => {
                let found = &model.shards[&shard];
                let to = found.start + rng.below(found.end - found.start + 3);
                h.change(Change::Trim { shard, to: Offset(to) });
                let found = model.shards.get_mut(&shard).expect("every shard is modelled");
                found.start = found.start.max(to.min(found.end));
            }
            3 if rng.below(10) == 0 => {
                h.change(Change::Drop { shard });
                model.shards.get_mut(&shard).expect("every shard is modelled").dropped = true;
            }
            4..=8 => append_produced(h, &rng, &mut model, shard),
            _ => append_plain(h, &rng, &mut model, shard),
        }
        if rng.below(8) == 0 {
            compare(h, &rng, &model);
        }
    }
    compare(h, &rng, &model);
}

fn append_plain(h: &mut Harness, rng: &SeededRng, model: &mut Model, shard: ShardId) {
    let timestamps = timestamps(rng);
    let bytes = batch(&timestamps, None);
    let flags = if rng.below(4) == 0 { BatchFlags::AT_MOST_ONCE } else { BatchFlags::NONE };
    let outcome = h.append_all(&[(shard, bytes.clone(), flags)])[0];
    let expected = model.store(shard, h.index(), (timestamps, bytes), flags);
    assert_eq!(outcome, expected);
}

fn append_produced(h: &mut Harness, rng: &SeededRng, model: &mut Model, shard: ShardId) {
    let producer = rng.below(2) as i64;
    let sent = model.shards[&shard].producers.get(&producer).cloned().unwrap_or_default();
    let next = sent.last().map_or(0, |(sequence, records, _)| sequence + records);
    let again = sent.len().checked_sub(1 + rng.below(7) as usize).map(|n| sent[n]);
    let timestamps = timestamps(rng);
    let records = timestamps.len() as i32;
    let (sequence, timestamps) = match (rng.below(4), again) {
        (0, Some((sequence, records, _))) => (sequence, vec![7; records as usize]),
        (1, _) if !sent.is_empty() => (next + 3, timestamps),
        _ => (next, timestamps),
    };
    let bytes = batch(&timestamps, Some((producer, 0, sequence)));
    let outcome = h.append(shard, &bytes);
    if model.shards[&shard].dropped {
        assert_eq!(outcome, Append::ShardDropped);
    } else if sequence == next {
        let expected = model.store(shard, h.index(), (timestamps, bytes), BatchFlags::NONE);
        assert_eq!(outcome, expected);
        let Append::Stored { base } = expected else { return };
        let found = model.shards.get_mut(&shard).expect("every shard is modelled");
        found.producers.entry(producer).or_default().push((sequence, records, base.0));
    } else {
        let window = sent.iter().rev().take(5);
        let known = window
            .into_iter()
            .find(|(known, records, _)| *known == sequence && *records == timestamps.len() as i32);
        let expected = known
            .map_or(Append::OutOfOrderSequence, |(_, _, base)| Append::Duplicate { base: Offset(*base) });
        assert_eq!(outcome, expected);
    }
}

fn timestamps(rng: &SeededRng) -> Vec<i64> {
    (0..=rng.below(4)).map(|_| rng.below(1000) as i64).collect()
}

impl Model {
    fn store(&mut self, shard: ShardId, index: u64, batch: (Vec<i64>, Bytes), flags: BatchFlags) -> Append {
        let (timestamps, bytes) = batch;
        let found = self.shards.get_mut(&shard).expect("every shard is modelled");
        if found.dropped {
            return Append::ShardDropped;
        }
        let base = found.end;
        found.end += timestamps.len() as u64;
        found.batches.push((base, timestamps, bytes));
        let shown = !flags.contains(BatchFlags::AT_MOST_ONCE);
        self.order.push((Position { index, ordinal: 0 }, shard, found.end, shown));
        Append::Stored { base: Offset(base) }
    }
}

fn compare(h: &Harness, rng: &SeededRng, model: &Model) {
    let log = h.log();
    for (shard, expected) in &model.shards {
        if expected.dropped {
            assert!(matches!(log.offsets(*shard), Err(LogError::Dropped)));
            continue;
        }
        assert_eq!(h.offsets(*shard), (expected.start, expected.end), "{shard}");
        let readable: Vec<_> = expected
            .batches
            .iter()
            .filter(|(base, timestamps, _)| base + timestamps.len() as u64 > expected.start)
            .collect();
        let read = h.read_all(*shard);
        assert_eq!(read.len(), readable.len(), "{shard}");
        for (read, (base, timestamps, bytes)) in read.iter().zip(&readable) {
            assert_eq!((read.base.0, read.count as usize, &read.bytes), (*base, timestamps.len(), bytes));
        }
        let timestamp = rng.below(1100) as i64;
        assert_eq!(
            log.offset_for_time(*shard, TimeQuery::AtOrAfter(timestamp)).expect("time"),
            expected.records().find(|hit| hit.timestamp >= timestamp),
            "{shard} at {timestamp}"
        );
        let largest =
            expected.records().reduce(|best, hit| if hit.timestamp > best.timestamp { hit } else { best });
        assert_eq!(log.offset_for_time(*shard, TimeQuery::Largest).expect("time"), largest, "{shard}");
    }
    compare_scans(h, rng, model);
}

impl ModelShard {
    fn records(&self) -> impl Iterator<Item = TimeHit> + '_ {
        let records = self.batches.iter().flat_map(|(base, timestamps, _)| {
            timestamps
                .iter()
                .enumerate()
                .map(move |(n, timestamp)| TimeHit { offset: Offset(base + n as u64), timestamp: *timestamp })
        });
        records.filter(|hit| hit.offset.0 >= self.start)
    }
}

fn compare_scans(h: &Harness, rng: &SeededRng, model: &Model) {
    let after = Position::end_of(rng.below(h.index() + 1));
    let max = rng.below(30) as usize + 1;
    let some: Vec<ShardId> = model.shards.keys().copied().filter(|_| rng.below(2) == 0).collect();
    for (selection, wanted) in [(Selection::All, None), (Selection::Shards(&some), Some(&some))] {
        let at_once = h.log().scan(after, &selection, max, Reach::Memory).expect("scan");
        let scanned =
            h.log().scan(after, &selection, max, Reach::Disk).expect("scan").expect("from the disk");
        assert!(at_once.is_none_or(|at_once| at_once == scanned), "memory says the same or nothing");
        let expected: Vec<_> = model
            .order
            .iter()
            .filter(|(position, shard, end, shown)| {
                let found = &model.shards[shard];
                let selected = wanted.is_none_or(|wanted| wanted.contains(shard));
                *shown && selected && *position > after && !found.dropped && *end > found.start
            })
            .map(|(position, shard, _, _)| (*position, *shard))
            .take(max)
            .collect();
        let scanned: Vec<_> = scanned.iter().map(|batch| (batch.position, batch.shard)).collect();
        assert_eq!(scanned, expected, "after {after:?}");
    }
}
