//! What the broker's failures are to an MQTT client: one exhaustive table for each packet that can tell one.

use model::ErrorKind;
use wire::mqtt::ReasonCode;

/// In a PUBACK or PUBREC. The client does not send the message again.
pub(crate) fn publish_reason(kind: ErrorKind) -> ReasonCode {
    match kind {
        ErrorKind::Invalid => ReasonCode::TopicNameInvalid,
        ErrorKind::Denied => ReasonCode::NotAuthorized,
        ErrorKind::TooLarge | ErrorKind::QuotaExceeded | ErrorKind::StorageFull => ReasonCode::QuotaExceeded,
        ErrorKind::Unsupported => ReasonCode::ImplementationSpecificError,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::OutOfOrder
        | ErrorKind::Duplicate
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::Corrupt
        | ErrorKind::Internal => ReasonCode::UnspecifiedError,
    }
}

/// In a CONNACK: the session could not be had.
pub(crate) fn connect_reason(kind: ErrorKind) -> ReasonCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::TooLarge => ReasonCode::ClientIdentifierNotValid,
        ErrorKind::Denied => ReasonCode::NotAuthorized,
        ErrorKind::QuotaExceeded => ReasonCode::QuotaExceeded,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::StorageFull => ReasonCode::ServerUnavailable,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Unsupported
        | ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::OutOfOrder
        | ErrorKind::Duplicate
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::Corrupt
        | ErrorKind::Internal => ReasonCode::UnspecifiedError,
    }
}

/// In a SUBACK, for one filter.
pub(crate) fn subscribe_reason(kind: ErrorKind) -> ReasonCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::TooLarge => ReasonCode::TopicFilterInvalid,
        ErrorKind::Denied => ReasonCode::NotAuthorized,
        ErrorKind::QuotaExceeded => ReasonCode::QuotaExceeded,
        ErrorKind::Unsupported => ReasonCode::ImplementationSpecificError,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Unavailable
        | ErrorKind::StorageFull
        | ErrorKind::Timeout
        | ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::OutOfOrder
        | ErrorKind::Duplicate
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::Corrupt
        | ErrorKind::Internal => ReasonCode::UnspecifiedError,
    }
}

/// In a DISCONNECT: the session can no longer be stored.
pub(crate) fn disconnect_reason(kind: ErrorKind) -> ReasonCode {
    match kind {
        ErrorKind::QuotaExceeded | ErrorKind::StorageFull | ErrorKind::TooLarge => ReasonCode::QuotaExceeded,
        ErrorKind::Denied => ReasonCode::NotAuthorized,
        ErrorKind::Fenced => ReasonCode::SessionTakenOver,
        ErrorKind::Unavailable | ErrorKind::Timeout => ReasonCode::ServerBusy,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::Conflict
        | ErrorKind::OutOfOrder
        | ErrorKind::Duplicate
        | ErrorKind::OffsetOutOfRange
        | ErrorKind::Corrupt
        | ErrorKind::Internal => ReasonCode::UnspecifiedError,
    }
}
