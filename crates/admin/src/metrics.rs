//! Names, units and help of what a node exports. Values are read when somebody asks.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use broker::{Sample, Shared};
use net::Pressure;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Reads what is counted above the broker. Called for each request; must not block.
pub type ReadSamples = Arc<dyn Fn() -> Vec<Sample> + Send + Sync>;

pub(crate) fn registry(broker: Arc<Shared>, pressure: Arc<Pressure>, fronts: ReadSamples) -> Registry {
    let mut registry = Registry::with_prefix("robustmq");
    registry.register_collector(Box::new(Node { broker, pressure }));
    registry.register_collector(Box::new(Fronts { read: fronts }));
    registry
}

struct Fronts {
    read: ReadSamples,
}

impl std::fmt::Debug for Fronts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fronts").finish_non_exhaustive()
    }
}

impl Collector for Fronts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let samples = (self.read)();
        for family in samples.chunk_by(|a, b| a.name == b.name) {
            let first = &family[0];
            // The encoder adds the ending itself.
            let name = first.name.strip_suffix("_total").unwrap_or(first.name);
            let kind = if first.is_counter { MetricType::Counter } else { MetricType::Gauge };
            // A sentence ends here; the encoder adds a full stop.
            let help = first.help.trim_end_matches('.');
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for sample in family {
                match sample.label {
                    ("", _) => put(sample, &mut metric)?,
                    label => put(sample, &mut metric.encode_family(&[label])?)?,
                }
            }
        }
        Ok(())
    }
}

fn put(sample: &Sample, encoder: &mut MetricEncoder<'_>) -> Result<(), Error> {
    match sample.is_counter {
        true => encoder.encode_counter::<NoLabelSet, _, u64>(&sample.value, None),
        false => encoder.encode_gauge(&i64::try_from(sample.value).unwrap_or(i64::MAX)),
    }
}

struct Node {
    broker: Arc<Shared>,
    pressure: Arc<Pressure>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let counters = self.broker.counters();
        let journal = self.broker.journal_counters();
        for (name, help, value) in [
            ("messages_in", "Messages pushed by publishers", counters.messages_in.load(Ordering::Relaxed)),
            (
                "batches_in",
                "Record batches appended as they came",
                counters.batches_in.load(Ordering::Relaxed),
            ),
            ("deliveries", "Batches handed to subscribers", counters.deliveries.load(Ordering::Relaxed)),
            ("topics_created", "Topics made by first use", counters.topics_created.load(Ordering::Relaxed)),
            (
                "overload_refusals",
                "Connections refused because the node had too much to bear",
                self.pressure.refused(),
            ),
            ("journal_frames", "Frames written to the journal", journal.frames),
            ("journal_syncs", "Syncs of the journal", journal.syncs),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let written = ConstCounter::new(journal.bytes);
        let kind = written.metric_type();
        let help = "Bytes written to the journal, padding included";
        written.encode(encoder.encode_descriptor("journal_written", help, Some(&Unit::Bytes), kind)?)?;
        let level = self.pressure.level(Instant::now()) as u64;
        let help = "0 normal, 1 new connections are refused, 2 publishers are slowed, too";
        gauge(&mut encoder, ("overload_level", help, None), level)?;
        let backlog = counters.backlog_bytes.load(Ordering::Relaxed);
        let help = "Bytes that are published and not decided";
        gauge(&mut encoder, ("backlog", help, Some(&Unit::Bytes)), backlog)?;
        gauge(
            &mut encoder,
            ("journal_size", "Bytes of journal files", Some(&Unit::Bytes)),
            self.broker.journal_bytes(),
        )
    }
}

/// A value that also falls, with its name, help and unit.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    value: u64,
) -> Result<(), Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}
