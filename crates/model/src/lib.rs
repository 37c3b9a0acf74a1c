//! The nouns that every crate shares: ids, names and their spellings, records and the stored record batch, offsets,
//! the `Resource` trait and error kinds.
//!
//! Floor 1: this crate imports nothing of ours and does no I/O. It knows no engine, no protocol front and no
//! cluster; it only says what bytes and numbers mean. Everything that decodes here takes hostile bytes: it
//! answers with a typed error, never panics, and never allocates from a length that it has not checked.

pub mod batch;
mod ids;
mod record;

pub use ids::{
    EngineKind, GroupId, InvalidShardId, InvalidTenantId, NodeId, Offset, ShardId, TenantId, TopicId,
    TopicNumber,
};
pub use record::{Header, Record, header_name};
