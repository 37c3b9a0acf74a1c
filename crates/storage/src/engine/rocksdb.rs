//! The `rocksdb` engine: batches copied into RocksDB, for many small shards that are trimmed or dropped one by one. The
//! rows of a turn, the shards' tails and the applied index are one atomic write.
//!
//! ```text
//!   1 | group u32 | 0                            ->  applied index u64
//!   1 | group u32 | 1 | shard u64                ->  start, end (varints), producers        or 0xff, index of the drop
//!   1 | group u32 | 2 | index u64 | ordinal u16  ->  shard u64, base u64, count u32, size u32     not for at most once
//!   2 | shard u64 | base u64                     ->  count u32, index u64, ordinal u16, flags u8, timestamp i64, batch
//!                                                                      keys big-endian, values little-endian
//! ```

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use bytes::{Buf, BufMut, Bytes};
use model::{GroupId, Offset, ShardId};
use parking_lot::RwLock;

use crate::database::{Changes, Database, Space};
use crate::error::LogError;
use crate::index::{Cursor, Malformed, put, put_producer, take_producers};
use crate::kv::after_prefix;
use crate::log::{
    Append, BatchFlags, Change, CommittedBatch, Description, Log, Offsets, Position, Reach, Scanned,
    Selection, StoredBatch, TimeHit, TimeQuery,
};
use crate::producer::{Claim, Producers, Verdict};
use crate::retention::Piece;
use crate::tail::{Ends, Watch, Watchers};
use crate::time;

const TAG_GROUP: u8 = 1;
const TAG_BATCH: u8 = 2;
const GROUP_APPLIED: u8 = 0;
const GROUP_SHARD: u8 = 1;
const GROUP_ORDER: u8 = 2;
/// First byte of the row of a dropped shard.
const DROPPED: u8 = 0xff;
/// First byte of the row of a shard.
const LIVE: u8 = 1;
/// Bytes in front of a stored batch.
const BATCH_HEAD_LEN: usize = 23;
/// Bound: shards whose tails are kept in memory between turns.
const HOT_SHARDS_MAX: usize = 100_000;
/// Bound: rows that one write of a clean-up removes.
const CLEANED_ROWS_MAX: usize = 1024;

/// The shards of one group that this engine holds.
pub(crate) struct RocksLog {
    database: Arc<Database>,
    group: GroupId,
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    this: Weak<RocksLog>,
}

#[derive(Default)]
struct State {
    hot: AHashMap<ShardId, Tail>,
    /// Rows of the turn, not written yet.
    pending: Vec<(Vec<u8>, Vec<u8>)>,
    /// Shards that the turn changed, and whether rows below their start are to be removed.
    dirty: AHashMap<ShardId, bool>,
    applied: u64,
    /// No batch that a scan shows stands above this.
    last: Position,
}

/// What is known of a shard. `published` is what readers see: what was written.
#[derive(Clone, Debug)]
struct Tail {
    start: u64,
    end: u64,
    dropped: Option<u64>,
    producers: Producers,
    published: Published,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    Range(Offsets),
    Dropped,
}

impl RocksLog {
    pub(crate) fn open(database: Arc<Database>, group: GroupId) -> Result<Arc<RocksLog>, LogError> {
        let row = database
            .get(Space::Log, &group_key(group, GROUP_APPLIED))
            .map_err(|err| io("read applied index", err))?;
        let applied = row.map_or(Ok(0), |row| row[..].try_into().map(u64::from_le_bytes));
        let applied = applied.map_err(|_| LogError::Damaged { what: "applied index" })?;
        let (first, end) = order_range(group);
        let last = database.last_row(Space::Log, &first, &end).map_err(|err| io("find last batch", err))?;
        // The order key of the next group may stand there, too.
        let last = last.filter(|row| row.key.starts_with(&first));
        let last = last.map_or(Ok(Position::default()), |row| {
            decode_order(&row.key, &row.value).map(|batch| batch.position)
        });
        let last = last.map_err(|_| LogError::Damaged { what: "order row" })?;
        Ok(Arc::new_cyclic(|this| RocksLog {
            database,
            group,
            state: RwLock::new(State { applied, last, ..State::default() }),
            watchers: Arc::default(),
            this: this.clone(),
        }))
    }

