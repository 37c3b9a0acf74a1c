//! What a measurement says: a sentence for people, a line of JSON for machines.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::arguments::Load;
use crate::clock::{self, SECOND};
use crate::failure::Failure;
use crate::load::{Tally, Times};
use crate::process::{self, KernelMemory, Usage};

/// Writes an outcome where it belongs.
pub(crate) fn tell<T: Serialize + fmt::Display>(outcome: &T, json: bool) {
    if json {
        say(&serde_json::to_string(outcome).expect("numbers and names can be written as JSON"));
        let _ = writeln!(std::io::stderr(), "{outcome}");
    } else {
        say(&outcome.to_string());
    }
}

/// Writes a line to standard output. A reader that has gone does not matter.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes why nothing was measured.
pub(crate) fn complain(failure: &Failure) {
    let _ = writeln!(std::io::stderr(), "robust-bench: {failure}");
}

/// Looks at the broker and at this program around the measured time.
#[derive(Default)]
pub(crate) struct Cost {
    broker: Option<Usage>,
    broker_after: Option<Usage>,
    began: u64,
    tool: u64,
    nanoseconds: u64,
}

impl Cost {
    /// The measured time begins.
    pub(crate) fn begin(&mut self, broker: Option<Usage>) {
        self.broker = broker;
        self.began = clock::now();
        self.tool = clock::process_cpu();
    }

    /// The measured time ends.
    pub(crate) fn end(&mut self, broker: Option<Usage>) {
        self.broker_after = broker;
        self.nanoseconds = clock::now() - self.began;
        self.tool = clock::process_cpu() - self.tool;
    }

    /// What it all was.
    pub(crate) fn finish(self, load_average_before: f64) -> Spent {
        let seconds = Duration::from_nanos(self.nanoseconds).as_secs_f64();
        let broker = self.broker.zip(self.broker_after).map(|(before, after)| BrokerCost {
            cpu_seconds: (after.cpu - before.cpu) as f64 / SECOND as f64,
            cpu_system_seconds: (after.cpu_system - before.cpu_system) as f64 / SECOND as f64,
            cores: (after.cpu - before.cpu) as f64 / self.nanoseconds.max(1) as f64,
            resident_before: before.resident,
            resident_after: after.resident,
        });
        Spent {
            seconds,
            broker,
            tool_cpu_seconds: self.tool as f64 / SECOND as f64,
            load_average_before,
            load_average_after: process::load_average(),
        }
    }
}

/// What the measured time took.
#[derive(Serialize)]
pub(crate) struct Spent {
    seconds: f64,
    broker: Option<BrokerCost>,
    tool_cpu_seconds: f64,
    load_average_before: f64,
    load_average_after: f64,
}

/// Of the broker's process.
#[derive(Serialize)]
struct BrokerCost {
    cpu_seconds: f64,
    cpu_system_seconds: f64,
    cores: f64,
    resident_before: u64,
    resident_after: u64,
}

/// Microseconds.
#[derive(Serialize)]
struct Quantiles {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Quantiles {
    fn of(times: &Times) -> Option<Self> {
        (times.count() > 0).then(|| Self {
            count: times.count(),
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
            p999: times.quantile(0.999),
            max: times.max(),
        })
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p999, max, .. } = self;
        write!(out, "p50 {p50:.0} p99 {p99:.0} p99.9 {p999:.0} max {max:.0} us")
    }
}

/// Of `mqtt load`.
#[derive(Serialize)]
pub(crate) struct LoadOutcome {
    publishers: u16,
    subscribers: u16,
    topics: u16,
    qos: u8,
    size: u32,
    rate: u32,
    published_per_second: f64,
    acknowledged_per_second: f64,
    delivered_per_second: f64,
    /// Deliveries of the whole run that should have come, and those that did not.
    expected: u64,
    lost: u64,
    disordered: u64,
    refused: u64,
    closed_by_broker: u64,
    latency_us: Option<Quantiles>,
    acknowledgement_us: Option<Quantiles>,
    lateness_us: Option<Quantiles>,
    /// Broker processor time per published and per delivered message.
    broker_us_per_published: Option<f64>,
    broker_us_per_delivered: Option<f64>,
    /// How much of one core the busiest thread of this program used: at 1 the tool is the bottleneck.
    tool_busiest_thread: f64,
    tool_us_per_delivered: Option<f64>,
    #[serde(flatten)]
    spent: Spent,
}

