//! Replicated rows: small state that a front or a room of the broker keeps in a group's key/value store.

use bytes::Bytes;
use model::{GroupId, ShardId};

pub use crate::rows_store::Rows;

/// Which group's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The group that the key belongs to by hash: state of its own (a consumer group, a session).
    ByKey(Bytes),
    /// The group that holds a shard: state that changes together with its records.
    OfShard(ShardId),
    /// A group by number.
    Group(GroupId),
}

/// One change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowWrite {
    /// Sets it.
    Put {
        /// Key; the first bytes name the owner, so that owners cannot meet.
        key: Bytes,
        /// New value.
        value: Bytes,
    },
    /// Removes it, if it is there.
    Delete {
        /// Key.
        key: Bytes,
    },
}

/// A precondition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The row is not there.
    Absent {
        /// Key.
        key: Bytes,
    },
    /// The row is as it was when it had this version.
    Version {
        /// Key.
        key: Bytes,
        /// See [`Row::version`].
        version: u64,
    },
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOutcome {
    /// All writes are durable; the rows have this version.
    Done {
        /// See [`Row::version`].
        version: u64,
    },
    /// A precondition did not hold; nothing was written.
    Refused,
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Key.
    pub key: Bytes,
    /// Index, in the log of its group, of the entry that wrote it.
    pub version: u64,
    /// Value.
    pub value: Bytes,
}
