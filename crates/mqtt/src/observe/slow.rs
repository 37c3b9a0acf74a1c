//! Which subscriptions are behind: a ranking by the time between a message's timestamp and its writing towards the client.
//!
//! The time until an acknowledgement is not waited for: a client that acknowledges slowly is seen all the same, because its
//! window is full and the next messages wait for it; and nothing has to be remembered for each message in flight.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// Bound: bytes that are kept of a client identifier and of a topic.
const TEXT_BYTES_MAX: usize = 256;

/// What counts as slow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowConfig {
    /// From this delay on.
    pub threshold: Duration,
    /// Entries of the ranking, at least 1.
    pub entries: usize,
    /// An entry that was not slow again for so long is dropped.
    pub expiry: Duration,
}

impl Default for SlowConfig {
    fn default() -> Self {
        Self { threshold: Duration::from_millis(500), entries: 10, expiry: Duration::from_secs(300) }
    }
}

/// One entry of the ranking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlowSubscription {
    /// The client, or the beginning of a long identifier.
    pub client: Box<str>,
    /// The topic of the message, or its beginning.
    pub topic: Box<str>,
    /// The longest delay, in ms, since the entry was made.
    pub latency_ms: i64,
    /// When it was last slow, in wall-clock ms.
    pub at_ms: i64,
}

/// The ranking. Bound: `entries` of it.
pub(crate) struct Slow {
    config: SlowConfig,
    /// What is faster does not come in, as long as the ranking is full of what has not expired.
    floor_ms: AtomicI64,
    floor_until_ms: AtomicI64,
    ranking: Mutex<Vec<SlowSubscription>>,
}

impl Slow {
    pub(crate) fn new(config: SlowConfig) -> Self {
        let (floor_ms, floor_until_ms) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { config, floor_ms, floor_until_ms, ranking: Mutex::default() }
    }

    /// A message with this timestamp is written at `now_ms`.
    #[inline]
    pub(crate) fn note(&self, who: (&str, &str), timestamp_ms: i64, now_ms: i64) {
        let latency_ms = now_ms.saturating_sub(timestamp_ms);
        if latency_ms >= ms(self.config.threshold)
            && (latency_ms >= self.floor_ms.load(Ordering::Relaxed)
                || now_ms >= self.floor_until_ms.load(Ordering::Relaxed))
        {
            self.rank(who, latency_ms, now_ms);
        }
    }

    fn rank(&self, who: (&str, &str), latency_ms: i64, now_ms: i64) {
        let (client, topic) = (beginning(who.0), beginning(who.1));
        let mut ranking = self.ranking.lock();
        self.expire(&mut ranking, now_ms);
        match ranking.iter_mut().find(|known| *known.client == *client && *known.topic == *topic) {
            Some(known) => {
                known.latency_ms = known.latency_ms.max(latency_ms);
                known.at_ms = now_ms;
            }
            None => ranking.push(SlowSubscription {
                client: client.into(),
                topic: topic.into(),
                latency_ms,
                at_ms: now_ms,
            }),
        }
        ranking.sort_by_key(|known| std::cmp::Reverse(known.latency_ms));
        ranking.truncate(self.config.entries);
        self.set_floor(&ranking);
    }

    fn expire(&self, ranking: &mut Vec<SlowSubscription>, now_ms: i64) {
        let expiry = ms(self.config.expiry);
        ranking.retain(|known| now_ms.saturating_sub(known.at_ms) < expiry);
    }

    fn set_floor(&self, ranking: &[SlowSubscription]) {
        let is_full = ranking.len() >= self.config.entries;
        let last = ranking.last().filter(|_| is_full).map_or(0, |last| last.latency_ms);
        let first_seen = ranking.iter().map(|known| known.at_ms).min().unwrap_or(0);
        self.floor_ms.store(last, Ordering::Relaxed);
        self.floor_until_ms.store(first_seen.saturating_add(ms(self.config.expiry)), Ordering::Relaxed);
    }

    /// The slowest first.
    pub(crate) fn ranking(&self, now_ms: i64) -> Vec<SlowSubscription> {
        let mut ranking = self.ranking.lock();
        self.expire(&mut ranking, now_ms);
        self.set_floor(&ranking);
        ranking.clone()
    }

    pub(crate) fn clear(&self) {
        let mut ranking = self.ranking.lock();
        ranking.clear();
        self.set_floor(&ranking);
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(slow: &Slow, now_ms: i64) -> Vec<(String, i64)> {
        let ranking = slow.ranking(now_ms);
        ranking.into_iter().map(|known| ([known.client, known.topic].join("/"), known.latency_ms)).collect()
    }

    fn all(entries: &[(&str, i64)]) -> Vec<(String, i64)> {
        entries.iter().map(|(name, latency)| ((*name).to_owned(), *latency)).collect()
    }

    #[test]
    fn the_slowest_are_ranked_and_the_others_forgotten() {
        let slow = Slow::new(SlowConfig { entries: 2, ..SlowConfig::default() });
        let note = |client, latency: i64| slow.note((client, "t"), 1_000, 1_000 + latency);
        note("fast", 499);
        note("a", 500);
        note("b", 700);
        note("c", 600);
        note("b", 650);
        note("a", 599);
        assert_eq!(seen(&slow, 2_000), all(&[("b/t", 700), ("c/t", 600)]));
        slow.clear();
        note("a", 500);
        assert_eq!(seen(&slow, 2_000), all(&[("a/t", 500)]), "there is room again");
    }

    #[test]
    fn who_is_not_slow_any_more_leaves_the_ranking() {
        let slow = Slow::new(SlowConfig { entries: 1, ..SlowConfig::default() });
        slow.note(("a", "t"), 0, 10_000);
        assert_eq!(seen(&slow, 309_999), all(&[("a/t", 10_000)]));
        slow.note(("b", "t"), 309_300, 309_999);
        assert_eq!(seen(&slow, 309_999), all(&[("a/t", 10_000)]), "it is full");
        slow.note(("b", "t"), 309_400, 310_000);
        assert_eq!(seen(&slow, 310_000), all(&[("b/t", 600)]));
    }
}
