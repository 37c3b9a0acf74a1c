//! `[limits]`: bounds that hold for every protocol together.

use super::section::{Faults, section};
use super::values::ByteSize;

section! {
    /// Bounds that hold for all protocols together. At a bound the broker stops reading the socket that causes it;
    /// nothing that was accepted is dropped.
    pub struct Limits ["limits"] {
        /// The largest message, payload and headers together, that any protocol may publish.
        pub max_message_bytes: ByteSize,
        /// Connections that are open at once. Further ones are closed at once.
        pub max_connections: u32,
        /// Bytes that one connection may have published and not yet had acknowledged.
        pub connection_inflight_bytes: ByteSize,
        /// Bytes that may wait for one connection to take them. Beyond it, the connection's subscriptions go on later
        /// from the log; what is delivered at most once is skipped.
        pub connection_output_bytes: ByteSize,
        /// Bytes that may wait for one Raft group to take them.
        pub group_queue_bytes: ByteSize,
        /// Bytes that all connections of this node together may have published and not yet had acknowledged.
        pub node_inflight_bytes: ByteSize,
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_message_bytes: ByteSize::mib(8),
            max_connections: 100_000,
            connection_inflight_bytes: ByteSize::mib(16),
            connection_output_bytes: ByteSize::mib(1),
            group_queue_bytes: ByteSize::mib(64),
            node_inflight_bytes: ByteSize::mib(512),
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
        if self.connection_output_bytes < MESSAGE_MIN {
            faults.add("limits", "connection_output_bytes", format!("must be at least {MESSAGE_MIN}"));
        }
        let growing = [
            ("max_message_bytes", self.max_message_bytes),
            ("connection_inflight_bytes", self.connection_inflight_bytes),
            ("node_inflight_bytes", self.node_inflight_bytes),
        ];
        for pair in growing.windows(2) {
            at_least("limits", pair[1], pair[0], faults);
        }
        at_least("limits", ("group_queue_bytes", self.group_queue_bytes), growing[0], faults);
    }
}

/// Says so when the first setting is smaller than the second.
fn at_least(
    section: &'static str,
    (key, value): (&'static str, ByteSize),
    (floor_key, floor): (&'static str, ByteSize),
    faults: &mut Faults,
) {
    if value < floor {
        faults.add(section, key, format!("must be at least {section}.{floor_key} ({floor})"));
    }
}
