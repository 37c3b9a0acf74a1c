//! What goes through the topics that an operator has named. Hot path, where there are any: one look without them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use broker::routing::Filter;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::time::Instant;
use wire::mqtt::{Qos, TopicFilter};

use super::load::Averages;
use crate::resources::CountedTopic;
use crate::subscription::parse_filter;

/// Bound: filters that are counted: as many of the settings, and as many that are stored.
const REGISTERED_MAX: usize = 2 * CountedTopic::COUNT_MAX;

/// Whether a text is a filter whose messages can be counted.
pub(crate) fn is_countable(text: &str) -> bool {
    countable(text).is_some()
}

/// One of a shared subscription is none.
fn countable(text: &str) -> Option<Filter> {
    let is_plain = TopicFilter::parse(text).is_ok_and(|filter| filter.share.is_none());
    parse_filter(text).ok().filter(|_| is_plain)
}

/// What went through the topics that a filter matches since this node counts it. Retained messages that a new subscription
/// gets count as sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicReading {
    /// The filter, as it was written.
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
    /// Settings name it: it is counted for as long as the node runs.
    is_of_settings: bool,
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

    /// Counts what settings name, for as long as the node runs. What is no filter is left out.
    pub(crate) fn of_settings(filters: &[String]) -> Self {
        let topics = Self::default();
        topics.exchange(filters.iter().map(String::as_str), true);
        topics
    }

    /// Counts these filters, which are stored, beside those of the settings, and no others. What is counted already goes on.
    pub(crate) fn count_stored<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        self.exchange(filters, false);
    }

    fn exchange<'a>(&self, filters: impl Iterator<Item = &'a str>, is_of_settings: bool) {
        let mut wanted: BTreeMap<&str, Filter> =
            filters.filter_map(|text| Some((text, countable(text)?))).collect();
        let mut registered = self.registered.write();
        registered.retain(|metric| metric.is_of_settings || wanted.contains_key(&*metric.filter));
        registered.all().for_each(|metric| {
            wanted.remove(&*metric.filter);
        });
        let room = REGISTERED_MAX.saturating_sub(registered.all().count());
        for (text, filter) in wanted.into_iter().take(room) {
            registered.add(filter, TopicMetric::new(text, is_of_settings));
        }
        self.count.store(registered.all().count(), Ordering::Relaxed);
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

    fn add(&mut self, filter: Filter, metric: TopicMetric) {
        let metric = Arc::new(metric);
        match filter.is_exact() {
            true => {
                self.exact.insert(filter.as_str().into(), metric);
            }
            false => self.wild.push((filter, metric)),
        }
    }

    fn retain(&mut self, stays: impl Fn(&TopicMetric) -> bool) {
        self.exact.retain(|_, metric| stays(metric));
        self.wild.retain(|(_, metric)| stays(metric));
    }
}

impl TopicMetric {
    fn new(filter: &str, is_of_settings: bool) -> Self {
        Self {
            filter: filter.into(),
            is_of_settings,
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

    /// The filters that are counted, and bytes of theirs.
    fn seen(topics: &Topics) -> Vec<(Box<str>, u64)> {
        topics.readings().into_iter().map(|seen| (seen.filter, seen.bytes_in)).collect()
    }

    #[test]
    fn only_what_is_named_is_counted() {
        let topics = Topics::default();
        assert!(!topics.is_any());
        topics.count_stored(["a/b", "a/+", "a/+", "", "a/#/b", "$share/g/a"].into_iter());
        for (subject, bytes) in [("a/b", 10), ("a/c", 20), ("b", 40)] {
            topics.each(subject, |metric| metric.note_in(Qos::AtLeastOnce, bytes));
            topics.each(subject, |metric| metric.note_out(Qos::AtMostOnce, 2, bytes));
            topics.each(subject, |metric| metric.note_dropped(1));
        }
        assert_eq!(seen(&topics), [("a/+".into(), 30), ("a/b".into(), 10)]);
        assert_eq!(topics.readings()[0].messages_out, [4, 0, 0]);
        // What stays is not counted from the beginning again.
        topics.count_stored(["a/b", "c"].into_iter());
        assert_eq!(seen(&topics), [("a/b".into(), 10), ("c".into(), 0)]);
        topics.count_stored(std::iter::empty());
        assert!(!topics.is_any() && topics.readings().is_empty());
    }

    #[test]
    fn what_settings_name_is_counted_whatever_is_stored() {
        let topics = Topics::of_settings(&["a".to_owned(), "a/#/b".to_owned(), "+/x".to_owned()]);
        topics.each("a", |metric| metric.note_in(Qos::AtMostOnce, 1));
        topics.count_stored(["a", "b"].into_iter());
        assert_eq!(seen(&topics), [("+/x".into(), 0), ("a".into(), 1), ("b".into(), 0)]);
        topics.count_stored(std::iter::empty());
        assert_eq!(seen(&topics), [("+/x".into(), 0), ("a".into(), 1)]);
    }

    #[test]
    fn no_more_are_counted_than_there_may_be() {
        let numbers: Vec<String> = (0..=REGISTERED_MAX).map(|number| number.to_string()).collect();
        let topics = Topics::default();
        topics.count_stored(numbers.iter().map(String::as_str));
        assert_eq!(topics.readings().len(), REGISTERED_MAX);
    }

    #[test]
    fn rates_are_per_second() {
        let mut rates = Rates::default();
        assert_eq!(rates.update([100, 0], Duration::from_secs(10)), [10.0, 0.0]);
        assert_eq!(rates.update([100, 0], Duration::from_millis(10_010)), [10.0, 0.0]);
    }
}
