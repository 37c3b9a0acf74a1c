//! Replicated rows: small state that a front or a room of the broker keeps in a group's key/value store.

use bytes::Bytes;
use model::{GroupId, ShardId};

pub use storage::Row;

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
    /// The row is there with exactly this value.
    Equals {
        /// Key.
        key: Bytes,
        /// Expected value.
        value: Bytes,
    },
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOutcome {
    /// All writes are durable.
    Done,
    /// A precondition did not hold; nothing was written.
    Refused,
}
