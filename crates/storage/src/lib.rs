//! What is stored and how it is found again: the journal, the logs over it with their engines and index, and the
//! key/value rows of groups.
//!
//! The seams are [`Log`] and [`kv::Kv`]: their doc comments are specifications. This crate does not know what a record means
//! to a protocol, who replicates an entry, or what time it is.

mod budget;
mod database;
mod engine;
mod error;
mod index;
pub mod journal;
pub mod kv;
mod log;
mod producer;
mod retention;
mod source;
mod tail;
mod time;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use database::Database;
pub use engine::{LogStore, LogStoreConfig, Rebuild, StripeContents};
pub use error::LogError;
pub use log::{
    Append, BatchFlags, Change, CommittedBatch, DROPPED_ENTRIES, Description, Log, Offsets, Position, Reach,
    Scanned, Selection, StoredBatch, TimeHit, TimeQuery,
};
pub use retention::{Piece, Retention, trim_to};
pub use source::BatchSource;
pub use tail::{Watch, Watched};
