//! `Log`: the seam between whoever commits batches and whoever reads them. The doc comment of the trait is the
//! specification that every engine is tested against. How a batch came to be committed is not known here.

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{Offset, ShardId};

use crate::error::LogError;
use crate::journal::Location;
use crate::retention::Piece;
use crate::tail::Watch;

/// For how many log entries after a drop its shard is remembered as dropped, at least. Whoever appends learned of the shard from
/// its directory row, which is gone with the drop; an append that was on its way comes within this many entries.
pub const DROPPED_ENTRIES: u64 = 1 << 20;

/// The shards of one Raft group on this node, whichever engine holds each of them.
///
/// # Offsets of one shard
///
/// ```text
///   trimmed, not readable          readable                        not yet
///  ┌───────────────────────┬──────────────────────────────┬─────────────────────
///  │ 0                     │ start                        │ end
///  └───────────────────────┴──────────────────────────────┴─────────────────────
///      batches:   [base 7 ..... 9][10][11 ........ 19]      next batch: base = end
///                        ▲
///                        start may lie inside a batch: the whole batch is returned, the reader skips
/// ```
///
/// `start <= end` always. `end` grows by the number of records of a stored batch and never shrinks; `start` never
/// shrinks. Offsets are dense: a duplicate, a refused batch and a dropped shard take none. An offset that was once
/// readable never names other content. A shard that was never appended to is empty: `start == end ==` its first offset
/// (0; the memory engine counts from an origin that differs at every start of the node).
///
/// # Who calls
///
/// * One writer, the group's apply, in log-index order: per entry its [`append`](Log::append)s, then its
///   [`change`](Log::change)s, and [`turn_ended`](Log::turn_ended) after the last call of an entry. An entry may hold many appends; an index counts as
///   applied only when `turn_ended` names it (or a later one).
/// * Any number of readers on any thread: everything else. A batch is visible at the latest when `turn_ended` returned, in
///   offset order.
/// * `Invariant:` the state is a function of the calls and their arguments: no clock, no randomness, no order of a hash
///   map (Spec: storage 56). Replicas that apply the same entries answer the same.
///
/// # Replay
///
/// After a restart the caller replays entries from [`applied`](Log::applied)` + 1` with the same indexes. Calls whose index is
/// already applied (a caller may start lower) change nothing: `append` answers [`Append::AlreadyApplied`].
///
/// # Errors
///
/// An error of `append`, `change` or `turn_ended` is final for the group on this node: the caller stops applying. An
/// error of a reader concerns that call.
pub trait Log: Send + Sync {
    /// Decides what becomes of a committed batch, and stores it unless it is a duplicate or refused. Durability is the
    /// journal's: the batch is already committed. May block on the engine's own store (rocksdb), never on the journal.
    fn append(&self, shard: ShardId, batch: CommittedBatch) -> Result<Append, LogError>;

    /// Applies a committed command that removes or forgets. Idempotent.
    fn change(&self, index: u64, change: Change) -> Result<(), LogError>;

    /// States that every entry up to `applied` has been given, and wakes, in one pass, the watches it satisfied.
    /// To be called once per batch of applied entries, not once per entry.
    fn turn_ended(&self, applied: u64) -> Result<(), LogError>;

    /// The last log index that is applied; 0 before the first.
    fn applied(&self) -> u64;

    /// Makes durable what can be, and returns the last log index whose replay this log no longer needs after a
    /// crash. The journal may purge up to it as far as this log is concerned (it still reads the batches that
    /// [`scan`](Log::scan) and `read` can reach). Blocks on disk. The memory engine has nothing to replay.
    fn flush(&self) -> Result<u64, LogError>;

    /// Batches from the one that contains `from` on: whole batches, in order, together at most `max_bytes`, except that
    /// the first is always returned. Empty when `from == end`. May block on disk.
    ///
    /// Errors: [`LogError::OutOfRange`] below `start` or above `end` (Spec: storage 30), [`LogError::Dropped`].
    fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, LogError>;

    /// Like [`read`](Log::read), but from memory alone: `None` when the first batch is not cached, fewer batches when a later one
    /// is not. Never blocks: for threads that serve connections.
    fn read_tail(
        &self,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Option<Vec<StoredBatch>>, LogError>;

    /// Where the shard starts and ends. Never blocks on the journal.
    fn offsets(&self, shard: ShardId) -> Result<Offsets, LogError>;

    /// Finds a record by its timestamp, among the readable ones. `None` if there is no such record. Decodes one batch, so it may
    /// block on disk. Timestamps need not be in order (Spec: storage 28).
    fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, LogError>;

    /// A future that resolves when `end > beyond`, or when the shard is dropped; at once if that is so already.
    /// Costs nothing while it waits, nothing is polled. Dropping it cancels.
    fn watch(&self, shard: ShardId, beyond: Offset) -> Watch;

    /// Stored batches of many shards in the order of the group's log: those with a position above `after`, at most
    /// `max` of them, without their bytes. `At most once` batches are skipped (they were delivered live).
    ///
    /// `None`, only with [`Reach::Memory`]: the disk has to be asked.
    fn scan(
        &self,
        after: Position,
        shards: &Selection<'_>,
        max: usize,
        reach: Reach,
    ) -> Result<Option<Vec<Scanned>>, LogError>;

    /// The shards that have been appended to and not dropped, engine by engine. For housekeeping: costs by their
    /// number, may block on disk.
    fn shards(&self) -> Result<Vec<ShardId>, LogError>;

    /// Figures about one shard, for inspection and retention.
    fn describe(&self, shard: ShardId) -> Result<Description, LogError>;
}

/// One record batch of a committed entry.
#[derive(Clone, Debug)]
pub struct CommittedBatch {
    /// The batch as it is stored: base offset 0, validated by whoever proposed it.
    pub bytes: Bytes,
    /// The decoded header of `bytes`.
    pub header: BatchHeader,
    /// How the batch was published.
    pub flags: BatchFlags,
    /// Where in its group's log it stands.
    pub position: Position,
    /// Where `bytes` lie in the journal.
    pub location: Location,
}

/// Where a batch stands in the log of its group: entries in order, and the bodies of an entry in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Log index of the entry.
    pub index: u64,
    /// Number of the batch within the entry. `Bound:` an entry holds at most 65,536 batches.
    pub ordinal: u16,
}

