//! How fast one client may publish: it is not read while it is ahead of its rate, and nothing of it is dropped.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// What a client may save up while it is silent: what its rate gives it in this time.
const BURST: Duration = Duration::from_secs(1);

/// Limits of one connection. Nothing is limited by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// PUBLISH packets per second.
    pub messages: Option<NonZeroU32>,
    /// Bytes per second, of all packets.
    pub bytes: Option<NonZeroU32>,
}

/// The limits of a connection and how much of them it has used.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// It is not read before.
    paused_until: Option<Instant>,
}

/// A token bucket, as the time up to which its tokens are spent: tokens are there while that lies in the past.
#[derive(Debug)]
struct Bucket {
    rate: NonZeroU32,
    spent_until: Instant,
}

impl Pace {
    /// None if nothing is limited.
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Option<Box<Self>> {
        if limit == RateLimit::default() {
            return None;
        }
        // Full from the beginning.
        let spent_until = now.checked_sub(BURST).unwrap_or(now);
        let bucket = |rate: Option<NonZeroU32>| rate.map(|rate| Bucket { rate, spent_until });
        let (messages, bytes) = (bucket(limit.messages), bucket(limit.bytes));
        Some(Box::new(Self { messages, bytes, paused_until: None }))
    }

    /// A packet was taken. One that goes beyond the limit is taken all the same, and the next one waits. Answers whether a
    /// pause begins.
    pub(crate) fn take(&mut self, bytes: usize, is_publish: bool, now: Instant) -> bool {
        let of_messages =
            self.messages.as_mut().filter(|_| is_publish).and_then(|bucket| bucket.take(1, now));
        let of_bytes = self.bytes.as_mut().and_then(|bucket| bucket.take(bytes as u64, now));
        let until = of_messages.max(of_bytes);
        let begins = until.is_some() && self.paused_until.is_none();
        self.paused_until = self.paused_until.max(until);
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
            let mut pace = Pace::new(limit(messages, bytes), start).unwrap();
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
            prop_assert!(count as f64 <= passed * f64::from(messages) + 1.0);
            prop_assert!(sum as f64 <= passed * f64::from(bytes) + 5_000.0);
            // It did not wait longer than its debt.
            let owed = (count as f64 / f64::from(messages)).max(sum as f64 / f64::from(bytes));
            prop_assert!((now - start).as_secs_f64() <= owed + 0.001);
        }
    }

    #[test]
    fn only_publications_count_as_messages() {
        let now = Instant::now() + BURST;
        let mut pace = Pace::new(limit(1, 0), now).unwrap();
        for _ in 0..100 {
            assert!(!pace.take(10, false, now));
        }
        assert!(!pace.take(10, true, now));
        assert!(pace.take(10, true, now));
        assert!(!pace.take(10, true, now), "the pause has begun");
    }

    #[test]
    fn no_limit_costs_nothing() {
        assert!(Pace::new(RateLimit::default(), Instant::now()).is_none());
    }
}
