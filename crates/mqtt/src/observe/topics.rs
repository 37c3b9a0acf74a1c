//! What goes through the topics that an operator has named. Hot path, where there are any: one look without them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use broker::routing::Filter;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::time::Instant;
use wire::mqtt::{Qos, TopicFilter};

use super::load::Averages;
use crate::subscription::parse_filter;

/// Bound: filters that are counted. Those with wildcards are looked at one by one for each message.
const REGISTERED_MAX: usize = 512;

/// Why a filter is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicMetricError {
    /// It is no filter, or one of a shared subscription.
    Filter,
    /// There are as many as there may be.
    Full,
}

impl fmt::Display for TopicMetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter => f.write_str("it is no topic or filter"),
            Self::Full => write!(f, "there are {REGISTERED_MAX} already"),
        }
    }
}

impl std::error::Error for TopicMetricError {}

/// What went through the topics that a filter matches since it was registered. Retained messages that a new subscription
/// gets count as sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicReading {
    /// The filter, as it was registered.
    pub filter: Box<str>,
    /// For how long it is counted, in ms.
    pub since_ms: u64,
    /// Messages that were published, by QoS.
    pub messages_in: [u64; 3],
    /// Messages that were sent, by the QoS of their delivery.
    pub messages_out: [u64; 3],
    /// Messages that were not sent, or not taken.
    pub dropped: u64,
    /// Bytes of the payloads that were published.
    pub bytes_in: u64,
    /// Bytes of the payloads that were sent.
    pub bytes_out: u64,
    /// Messages published per second, on average over about the last minute.
    pub rate_in: f64,
    /// Messages sent per second, on average over about the last minute.
    pub rate_out: f64,
}

/// The filters that are counted.
#[derive(Default)]
pub(crate) struct Topics {
    count: AtomicUsize,
    registered: RwLock<Registered>,
}

#[derive(Default)]
struct Registered {
    exact: HashMap<Box<str>, Arc<TopicMetric>>,
    wild: Vec<(Filter, Arc<TopicMetric>)>,
}

/// The counters of one filter.
pub(crate) struct TopicMetric {
    filter: Box<str>,
    since: Instant,
    messages_in: [AtomicU64; 3],
    messages_out: [AtomicU64; 3],
    dropped: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    rates: Mutex<Rates>,
}

#[derive(Default)]
struct Rates {
    at: Duration,
    counted: [u64; 2],
    averages: [Averages; 2],
}

impl Topics {
    /// Whether any is counted.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// Those that count a subject, in canonical spelling.
    #[inline]
    pub(crate) fn each(&self, subject: &str, note: impl Fn(&TopicMetric)) {
        if self.is_any() {
            self.registered.read().each(subject, note);
        }
    }

    pub(crate) fn register(&self, text: &str) -> Result<bool, TopicMetricError> {
        if !TopicFilter::parse(text).is_ok_and(|filter| filter.share.is_none()) {
            return Err(TopicMetricError::Filter);
        }
        let filter = parse_filter(text).map_err(|_| TopicMetricError::Filter)?;
        let mut registered = self.registered.write();
        if registered.all().any(|metric| *metric.filter == *text) {
            return Ok(false);
        }
        if registered.all().count() >= REGISTERED_MAX {
            return Err(TopicMetricError::Full);
        }
        let metric = Arc::new(TopicMetric::new(text));
        match filter.is_exact() {
            true => {
                registered.exact.insert(filter.as_str().into(), metric);
            }
            false => registered.wild.push((filter, metric)),
        }
        self.count.store(registered.all().count(), Ordering::Relaxed);
        Ok(true)
    }

    pub(crate) fn unregister(&self, text: &str) -> bool {
        let mut registered = self.registered.write();
        let before = registered.all().count();
        registered.exact.retain(|_, metric| *metric.filter != *text);
        registered.wild.retain(|(_, metric)| *metric.filter != *text);
        let after = registered.all().count();
        self.count.store(after, Ordering::Relaxed);
        after < before
    }

    /// In the order of their filters.
    pub(crate) fn readings(&self) -> Vec<TopicReading> {
        let metrics: Vec<_> = self.registered.read().all().cloned().collect();
        let mut readings: Vec<_> = metrics.iter().map(|metric| metric.reading()).collect();
        readings.sort_unstable_by(|a, b| a.filter.cmp(&b.filter));
        readings
    }
}

