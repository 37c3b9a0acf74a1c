//! Bridge to the generated messages: everything that is not ApiVersions, Produce or Fetch.
//!
//! `kafka-wire` checks each length before it takes memory. Its errors end here and become ours.

use bytes::Bytes;
use kafka_wire_core::{ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError as GeneratedEncodeError};

use super::frame::Limits;
use super::output::Output;
use super::reader::{Fault, Malformed, STRING_LEN_MAX};
use super::writer::EncodeError;

/// Tagged fields of one structure that a peer may send and we do not know.
const UNKNOWN_TAGS_MAX: usize = 16;

/// Decodes one body. What follows it is ignored, as Apache Kafka does: librdkafka asks for all topics (Metadata 9 and
/// later) with three bytes too many.
pub(super) fn decode<M: kafka_wire::KafkaMessage>(
    body: Bytes,
    version: i16,
    limits: &Limits,
) -> Result<M, Malformed> {
    let mut bounds = DecodeLimits::default();
    bounds.max_frame_bytes = body.len();
    bounds.max_string_bytes = STRING_LEN_MAX;
    bounds.max_bytes_bytes = body.len();
    // Each element takes a byte or more, so that a larger count cannot be met.
    bounds.max_array_elements = limits.elements_max.min(body.len());
    bounds.max_tagged_fields = UNKNOWN_TAGS_MAX;
    bounds.max_tag_bytes = body.len();
    bounds.max_total_tag_bytes = body.len();
    let mut decoder = Decoder::new(body, bounds).map_err(malformed)?;
    M::decode(&mut decoder, ApiVersion::new(version)).map_err(malformed)
}

/// Appends one body. On an error the caller abandons the frame.
pub(super) fn encode<M: kafka_wire::KafkaMessage>(
    message: &M,
    version: i16,
    output: &mut Output,
) -> Result<(), EncodeError> {
    match message.encode_into(output.tail(), ApiVersion::new(version)) {
        Ok(_len) => Ok(()),
        Err(GeneratedEncodeError::FieldNotRepresentable { message, field, .. })
        | Err(GeneratedEncodeError::NullNotAllowed { message, field, .. }) => {
            Err(EncodeError::Unrepresentable { message, field, version })
        }
        Err(GeneratedEncodeError::LengthOverflow { .. } | GeneratedEncodeError::FrameTooLarge { .. }) => {
            Err(EncodeError::TooLong)
        }
        // What is left concerns tagged fields that somebody put into the message by hand.
        Err(_) => Err(EncodeError::Unrepresentable { message: M::NAME, field: "tagged fields", version }),
    }
}

fn malformed(error: DecodeError) -> Malformed {
    let (at, fault) = match error {
        DecodeError::UnexpectedEnd { offset, .. } | DecodeError::CountExceedsFrame { offset, .. } => {
            (offset, Fault::Truncated)
        }
        DecodeError::InvalidBoolean { offset, .. } => (offset, Fault::Boolean),
        DecodeError::NegativeLength { offset, .. } => (offset, Fault::NegativeLength),
        DecodeError::NullNotAllowed { offset, .. } => (offset, Fault::Null),
        DecodeError::LimitExceeded { offset, .. } | DecodeError::LengthOverflow { offset, .. } => {
            (offset, Fault::OverLimit)
        }
        DecodeError::InvalidUtf8 { offset, .. } => (offset, Fault::Utf8),
        DecodeError::MalformedVarint { offset } => (offset, Fault::Varint),
        DecodeError::TaggedFieldOrder { offset, .. } | DecodeError::TaggedFieldSize { offset, .. } => {
            (offset, Fault::Tags)
        }
        DecodeError::TrailingBytes { .. } => (0, Fault::Trailing),
        _ => (0, Fault::Refused),
    };
    Malformed { at, fault }
}
