//! `[limits]`: bounds that hold for every protocol together.

use super::memory::MemoryLimit;
use super::section::{Faults, section};
use super::values::{ByteSize, TimeSpan};

section! {
    /// Bounds that hold for every protocol.
    pub struct Limits ["limits"] {
        /// The largest message, payload and headers together, that any protocol may publish.
        pub max_message_bytes: ByteSize,
        /// Connections that are open at once, MQTT and Kafka together. MQTT clients above it hear so in answer to their
        /// CONNECT and are closed; others are closed at once.
        pub max_connections: u32,
        /// Memory that the process may use, as a size or as a share of what the machine or the control group has. From 90
        /// % of it on, new connections are refused; from 100 % on, publishers are slowed, too. It is not a hard
        /// limit: give the control group somewhat more.
        pub memory: MemoryLimit,
        /// How long one round of a core's work may take. From 90 % of it on, new connections are refused; from 100 % on,
        /// publishers are slowed, too.
        pub max_core_delay: Option<TimeSpan>,
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
            memory: MemoryLimit::Share(70),
            max_core_delay: Some(TimeSpan::seconds(2)),
            connection_inflight_bytes: ByteSize::mib(16),
        }
    }
}

/// Bound: a stored batch's length is a signed 32-bit number, and a segment holds at most 1 GiB.
const MESSAGE_MAX: ByteSize = ByteSize::mib(256);
/// Bound: below this, ordinary control packets would not fit.
const MESSAGE_MIN: ByteSize = ByteSize::kib(1);

/// Bound: an idle broker with its caches fits.
const MEMORY_MIN: ByteSize = ByteSize::mib(128);
/// Bound: what a busy core takes for a round in ordinary times.
const DELAY_MIN: TimeSpan = TimeSpan::millis(100);

impl Limits {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(MESSAGE_MIN..=MESSAGE_MAX).contains(&self.max_message_bytes) {
            faults.add("limits", "max_message_bytes", format!("must be from {MESSAGE_MIN} to {MESSAGE_MAX}"));
        }
        if self.max_connections == 0 {
            faults.add("limits", "max_connections", "must be at least 1".to_owned());
        }
        if self.memory.is_less_than(MEMORY_MIN) {
            faults.add("limits", "memory", format!("must be at least {MEMORY_MIN}, or from 1% to 100%"));
        }
        if self.max_core_delay.is_some_and(|span| span < DELAY_MIN) {
            faults.add("limits", "max_core_delay", format!("must be at least {DELAY_MIN}"));
        }
        let message = self.max_message_bytes;
        if self.connection_inflight_bytes < message {
            let rule = format!("must be at least limits.max_message_bytes ({message})");
            faults.add("limits", "connection_inflight_bytes", rule);
        }
    }
}
