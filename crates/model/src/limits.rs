//! Bounds that hold for all protocols and every node.

/// The default of `max_message_bytes`: the largest record that any view accepts, 8 MiB. A record is never split.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// The most that one stored batch may open into, 64 MiB: eight times the default of the largest record, because a
/// producer's limit counts compressed bytes. A batch beyond it is readable by Kafka clients only.
pub const MAX_DECODED_BATCH_BYTES: usize = 64 << 20;
