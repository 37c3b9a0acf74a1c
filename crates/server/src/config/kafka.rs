//! `[kafka]`: the Kafka front.

use super::section::{Faults, section};
use super::values::{Bind, ByteSize, Host, TimeSpan};

section! {
    /// The Kafka protocol.
    pub struct Kafka ["kafka"] {
        /// Where to listen. Port 0 takes a free one.
        pub bind: Bind,
        /// The address that clients are told to connect to. `"auto"` tells each client the address that it reached,
        /// which is right unless something between translates addresses.
        pub advertised: Option<Host>,
        /// Whether a topic is created when a client that permits it asks for its metadata or produces to it.
        pub auto_create: bool,
        /// The largest Produce request, which carries records. Any other request may have 2 MiB.
        pub max_request_bytes: ByteSize,
        /// How long a consumer group that was empty waits for further members before its first assignment.
        pub initial_rebalance_delay: TimeSpan,
        /// The shortest session timeout that a group member may ask for.
        pub min_session_timeout: TimeSpan,
        /// The longest session timeout that a group member may ask for.
        pub max_session_timeout: TimeSpan,
    }
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            bind: Bind::loopback(9092),
            advertised: None,
            auto_create: true,
            max_request_bytes: ByteSize::mib(100),
            initial_rebalance_delay: TimeSpan::millis(50),
            min_session_timeout: TimeSpan::seconds(6),
            max_session_timeout: TimeSpan::seconds(30 * 60),
        }
    }
}

/// Bound: ordinary requests fit; a length is a signed 32-bit number.
const REQUEST: (ByteSize, ByteSize) = (ByteSize::kib(64), ByteSize::mib(1024));
/// Bound: clients give up on a join much later than this.
const REBALANCE_DELAY_MAX: TimeSpan = TimeSpan::seconds(60);

impl Kafka {
    pub(crate) fn check(&self, faults: &mut Faults) {
        let mut fault = |key, rule| faults.add("kafka", key, rule);
        let (least, most) = REQUEST;
        if self.max_request_bytes < least || self.max_request_bytes > most {
            fault("max_request_bytes", format!("must be from {least} to {most}"));
        }
        if self.initial_rebalance_delay > REBALANCE_DELAY_MAX {
            fault("initial_rebalance_delay", format!("must be at most {REBALANCE_DELAY_MAX}"));
        }
        let (min, max) = (self.min_session_timeout, self.max_session_timeout);
        if min < TimeSpan::millis(1) {
            fault("min_session_timeout", "must be at least 1ms".to_owned());
        }
        if max < min {
            fault("max_session_timeout", format!("must be at least kafka.min_session_timeout ({min})"));
        }
    }
}
