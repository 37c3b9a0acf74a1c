//! The error of log readers and writers: few kinds, each says what the caller can do.

use model::Offset;

/// Why a log call failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is not readable: the reader starts again within the range.
    #[error("offset out of range: readable from {start:?} to {end:?}")]
    OutOfRange {
        /// First readable offset.
        start: Offset,
        /// Offset after the last readable record.
        end: Offset,
    },
    /// The shard was dropped: the reader gives up.
    #[error("the shard was dropped")]
    Dropped,
    /// Stored bytes do not check out: the records cannot be served by this node.
    #[error("stored bytes of {what} are damaged")]
    Damaged {
        /// What was being read.
        what: &'static str,
    },
    /// The disk or the store below failed. After an error of a writing call the group stops on this node.
    #[error("{operation} failed")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LogError {
    /// An I/O failure of the named operation.
    pub fn io(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> LogError {
        LogError::Io { operation, source: source.into() }
    }
}
