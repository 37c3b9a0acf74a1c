//! The journal: write-ahead log, Raft log of every group, and hot storage of the `segment` engine in one.
//!
//! One [`Journal`] is one *stripe*: a directory of pre-written, recycled segment files with one I/O thread that drains
//! what all groups have queued into a frame, writes and syncs it once, and completes everybody. It does not know what
//! a payload means, who replicates it, or when a segment is no longer needed.

mod config;
mod entry;
mod error;
mod format;
mod recovered;

pub use self::config::{Identity, JournalConfig};
pub use self::entry::{Entry, EntryKind, Location, MalformedPayload, Payload};
pub use self::error::JournalError;
pub use self::recovered::{LogPosition, Quarantined, Recovered, RecoveredEntry, RecoveredGroup};

use model::GroupId;

/// How durable an append is before it is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Completed after a sync that covers it.
    Sync,
    /// Completed once the operating system has it; synced within `JournalConfig::sync_interval`. Lost by a power
    /// failure before that, not by a crash of the process.
    OsBuffered,
}

/// Called on the I/O thread, in append order, with one [`Location`] per entry of the append. Must not block.
pub type Completion = Box<dyn FnOnce(Result<Vec<Location>, JournalError>) + Send>;

/// The queue is at a bound: nothing was taken, here is the append back.
pub struct QueueFull {
    /// The entries as given.
    pub entries: Vec<Entry>,
    /// The completion as given, not called.
    pub done: Completion,
}

/// One segment and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Sequence number in the stripe.
    pub seq: u64,
    /// Whether it is complete (and durable as a whole).
    pub sealed: bool,
    /// Size of its file.
    pub bytes: u64,
    /// Per group, the first and last index of what was appended (a superset of what is live).
    pub groups: Vec<(GroupId, u64, u64)>,
}
