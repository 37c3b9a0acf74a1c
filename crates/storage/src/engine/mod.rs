//! The engines, and which shard is held by which: the only file that names them. Everybody else sees a [`Log`] per
//! group.

mod memory;
mod rocksdb;
mod segment;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::{EngineKind, GroupId, Offset, ShardId};
use parking_lot::RwLock;
use rt::Disk;

use self::memory::{MemoryLog, MemoryNode};
use self::rocksdb::RocksLog;
use self::segment::{SegmentLog, SegmentStripe};
use crate::database::Database;
use crate::error::LogError;
use crate::journal::SegmentInfo;
use crate::log::{
    Append, Change, CommittedBatch, Description, Log, Offsets, Position, Reach, Scanned, Selection,
    StoredBatch, TimeHit, TimeQuery,
};
use crate::source::BatchSource;
use crate::tail::Watch;

/// Sizes and places of a [`LogStore`].
#[derive(Clone, Debug)]
pub struct LogStoreConfig {
    /// Directory of the segment index.
    pub index_dir: PathBuf,
    /// Bytes of newest batches that are kept in memory, over all groups.
    pub tail_cache_bytes: usize,
    /// Bytes of all memory-engine shards together.
    pub memory_bytes: usize,
    /// First offset of memory-engine shards. To be raised with every start of the node, by more than any shard of the last
    /// run can have reached (the number of the start shifted by 40 bits, say), so that no offset is used twice.
    pub memory_origin: Offset,
}

/// What a journal stripe holds when the logs over it are opened.
#[derive(Clone, Copy)]
pub struct StripeContents<'a> {
    /// Where batches are read back.
    pub source: &'a Arc<dyn BatchSource>,
    /// Its segments, ascending.
    pub segments: &'a [SegmentInfo],
    /// The last log index of a group that is purged, 0 if none is: entries up to it come in no replay.
    pub purged: &'a dyn Fn(GroupId) -> u64,
}

/// Gives the committed entries of a sealed segment, whose index file is lost, to the logs it is handed: in log order per
/// group, with the calls that apply made, purged ones too, and only entries that are the current ones of their index (an
/// entry that was overwritten after a change of leader is void).
pub type Rebuild<'a> =
    &'a mut dyn FnMut(&SegmentInfo, &dyn Fn(GroupId) -> Arc<dyn Log>) -> Result<(), LogError>;

/// The logs of all groups on a node, over one journal stripe.
///
/// # How it goes with the journal
///
/// ```text
///   journal seals a segment ──> segment_sealed          cheap, on the journal's thread
///   apply turns                 turn_ended (Log)        until all entries of the segment are applied
///   janitor                     write_footers           the segment's index file; its extents leave memory
///   retention trims             change (Log)            committed
///   Raft purges                 up to Log::flush
///   janitor                     dead_segments           nothing readable, everything purged; tails file written
///   journal recycles the file ─> recycled               the index file goes
/// ```
///
/// The janitor is one background thread of the caller.
pub struct LogStore {
    segments: Arc<SegmentStripe>,
    memory: Arc<MemoryNode>,
    database: Option<Arc<Database>>,
    groups: RwLock<BTreeMap<GroupId, Arc<GroupLog>>>,
}

impl LogStore {
    /// Opens the logs over a stripe of the journal. Without a database there is no rocksdb engine: its shards cannot be
    /// written. Afterwards each group's entries from [`Log::applied`]` + 1` on are to be replayed.
    ///
    /// # Errors
    /// If the index cannot be read, was written by a later release, or cannot be rebuilt; if segments are recycled that no tails
    /// file tells of: where their shards ended is unknown then (Spec: storage 27).
    pub fn open(
        config: LogStoreConfig,
        disk: &Arc<dyn Disk>,
        database: Option<Arc<Database>>,
        journal: StripeContents<'_>,
        rebuild: Rebuild<'_>,
    ) -> Result<LogStore, LogError> {
        let segments = SegmentStripe::open(
            disk,
            config.index_dir,
            journal,
            config.tail_cache_bytes,
            &mut |info, log| {
                // Only the segment engine lost something; the others have their own applied index.
                rebuild(info, &|group| {
                    Arc::new(GroupLog { segment: log(group), memory: None, rocksdb: None })
                })
            },
        )?;
        let memory = MemoryNode::new(config.memory_origin, config.memory_bytes);
        Ok(LogStore { segments, memory, database, groups: RwLock::default() })
    }

    /// The log of a group; the same one for every caller.
    ///
    /// # Errors
    /// If what the rocksdb engine keeps of the group cannot be read.
    pub fn group(&self, group: GroupId) -> Result<Arc<dyn Log>, LogError> {
        if let Some(found) = self.groups.read().get(&group) {
            return Ok(found.clone());
        }
        let mut groups = self.groups.write();
        if let Some(found) = groups.get(&group) {
            return Ok(found.clone());
        }
        let rocksdb = self.database.clone().map(|database| RocksLog::open(database, group)).transpose()?;
        let log = Arc::new(GroupLog {
            segment: self.segments.group(group),
            memory: Some(self.memory.log()),
            rocksdb,
        });
        groups.insert(group, log.clone());
        Ok(log)
    }

    /// Says that the journal has sealed a segment, in ascending order. Cheap; may be called from the journal's thread.
    pub fn segment_sealed(&self, segment: SegmentInfo) {
        self.segments.segment_sealed(segment);
    }