    fn load(&self, shard: ShardId) -> Result<Tail, LogError> {
        let row =
            self.database.get(Space::Log, &self.shard_key(shard)).map_err(|err| io("read shard", err))?;
        row.map_or(Ok(Tail::empty()), |row| {
            Tail::decode(&row).map_err(|_| LogError::Damaged { what: "shard row" })
        })
    }

    /// What readers see of a shard.
    fn published(&self, shard: ShardId) -> Result<Offsets, LogError> {
        let hot = self.state.read().hot.get(&shard).map(|tail| tail.published);
        let published = match hot {
            Some(published) => published,
            None => self.load(shard)?.published,
        };
        match published {
            Published::Range(offsets) => Ok(offsets),
            Published::Dropped => Err(LogError::Dropped),
        }
    }

    /// Stored batches from the one that holds `from` to the published end.
    fn batches(&self, shard: ShardId, from: Offset, end: Offset) -> Result<Batches<'_>, LogError> {
        let at = batch_key(shard, from.0);
        let first = self
            .database
            .last_row(Space::Log, &batch_key(shard, 0), &at)
            .map_err(|err| io("find batch", err))?;
        let first = first.filter(|row| row.key.starts_with(&at[..9])).map_or(at, |row| row.key.to_vec());
        let rows = self.database.rows(Space::Log, &first, &batch_key(shard, end.0));
        Ok(Box::new(rows.map(|row| decode_batch(&row.map_err(unread)?))))
    }

    /// Removes rows below the shards' starts, after the starts themselves are written: a crash in between leaves rows that the
    /// next clean-up finds, because it begins at offset 0.
    fn clean(&self, shard: ShardId, below: u64) -> Result<(), LogError> {
        loop {
            let mut changes = self.database.changes(Space::Log);
            let mut rows = 0;
            for row in self.database.rows(Space::Log, &batch_key(shard, 0), &batch_key(shard, below)) {
                let batch = decode_batch(&row.map_err(unread)?)?;
                if batch.end().0 > below || rows == CLEANED_ROWS_MAX {
                    break;
                }
                changes.delete(&batch_key(shard, batch.base.0));
                changes.delete(&self.order_key(batch.position));
                rows += 1;
            }
            self.database.write(changes).map_err(|err| io("remove batches", err))?;
            if rows < CLEANED_ROWS_MAX {
                return Ok(());
            }
        }
    }

    fn shard_key(&self, shard: ShardId) -> Vec<u8> {
        let mut key = group_key(self.group, GROUP_SHARD);
        key.put_u64(shard.to_u64());
        key
    }

    fn order_key(&self, position: Position) -> Vec<u8> {
        let mut key = group_key(self.group, GROUP_ORDER);
        key.put_u64(position.index);
        key.put_u16(position.ordinal);
        key
    }

    /// Writes the turn. On return it is visible to readers.
    fn write(&self, state: &mut State, applied: u64) -> Result<(), LogError> {
        let mut changes = self.database.changes(Space::Log);
        for (key, value) in state.pending.drain(..) {
            changes.put(&key, &value);
        }
        for shard in state.dirty.keys() {
            if let Some(tail) = state.hot.get(shard) {
                changes.put(&self.shard_key(*shard), &tail.encode());
            }
        }
        put_applied(&mut changes, self.group, applied);
        self.database.write(changes).map_err(|err| io("write batches", err))?;
        for shard in state.dirty.keys() {
            state.hot.get_mut(shard).into_iter().for_each(Tail::publish);
        }
        Ok(())
    }
}

type Batches<'a> = Box<dyn Iterator<Item = Result<StoredBatch, LogError>> + 'a>;

impl State {
    fn tail(&mut self, log: &RocksLog, shard: ShardId) -> Result<&mut Tail, LogError> {
        match self.hot.entry(shard) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => Ok(place.insert(log.load(shard)?)),
        }
    }
}

impl Ends for RocksLog {
    fn end(&self, shard: ShardId) -> Option<Offset> {
        // A row that cannot be read wakes the watcher, whose own read then meets the error.
        match self.published(shard) {
            Ok(offsets) => Some(offsets.end),
            Err(LogError::Dropped) => None,
            Err(_) => Some(Offset::MAX),
        }
    }
}

