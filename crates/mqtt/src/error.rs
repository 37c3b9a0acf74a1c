//! What the broker's failures are to an MQTT client: one exhaustive table for each packet that can tell one.

use model::ErrorKind;
use wire::mqtt::{PropertiesBuf, Property, ReasonCode};

/// A Reason String as the only property, for whoever reads the client's log. The encoder leaves it out where the client does
/// not want it or cannot take it [MQTT-3.1.2-29, 3.2.2-19].
pub(crate) fn reason_string(why: &str) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    // All that we say is far shorter than a property may be.
    let _ = properties.push(Property::ReasonString(why));
    properties
}

/// The Reason String of a packet with several codes: that of the first refusal, nothing if there is none.
pub(crate) fn reason_of_refusal(codes: &[ReasonCode]) -> PropertiesBuf {
    match codes.iter().find(|code| code.is_failure()) {
        Some(code) => reason_string(code.meaning()),
        None => PropertiesBuf::new(),
    }
}

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
        ErrorKind::Invalid => ReasonCode::ClientIdentifierNotValid,
        ErrorKind::Denied => ReasonCode::NotAuthorized,
        ErrorKind::TooLarge | ErrorKind::QuotaExceeded => ReasonCode::QuotaExceeded,
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
