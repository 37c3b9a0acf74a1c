//! What the fronts of all cores share.

use std::sync::Arc;

use admin::{Observed, ReadSamples, TopicRefused};
use mqtt::{Observatory, TopicMetricError};
use rt::{Clock, SystemClock};
use serde_json::Value;

use super::settings::observe_config;
use crate::config::Config;

/// One of a node. Clones are the same.
#[derive(Clone)]
pub(super) struct Fronts {
    pub(super) observatory: Observatory,
    pub(super) kafka: kafka::Shared,
}

impl Fronts {
    /// With the coordinator of Kafka's consumer groups, which the first core runs.
    pub(super) fn new(config: &Config) -> (Self, kafka::Coordinator) {
        let (kafka, coordinator) = kafka::Shared::new();
        (Self { observatory: Observatory::new(observe_config(config)), kafka }, coordinator)
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

    fn register_topic(&self, filter: &str) -> Result<bool, TopicRefused> {
        self.observatory.register_topic(filter).map_err(|error| match error {
            TopicMetricError::Filter => TopicRefused::Filter(error.to_string()),
            TopicMetricError::Full => TopicRefused::Full(error.to_string()),
        })
    }

    fn unregister_topic(&self, filter: &str) -> bool {
        self.observatory.unregister_topic(filter)
    }
}
