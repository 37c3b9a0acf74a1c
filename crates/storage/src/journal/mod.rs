//! The journal: write-ahead log, Raft log of every group, and hot storage of the `segment` engine in one.
//!
//! One [`Journal`] is one *stripe*: a directory of pre-written, recycled segment files with one I/O thread that drains
//! what all groups have queued into a frame, writes and syncs it once, and completes everybody. It does not know what
//! a payload means, who replicates it, or when a segment is no longer needed.

mod checkpoint;
mod config;
mod draft;
mod entry;
mod error;
mod format;
mod handle;
mod queue;
mod recovered;
mod recovery;
mod scan;
mod spares;
mod stripe;
mod table;

#[cfg(test)]
mod tests;

pub use self::config::{Identity, JournalConfig};
pub use self::entry::{Entry, EntryKind, Location, MalformedPayload, Payload};
pub use self::error::JournalError;
pub use self::handle::{Completion, Driver, Durability, Journal, JournalState, QueueFull, SegmentInfo};
pub use self::recovered::{LogPosition, Quarantined, Recovered, RecoveredEntry, RecoveredGroup};
pub use self::table::JournalCounters;
