//! What the front of one core counts. One thread writes, the metrics endpoint reads.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Counters of one core's front. Sum the samples of all cores.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) connections: Counter,
    pub(crate) connects_accepted: Counter,
    pub(crate) connects_refused: Counter,
    pub(crate) publishes_in: [Counter; 3],
    pub(crate) publishes_out: [Counter; 3],
    pub(crate) pauses: Counter,
    pub(crate) dropped: [Counter; DropReason::COUNT],
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
    const COUNT: usize = 6;
    const NAMES: [&str; Self::COUNT] = ["slow", "too_large", "expired", "header", "refused", "denied"];
}

/// One value for the metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Name without a prefix of the product.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// Label and its value; both empty if there is none.
    pub label: (&'static str, &'static str),
    /// The value.
    pub value: u64,
}

impl Metrics {
    pub(crate) fn drop_one(&self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    pub(crate) fn drop_many(&self, reason: DropReason, count: u64) {
        self.dropped[reason as usize].add(count);
    }

    /// The values as they are now.
    pub fn samples(&self) -> Vec<Sample> {
        const QOS: [&str; 3] = ["0", "1", "2"];
        let sample = |name, help, is_counter, label, counter: &Counter| Sample {
            name,
            help,
            is_counter,
            label,
            value: counter.get(),
        };
        let mut samples = vec![
            sample("mqtt_connections", "Clients that are connected.", false, ("", ""), &self.connections),
            sample(
                "mqtt_connects_total",
                "CONNECT packets that were answered.",
                true,
                ("result", "accepted"),
                &self.connects_accepted,
            ),
            sample(
                "mqtt_connects_total",
                "CONNECT packets that were answered.",
                true,
                ("result", "refused"),
                &self.connects_refused,
            ),
        ];
        let help = "Times that a client was not read because it sent faster than its limit.";
        samples.push(sample("mqtt_rate_limited_total", help, true, ("", ""), &self.pauses));
        for (qos, name) in QOS.into_iter().enumerate() {
            let label = ("qos", name);
            let received = "PUBLISH packets received.";
            samples.push(sample("mqtt_publishes_in_total", received, true, label, &self.publishes_in[qos]));
            let sent = "PUBLISH packets sent.";
            samples.push(sample("mqtt_publishes_out_total", sent, true, label, &self.publishes_out[qos]));
        }
        let help = "Messages, or headers of them, that were not passed on.";
        for (reason, counter) in DropReason::NAMES.into_iter().zip(&self.dropped) {
            samples.push(sample("mqtt_dropped_total", help, true, ("reason", reason), counter));
        }
        samples
    }
}