impl Position {
    /// The last position of an entry: `scan` after it begins with the next entry.
    pub fn end_of(index: u64) -> Position {
        Position { index, ordinal: u16::MAX }
    }

    /// The lowest index of an entry in which something may follow.
    pub(crate) fn next_index(self) -> u64 {
        self.index.saturating_add(u64::from(self.ordinal == u16::MAX))
    }
}

/// Properties of a batch that are kept beside it, not in its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFlags(u8);

impl BatchFlags {
    /// Nothing special.
    pub const NONE: BatchFlags = BatchFlags(0);
    /// Nobody waits for the batch (MQTT QoS 0): whoever was to get it got it live; [`Log::scan`] skips it.
    pub const AT_MOST_ONCE: BatchFlags = BatchFlags(1);

    /// Whether all of `other` is set.
    pub fn contains(self, other: BatchFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The stored byte.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From a stored byte; unknown bits are dropped.
    pub fn from_bits(bits: u8) -> BatchFlags {
        BatchFlags(bits & Self::AT_MOST_ONCE.0)
    }
}

/// What became of a batch.
///
/// Spec: kafka 39 to 43. A batch without a producer id is always stored. With one, the shard remembers the last five
/// batches of each producer; a producer that it does not know is accepted at any sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// Stored; its first record has this offset.
    Stored {
        /// Offset of the first record.
        base: Offset,
    },
    /// One of the producer's last five batches came again: nothing stored, the offset it got the first time.
    Duplicate {
        /// Offset of the first record of the original.
        base: Offset,
    },
    /// The sequence does not follow the producer's last batch.
    OutOfOrderSequence,
    /// The producer's epoch is lower than one seen before.
    FencedEpoch,
    /// The shard was dropped.
    ShardDropped,
    /// The entry was applied before (replay): nothing was done, nobody waits for an answer.
    AlreadyApplied,
}

/// A committed command about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Raises the shard's start to `to`, at most to its end. Never lowers it.
    Trim {
        /// The shard.
        shard: ShardId,
        /// The new first readable offset.
        to: Offset,
    },
    /// Removes the shard with all that is known about it. Its id is never used again: later appends are refused
    /// (Spec: storage 32).
    Drop {
        /// The shard.
        shard: ShardId,
    },
    /// Forgets producers whose newest batch is older than `before` (ms since the epoch): the caller's time, so that replicas
    /// agree.
    ExpireProducers {
        /// Producers whose last batch has a maximum timestamp below this are forgotten.
        before: i64,
    },
}

/// The readable range of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First readable offset.
    pub start: Offset,
    /// Offset that the next record will get.
    pub end: Offset,
}

/// A batch as it was stored, with what the index knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record. The bytes say 0: `model::batch::patched_header` writes it for a reader.
    pub base: Offset,
    /// Number of offsets it covers.
    pub count: u32,
    /// How it was published.
    pub flags: BatchFlags,
    /// Where it stands in the group's log.
    pub position: Position,
    /// Largest record timestamp, ms since the epoch.
    pub timestamp_max: i64,
    /// The batch, base offset 0.
    pub bytes: Bytes,
}

impl StoredBatch {
    /// The offset after its last record.
    pub fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }
}

/// What to look for by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first record, in offset order, whose timestamp is at or after this (ms since the epoch).
    AtOrAfter(i64),
    /// The first record that bears the largest timestamp of the shard.
    Largest,
}

/// A record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeHit {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, ms since the epoch.
    pub timestamp: i64,
}

/// Which shards a scan is about.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// Every shard of the group.
    All,
    /// These shards. Cost grows with their number, not with what lies between.
    Shards(&'a [ShardId]),
}

/// How far a scan goes for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It never blocks: for threads that serve connections.
    Memory,
    /// It may block on disk. What it read is in memory for a while.
    Disk,
}

/// A stored batch met by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Where it stands; pass the last one as `after` to go on.
    pub position: Position,
    /// Its shard.
    pub shard: ShardId,
    /// Offset of its first record.
    pub base: Offset,
    /// Number of offsets it covers.
    pub count: u32,
    /// Size of its bytes.
    pub size: u32,
}

/// Figures about a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Bytes of the readable batches. A sealed segment's part counts whole until all of it is trimmed.
    pub bytes: u64,
    /// The readable batches in pieces that can be trimmed one by one, by offset: what retention decides about.
    pub pieces: Vec<Piece>,
    /// Journal segments that hold readable batches; empty for engines that copy.
    pub segments: Vec<u64>,
    /// Producers remembered for duplicate detection.
    pub producers: usize,
}
