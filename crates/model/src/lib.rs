//! The nouns that every crate shares: ids, names and their spellings, records and the stored record batch, offsets,
//! the `Resource` trait and error kinds.
//!
//! Floor 1: this crate imports nothing of ours and does no I/O. It knows no engine, no protocol front and no
//! cluster; it only says what bytes and numbers mean. Everything that decodes here takes hostile bytes: it
//! answers with a typed error, never panics, and never allocates from a length that it has not checked.

pub mod batch;
mod error;
mod ids;
mod limits;
mod names;
mod record;
mod resource;

pub use error::{Error, ErrorKind};
pub use ids::{
    EngineKind, GroupId, InvalidShardId, InvalidTenantId, NodeId, Offset, ShardId, TenantId, TopicId,
    TopicNumber,
};
pub use limits::{MAX_DECODED_BATCH_BYTES, MAX_MESSAGE_BYTES};
pub use names::{NAME_LEN_MAX, NameError, Subject, TopicName};
pub use record::{Header, Record, header_name};
pub use resource::{Resource, ResourceError};
