//! What the Kafka view counts, per node.

use std::sync::atomic::{AtomicU64, Ordering};

use broker::Sample;

/// Counters of the Kafka view, shared by all cores. They only grow; a gauge is the difference of two.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted.
    pub connections_opened: AtomicU64,
    /// Connections that ended.
    pub connections_closed: AtomicU64,
    /// Requests that were understood.
    pub requests: AtomicU64,
    /// Connections closed because of bytes that are not the protocol, or an API that is not advertised.
    pub refused: AtomicU64,
    /// Logins that were refused.
    pub logins_refused: AtomicU64,
    /// Record batches received from producers.
    pub batches_in: AtomicU64,
    /// Bytes of those batches.
    pub batch_bytes_in: AtomicU64,
    /// Bytes of records sent to consumers.
    pub record_bytes_out: AtomicU64,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    /// The values as they are now, for the metrics endpoint.
    pub fn samples(&self) -> Vec<Sample> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Read before what was opened: the difference is not negative.
        let closed = read(&self.connections_closed);
        let open = read(&self.connections_opened).saturating_sub(closed);
        let sample = |name, help, value| Sample { name, help, is_counter: true, label: ("", ""), value };
        let connections = sample("kafka_connections", "Kafka clients that are connected.", open);
        vec![
            Sample { is_counter: false, ..connections },
            sample("kafka_requests_total", "Requests that were understood.", read(&self.requests)),
            sample(
                "kafka_connections_refused_total",
                "Connections closed for bytes that are not the protocol, or an API that is not served.",
                read(&self.refused),
            ),
            sample("kafka_logins_refused_total", "Logins that were refused.", read(&self.logins_refused)),
            sample(
                "kafka_batches_received_total",
                "Record batches received from producers.",
                read(&self.batches_in),
            ),
            sample(
                "kafka_received_bytes_total",
                "Bytes of record batches received from producers.",
                read(&self.batch_bytes_in),
            ),
            sample(
                "kafka_sent_bytes_total",
                "Bytes of records sent to consumers.",
                read(&self.record_bytes_out),
            ),
        ]
    }
}