impl LoadOutcome {
    pub(crate) fn new(load: &Load, tally: &Tally, totals: (u64, u64), spent: Spent) -> Self {
        let (expected, received) = totals;
        let seconds = load.duration.as_secs_f64();
        let broker_us = |count: u64| {
            let broker = spent.broker.as_ref().filter(|_| count > 0)?;
            Some(broker.cpu_seconds * 1e6 / count as f64)
        };
        Self {
            publishers: load.publishers,
            subscribers: load.subscribers,
            topics: load.topics,
            qos: load.qos,
            size: load.size,
            rate: load.rate,
            published_per_second: tally.published as f64 / seconds,
            acknowledged_per_second: tally.acknowledged as f64 / seconds,
            delivered_per_second: tally.delivered as f64 / seconds,
            expected,
            lost: expected.saturating_sub(received),
            disordered: tally.disordered,
            refused: tally.refused,
            closed_by_broker: tally.closed,
            latency_us: Quantiles::of(&tally.latency),
            acknowledgement_us: Quantiles::of(&tally.acknowledgement),
            lateness_us: Quantiles::of(&tally.lateness),
            broker_us_per_published: broker_us(tally.published),
            broker_us_per_delivered: broker_us(tally.delivered),
            tool_busiest_thread: tally.busiest as f64 / SECOND as f64 / seconds,
            tool_us_per_delivered: (tally.delivered > 0)
                .then(|| spent.tool_cpu_seconds * 1e6 / tally.delivered as f64),
            spent,
        }
    }
}

impl fmt::Display for LoadOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} -> {} over {} topic(s), QoS {}, {} B: published {:.0}/s, delivered {:.0}/s, lost {} of {}",
            self.publishers,
            self.subscribers,
            self.topics,
            self.qos,
            self.size,
            self.published_per_second,
            self.delivered_per_second,
            self.lost,
            self.expected,
        )?;
        if self.disordered + self.refused + self.closed_by_broker > 0 {
            write!(out, ", {} out of order", self.disordered)?;
            write!(out, ", {} refused, {} closed by the broker", self.refused, self.closed_by_broker)?;
        }
        let times = [
            ("latency", &self.latency_us),
            ("acknowledged", &self.acknowledgement_us),
            ("sent late", &self.lateness_us),
        ];
        for (name, quantiles) in times {
            if let Some(quantiles) = quantiles {
                write!(out, "; {name} {quantiles}")?;
            }
        }
        write!(out, "; {}", self.spent)?;
        if let Some(cost) = self.broker_us_per_delivered.or(self.broker_us_per_published) {
            write!(out, ", {cost:.2} us per message")?;
        }
        write!(out, "; tool's busiest thread {:.0} %", self.tool_busiest_thread * 100.0)
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool_cpu_seconds, load_average_before, seconds, .. } = self;
        if let Some(broker) = &self.broker {
            let (cores, resident) = (broker.cores, broker.resident_after as f64 / 1e6);
            write!(out, "broker {cores:.2} cores, {resident:.1} MB, ")?;
        }
        let cores = tool_cpu_seconds / seconds;
        write!(out, "tool {cores:.2} cores, load average {load_average_before:.1}")
    }
}

/// Of `mqtt connect`.
#[derive(Serialize)]
pub(crate) struct ConnectOutcome {
    connected_per_second: f64,
    connected: u64,
    failed: u64,
    latency_us: Option<Quantiles>,
    broker_us_per_connection: Option<f64>,
    tool_busiest_thread: f64,
    #[serde(flatten)]
    spent: Spent,
}

impl ConnectOutcome {
    pub(crate) fn new(counts: (u64, u64), times: &Times, busy: (f64, u64), spent: Spent) -> Self {
        let ((connected, failed), (seconds, busiest)) = (counts, busy);
        let broker = spent.broker.as_ref().filter(|_| connected > 0);
        Self {
            connected_per_second: connected as f64 / seconds,
            connected,
            failed,
            latency_us: Quantiles::of(times),
            broker_us_per_connection: broker.map(|broker| broker.cpu_seconds * 1e6 / connected as f64),
            tool_busiest_thread: busiest as f64 / SECOND as f64 / seconds,
            spent,
        }
    }
}

