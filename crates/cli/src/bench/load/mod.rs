//! `mqtt load`: publishers and subscribers on a few threads, each with its own sockets and its own waiting.
//!
//! ```text
//!   open, subscribe | warm up | measured                        | drain
//!                   begin     measure_from           measure_to   until all has come, or nothing comes any more
//! ```
//!
//! Messages belong to the measured time by when they are handed to the kernel (published) or taken from it
//! (delivered). Loss is counted over the whole run, warm-up included, after the drain.

mod publisher;
mod subscriber;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use wire::mqtt::{Qos, Version};

use crate::arguments::Load;
use crate::clock;
use crate::failure::Failure;
use crate::process;
use crate::report::{Cost, LoadOutcome};
pub(crate) use tally::{Tally, Times};
use worker::Worker;

/// When what happens, on the monotonic clock.
#[derive(Clone, Copy)]
struct Schedule {
    begin: u64,
    measure_from: u64,
    measure_to: u64,
}

impl Schedule {
    /// Whether a moment is in the measured time.
    #[inline]
    fn measures(&self, at: u64) -> bool {
        (self.measure_from..self.measure_to).contains(&at)
    }
}

/// What one topic has seen.
struct Topic {
    publishers: u64,
    /// Of each message: one per subscriber, or one per share.
    deliveries: u64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Topic {
    /// Messages that were sent and have not yet reached everybody who is to have them.
    #[inline]
    fn outstanding(&self) -> u64 {
        let Some(delivered) = self.received.load(Ordering::Relaxed).checked_div(self.deliveries) else {
            return 0;
        };
        self.sent.load(Ordering::Relaxed).saturating_sub(delivered)
    }
}

/// What the threads share.
struct Shared {
    load: Load,
    qos: Qos,
    window: usize,
    run: u16,
    topics: Vec<Topic>,
    schedule: OnceLock<Schedule>,
    /// Threads whose connections stand.
    ready: AtomicUsize,
    /// Threads that will not send any more.
    stopped: AtomicUsize,
    /// Threads that failed before or while they ran: the others then end early.
    failed: AtomicUsize,
}

/// Bound: messages above QoS 0 in flight where no window is named. What common clients take for granted.
const WINDOW_DEFAULT: u16 = 20;

impl Shared {
    fn new(load: &Load) -> Result<Self, Failure> {
        if load.publishers == 0 && load.subscribers == 0 {
            return Err(Failure::Impossible("neither publishers nor subscribers: nothing to do"));
        }
        if load.properties && load.target.protocol.version() != Version::V5 {
            return Err(Failure::Impossible("properties need --protocol 5.0"));
        }
        let qos = match load.qos {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        let window = load.window.unwrap_or(if load.qos == 0 { 0 } else { WINDOW_DEFAULT });
        if load.qos > 0 && window == 0 {
            return Err(Failure::Impossible("a window of 0 lets nothing be published above QoS 0"));
        }
        let on_topic =
            |connections: u16, topic: u16| u64::from((connections + load.topics - 1 - topic) / load.topics);
        let topic = |number| Topic {
            publishers: on_topic(load.publishers, number),
            deliveries: match (on_topic(load.subscribers, number), &load.share) {
                (subscribers, None) => subscribers,
                (subscribers, Some(_)) => subscribers.min(1),
            },
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        };
        Ok(Self {
            load: load.clone(),
            qos,
            window: usize::from(window),
            run: (clock::now() / 1_000_003) as u16,
            topics: (0..load.topics).map(topic).collect(),
            schedule: OnceLock::new(),
            ready: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        })
    }

    fn threads(&self) -> usize {
        usize::from(self.load.threads)
    }

    /// Whether some thread cannot go on.
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) > 0
    }

    /// Whether nobody sends any more and all that was sent has come.
    fn is_complete(&self) -> bool {
        self.stopped.load(Ordering::Acquire) == self.threads()
            && self.topics.iter().all(|topic| topic.outstanding() == 0)
    }

    fn topic_name(&self, topic: usize) -> String {
        format!("{}/{topic}", self.load.topic_prefix)
    }

    /// What the subscribers of a topic subscribe to.
    fn filter(&self, topic: usize) -> String {
        match &self.load.share {
            Some(name) => format!("$share/{name}/{}", self.topic_name(topic)),
            None => self.topic_name(topic),
        }
    }
}

/// Makes the measurement.
pub(crate) fn run(load: &Load) -> Result<LoadOutcome, Failure> {
    process::raise_descriptor_limit(usize::from(load.publishers) + usize::from(load.subscribers))?;
    let shared = Arc::new(Shared::new(load)?);
    let load_average = process::load_average();
    let threads: Vec<_> = (0..shared.threads())
        .map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || run_worker(number, &shared))
        })
        .collect();
    let cost = observe(&shared)?;
    let mut tally = Tally::new();
    for thread in threads {
        tally.add(&thread.join().map_err(|_| Failure::Panicked)??);
    }
    Ok(LoadOutcome::new(load, &tally, totals(&shared), cost.finish(load_average)))
}

/// All that was sent and received on all topics, and how many deliveries that should have been.
fn totals(shared: &Shared) -> (u64, u64) {
    let sum = |of: &dyn Fn(&Topic) -> u64| shared.topics.iter().map(of).sum();
    let expected = sum(&|topic| topic.sent.load(Ordering::Relaxed) * topic.deliveries);
    (expected, sum(&|topic| topic.received.load(Ordering::Relaxed)))
}

fn run_worker(number: usize, shared: &Shared) -> Result<Tally, Failure> {
    clock_out_on_failure(shared, || {
        let worker = Worker::open(number, shared)?;
        shared.ready.fetch_add(1, Ordering::Release);
        let schedule = loop {
            if shared.has_failed() {
                return Ok(Tally::new());
            }
            match shared.schedule.get() {
                Some(schedule) => break *schedule,
                None => thread::yield_now(),
            }
        };
        worker.run(schedule)
    })
}

fn clock_out_on_failure<T>(shared: &Shared, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let result = work();
    if result.is_err() {
        shared.failed.fetch_add(1, Ordering::Relaxed);
    }
    result
}

/// Gives the start when all connections stand, and looks at the broker when the measured time begins and ends.
fn observe(shared: &Shared) -> Result<Cost, Failure> {
    /// Between the last connection and the start, so that every thread sees the schedule in time.
    const LEAD: u64 = 20_000_000;
    let pid = shared.load.target.broker_pid;
    let poll = 5_000_000;
    while shared.ready.load(Ordering::Acquire) < shared.threads() && !shared.has_failed() {
        clock::sleep_until(clock::now() + poll);
    }
    let begin = clock::now() + LEAD;
    let measure_from = begin + clock::nanos(shared.load.warm_up);
    let measure_to = measure_from + clock::nanos(shared.load.duration);
    let _ = shared.schedule.set(Schedule { begin, measure_from, measure_to });
    let mut cost = Cost::default();
    clock::sleep_until(if shared.has_failed() { 0 } else { measure_from });
    cost.begin(process::usage(pid)?);
    while clock::now() + poll < measure_to && !shared.has_failed() {
        clock::sleep_until(clock::now() + poll);
    }
    clock::sleep_until(if shared.has_failed() { 0 } else { measure_to });
    cost.end(process::usage(pid)?);
    Ok(cost)
}
