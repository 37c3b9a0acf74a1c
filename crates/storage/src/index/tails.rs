//! What must outlive the segments it came from: where shards start and end, which producers they know, which were
//! dropped. A fold over footers; the same fold opens a node and makes the file that lets segments be recycled.
//!
//! ```text
//! body = below u64 | n groups, each:
//!          group, applied index
//!          n shards, ascending: shard (delta), start, length, n producers, each: id, epoch, timestamp, n batches, each:
//!                                                                        sequence, records, base
//!          n dropped shards, ascending: shard (delta), index of the drop
//! ```

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use model::{GroupId, ShardId};

use super::envelope::{self, FileKind, Unusable};
use super::extent::Row;
use super::footer::{Footer, Section};
use super::varint::{Cursor, Malformed, put, put_signed};
use crate::log::{Change, DROPPED_ENTRIES};
use crate::producer::{Producer, Producers, Remembered, WINDOW};

/// The state of all groups of a stripe after the footers below `below`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tails {
    /// Segments below this one are folded in.
    pub(crate) below: u64,
    pub(crate) groups: BTreeMap<GroupId, GroupTails>,
}

/// The state of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupTails {
    /// Entries up to this log index are folded in.
    pub(crate) applied: u64,
    pub(crate) shards: BTreeMap<ShardId, ShardTail>,
    /// Dropped shards and the index of the entry that dropped them.
    pub(crate) dropped: BTreeMap<ShardId, u64>,
}

/// The state of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardTail {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) producers: Producers,
}

/// A committed expiry: where in the log, and the time it names.
#[derive(Clone, Copy)]
struct Expiry {
    index: u64,
    before: i64,
}

impl Tails {
    /// Goes on by one segment. Footers are folded in ascending order; one that is in already changes nothing.
    pub(crate) fn fold(&mut self, footer: &Footer) -> Result<(), Unusable> {
        if footer.seq < self.below {
            return Ok(());
        }
        let mut expiries: BTreeMap<GroupId, Vec<Expiry>> = BTreeMap::new();
        for changed in &footer.changes {
            if let Change::ExpireProducers { before } = changed.change {
                expiries.entry(changed.group).or_default().push(Expiry { index: changed.index, before });
            }
        }
        let mut appended = HashSet::new();
        for section in footer.sections() {
            let section = section?;
            appended.insert((section.group, section.shard));
            let due = expiries.get(&section.group).map_or(&[][..], Vec::as_slice);
            self.groups.entry(section.group).or_default().fold_rows(&section, due);
        }
        for (group, due) in &expiries {
            for (shard, tail) in &mut self.groups.entry(*group).or_default().shards {
                if !appended.contains(&(*group, *shard)) {
                    due.iter().for_each(|expiry| tail.producers.expire(expiry.before));
                }
            }
        }
        for changed in &footer.changes {
            self.groups.entry(changed.group).or_default().fold_change(changed.index, changed.change);
        }
        for range in &footer.groups {
            let group = self.groups.entry(range.group).or_default();
            group.applied = group.applied.max(range.applied);
            let horizon = group.applied.saturating_sub(DROPPED_ENTRIES);
            group.dropped.retain(|_, index| *index >= horizon);
        }
        self.below = footer.seq.saturating_add(1);
        Ok(())
    }

    /// Encodes a whole file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = envelope::begin();
        out.extend_from_slice(&self.below.to_le_bytes());
        put(&mut out, self.groups.len() as u64);
        for (group, tails) in &self.groups {
            put(&mut out, u64::from(group.0));
            put(&mut out, tails.applied);
            put(&mut out, tails.shards.len() as u64);
            let mut before = 0;
            for (shard, tail) in &tails.shards {
                put(&mut out, shard.to_u64() - before);
                before = shard.to_u64();
                put_tail(&mut out, tail);
            }
            put(&mut out, tails.dropped.len() as u64);
            let mut before = 0;
            for (shard, index) in &tails.dropped {
                put(&mut out, shard.to_u64() - before);
                before = shard.to_u64();
                put(&mut out, *index);
            }
        }
        envelope::close(out, FileKind::Tails)
    }

    /// Checks and reads a file.
    pub(crate) fn decode(file: &Bytes) -> Result<Tails, Unusable> {
        let body = envelope::open(file, FileKind::Tails)?;
        let mut cursor = Cursor::new(&body);
        let mut tails = Tails { below: cursor.fixed_u64()?, groups: BTreeMap::new() };
        for _ in 0..cursor.count(4)? {
            let group = GroupId(cursor.narrow()?);
            tails.groups.insert(group, take_group(&mut cursor)?);
        }
        if cursor.remaining() != 0 {
            return Err(Unusable::Damaged);
        }
        Ok(tails)
    }
}

