//! `Kv`: the ordered key/value state of one group, changed only by committed entries. What the keys mean is the
//! caller's; which group it is and how entries are committed is not known here.

mod checkpoint;
mod command;
mod double;
mod keys;
mod rocksdb;

pub use command::{Command, CommandError, CommandResult, Expect, KvTurn, Operation, Versioned, decode_value};
pub use double::MapKv;
pub use rocksdb::RocksKv;

pub(crate) use keys::after_prefix;

use std::io::{Read, Write};

use bytes::Bytes;

/// The key/value rows of one Raft group on this node, in byte order of their keys.
///
/// # Durability
///
/// The store has no log of its own: [`apply`](Kv::apply) returns before anything is durable. The rows and the applied index always
/// belong together: after a crash the store is exactly as it was after *some* `apply`, at or after the last
/// [`flush`](Kv::flush), and [`applied`](Kv::applied) names it. The caller replays its entries from there on.
///
/// ```text
///   entries   1 2 3 4 5 6 7 8 9
///   flush         ▲               returned 3: entries up to 3 may be purged from the journal
///   crash             ▲           6 to 9 are lost, or fewer; never an earlier one without all later ones
///   reopen            applied() = 5, replay from 6
/// ```
///
/// # Who calls
///
/// One writer (the group's apply, in log-index order), any number of readers on threads that may block. A reader sees a whole
/// `apply` or nothing of it within one call.
///
/// # Errors
///
/// An error of a writing call is final for the group on this node: the caller stops applying.
pub trait Kv: Send + Sync {
    /// Applies all writes in order, or none, and makes `applied` the applied index. An index at or below
    /// [`applied`](Kv::applied) changes nothing (replay). `writes` may be empty.
    fn apply(&self, writes: &[KvWrite], applied: u64) -> Result<(), KvError>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// The same without waiting for a disk; `None` if the value, or that there is none, is not known in memory.
    fn get_at_once(&self, key: &[u8]) -> Option<Result<Option<Bytes>, KvError>>;

    /// Rows whose key begins with `prefix` and is at or after `from` (empty: from the first), in key order, at most `limit`.
    /// To go on, pass the last key with a zero byte appended.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, KvError>;

    /// The same without waiting for a disk; `None` if some of the rows are not in memory.
    fn scan_at_once(&self, prefix: &[u8], from: &[u8], limit: usize) -> Option<Result<Vec<Row>, KvError>>;

    /// The last log index that is applied; 0 before the first.
    fn applied(&self) -> u64;

    /// Makes everything applied so far durable and returns the applied index that survives a crash from now on.
    fn flush(&self) -> Result<u64, KvError>;

    /// Writes all rows and the applied index, as of one moment, in the checkpoint format (`kv::checkpoint`), and returns that
    /// index.
    fn export(&self, sink: &mut dyn Write) -> Result<u64, KvError>;

    /// Replaces all rows by a checkpoint's and returns its applied index. Until it returns `Ok` the store counts as empty with
    /// applied index 0, also after a crash; damaged input is refused and leaves it so.
    fn import(&self, source: &mut dyn Read) -> Result<u64, KvError>;
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// One change of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvWrite {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes every key at or after `from` and before `to`.
    DeleteRange {
        /// First key removed.
        from: Bytes,
        /// First key kept.
        to: Bytes,
    },
}

/// Why a call of a [`Kv`] failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Stored bytes or a checkpoint do not check out.
    #[error("stored bytes of {what} are damaged")]
    Damaged {
        /// What was being read.
        what: &'static str,
    },
    /// The disk or the store below failed.
    #[error("{operation} failed")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl KvError {
    /// An I/O failure of the named operation.
    pub fn io(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> KvError {
        KvError::Io { operation, source: source.into() }
    }
}

#[cfg(test)]
mod tests;
