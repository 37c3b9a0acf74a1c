//! Errors as Kafka tells them: one table from each of our kinds to an error code.

use model::batch::BatchError;
use model::{Error, ErrorKind};
use wire::kafka::ErrorCode;

/// Why something is refused: what a client acts on, and a sentence for whoever reads its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        if error.kind() == ErrorKind::Internal {
            tracing::error!(err = %error, cause = ?std::error::Error::source(error), "a request failed");
        }
        Self::new(code_of(error.kind()), error.to_string())
    }
}

impl From<&BatchError> for Refusal {
    fn from(error: &BatchError) -> Self {
        Self::new(code_of_batch(error), error.to_string())
    }
}

/// The code for a failure that concerns topics and partitions.
pub(crate) const fn code_of(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::NotFound => ErrorCode::UnknownTopicOrPartition,
        ErrorKind::AlreadyExists => ErrorCode::TopicAlreadyExists,
        ErrorKind::Invalid => ErrorCode::InvalidRequest,
        ErrorKind::TooLarge => ErrorCode::MessageTooLarge,
        ErrorKind::Unsupported => ErrorCode::UnsupportedVersion,
        ErrorKind::Denied => ErrorCode::TopicAuthorizationFailed,
        ErrorKind::QuotaExceeded => ErrorCode::ThrottlingQuotaExceeded,
        // Nothing was done: clients look at the metadata again and send once more.
        ErrorKind::Unavailable => ErrorCode::NotLeaderOrFollower,
        ErrorKind::StorageFull => ErrorCode::KafkaStorageError,
        ErrorKind::Timeout => ErrorCode::RequestTimedOut,
        ErrorKind::Conflict => ErrorCode::ConcurrentTransactions,
        ErrorKind::Fenced => ErrorCode::InvalidProducerEpoch,
        ErrorKind::OutOfOrder => ErrorCode::OutOfOrderSequenceNumber,
        ErrorKind::Duplicate => ErrorCode::DuplicateSequenceNumber,
        ErrorKind::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        ErrorKind::Corrupt => ErrorCode::CorruptMessage,
        ErrorKind::Internal => ErrorCode::UnknownServerError,
    }
}

/// The code for a failure that concerns a group: clients ask for the coordinator again, not for metadata.
pub(crate) fn coordinator_code(error: &Error) -> ErrorCode {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::StorageFull | ErrorKind::Timeout | ErrorKind::Conflict => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorKind::Denied => ErrorCode::GroupAuthorizationFailed,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Invalid
        | ErrorKind::TooLarge
        | ErrorKind::Unsupported
        | ErrorKind::QuotaExceeded
        | ErrorKind::Fenced
        | ErrorKind::OutOfOrder
        | ErrorKind::Duplicate
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::Corrupt
        | ErrorKind::Internal => {
            tracing::error!(err = %error, "a group's rows cannot be used");
            ErrorCode::UnknownServerError
        }
    }
}

/// The code for a batch that a producer got wrong. Spec: P27 to P32.
pub(crate) const fn code_of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Truncated { .. }
        | BatchError::Length(_)
        | BatchError::Checksum { .. }
        | BatchError::Decompress(_) => ErrorCode::CorruptMessage,
        BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::UnknownCodec(_) => ErrorCode::UnsupportedCompressionType,
        BatchError::Surplus(_)
        | BatchError::RecordCount(_)
        | BatchError::OffsetDelta { .. }
        | BatchError::BaseOffset(_)
        | BatchError::Control
        | BatchError::Sequence { .. }
        | BatchError::Record { .. }
        | BatchError::TrailingBytes(_) => ErrorCode::InvalidRecord,
        BatchError::AppendTime => ErrorCode::InvalidTimestamp,
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that sends the very same request again must be told so by the code, and only then.
    #[test]
    fn what_may_be_retried_is_told_as_retriable() {
        for kind in
            [ErrorKind::Unavailable, ErrorKind::StorageFull, ErrorKind::Timeout, ErrorKind::QuotaExceeded]
        {
            assert!(kind.is_retryable() && code_of(kind).is_retriable(), "{kind}");
        }
        for kind in [ErrorKind::Invalid, ErrorKind::TooLarge, ErrorKind::OutOfOrder, ErrorKind::Fenced] {
            assert!(!kind.is_retryable() && !code_of(kind).is_retriable(), "{kind}");
        }
    }

    #[test]
    fn a_damaged_batch_and_a_senseless_one_are_told_apart() {
        assert_eq!(
            code_of_batch(&BatchError::Checksum { stored: 1, computed: 2 }),
            ErrorCode::CorruptMessage
        );
        assert_eq!(code_of_batch(&BatchError::RecordCount(0)), ErrorCode::InvalidRecord);
        assert_eq!(code_of_batch(&BatchError::Magic(1)), ErrorCode::UnsupportedForMessageFormat);
    }
}