impl Log for RocksLog {
    fn append(&self, shard: ShardId, batch: CommittedBatch) -> Result<Append, LogError> {
        let mut state = self.state.write();
        if batch.position.index <= state.applied {
            return Ok(Append::AlreadyApplied);
        }
        let tail = state.tail(self, shard)?;
        let append = tail.append(&batch);
        let Append::Stored { base } = append else { return Ok(append) };
        let count = (tail.end - base.0) as u32;
        state.pending.push((batch_key(shard, base.0), encode_batch(&batch, count)));
        if !batch.flags.contains(BatchFlags::AT_MOST_ONCE) {
            let mut value = Vec::with_capacity(24);
            value.put_u64_le(shard.to_u64());
            value.put_u64_le(base.0);
            value.put_u32_le(count);
            value.put_u32_le(u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX));
            state.pending.push((self.order_key(batch.position), value));
            state.last = batch.position;
        }
        state.dirty.entry(shard).or_default();
        Ok(append)
    }

    fn change(&self, index: u64, change: Change) -> Result<(), LogError> {
        let mut state = self.state.write();
        if index <= state.applied {
            return Ok(());
        }
        match change {
            Change::Trim { shard, to } => {
                let tail = state.tail(self, shard)?;
                tail.start = tail.start.max(to.0.min(tail.end));
                state.dirty.insert(shard, true);
            }
            Change::Drop { shard } => {
                let tail = state.tail(self, shard)?;
                tail.dropped = Some(tail.dropped.unwrap_or(index));
                tail.producers = Producers::default();
                state.dirty.insert(shard, true);
            }
            Change::ExpireProducers { before } => {
                let first = group_key(self.group, GROUP_SHARD);
                let end = group_key(self.group, GROUP_ORDER);
                for row in self.database.rows(Space::Log, &first, &end) {
                    let row = row.map_err(|err| io("read shards", err))?;
                    let id =
                        row.key.get(first.len()..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
                    let id = id.and_then(|id| ShardId::from_u64(id).ok());
                    let id = id.ok_or(LogError::Damaged { what: "shard row" })?;
                    // Rows without producers need not become hot.
                    let has = Tail::decode(&row.value).is_ok_and(|tail| !tail.producers.is_empty());
                    if has {
                        state.tail(self, id)?;
                    }
                }
                let State { hot, dirty, .. } = &mut *state;
                for (shard, tail) in hot.iter_mut().filter(|(_, tail)| !tail.producers.is_empty()) {
                    tail.producers.expire(before);
                    dirty.entry(*shard).or_default();
                }
            }
        }
        Ok(())
    }

    fn turn_ended(&self, applied: u64) -> Result<(), LogError> {
        let touched = {
            let mut state = self.state.write();
            let state = &mut *state;
            if !state.dirty.is_empty() {
                self.write(state, applied.max(state.applied))?;
            }
            state.applied = state.applied.max(applied);
            let touched: Vec<ShardId> = state.dirty.keys().copied().collect();
            for (shard, _) in state.dirty.drain().filter(|(_, trimmed)| *trimmed) {
                if let Some(tail) = state.hot.get(&shard) {
                    self.clean(shard, if tail.dropped.is_some() { u64::MAX } else { tail.start })?;
                }
            }
            if state.hot.len() > HOT_SHARDS_MAX {
                state.hot.clear();
            }
            touched
        };
        self.watchers.wake(&touched, self);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.state.read().applied
    }

    fn flush(&self) -> Result<u64, LogError> {
        let applied = {
            let state = self.state.write();
            let mut changes = self.database.changes(Space::Log);
            put_applied(&mut changes, self.group, state.applied);
            self.database.write(changes).map_err(|err| io("write applied index", err))?;
            state.applied
        };
        self.database.flush().map_err(|err| io("flush batches", err))?;
        Ok(applied)
    }

    fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, LogError> {
        let Offsets { start, end } = self.published(shard)?;
        if from < start || from > end {
            return Err(LogError::OutOfRange { start, end });
        }
        let mut found: Vec<StoredBatch> = Vec::new();
        let mut size = 0;
        if from == end {
            return Ok(found);
        }
        for batch in self.batches(shard, from, end)? {
            let batch = batch?;
            size += batch.bytes.len();
            if size > bytes_max && !found.is_empty() {
                break;
            }
            found.push(batch);
        }
        Ok(found)
    }

    fn read_tail(
        &self,
        shard: ShardId,
        from: Offset,
        _: usize,
    ) -> Result<Option<Vec<StoredBatch>>, LogError> {
        // Only what is hot can be answered without touching RocksDB, and that is offsets, not batches.
        let hot = self.state.read().hot.get(&shard).map(|tail| tail.published);
        match hot {
            None => Ok(None),
            Some(Published::Dropped) => Err(LogError::Dropped),
            Some(Published::Range(Offsets { start, end })) if from < start || from > end => {
                Err(LogError::OutOfRange { start, end })
            }
            Some(Published::Range(Offsets { end, .. })) => Ok((from == end).then(Vec::new)),
        }
    }

    fn offsets(&self, shard: ShardId) -> Result<Offsets, LogError> {
        self.published(shard)
    }

    fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, LogError> {
        let Offsets { start, end } = self.published(shard)?;
        let mut search = time::Search::new(query, start);
        for batch in self.batches(shard, start, end)? {
            let batch = batch?;
            if search.is_of_interest(batch.timestamp_max) {
                search.look(&batch);
            }
        }
        Ok(search.best())
    }

    fn watch(&self, shard: ShardId, beyond: Offset) -> Watch {
        let ends = self.this.upgrade().expect("whoever calls holds the log");
        Watch::new(self.watchers.clone(), ends, shard, beyond)
    }

    fn scan(
        &self,
        after: Position,
        selection: &Selection<'_>,
        max: usize,
        reach: Reach,
    ) -> Result<Option<Vec<Scanned>>, LogError> {
        if after >= self.state.read().last {
            return Ok(Some(Vec::new()));
        }
        if reach == Reach::Memory {
            return Ok(None);
        }
        let mut first = self.order_key(after);
        first.push(0);
        let (_, end) = order_range(self.group);
        let wanted = |shard: ShardId| match selection {
            Selection::All => true,
            Selection::Shards(shards) => shards.contains(&shard),
        };
        let mut found = Vec::new();
        for row in self.database.rows(Space::Log, &first, &end) {
            let row = row.map_err(|err| io("scan batches", err))?;
            let batch =
                decode_order(&row.key, &row.value).map_err(|_| LogError::Damaged { what: "order row" })?;
            if wanted(batch.shard) {
                found.push(batch);
                if found.len() == max {
                    break;
                }
            }
        }
        Ok(Some(found))
    }

    fn shards(&self) -> Result<Vec<ShardId>, LogError> {
        let from = group_key(self.group, GROUP_SHARD);
        let to = group_key(self.group, GROUP_SHARD + 1);
        let mut shards = Vec::new();
        for row in self.database.rows(Space::Log, &from, &to) {
            let row = row.map_err(|error| LogError::io("list shards", error))?;
            let id = row.key.get(from.len()..).and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
            let id = id
                .and_then(|id| ShardId::from_u64(id).ok())
                .ok_or(LogError::Damaged { what: "shard row" })?;
            if row.value.first() != Some(&DROPPED) {
                shards.push(id);
            }
        }
        Ok(shards)
    }

    fn describe(&self, shard: ShardId) -> Result<Description, LogError> {
        let Offsets { start, end } = self.published(shard)?;
        let mut description = Description::default();
        for batch in self.batches(shard, start, end)? {
            let batch = batch?;
            description.bytes += batch.bytes.len() as u64;
            description.pieces.push(Piece {
                end: batch.end(),
                timestamp_max: batch.timestamp_max,
                bytes: batch.bytes.len() as u64,
            });
        }
        description.producers = self.load(shard)?.producers.len();
        Ok(description)
    }
}

