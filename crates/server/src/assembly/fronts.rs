//! What the fronts of all cores share.

use std::sync::Arc;

use admin::{CaughtUp, Kind, Observed, ReadSamples};
use mqtt::{AutoSubscription, CountedTopic, Observatory, RewriteRule, Rules};
use rt::{Clock, SystemClock};
use serde_json::Value;

use super::settings::observe_config;
use crate::config::Config;

/// One of a node. Clones are the same.
#[derive(Clone)]
pub(super) struct Fronts {
    pub(super) observatory: Observatory,
    pub(super) rules: Rules,
    pub(super) kafka: kafka::Shared,
}

impl Fronts {
    /// With the coordinator of Kafka's consumer groups, which the first core runs.
    pub(super) fn new(config: &Config) -> (Self, kafka::Coordinator) {
        let (kafka, coordinator) = kafka::Shared::new();
        let observatory = Observatory::new(observe_config(config));
        (Self { rules: Rules::new(&observatory), observatory, kafka }, coordinator)
    }

    /// What they count.
    pub(super) fn samples(&self) -> ReadSamples {
        let fronts = self.clone();
        Arc::new(move || {
            let mut samples = fronts.observatory.samples();
            samples.extend(fronts.kafka.metrics().samples());
            samples
        })
    }

    /// What of them operators write. A line for each kind: its path, who says when a change counts, and how many there may be.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let rules = self.rules.clone();
        let mqtt: CaughtUp = Arc::new(move |revision| {
            let rules = rules.clone();
            Box::pin(async move { rules.caught_up(revision).await })
        });
        vec![
            Kind::of::<RewriteRule>("rewrite-rules", &mqtt).at_most(RewriteRule::COUNT_MAX),
            Kind::of::<AutoSubscription>("auto-subscriptions", &mqtt).at_most(AutoSubscription::COUNT_MAX),
            Kind::of::<CountedTopic>("topic-metrics", &mqtt)
                .at_most(CountedTopic::COUNT_MAX)
                .named_by("filter")
                .listed_elsewhere(),
        ]
    }

    /// What they saw of their clients.
    pub(super) fn observed(&self) -> Arc<dyn Observed> {
        Arc::new(Seen { observatory: self.observatory.clone(), clock: SystemClock::new() })
    }
}

/// What the MQTT front saw, for operators.
struct Seen {
    observatory: Observatory,
    clock: SystemClock,
}

impl Observed for Seen {
    fn history(&self, client: &str) -> Vec<Value> {
        let events = self.observatory.history_of(client);
        events.iter().filter_map(|event| serde_json::to_value(event).ok()).collect()
    }

    fn slow_subscriptions(&self) -> Option<Vec<Value>> {
        let ranking = self.observatory.slow_subscriptions(self.clock.wall_ms())?;
        Some(ranking.iter().filter_map(|entry| serde_json::to_value(entry).ok()).collect())
    }

    fn clear_slow_subscriptions(&self) {
        self.observatory.clear_slow_subscriptions();
    }

    fn topic_metrics(&self) -> Vec<Value> {
        let readings = self.observatory.topic_readings();
        readings.iter().filter_map(|reading| serde_json::to_value(reading).ok()).collect()
    }
}
