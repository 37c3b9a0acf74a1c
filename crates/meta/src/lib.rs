//! The Meta Service: a replicated, versioned, watchable store of small cluster-wide resources, on Raft group
//! 0.
//!
//! [`MetaStore`] is the seam and its doc comment the specification; [`ReplicatedMeta`] is the implementation
//! over consensus; [`Resources`] reads and writes the typed resources of other crates, and a [`Follower`] feeds whoever keeps
//! them in memory.
//!
//! Invariant: this crate knows no kind of resource. It does not know how entries are replicated, nor how rows
//! are stored.

mod command;
mod error;
mod follow;
mod machine;
mod replicated;
mod resources;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod watch;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
mod memory;

pub use error::{MetaError, WatchError};
pub use follow::{Follower, News};
#[cfg(any(test, feature = "conformance"))]
pub use memory::MemoryMeta;
pub use replicated::{MetaOpenError, ReplicatedMeta};
pub use resources::{Known, KnownPage, Resources};
pub use store::{
    Change, Changes, Check, Entry, Expect, KEY_LEN_MAX, MetaFuture, MetaStore, Operation, Page,
    STORE_BYTES_MAX, Transaction, VALUE_LEN_MAX, Versioned,
};
pub use watch::MetaWatch;
