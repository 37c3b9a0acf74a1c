//! The few kinds of failure that a front tells its clients apart.
//!
//! Each crate has typed errors of its own; at a seam they become an [`Error`], whose kind every front maps to its
//! protocol's code in one exhaustive table.

use std::fmt;

use crate::batch::BatchError;
use crate::names::NameError;

/// What a client can usefully know of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// What was asked for does not exist.
    NotFound,
    /// What should be created exists.
    AlreadyExists,
    /// The request makes no sense as it is; sending it again will not help.
    Invalid,
    /// More bytes than are allowed.
    TooLarge,
    /// Understood, but not offered here.
    Unsupported,
    /// Not allowed for this user.
    Denied,
    /// A quota is used up; later it may work.
    QuotaExceeded,
    /// Cannot be served now: no leader, starting, overloaded, shutting down. Nothing was done.
    Unavailable,
    /// The disk is full; nothing was written. Space may be freed.
    StorageFull,
    /// No answer in time: it may or may not have been done.
    Timeout,
    /// What was read before has changed meanwhile: read it again, then decide.
    Conflict,
    /// A newer owner (epoch, session, leader) has taken over from the caller.
    Fenced,
    /// A sequence number that leaves a gap, or is too old to be compared.
    OutOfOrder,
    /// Already done by an earlier try of the same request.
    Duplicate,
    /// An offset outside of what is stored.
    OffsetOutOfRange,
    /// Bytes that fail their checksum or their format.
    Corrupt,
    /// Our own fault; the log says more.
    Internal,
}

impl ErrorKind {
    /// Whether the very same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        match self {
            ErrorKind::QuotaExceeded
            | ErrorKind::Unavailable
            | ErrorKind::StorageFull
            | ErrorKind::Timeout => true,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Invalid
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::Denied
            | ErrorKind::Conflict
            | ErrorKind::Fenced
            | ErrorKind::OutOfOrder
            | ErrorKind::Duplicate
            | ErrorKind::OffsetOutOfRange
            | ErrorKind::Corrupt
            | ErrorKind::Internal => false,
        }
    }

    /// The kind in words, for logs, metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not found",
            ErrorKind::AlreadyExists => "already exists",
            ErrorKind::Invalid => "invalid",
            ErrorKind::TooLarge => "too large",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Denied => "denied",
            ErrorKind::QuotaExceeded => "quota exceeded",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::StorageFull => "storage full",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Fenced => "fenced",
            ErrorKind::OutOfOrder => "out of order",
            ErrorKind::Duplicate => "duplicate",
            ErrorKind::OffsetOutOfRange => "offset out of range",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure as it crosses a seam: what kind it is, what was being done, and why.
///
/// Whoever handles it logs it once; whoever passes it on is silent.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {kind}")]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `operation` (a static, lower-case phrase such as `append to shard`) with nothing below it.
    pub fn new(kind: ErrorKind, operation: &'static str) -> Error {
        Error { kind, operation, source: None }
    }

    /// The same, because of a typed error of a lower part.
    pub fn with_source(
        kind: ErrorKind,
        operation: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error { kind, operation, source: Some(Box::new(source)) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl BatchError {
    /// The kind that a front without codes of its own for batches maps.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            BatchError::Truncated { .. }
            | BatchError::Length(_)
            | BatchError::Checksum { .. }
            | BatchError::Decompress(_) => ErrorKind::Corrupt,
            BatchError::Magic(_) | BatchError::UnknownCodec(_) => ErrorKind::Unsupported,
            BatchError::Surplus(_)
            | BatchError::RecordCount(_)
            | BatchError::OffsetDelta { .. }
            | BatchError::BaseOffset(_)
            | BatchError::Control
            | BatchError::AppendTime
            | BatchError::Sequence { .. }
            | BatchError::Record { .. }
            | BatchError::TrailingBytes(_) => ErrorKind::Invalid,
            BatchError::TooLarge { .. } => ErrorKind::TooLarge,
        }
    }
}

impl From<BatchError> for Error {
    fn from(error: BatchError) -> Error {
        Error::with_source(error.kind(), "read record batch", error)
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Error {
        Error::with_source(ErrorKind::Invalid, "read name", error)
    }
}