impl fmt::Display for ConnectOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "connected {:.0}/s, {} failed", self.connected_per_second, self.failed)?;
        if let Some(quantiles) = &self.latency_us {
            write!(out, "; {quantiles}")?;
        }
        write!(out, "; {}", self.spent)?;
        if let Some(cost) = self.broker_us_per_connection {
            write!(out, ", {cost:.1} us per connection")?;
        }
        write!(out, "; tool's busiest thread {:.0} %", self.tool_busiest_thread * 100.0)
    }
}

/// Of `mqtt idle`.
#[derive(Serialize)]
pub(crate) struct IdleOutcome {
    connections: usize,
    /// Those that the broker let in, with their subscriptions.
    opened: usize,
    still_open: usize,
    opened_per_second: f64,
    open_seconds: f64,
    broker_us_per_opened: Option<f64>,
    resident_before: Option<u64>,
    resident_after: Option<u64>,
    resident_per_connection: Option<f64>,
    kernel_before: KernelMemory,
    kernel_after: KernelMemory,
    /// Both ends of each connection are on this machine, if the broker is.
    kernel_slab_per_connection: f64,
    hold_seconds: f64,
    broker_cpu_ms: Option<f64>,
    #[serde(flatten)]
    spent: Spent,
}

impl IdleOutcome {
    pub(crate) fn new(
        connections: (usize, usize, usize),
        opening: (f64, Option<(Usage, Usage)>),
        resident: Option<(u64, u64)>,
        kernel: (KernelMemory, KernelMemory),
        hold: (Duration, Spent),
    ) -> Self {
        let ((connections, opened, still_open), (hold, spent)) = (connections, hold);
        let (open_seconds, usage) = opening;
        let per = |before: u64, after: u64| (after as f64 - before as f64) / opened.max(1) as f64;
        let (usage, each) = (usage.filter(|_| opened > 0), resident.filter(|_| opened > 0));
        Self {
            connections,
            opened,
            still_open,
            opened_per_second: opened as f64 / open_seconds,
            open_seconds,
            broker_us_per_opened: usage.map(|(before, after)| per(before.cpu, after.cpu) / 1e3),
            resident_before: resident.map(|(before, _)| before),
            resident_after: resident.map(|(_, after)| after),
            resident_per_connection: each.map(|(before, after)| per(before, after)),
            kernel_before: kernel.0,
            kernel_after: kernel.1,
            kernel_slab_per_connection: per(kernel.0.slab, kernel.1.slab),
            hold_seconds: hold.as_secs_f64(),
            broker_cpu_ms: spent.broker.as_ref().map(|broker| broker.cpu_seconds * 1e3),
            spent,
        }
    }
}

impl fmt::Display for IdleOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, opened, still_open, open_seconds, opened_per_second, .. } = self;
        write!(out, "{opened} of {connections} connections opened in {open_seconds:.2} s")?;
        write!(out, " ({opened_per_second:.0}/s), {still_open} held")?;
        if let Some(bytes) = self.resident_per_connection {
            write!(out, ", {:.2} KB resident each", bytes / 1024.0)?;
        }
        write!(out, ", {:.2} KB kernel each (both ends)", self.kernel_slab_per_connection / 1024.0)?;
        if let Some(cpu) = self.broker_cpu_ms {
            write!(out, "; broker {cpu:.2} ms of processor time in {:.0} s", self.hold_seconds)?;
        }
        write!(out, "; {}", self.spent)
    }
}

/// A part of a measurement in which messages went from one end to the other.
#[derive(Serialize)]
pub(crate) struct Pass {
    sent: u64,
    /// Those that reached their end: acknowledged, or delivered.
    arrived: u64,
    lost: u64,
    seconds: f64,
    per_second: f64,
    broker_us_each: Option<f64>,
}

