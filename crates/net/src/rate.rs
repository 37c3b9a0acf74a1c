//! [`AcceptRate`]: how fast a listener lets connections in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What may come at once after a quiet time, as a part of a second's worth.
const BURST: Duration = Duration::from_millis(100);

/// So many connections in a second, for all cores of a listener together. A connection that comes too early waits,
/// and those behind it wait in the kernel's queue; none is refused for it.
#[derive(Debug)]
pub struct AcceptRate {
    started: Instant,
    /// Nanoseconds between two connections.
    interval: u64,
    /// Nanoseconds after `started` at which the next connection is due.
    next: AtomicU64,
}

impl AcceptRate {
    /// Lets `per_second` connections in, at least one.
    pub fn new(per_second: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        Self { started: Instant::now(), interval, next: AtomicU64::new(0) }
    }

    /// Returns when one more connection may go on.
    pub async fn wait(&self) {
        let due = self.started + Duration::from_nanos(self.take(Instant::now()));
        tokio::time::sleep_until(due).await;
    }

    /// Takes the next place; answers when it is due.
    fn take(&self, now: Instant) -> u64 {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.saturating_duration_since(self.started));
        let earliest = now.saturating_sub(nanos(BURST));
        let step = |next: u64| Some(next.max(earliest).saturating_add(self.interval));
        // Relaxed: the number guards no other memory.
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        taken.unwrap_or_else(|next| next).max(earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_spread_over_the_second() {
        let rate = AcceptRate::new(100);
        let start = Instant::now();
        for _ in 0..200 {
            rate.wait().await;
        }
        let took = start.elapsed();
        assert!((1_900..=2_000).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_time_allows_a_short_burst_only() {
        let rate = AcceptRate::new(100);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..11 {
            rate.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        rate.wait().await;
        assert!(start.elapsed() >= Duration::from_millis(9));
    }
}
