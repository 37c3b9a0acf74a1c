//! What the front of one core counts. One thread writes, whoever wants to know reads.

use std::sync::atomic::{AtomicU64, Ordering};

use broker::Sample;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Invariant: only the core that owns the front calls this, so that no locked instruction is needed.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A packet by its type. The number is the standard's (section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketType {
    Connack = 2,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Suback = 9,
    Unsuback = 11,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Packet types by their number, as metrics name them.
pub(crate) const PACKETS: [&str; 16] = [
    "reserved",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];
const PUBLISH: usize = 3;

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    Client,
    Broker,
    Network,
}

impl EndedBy {
    const COUNT: usize = 3;
    const NAMES: [&str; Self::COUNT] = ["client", "broker", "network"];

    /// As metrics and histories name it.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Why a message, or a part of one, was not sent to a subscriber or not taken from a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// QoS 0, and the connection is slower than its subscriptions.
    Slow,
    /// Larger than the client's Maximum Packet Size, or than MQTT can say.
    TooLarge,
    /// Its expiry has passed.
    Expired,
    /// A header that MQTT cannot show was left out.
    Header,
    /// A QoS 0 publication that the broker did not take.
    Refused,
    /// The client may not publish or not receive it.
    Denied,
}

impl DropReason {
    pub(crate) const COUNT: usize = 6;
    pub(crate) const NAMES: [&str; Self::COUNT] =
        ["slow", "too_large", "expired", "header", "refused", "denied"];
}

/// Declares the counters of a front, and the same as plain numbers.
macro_rules! counters {
    ($($name:ident $([$count:expr])?),* $(,)?) => {
        /// Counters of one core's front. Sum the samples of all cores.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(pub(crate) $name: counters!(@ Counter $(, $count)?),)*
        }

        /// What several fronts counted together.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub(crate) struct Totals {
            $(pub(crate) $name: counters!(@ u64 $(, $count)?),)*
        }

        impl Metrics {
            pub(crate) fn add_to(&self, totals: &mut Totals) {
                $(counters!(+ totals.$name, self.$name $(, $count)?);)*
            }
        }
    };
    (@ $kind:ty) => { $kind };
    (@ $kind:ty, $count:expr) => { [$kind; $count] };
    (+ $total:expr, $counter:expr) => { $total += $counter.get() };
    (+ $total:expr, $counter:expr, $count:expr) => {
        for (total, counter) in $total.iter_mut().zip(&$counter) {
            *total += counter.get();
        }
    };
}

counters! {
    connections,
    subscriptions,
    connects_accepted,
    connects_refused,
    disconnects[EndedBy::COUNT],
    bytes_in,
    bytes_out,
    packets_in[16],
    // All but PUBLISH.
    packets_out[16],
    publishes_in[3],
    publishes_out[3],
    publish_bytes_in,
    publish_bytes_out,
    pauses,
    dropped[DropReason::COUNT],
}

impl Metrics {
    pub(crate) fn drop_one(&self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    pub(crate) fn drop_many(&self, reason: DropReason, count: u64) {
        self.dropped[reason as usize].add(count);
    }

    /// A packet of so many bytes was taken.
    #[inline]
    pub(crate) fn note_received(&self, bytes: &[u8], len: usize, is_publish: bool) {
        if let Some(first) = bytes.first() {
            self.packets_in[usize::from(first >> 4)].add(1);
        }
        if is_publish {
            self.publish_bytes_in.add(len as u64);
        }
    }

    /// A packet other than PUBLISH was sent.
    pub(crate) fn note_sent(&self, packet: PacketType) {
        self.packets_out[packet as usize].add(1);
    }

    /// The values as they are now.
    pub fn samples(&self) -> Vec<Sample> {
        let mut totals = Totals::default();
        self.add_to(&mut totals);
        totals.samples()
    }
}

impl Totals {
    /// Messages that came by PUBLISH.
    pub(crate) fn published_in(&self) -> u64 {
        self.publishes_in.iter().sum()
    }

    /// Messages that went by PUBLISH.
    pub(crate) fn published_out(&self) -> u64 {
        self.publishes_out.iter().sum()
    }

    /// Messages that were not passed on; a header that was left out is none.
    pub(crate) fn messages_dropped(&self) -> u64 {
        self.dropped.iter().sum::<u64>() - self.dropped[DropReason::Header as usize]
    }

    /// Packets sent, by type.
    pub(crate) fn sent(&self) -> [u64; 16] {
        let mut sent = self.packets_out;
        sent[PUBLISH] = self.published_out();
        sent
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        const QOS: [&str; 3] = ["0", "1", "2"];
        let mut samples = Vec::new();
        let mut put = |name, help, is_counter, label, value| {
            samples.push(Sample { name, help, is_counter, label, value });
        };
        let none = ("", "");
        put("mqtt_connections", "Clients that are connected.", false, none, self.connections);
        let help = "Subscriptions of clients that are connected.";
        put("mqtt_subscriptions", help, false, none, self.subscriptions);
        for (result, value) in [("accepted", self.connects_accepted), ("refused", self.connects_refused)] {
            let help = "CONNECT packets that were answered.";
            put("mqtt_connects_total", help, true, ("result", result), value);
        }
        for (by, value) in EndedBy::NAMES.into_iter().zip(self.disconnects) {
            put(
                "mqtt_disconnects_total",
                "Connections that ended, by who ended them.",
                true,
                ("by", by),
                value,
            );
        }
        put("mqtt_received_bytes_total", "Bytes of packets from clients.", true, none, self.bytes_in);
        put("mqtt_sent_bytes_total", "Bytes of packets for clients.", true, none, self.bytes_out);
        let named = |values: [u64; 16]| PACKETS.into_iter().zip(values).skip(1);
        for (packet, value) in named(self.packets_in) {
            put("mqtt_packets_received_total", "Packets from clients.", true, ("packet", packet), value);
        }
        for (packet, value) in named(self.sent()) {
            put("mqtt_packets_sent_total", "Packets for clients.", true, ("packet", packet), value);
        }
        let help = "Times that a client was not read because it sent faster than its limit.";
        put("mqtt_rate_limited_total", help, true, none, self.pauses);
        for (qos, value) in QOS.into_iter().zip(self.publishes_in) {
            put("mqtt_publishes_in_total", "PUBLISH packets received.", true, ("qos", qos), value);
        }
        for (qos, value) in QOS.into_iter().zip(self.publishes_out) {
            put("mqtt_publishes_out_total", "PUBLISH packets sent.", true, ("qos", qos), value);
        }
        let help = "Bytes of PUBLISH packets received.";
        put("mqtt_publishes_in_bytes_total", help, true, none, self.publish_bytes_in);
        let help = "Bytes of PUBLISH packets sent.";
        put("mqtt_publishes_out_bytes_total", help, true, none, self.publish_bytes_out);
        for (reason, value) in DropReason::NAMES.into_iter().zip(self.dropped) {
            let help = "Messages, or headers of them, that were not passed on.";
            put("mqtt_dropped_total", help, true, ("reason", reason), value);
        }
        samples
    }
}