impl Pass {
    pub(crate) fn new((sent, arrived): (u64, u64), took: Duration, usage: Option<(Usage, Usage)>) -> Self {
        let seconds = took.as_secs_f64();
        let cost = |(before, after): (Usage, Usage)| (after.cpu - before.cpu) as f64 / 1e3 / arrived as f64;
        Self {
            sent,
            arrived,
            lost: sent.saturating_sub(arrived),
            seconds,
            per_second: arrived as f64 / seconds,
            broker_us_each: usage.filter(|_| arrived > 0).map(cost),
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, arrived, seconds, per_second, .. } = self;
        write!(out, "{arrived} of {sent} in {seconds:.2} s ({per_second:.0}/s")?;
        if let Some(cost) = self.broker_us_each {
            write!(out, ", broker {cost:.2} us each")?;
        }
        write!(out, ")")
    }
}

/// Of `mqtt filters`.
#[derive(Serialize)]
pub(crate) struct FiltersOutcome {
    connections: usize,
    /// Those whose subscriptions stand.
    subscribed: usize,
    filters: u64,
    filters_per_second: f64,
    broker_us_per_filter: Option<f64>,
    /// Connections included.
    resident_per_filter: Option<f64>,
    topics: usize,
    /// The first message to each topic.
    first: Pass,
    /// The same topics again and again.
    again: Pass,
    #[serde(flatten)]
    spent: Spent,
}

impl FiltersOutcome {
    pub(crate) fn new(
        filters: (u16, (usize, usize, u64)),
        usage: Option<(Usage, Usage)>,
        (topics, first, again): (usize, Pass, Pass),
        spent: Spent,
    ) -> Self {
        let (each, (connections, subscribed, took)) = filters;
        let filters = subscribed as u64 * u64::from(each);
        let per = |before: u64, after: u64| (after as f64 - before as f64) / filters.max(1) as f64;
        Self {
            connections,
            subscribed,
            filters,
            filters_per_second: filters as f64 / Duration::from_nanos(took).as_secs_f64(),
            broker_us_per_filter: usage.map(|(before, after)| per(before.cpu, after.cpu) / 1e3),
            resident_per_filter: usage.map(|(before, after)| per(before.resident, after.resident)),
            topics,
            first,
            again,
            spent,
        }
    }
}

impl fmt::Display for FiltersOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, subscribed, filters, filters_per_second, topics, .. } = self;
        write!(out, "{subscribed} of {connections} connections hold {filters} filters")?;
        write!(out, ", subscribed at {filters_per_second:.0}/s")?;
        if let (Some(cpu), Some(bytes)) = (self.broker_us_per_filter, self.resident_per_filter) {
            write!(out, ", broker {cpu:.1} us and {bytes:.0} bytes each")?;
        }
        write!(out, "; {topics} topics, first messages {}; again {}; {}", self.first, self.again, self.spent)
    }
}

/// Of `mqtt replay`.
#[derive(Serialize)]
pub(crate) struct ReplayOutcome {
    sessions: u16,
    messages: u32,
    stored: Pass,
    resident_per_stored: Option<f64>,
    replayed: Pass,
    first_ms: f64,
    lost: u64,
    disordered: u64,
    #[serde(flatten)]
    spent: Spent,
}

impl ReplayOutcome {
    pub(crate) fn new(
        (sessions, messages): (u16, u32),
        (stored, grown): (Pass, Option<f64>),
        (replayed, first, disordered): (Pass, Duration, u64),
        spent: Spent,
    ) -> Self {
        Self {
            sessions,
            messages,
            resident_per_stored: grown.map(|bytes| bytes / stored.arrived.max(1) as f64),
            lost: stored.arrived.saturating_sub(replayed.arrived),
            stored,
            replayed,
            first_ms: first.as_secs_f64() * 1e3,
            disordered,
            spent,
        }
    }
}

impl fmt::Display for ReplayOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, stored, replayed, first_ms, lost, disordered, .. } = self;
        write!(out, "{sessions} sessions away: {stored}")?;
        if let Some(bytes) = self.resident_per_stored {
            write!(out, ", {bytes:.0} bytes resident each")?;
        }
        write!(
            out,
            "; returned: {replayed}, the first after {first_ms:.1} ms, {lost} lost, {disordered} out of order"
        )?;
        write!(out, "; {}", self.spent)
    }
}