    /// Writes the index files of sealed segments whose entries are all applied; answers how many. Blocks on disk. After
    /// an error (a full disk, say) nothing is lost: the next call tries again.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_footers(&self) -> Result<usize, LogError> {
        self.segments.write_footers()
    }

    /// Segments that hold nothing any more: no readable record, and of each group no entry above what `purged` says. What must
    /// outlive them (ends of shards, producers) is durable when this returns. Blocks on disk.
    ///
    /// # Errors
    /// If that cannot be made durable.
    pub fn dead_segments(&self, purged: impl Fn(GroupId) -> u64) -> Result<Vec<u64>, LogError> {
        self.segments.dead_segments(purged)
    }

    /// Says that the journal has recycled these segments.
    ///
    /// # Errors
    /// If an index file cannot be removed; it is removed by the next [`open`](LogStore::open) then.
    pub fn recycled(&self, segments: &[u64]) -> Result<(), LogError> {
        self.segments.recycled(segments)
    }

    /// Bytes of index in memory that are not in any index file yet. When they are too many, the journal should seal early.
    pub fn live_index_bytes(&self) -> usize {
        self.segments.live_index_bytes()
    }

    /// Bytes that the tail cache holds, bookkeeping included.
    pub fn cached_bytes(&self) -> usize {
        self.segments.cached_bytes()
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        // A stripe and its logs hold each other; with the store gone, nobody asks for them any more.
        self.segments.release();
    }
}

/// The log of one group: each shard by its engine.
struct GroupLog {
    segment: Arc<SegmentLog>,
    /// Absent while an index is rebuilt.
    memory: Option<Arc<MemoryLog>>,
    /// Absent also on a node without a database.
    rocksdb: Option<Arc<RocksLog>>,
}

impl GroupLog {
    fn engine(&self, shard: ShardId) -> Option<&dyn Log> {
        match shard.engine() {
            EngineKind::Segment => Some(&*self.segment),
            EngineKind::Memory => self.memory.as_deref().map(|log| log as &dyn Log),
            EngineKind::Rocksdb => self.rocksdb.as_deref().map(|log| log as &dyn Log),
        }
    }

    fn reader(&self, shard: ShardId) -> Result<&dyn Log, LogError> {
        self.engine(shard).ok_or(LogError::Damaged { what: "shard of an engine that this node does not run" })
    }

    fn engines(&self) -> impl Iterator<Item = &dyn Log> {
        let memory = self.memory.as_deref().map(|log| log as &dyn Log);
        let rocksdb = self.rocksdb.as_deref().map(|log| log as &dyn Log);
        std::iter::once(&*self.segment as &dyn Log).chain(memory).chain(rocksdb)
    }

    /// The engines that lose nothing by a restart.
    fn durable_engines(&self) -> impl Iterator<Item = &dyn Log> {
        let rocksdb = self.rocksdb.as_deref().map(|log| log as &dyn Log);
        std::iter::once(&*self.segment as &dyn Log).chain(rocksdb)
    }
}

impl Log for GroupLog {
    fn append(&self, shard: ShardId, batch: CommittedBatch) -> Result<Append, LogError> {
        self.engine(shard).map_or(Ok(Append::AlreadyApplied), |log| log.append(shard, batch))
    }

    fn change(&self, index: u64, change: Change) -> Result<(), LogError> {
        match change {
            Change::Trim { shard, .. } | Change::Drop { shard } => {
                self.engine(shard).map_or(Ok(()), |log| log.change(index, change))
            }
            Change::ExpireProducers { .. } => self.engines().try_for_each(|log| log.change(index, change)),
        }
    }

    fn turn_ended(&self, applied: u64) -> Result<(), LogError> {
        self.engines().try_for_each(|log| log.turn_ended(applied))
    }

    fn applied(&self) -> u64 {
        self.durable_engines().map(Log::applied).min().unwrap_or(0)
    }

    fn flush(&self) -> Result<u64, LogError> {
        self.durable_engines().try_fold(u64::MAX, |lowest, log| Ok(lowest.min(log.flush()?)))
    }

    fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, LogError> {
        self.reader(shard)?.read(shard, from, bytes_max)
    }

    fn read_tail(
        &self,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Option<Vec<StoredBatch>>, LogError> {
        self.reader(shard)?.read_tail(shard, from, bytes_max)
    }

    fn offsets(&self, shard: ShardId) -> Result<Offsets, LogError> {
        self.reader(shard)?.offsets(shard)
    }

    fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, LogError> {
        self.reader(shard)?.offset_for_time(shard, query)
    }

    fn watch(&self, shard: ShardId, beyond: Offset) -> Watch {
        // A shard of an engine that is not run never grows; any engine's watch on it waits for ever.
        self.engine(shard).unwrap_or(&*self.segment).watch(shard, beyond)
    }

    fn scan(
        &self,
        after: Position,
        selection: &Selection<'_>,
        max: usize,
        reach: Reach,
    ) -> Result<Option<Vec<Scanned>>, LogError> {
        let mut found = Vec::new();
        for log in self.engines() {
            let Some(mut part) = log.scan(after, selection, max, reach)? else { return Ok(None) };
            found.append(&mut part);
        }
        found.sort_unstable_by_key(|batch| batch.position);
        found.truncate(max);
        Ok(Some(found))
    }

    fn shards(&self) -> Result<Vec<ShardId>, LogError> {
        self.engines().try_fold(Vec::new(), |mut shards, log| {
            shards.append(&mut log.shards()?);
            Ok(shards)
        })
    }

    fn describe(&self, shard: ShardId) -> Result<Description, LogError> {
        self.reader(shard)?.describe(shard)
    }
}

#[cfg(test)]
mod tests;
