//! `[limits]`: bounds that hold for every protocol together.

use super::section::{Faults, section};
use super::values::ByteSize;

section! {
    /// Bounds that hold for every protocol.
    pub struct Limits ["limits"] {
        /// The largest message, payload and headers together, that any protocol may publish.
        pub max_message_bytes: ByteSize,
        /// Connections that are open at once, MQTT and Kafka together. Further ones are closed as soon as they are
        /// accepted.
        pub max_connections: u32,
        /// Bytes that one connection may have published and not yet had acknowledged. Above it, the connection's
        /// socket is not read until some are; nothing that was read is dropped.
        pub connection_inflight_bytes: ByteSize,
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_message_bytes: ByteSize::mib(8),
            max_connections: 100_000,
            connection_inflight_bytes: ByteSize::mib(16),
        }
    }
}

/// Bound: a stored batch's length is a signed 32-bit number, and a segment holds at most 1 GiB.
const MESSAGE_MAX: ByteSize = ByteSize::mib(256);
/// Bound: below this, ordinary control packets would not fit.
const MESSAGE_MIN: ByteSize = ByteSize::kib(1);

impl Limits {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(MESSAGE_MIN..=MESSAGE_MAX).contains(&self.max_message_bytes) {
            faults.add("limits", "max_message_bytes", format!("must be from {MESSAGE_MIN} to {MESSAGE_MAX}"));
        }
        if self.max_connections == 0 {
            faults.add("limits", "max_connections", "must be at least 1".to_owned());
        }
        let message = self.max_message_bytes;
        if self.connection_inflight_bytes < message {
            let rule = format!("must be at least limits.max_message_bytes ({message})");
            faults.add("limits", "connection_inflight_bytes", rule);
        }
    }
}
