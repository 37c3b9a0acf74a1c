//! Time: the seam for every clock that decisions are made by.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on a monotonic clock: nanoseconds since an arbitrary start of the process (or simulation). Moments of two
/// clocks cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment this many nanoseconds after the clock's start.
    pub fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of time.
    fn add(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// As [`Instant::since`].
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// Tells the time. Cheap enough to ask once per turn of a loop; a loop over messages asks before it starts.
pub trait Clock: Send + Sync {
    /// Now, monotonic: never less than an earlier answer, also across threads. For timeouts and durations.
    fn now(&self) -> Instant;

    /// Now, in milliseconds since 1970 (UTC). May jump in both directions. For timestamps that people or other machines
    /// see, never for a duration.
    fn wall_ms(&self) -> i64;
}

/// The real clocks. The monotonic one is tokio's, so that it stands still where a test has paused tokio's time, and
/// agrees with tokio's timers.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> SystemClock {
        SystemClock { start: tokio::time::Instant::now() }
    }

    /// The moment on tokio's clock, for its timers.
    pub fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        let after = Duration::from_nanos(at.as_nanos());
        // Bound: tokio's far future is 30 years.
        self.start.checked_add(after).unwrap_or(self.start + Duration::from_secs(86_400 * 365 * 30))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::default() + self.start.elapsed()
    }

    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    nanos: AtomicU64,
    wall_start_ms: AtomicI64,
}

impl ManualClock {
    /// A clock at monotonic zero, and at this wall time.
    pub fn new(wall_ms: i64) -> ManualClock {
        ManualClock { nanos: AtomicU64::new(0), wall_start_ms: AtomicI64::new(wall_ms) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Moves the wall clock only, as an administrator or NTP would.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_start_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.nanos.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> i64 {
        let passed = self.nanos.load(Ordering::SeqCst) / 1_000_000;
        self.wall_start_ms.load(Ordering::SeqCst).saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_jump_moves_no_duration() {
        let clock = ManualClock::new(1_000);
        let before = clock.now();
        clock.advance(Duration::from_millis(250));
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.now() - before, Duration::from_millis(250));
        assert_eq!(clock.wall_ms(), 1_000 + 250 - 3_600_000);
        assert_eq!(before - clock.now(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_system_clock_follows_paused_time() {
        let clock = SystemClock::new();
        let before = clock.now();
        tokio::time::sleep_until(clock.to_tokio(before + Duration::from_secs(3600))).await;
        assert!(clock.now() - before >= Duration::from_secs(3600));
        assert!(clock.wall_ms() > 1_600_000_000_000);
    }
}