impl GroupTails {
    /// Rows and expiries of one shard, in log order: an expiry must not touch what came after it.
    fn fold_rows(&mut self, section: &Section, expiries: &[Expiry]) {
        let Some(first) = section.rows.first() else { return };
        let base = first.extent.base;
        let tail = self.shards.entry(section.shard).or_insert_with(|| ShardTail {
            start: base,
            end: base,
            producers: Producers::default(),
        });
        let mut due = expiries.iter().peekable();
        for Row { extent, mark } in &section.rows {
            while let Some(expiry) = due.next_if(|expiry| expiry.index < extent.index) {
                tail.producers.expire(expiry.before);
            }
            if let Some(mark) = mark {
                tail.producers.remember(&mark.claim(extent.count), extent.base, extent.timestamp_max);
            }
            tail.end = tail.end.max(extent.end());
        }
        due.for_each(|expiry| tail.producers.expire(expiry.before));
    }

    fn fold_change(&mut self, index: u64, change: Change) {
        match change {
            Change::Trim { shard, to } => {
                // The recorded offset was clamped when it was applied, so the shard did reach it.
                let tail = self.shards.entry(shard).or_default();
                tail.start = tail.start.max(to.0);
                tail.end = tail.end.max(to.0);
            }
            Change::Drop { shard } => {
                self.shards.remove(&shard);
                self.dropped.insert(shard, index);
            }
            Change::ExpireProducers { .. } => {}
        }
    }
}

fn put_tail(out: &mut Vec<u8>, tail: &ShardTail) {
    put(out, tail.start);
    put(out, tail.end - tail.start);
    put(out, tail.producers.len() as u64);
    for (id, producer) in tail.producers.iter() {
        put_producer(out, id, producer);
    }
}

/// Appends a producer; also the rocksdb engine's row format.
pub(crate) fn put_producer(out: &mut Vec<u8>, id: i64, producer: &Producer) {
    put_signed(out, id);
    put_signed(out, i64::from(producer.epoch));
    put_signed(out, producer.timestamp);
    put(out, producer.window.len() as u64);
    for batch in &producer.window {
        put_signed(out, i64::from(batch.sequence));
        put(out, u64::from(batch.records));
        put(out, batch.base);
    }
}

fn take_group(cursor: &mut Cursor<'_>) -> Result<GroupTails, Malformed> {
    let mut tails = GroupTails { applied: cursor.unsigned()?, ..GroupTails::default() };
    let mut before = 0_u64;
    for _ in 0..cursor.count(4)? {
        let shard = take_shard(cursor, &mut before)?;
        let start = cursor.unsigned()?;
        let end = start.checked_add(cursor.unsigned()?).ok_or(Malformed)?;
        let producers = take_producers(cursor)?;
        tails.shards.insert(shard, ShardTail { start, end, producers });
    }
    let mut before = 0_u64;
    for _ in 0..cursor.count(2)? {
        let shard = take_shard(cursor, &mut before)?;
        tails.dropped.insert(shard, cursor.unsigned()?);
    }
    Ok(tails)
}

fn take_shard(cursor: &mut Cursor<'_>, before: &mut u64) -> Result<ShardId, Malformed> {
    *before = before.checked_add(cursor.unsigned()?).ok_or(Malformed)?;
    ShardId::from_u64(*before).map_err(|_| Malformed)
}

/// Reads a count and that many producers.
pub(crate) fn take_producers(cursor: &mut Cursor<'_>) -> Result<Producers, Malformed> {
    let mut producers = Producers::default();
    for _ in 0..cursor.count(4)? {
        let id = cursor.signed()?;
        let epoch = i16::try_from(cursor.signed()?).map_err(|_| Malformed)?;
        let mut producer = Producer { epoch, timestamp: cursor.signed()?, ..Producer::default() };
        let batches = cursor.count(3)?;
        if batches > WINDOW {
            return Err(Malformed);
        }
        for _ in 0..batches {
            let sequence = i32::try_from(cursor.signed()?).map_err(|_| Malformed)?;
            let (records, base) = (cursor.narrow()?, cursor.unsigned()?);
            producer.window.push_back(Remembered { sequence, records, base });
        }
        producers.restore(id, producer);
    }
    Ok(producers)
}
