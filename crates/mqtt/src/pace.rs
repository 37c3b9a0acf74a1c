//! How fast clients may publish, each for itself and all of a listener together: who is ahead of a rate is not read, and
//! nothing is dropped.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a client may save up while it is silent: what its rate gives it in this time.
const BURST: Duration = Duration::from_secs(1);

/// Limits of one connection, or of all connections of a listener together. Nothing is limited by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// PUBLISH packets per second.
    pub messages: Option<NonZeroU32>,
    /// Bytes per second, of all packets.
    pub bytes: Option<NonZeroU32>,
}

/// The limits of all connections of a listener together, on all cores. Whoever goes beyond them waits, in the order in which they came.
#[derive(Debug)]
pub struct ListenerPace {
    started: Instant,
    messages: Option<SharedBucket>,
    bytes: Option<SharedBucket>,
}

/// A [`Bucket`] of several threads: nanoseconds on a clock that began [`BURST`] before `started`.
#[derive(Debug)]
struct SharedBucket {
    rate: NonZeroU32,
    spent_until: AtomicU64,
}

/// The limits of a connection and how much of them it has used.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    listener: Option<Arc<ListenerPace>>,
    /// It is not read before.
    paused_until: Option<Instant>,
}

/// A token bucket, as the time up to which its tokens are spent: tokens are there while that lies in the past.
#[derive(Debug)]
struct Bucket {
    rate: NonZeroU32,
    spent_until: Instant,
}

impl ListenerPace {
    /// None if nothing is limited. `now` is the start of the process.
    pub fn new(limit: RateLimit, now: Instant) -> Option<Arc<Self>> {
        if limit == RateLimit::default() {
            return None;
        }
        let bucket =
            |rate: Option<NonZeroU32>| rate.map(|rate| SharedBucket { rate, spent_until: AtomicU64::new(0) });
        let (messages, bytes) = (bucket(limit.messages), bucket(limit.bytes));
        Some(Arc::new(Self { started: now, messages, bytes }))
    }

    /// Spends tokens. Answers when whoever spent them may go on, if not now.
    fn take(&self, bytes: usize, is_publish: bool, now: Instant) -> Option<Instant> {
        let now = nanos(now.saturating_duration_since(self.started) + BURST);
        let of_messages = self.messages.as_ref().filter(|_| is_publish);
        let of_messages = of_messages.and_then(|bucket| bucket.take(1, now));
        let of_bytes = self.bytes.as_ref().and_then(|bucket| bucket.take(bytes as u64, now));
        let until = of_messages.max(of_bytes)?;
        Some(self.started + Duration::from_nanos(until).saturating_sub(BURST))
    }
}

