//! What can be seen of MQTT on a node: values under `$SYS`, what becomes of clients, and what the fronts of all cores counted.
//!
//! An [`Observatory`] is shared by the fronts of a node. Nothing that it saw is stored, and what nobody looks at is not computed.

mod client;
mod history;
mod load;
mod slow;
mod sys;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, Sample};
use model::TenantId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{Metrics, Totals};
use crate::subscription::split_prefix;

pub(crate) use client::{Departure, Presence, Tally};
use history::History;
pub use history::{Happening, HistoryEvent};
use load::Loads;
use slow::Slow;
pub use slow::{SlowConfig, SlowSubscription};
pub(crate) use sys::is_below_sys;
pub use topics::TopicReading;
use topics::Topics;
pub(crate) use topics::is_countable;

/// How much is observed.
#[derive(Debug, Clone)]
pub struct ObserveConfig {
    /// How often the values under `$SYS` are published while somebody subscribes to them. `None`: they are sent to whoever
    /// subscribes, once.
    pub sys_interval: Option<Duration>,
    /// Of how many clients the last events are kept. 0: of none.
    pub history_clients: usize,
    /// What counts as a slow subscription. `None`: they are not looked for.
    pub slow: Option<SlowConfig>,
    /// Topics and filters that are counted from the beginning. One that is not valid is left out.
    pub topics: Vec<String>,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self {
            sys_interval: Some(Duration::from_secs(10)),
            history_clients: 5_000,
            slow: None,
            topics: Vec::new(),
        }
    }
}

/// What is observed on one node. Clones are the same.
#[derive(Clone)]
pub struct Observatory {
    inner: Arc<Inner>,
}

struct Inner {
    config: ObserveConfig,
    since: Instant,
    /// Bound: one for each listener and core.
    fronts: Mutex<Vec<Arc<Metrics>>>,
    /// Clients that are connected, and the most that ever were.
    connected: AtomicU64,
    connected_max: AtomicU64,
    /// Clients whose subscriptions reach `$SYS`.
    watchers: AtomicU64,
    watched: Notify,
    loads: Mutex<Loads>,
    history: History,
    slow: Option<Slow>,
    topics: Topics,
}

impl Default for Observatory {
    fn default() -> Self {
        Self::new(ObserveConfig::default())
    }
}

impl Observatory {
    /// For one node.
    pub fn new(config: ObserveConfig) -> Self {
        let inner = Inner {
            topics: Topics::of_settings(&config.topics),
            slow: config.slow.clone().map(Slow::new),
            history: History::new(config.history_clients),
            config,
            since: Instant::now(),
            fronts: Mutex::default(),
            connected: AtomicU64::new(0),
            connected_max: AtomicU64::new(0),
            watchers: AtomicU64::new(0),
            watched: Notify::new(),
            loads: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Publishes the values under `$SYS` as long as somebody subscribes to them, for ever. Once per node, on one core. Sleeps
    /// while nobody does.
    pub async fn run<B: Broker>(&self, broker: B) {
        let Some(interval) = self.inner.config.sys_interval else { return std::future::pending().await };
        let tenant = TenantId::default();
        loop {
            while !self.is_watched() {
                self.inner.watched.notified().await;
            }
            tokio::time::sleep(interval).await;
            self.announce_values(&broker, &tenant);
        }
    }

    /// What became of a client lately on this node, the oldest first. Empty if nothing is known (any more).
    pub fn history_of(&self, client: &str) -> Vec<HistoryEvent> {
        self.inner.history.of(client)
    }

    /// The session of a client ended at `at_ms` (wall-clock ms) because it was away for too long: its history says so.
    pub fn session_expired(&self, client: &str, at_ms: i64) {
        self.inner.history.add(client, HistoryEvent { at_ms, what: Happening::SessionExpired });
    }

    /// The subscriptions that were slowest lately (`now_ms` in wall-clock ms), the slowest first. `None` if they are not
    /// looked for.
    pub fn slow_subscriptions(&self, now_ms: i64) -> Option<Vec<SlowSubscription>> {
        self.inner.slow.as_ref().map(|slow| slow.ranking(now_ms))
    }

    /// Forgets them.
    pub fn clear_slow_subscriptions(&self) {
        if let Some(slow) = &self.inner.slow {
            slow.clear();
        }
    }

    /// What was counted, by filter in alphabetical order.
    pub fn topic_readings(&self) -> Vec<TopicReading> {
        self.inner.topics.readings()
    }

    /// What the fronts of all cores counted.
    pub fn samples(&self) -> Vec<Sample> {
        self.totals().samples()
    }

    pub(crate) fn add_front(&self) -> Arc<Metrics> {
        let metrics = Arc::<Metrics>::default();
        self.inner.fronts.lock().push(Arc::clone(&metrics));
        metrics
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.inner.fronts.lock().iter().for_each(|front| front.add_to(&mut totals));
        totals
    }

    /// Whether somebody subscribes to something under `$SYS`.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.inner.watchers.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn history(&self) -> &History {
        &self.inner.history
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.inner.topics
    }

    pub(crate) fn slow(&self) -> Option<&Slow> {
        self.inner.slow.as_ref()
    }

    pub(crate) fn client_came(&self) {
        let now = self.inner.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.inner.connected_max.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn client_left(&self) {
        self.inner.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The subscriptions of one connected client, as they are counted. They are not any more when this is dropped.
pub(crate) struct Counted {
    observatory: Observatory,
    metrics: Arc<Metrics>,
    count: u64,
    watches: bool,
}

impl Counted {
    pub(crate) fn new(observatory: &Observatory, metrics: &Arc<Metrics>) -> Self {
        let (observatory, metrics) = (observatory.clone(), Arc::clone(metrics));
        Self { observatory, metrics, count: 0, watches: false }
    }

    /// These are the filters, as the client wrote them.
    pub(crate) fn set<'a>(&mut self, filters: impl ExactSizeIterator<Item = &'a str>) {
        let count = filters.len() as u64;
        self.metrics.subscriptions.subtract(self.count);
        self.metrics.subscriptions.add(count);
        self.count = count;
        let watches = filters.into_iter().any(|text| is_below_sys(split_prefix(text).1));
        let inner = &self.observatory.inner;
        match (self.watches, watches) {
            (false, true) => {
                inner.watchers.fetch_add(1, Ordering::Relaxed);
                inner.watched.notify_one();
            }
            (true, false) => {
                inner.watchers.fetch_sub(1, Ordering::Relaxed);
            }
            (true, true) | (false, false) => {}
        }
        self.watches = watches;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(std::iter::empty());
    }
}