impl Tail {
    fn empty() -> Tail {
        let published = Published::Range(Offsets { start: Offset(0), end: Offset(0) });
        Tail { start: 0, end: 0, dropped: None, producers: Producers::default(), published }
    }

    fn append(&mut self, batch: &CommittedBatch) -> Append {
        if self.dropped.is_some() {
            return Append::ShardDropped;
        }
        let header = &batch.header;
        let count = u32::try_from(header.offset_count()).unwrap_or(u32::MAX).max(1);
        if header.is_idempotent() {
            let claim = Claim {
                producer: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.base_sequence,
                records: count,
            };
            match self.producers.judge(&claim) {
                Verdict::New => self.producers.remember(&claim, self.end, header.max_timestamp),
                Verdict::Duplicate { base } => return Append::Duplicate { base: Offset(base) },
                Verdict::OutOfOrder => return Append::OutOfOrderSequence,
                Verdict::Fenced => return Append::FencedEpoch,
            }
        }
        let base = Offset(self.end);
        self.end += u64::from(count);
        Append::Stored { base }
    }

    fn publish(&mut self) {
        let offsets = Offsets { start: Offset(self.start), end: Offset(self.end) };
        self.published = if self.dropped.is_some() { Published::Dropped } else { Published::Range(offsets) };
    }

    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::new();
        if let Some(index) = self.dropped {
            row.push(DROPPED);
            put(&mut row, index);
            return row;
        }
        row.push(LIVE);
        put(&mut row, self.start);
        put(&mut row, self.end - self.start);
        put(&mut row, self.producers.len() as u64);
        self.producers.iter().for_each(|(id, producer)| put_producer(&mut row, id, producer));
        row
    }

    fn decode(row: &[u8]) -> Result<Tail, Malformed> {
        let mut cursor = Cursor::new(row);
        let mut tail = Tail::empty();
        match cursor.byte()? {
            DROPPED => tail.dropped = Some(cursor.unsigned()?),
            LIVE => {
                tail.start = cursor.unsigned()?;
                tail.end = tail.start.checked_add(cursor.unsigned()?).ok_or(Malformed)?;
                tail.producers = take_producers(&mut cursor)?;
            }
            _ => return Err(Malformed),
        }
        tail.publish();
        Ok(tail)
    }
}