impl SharedBucket {
    /// As [`Bucket::take`]. Relaxed: the number guards no other memory.
    fn take(&self, tokens: u64, now: u64) -> Option<u64> {
        let cost = tokens.saturating_mul(1_000_000_000).div_ceil(u64::from(self.rate.get()));
        let full = now - nanos(BURST);
        let spend = |spent: u64| Some(spent.max(full).saturating_add(cost));
        let before = self.spent_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        let after = before.unwrap_or_else(|before| before).max(full).saturating_add(cost);
        (after > now).then_some(after)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Pace {
    /// None if nothing is limited.
    pub(crate) fn new(
        limit: RateLimit,
        listener: Option<&Arc<ListenerPace>>,
        now: Instant,
    ) -> Option<Box<Self>> {
        if limit == RateLimit::default() && listener.is_none() {
            return None;
        }
        // Full from the beginning.
        let spent_until = now.checked_sub(BURST).unwrap_or(now);
        let bucket = |rate: Option<NonZeroU32>| rate.map(|rate| Bucket { rate, spent_until });
        let (messages, bytes) = (bucket(limit.messages), bucket(limit.bytes));
        Some(Box::new(Self { messages, bytes, listener: listener.cloned(), paused_until: None }))
    }

    /// A packet was taken. One that goes beyond the limit is taken all the same, and the next one waits. Answers whether a
    /// pause begins.
    pub(crate) fn take(&mut self, bytes: usize, is_publish: bool, now: Instant) -> bool {
        let of_messages =
            self.messages.as_mut().filter(|_| is_publish).and_then(|bucket| bucket.take(1, now));
        let of_bytes = self.bytes.as_mut().and_then(|bucket| bucket.take(bytes as u64, now));
        let of_listener = self.listener.as_ref().and_then(|listener| listener.take(bytes, is_publish, now));
        match of_messages.max(of_bytes).max(of_listener) {
            Some(until) => self.pause(until),
            None => false,
        }
    }

    /// It is not read before `until`. Answers whether a pause begins.
    pub(crate) fn pause(&mut self, until: Instant) -> bool {
        let begins = self.paused_until.is_none();
        self.paused_until = self.paused_until.max(Some(until));
        begins
    }

    /// When the client is read again; none if it is.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Time has passed. Answers whether a pause is over.
    pub(crate) fn go_on(&mut self, now: Instant) -> bool {
        let is_over = self.paused_until.is_some_and(|until| until <= now);
        if is_over {
            self.paused_until = None;
        }
        is_over
    }
}

impl Bucket {
    /// Spends tokens. Answers when the bucket is out of debt, if it is in debt now.
    fn take(&mut self, tokens: u64, now: Instant) -> Option<Instant> {
        let full = now.checked_sub(BURST).unwrap_or(now);
        let nanos = tokens.saturating_mul(1_000_000_000).div_ceil(u64::from(self.rate.get()));
        self.spent_until = self.spent_until.max(full) + Duration::from_nanos(nanos);
        (self.spent_until > now).then_some(self.spent_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of sums that are whole numbers but for the arithmetic.
    const ROUNDING: f64 = 1e-6;

    fn limit(messages: u32, bytes: u32) -> RateLimit {
        RateLimit { messages: NonZeroU32::new(messages), bytes: NonZeroU32::new(bytes) }
    }

    proptest! {
        /// Whoever sends whenever it is read gets its rate, give or take a burst and the packet that goes beyond.
        #[test]
        fn a_client_gets_its_rate_and_no_more(
            messages in 1u32..2_000,
            bytes in 100u32..100_000,
            sizes in proptest::collection::vec(2usize..5_000, 1..300),
        ) {
            let start = Instant::now() + BURST;
            let mut pace = Pace::new(limit(messages, bytes), None, start).unwrap();
            let (mut now, mut count, mut sum) = (start, 0u64, 0u64);
            for size in &sizes {
                if let Some(until) = pace.paused_until() {
                    prop_assert!(until > now);
                    now = until;
                    prop_assert!(pace.go_on(now));
                }
                prop_assert!(pace.paused_until().is_none());
                pace.take(*size, true, now);
                count += 1;
                sum += *size as u64;
            }
            let passed = (now - start + BURST).as_secs_f64();
            prop_assert!(count as f64 <= passed * f64::from(messages) + 1.0 + ROUNDING);
            prop_assert!(sum as f64 <= passed * f64::from(bytes) + 5_000.0 + ROUNDING);
            // It did not wait longer than its debt.
            let owed = (count as f64 / f64::from(messages)).max(sum as f64 / f64::from(bytes));
            prop_assert!((now - start).as_secs_f64() <= owed + 0.001);
        }
    }

    proptest! {
        /// Several clients of one listener, each sending whenever it is read, get its rate together, and each its part.
        #[test]
        fn the_clients_of_a_listener_share_its_rate(messages in 1u32..500, clients in 1usize..20) {
            let start = Instant::now() + BURST;
            let shared = ListenerPace::new(limit(messages, 0), start);
            let mut paces: Vec<_> = (0..clients)
                .map(|_| (Pace::new(RateLimit::default(), shared.as_ref(), start).unwrap(), 0u32))
                .collect();
            let (mut now, total) = (start, messages * 3 + 50);
            for _ in 0..total {
                // Whoever may be read first.
                let next = paces.iter_mut().min_by_key(|(pace, _)| pace.paused_until()).unwrap();
                now = now.max(next.0.paused_until().unwrap_or(now));
                next.0.go_on(now);
                prop_assert!(next.0.paused_until().is_none());
                next.0.take(10, true, now);
                next.1 += 1;
            }
            let passed = (now - start + BURST).as_secs_f64();
            prop_assert!(f64::from(total) <= passed * f64::from(messages) + clients as f64 + ROUNDING);
            prop_assert!((now - start).as_secs_f64() <= f64::from(total) / f64::from(messages) + 0.001);
            // Behind the burst they take turns.
            let taken = paces.iter().map(|(_, taken)| *taken);
            prop_assert!(taken.clone().min().unwrap() > 0 && taken.sum::<u32>() == total);
        }
    }

    #[test]
    fn only_publications_count_as_messages() {
        let now = Instant::now() + BURST;
        let mut pace = Pace::new(limit(1, 0), None, now).unwrap();
        for _ in 0..100 {
            assert!(!pace.take(10, false, now));
        }
        assert!(!pace.take(10, true, now));
        assert!(pace.take(10, true, now));
        assert!(!pace.take(10, true, now), "the pause has begun");
    }

    #[test]
    fn no_limit_costs_nothing() {
        assert!(Pace::new(RateLimit::default(), None, Instant::now()).is_none());
    }
}
