//! What a thread counts, and how the threads' counts are put together.

use hdrhistogram::Histogram;

use crate::clock::SECOND;

/// Times in nanoseconds, up to a minute, to three digits.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, 60 * SECOND, 3).expect("the bounds and digits are valid constants"),
        )
    }

    /// Adds `count` times of the same length; above a minute counts as a minute.
    #[inline]
    pub(crate) fn record(&mut self, nanoseconds: u64, count: u64) {
        self.0.saturating_record_n(nanoseconds, count);
    }

    /// Adds all of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that `share` (0 to 1) of them do not exceed, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest, in microseconds.
    pub(crate) fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

/// Counts of the measured time.
pub(crate) struct Tally {
    /// Messages handed to the kernel.
    pub(crate) published: u64,
    /// Acknowledgements of publications.
    pub(crate) acknowledged: u64,
    /// Acknowledgements with a reason code that says no.
    pub(crate) refused: u64,
    /// Messages that came.
    pub(crate) delivered: u64,
    /// Messages that came twice or after a later one of the same publisher.
    pub(crate) disordered: u64,
    /// From when a message was due to when it came.
    pub(crate) latency: Times,
    /// From when a message was due to when it was acknowledged.
    pub(crate) acknowledgement: Times,
    /// From when a message was due to when it was handed to the kernel; only on a fixed schedule.
    pub(crate) lateness: Times,
    /// Processor nanoseconds of the busiest thread, and of all.
    pub(crate) busiest: u64,
    /// Connections that the broker closed.
    pub(crate) closed: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            published: 0,
            acknowledged: 0,
            refused: 0,
            delivered: 0,
            disordered: 0,
            latency: Times::new(),
            acknowledgement: Times::new(),
            lateness: Times::new(),
            busiest: 0,
            closed: 0,
        }
    }

    /// Takes in what another thread counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.disordered += other.disordered;
        self.latency.add(&other.latency);
        self.acknowledgement.add(&other.acknowledgement);
        self.lateness.add(&other.lateness);
        self.busiest = self.busiest.max(other.busiest);
        self.closed += other.closed;
    }
}