impl Registered {
    fn all(&self) -> impl Iterator<Item = &Arc<TopicMetric>> {
        self.exact.values().chain(self.wild.iter().map(|(_, metric)| metric))
    }

    fn each(&self, subject: &str, note: impl Fn(&TopicMetric)) {
        if let Some(metric) = self.exact.get(subject) {
            note(metric);
        }
        for (_, metric) in self.wild.iter().filter(|(filter, _)| filter.matches(subject)) {
            note(metric);
        }
    }
}

impl TopicMetric {
    fn new(filter: &str) -> Self {
        Self {
            filter: filter.into(),
            since: Instant::now(),
            messages_in: Default::default(),
            messages_out: Default::default(),
            dropped: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            rates: Mutex::default(),
        }
    }

    /// A message with a payload of so many bytes was published.
    pub(crate) fn note_in(&self, qos: Qos, bytes: usize) {
        self.messages_in[qos as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Messages with so many bytes of payloads were sent.
    pub(crate) fn note_out(&self, qos: Qos, count: usize, bytes: usize) {
        self.messages_out[qos as usize].fetch_add(count as u64, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn reading(&self) -> TopicReading {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (messages_in, messages_out) =
            (self.messages_in.each_ref().map(read), self.messages_out.each_ref().map(read));
        let since = self.since.elapsed();
        let counted = [messages_in.iter().sum(), messages_out.iter().sum()];
        let [rate_in, rate_out] = self.rates.lock().update(counted, since);
        TopicReading {
            filter: self.filter.clone(),
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            messages_in,
            messages_out,
            dropped: read(&self.dropped),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            rate_in,
            rate_out,
        }
    }
}

impl Rates {
    fn update(&mut self, counted: [u64; 2], now: Duration) -> [f64; 2] {
        let step = now.saturating_sub(self.at);
        if Averages::says_something(step) {
            for ((averages, before), now) in self.averages.iter_mut().zip(self.counted).zip(counted) {
                averages.update(now.saturating_sub(before), step);
            }
            (self.at, self.counted) = (now, counted);
        }
        self.averages.each_ref().map(|averages| averages.per_minute()[0] / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_registered_is_counted() {
        let topics = Topics::default();
        assert!(!topics.is_any());
        assert_eq!((topics.register("a/b"), topics.register("a/+")), (Ok(true), Ok(true)));
        assert_eq!(topics.register("a/+"), Ok(false));
        for wrong in ["", "a/#/b", "$share/g/a"] {
            assert_eq!(topics.register(wrong), Err(TopicMetricError::Filter), "{wrong}");
        }
        for (subject, bytes) in [("a/b", 10), ("a/c", 20), ("b", 40)] {
            topics.each(subject, |metric| metric.note_in(Qos::AtLeastOnce, bytes));
            topics.each(subject, |metric| metric.note_out(Qos::AtMostOnce, 2, bytes));
            topics.each(subject, |metric| metric.note_dropped(1));
        }
        let seen: Vec<_> = topics.readings().into_iter().map(|seen| (seen.filter, seen.bytes_in)).collect();
        assert_eq!(seen, [("a/+".into(), 30), ("a/b".into(), 10)]);
        assert_eq!(topics.readings()[0].messages_out, [4, 0, 0]);
        assert!(topics.unregister("a/+") && !topics.unregister("a/+") && topics.unregister("a/b"));
        assert!(!topics.is_any() && topics.readings().is_empty());
    }

    #[test]
    fn no_more_are_counted_than_there_may_be() {
        let topics = Topics::default();
        for number in 0..REGISTERED_MAX {
            assert_eq!(topics.register(&number.to_string()), Ok(true));
        }
        assert_eq!(topics.register("one more"), Err(TopicMetricError::Full));
    }

    #[test]
    fn rates_are_per_second() {
        let mut rates = Rates::default();
        assert_eq!(rates.update([100, 0], Duration::from_secs(10)), [10.0, 0.0]);
        assert_eq!(rates.update([100, 0], Duration::from_millis(10_010)), [10.0, 0.0]);
    }
}