fn group_key(group: GroupId, part: u8) -> Vec<u8> {
    let mut key = vec![TAG_GROUP];
    key.put_u32(group.0);
    key.push(part);
    key
}

/// Order keys of a group, and what lies behind them.
fn order_range(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let first = group_key(group, GROUP_ORDER);
    let end = after_prefix(&first).expect("the tag is not 0xff");
    (first, end)
}

fn batch_key(shard: ShardId, base: u64) -> Vec<u8> {
    let mut key = vec![TAG_BATCH];
    key.put_u64(shard.to_u64());
    key.put_u64(base);
    key
}

fn put_applied(changes: &mut Changes<'_>, group: GroupId, applied: u64) {
    changes.put(&group_key(group, GROUP_APPLIED), &applied.to_le_bytes());
}

fn encode_batch(batch: &CommittedBatch, count: u32) -> Vec<u8> {
    let mut value = Vec::with_capacity(BATCH_HEAD_LEN + batch.bytes.len());
    value.put_u32_le(count);
    value.put_u64_le(batch.position.index);
    value.put_u16_le(batch.position.ordinal);
    value.put_u8(batch.flags.bits());
    value.put_i64_le(batch.header.max_timestamp);
    value.put_slice(&batch.bytes);
    value
}

fn decode_batch(row: &crate::kv::Row) -> Result<StoredBatch, LogError> {
    let damaged = LogError::Damaged { what: "batch row" };
    let (Some(base), Some(mut head)) = (row.key.get(9..17), row.value.get(..BATCH_HEAD_LEN)) else {
        return Err(damaged);
    };
    let mut base = base;
    Ok(StoredBatch {
        base: Offset(base.get_u64()),
        count: head.get_u32_le(),
        position: Position { index: head.get_u64_le(), ordinal: head.get_u16_le() },
        flags: BatchFlags::from_bits(head.get_u8()),
        timestamp_max: head.get_i64_le(),
        bytes: row.value.slice(BATCH_HEAD_LEN..),
    })
}

fn decode_order(key: &Bytes, value: &Bytes) -> Result<Scanned, Malformed> {
    let mut position = key.get(6..16).ok_or(Malformed)?;
    let mut value = value.get(..24).ok_or(Malformed)?;
    Ok(Scanned {
        position: Position { index: position.get_u64(), ordinal: position.get_u16() },
        shard: ShardId::from_u64(value.get_u64_le()).map_err(|_| Malformed)?,
        base: Offset(value.get_u64_le()),
        count: value.get_u32_le(),
        size: value.get_u32_le(),
    })
}

/// Why a batch could not be read: its bytes are damaged, or another try may succeed.
fn unread(err: rocksdb::Error) -> LogError {
    match err.kind() {
        rocksdb::ErrorKind::Corruption => LogError::Damaged { what: "a batch" },
        _ => io("read batch", err),
    }
}

fn io(operation: &'static str, err: rocksdb::Error) -> LogError {
    LogError::io(operation, err)
}
