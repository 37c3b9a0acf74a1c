//! What the Kafka view counts, per node.

use std::sync::atomic::{AtomicU64, Ordering};

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
}
