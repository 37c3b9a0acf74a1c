//! A clock that runs, and whose wall time a test can step.

use std::sync::atomic::{AtomicI64, Ordering};

use rt::{Clock, Instant, SystemClock};

/// The system's clocks, but for what somebody did to the one on the wall.
#[derive(Debug, Default)]
pub struct SteppedClock {
    system: SystemClock,
    stepped_ms: AtomicI64,
}

impl SteppedClock {
    /// Not stepped yet.
    pub fn new() -> SteppedClock {
        SteppedClock::default()
    }

    /// Steps the wall clock, as an administrator would.
    pub fn step(&self, by_ms: i64) {
        self.stepped_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Instant {
        self.system.now()
    }

    fn wall_ms(&self) -> i64 {
        self.system.wall_ms().saturating_add(self.stepped_ms.load(Ordering::SeqCst))
    }
}
