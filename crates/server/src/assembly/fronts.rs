//! What the fronts of all cores share.

use std::sync::Arc;

use admin::ReadSamples;
use mqtt::Observatory;

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
}
