//! `MetaStore`: the seam between whoever keeps small cluster-wide state and whoever replicates it. The doc
//! comment of the trait is the specification that every implementation is tested against (`conformance`).

use std::pin::Pin;

use bytes::Bytes;
use model::{Resource, ResourceError};

use crate::error::{MetaError, WatchError};
use crate::watch::MetaWatch;

/// Bound: bytes of a key.
pub const KEY_LEN_MAX: usize = 1024;
/// Bound: bytes of a value.
pub const VALUE_LEN_MAX: usize = 1 << 20;
/// Bound: keys and values of the whole store, which every node holds in memory.
pub const STORE_BYTES_MAX: usize = 256 << 20;
/// Bound: checks and operations of one transaction.
pub(crate) const STEPS_MAX: usize = 1024;
/// Bound: keys and values of one transaction.
pub(crate) const TRANSACTION_BYTES_MAX: usize = 4 << 20;

/// What the calls of a [`MetaStore`] return: boxed, so that a store can be held as `Arc<dyn MetaStore>`.
pub type MetaFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, MetaError>> + Send + 'a>>;

/// A replicated, versioned, watchable map from path-like keys to small opaque values.
///
/// # Revisions and versions
///
/// The store has one *revision*, a number that grows by exactly one with each transaction that changes
/// something; 0 is the empty store. The *version* of a key is the revision of the transaction that last put
/// it. So versions of one key only grow, also over a deletion and re-creation, and two keys with the same
/// version were put together.
///
/// ```text
///   revision   1          2              3          4
///              put a, b   put a          delete b   put b
///   versions   a1 b1      a2 b1          a2         a2 b4
/// ```
///
/// # Linearizability
///
/// Transactions take effect one after the other, each at one moment between call and answer; the answer comes
/// when the change is durable, committed and visible. [`get`](MetaStore::get) and [`list`](MetaStore::list)
/// see everything that was answered before they were called, and are served by the leader: elsewhere they
/// answer [`MetaError::NotLeader`]. A [`watch`](MetaStore::watch) may lag, and is what caches are fed from.
///
/// # Errors
///
/// [`MetaError`] says whether a transaction happened: only after [`MetaError::Unknown`] and
/// [`MetaError::Stopped`] it may have. Repeating a transaction with an expected version is safe: if it did
/// happen the first time, the second is a conflict.
pub trait MetaStore: Send + Sync {
    /// The value and version of a key, if it is there.
    fn get<'a>(&'a self, key: &'a str) -> MetaFuture<'a, Option<Versioned>>;

    /// Entries whose key begins with `prefix` and comes after `after` (empty: from the first), in byte order
    /// of the keys, at most `limit` (at least one if there is one).
    ///
    /// A page is of one moment, [`Page::revision`]; the next page is of a later one. To fill a cache: list to
    /// the end, then watch from the revision of the **first** page. What changed between the pages comes
    /// again through the watch; versions tell what is newer.
    fn list<'a>(&'a self, prefix: &'a str, after: &'a str, limit: usize) -> MetaFuture<'a, Page>;

    /// All checks hold and all operations are done, or nothing is. Answers the revision after it.
    ///
    /// Checks look at the state before the transaction. A transaction that changes nothing (it has no
    /// operations, or only deletes what is not there) makes no revision.
    ///
    /// Errors: [`MetaError::Conflict`] names the first check that does not hold; [`MetaError::Invalid`] if it
    /// breaks a bound (1,024 checks and operations, 4 MiB, the lengths above) or names a key in two
    /// operations; [`MetaError::Full`].
    fn transact(&self, transaction: Transaction) -> MetaFuture<'_, u64>;

    /// All changes after revision `after` to keys that begin with `prefix`, from now on for as long as the
    /// watch is polled.
    ///
    /// * Order: by revision. The changes of one transaction come together, never in part.
    /// * Complete: no change is left out. A watch that falls behind the history that is kept (at least the
    ///   last 1,000 changes, if they are small) ends with [`WatchError::Compacted`]: list again, and watch
    ///   from there.
    /// * Resume: each answer names its revision. A watch from that revision goes on exactly behind it, also
    ///   on another node and after a restart; whoever remembers a revision only now and then sees the changes
    ///   since again (at least once).
    ///
    /// Errors: [`WatchError::Compacted`] if `after` is older than the history, [`WatchError::Ahead`] if the
    /// store has not got there.
    fn watch(&self, prefix: &str, after: u64) -> Result<MetaWatch, WatchError>;
}

/// A value and the revision that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The revision of the transaction that put it.
    pub version: u64,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value and version.
    pub at: Versioned,
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, by key.
    pub entries: Vec<Entry>,
    /// The revision that they are of.
    pub revision: u64,
    /// Whether there are entries behind the last one: the next page comes after its key.
    pub more: bool,
}

/// What a key must be for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It is there with this version.
    Version(u64),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The key.
    pub key: String,
    /// What it must be.
    pub expect: Expect,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key, new or not.
    Put {
        /// The key; not empty.
        key: String,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: String,
    },
}

/// Checks and operations that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What is then done.
    pub operations: Vec<Operation>,
}

/// What one transaction changed among the watched keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The revision that it made: where to resume behind it.
    pub revision: u64,
    /// What changed, in the order of the operations; at least one.
    pub changes: Vec<Change>,
}

/// A key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value from that revision on, `None` if it was removed.
    pub value: Option<Bytes>,
}

impl Transaction {
    /// One that checks and changes nothing yet.
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// Adds a check.
    #[must_use]
    pub fn check(mut self, key: impl Into<String>, expect: Expect) -> Transaction {
        self.checks.push(Check { key: key.into(), expect });
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Transaction {
        self.operations.push(Operation::Put { key: key.into(), value: value.into() });
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// Adds a put of a resource, after validating it.
    ///
    /// Errors: [`MetaError::Resource`] if it breaks its own rules.
    pub fn put_resource<R: Resource>(self, resource: &R) -> Result<Transaction, MetaError> {
        resource.validate().map_err(MetaError::Resource)?;
        Ok(self.put(resource.path(), resource.encode()))
    }
}

impl Change {
    /// What a resource of this kind has become, and its key within its kind. `None` if the key is of another kind.
    pub fn of<R: Resource>(&self) -> Option<(&str, Result<Option<R>, ResourceError>)> {
        let key = self.key.strip_prefix(R::KIND)?.strip_prefix('/')?;
        Some((key, self.value.as_ref().map(|value| R::decode(value)).transpose()))
    }
}

impl Operation {
    /// The key that it changes.
    pub fn key(&self) -> &str {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}
