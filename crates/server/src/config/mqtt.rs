//! `[mqtt]`: the MQTT 3.1.1 and 5.0 front.

use super::section::{Faults, section};
use super::values::{Bind, ByteSize, TimeSpan, choice};

section! {
    /// MQTT 3.1.1 and 5.0.
    pub struct Mqtt ["mqtt"] {
        /// Where to listen. Port 0 takes a free one.
        pub bind: Bind,
        /// The largest packet that a client may send; told to MQTT 5.0 clients. Above `limits.max_message_bytes` by
        /// room for topic and properties.
        pub max_packet_bytes: ByteSize,
        /// The longest time for which a session outlives its connection. A client that asks for more is told.
        pub max_session_expiry: Option<TimeSpan>,
        /// Messages of QoS 1 and 2 that a client may have unacknowledged towards the broker; told to MQTT 5.0 clients.
        pub receive_maximum: u16,
        /// Messages of QoS 1 and 2 that the broker has unacknowledged towards a client, which may ask for fewer.
        pub max_inflight: u16,
        /// How long a new connection may take until its CONNECT packet is complete.
        pub connect_timeout: TimeSpan,
        /// The longest keep alive. A client that asks for more, or for none, is given this one; MQTT 3.1.1 clients,
        /// which cannot be told, keep their own.
        pub max_keep_alive: Option<TimeSpan>,
        /// How a shared subscription (`$share/name/filter`) chooses the member for a message.
        pub shared_strategy: SharedStrategy,
    }
}

choice! {
    /// How a shared subscription chooses the member for a message.
    pub enum SharedStrategy: "\"round_robin\", \"least_in_flight\", \"sticky\", \"hash_topic\", \"hash_publisher\" or \"local_first\"" {
        /// In turns, among those that have room.
        RoundRobin = "round_robin",
        /// Whoever has the fewest messages unacknowledged.
        LeastInFlight = "least_in_flight",
        /// One member gets everything until it leaves.
        Sticky = "sticky",
        /// One topic's messages go to one member.
        HashTopic = "hash_topic",
        /// One publisher's messages go to one member.
        HashPublisher = "hash_publisher",
        /// Members of the same node first, in turns.
        LocalFirst = "local_first",
    }
}

impl Default for Mqtt {
    fn default() -> Mqtt {
        Mqtt {
            bind: Bind::loopback(1883),
            max_packet_bytes: ByteSize::mib(9),
            max_session_expiry: None,
            receive_maximum: 1024,
            max_inflight: 1024,
            connect_timeout: TimeSpan::seconds(10),
            max_keep_alive: None,
            shared_strategy: SharedStrategy::RoundRobin,
        }
    }
}

/// Bound: a CONNECT packet with a will of ordinary size fits.
const PACKET_MIN: ByteSize = ByteSize::kib(1);
/// Spec: the remaining length has at most four bytes [MQTT 5.0, 1.5.5].
const PACKET_MAX: ByteSize = ByteSize::mib(256);
/// Spec: keep alive and session expiry are counted in seconds, keep alive in 16 bits [MQTT-3.1.2-21].
const KEEP_ALIVE: (TimeSpan, TimeSpan) = (TimeSpan::seconds(1), TimeSpan::seconds(65_535));

impl Mqtt {
    pub(crate) fn check(&self, faults: &mut Faults) {
        let mut fault = |key, rule| faults.add("mqtt", key, rule);
        if !(PACKET_MIN..=PACKET_MAX).contains(&self.max_packet_bytes) {
            fault("max_packet_bytes", format!("must be from {PACKET_MIN} to {PACKET_MAX}"));
        }
        for (key, value) in [("receive_maximum", self.receive_maximum), ("max_inflight", self.max_inflight)] {
            if value == 0 {
                fault(key, "must be at least 1".to_owned());
            }
        }
        let (least, most) = KEEP_ALIVE;
        if self.max_keep_alive.is_some_and(|span| span < least || span > most) {
            fault("max_keep_alive", format!("must be from {least} to {most}"));
        }
        if self.connect_timeout < TimeSpan::millis(1) {
            fault("connect_timeout", "must be at least 1ms".to_owned());
        }
    }
}
