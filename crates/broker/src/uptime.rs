//! Time that nobody can step: how long the broker has been up, and the wall clock only where a restart lies between.

use std::sync::Arc;

use rt::{Clock, Instant};

/// The clock that running deadlines go by. Durable ones are noted as [`Moment`]s.
pub(crate) struct Uptime {
    clock: Arc<dyn Clock>,
    /// Tells this start of the broker from others.
    start: u64,
    started: Instant,
    started_wall_ms: i64,
}

/// A moment as it can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// What the wall clock said, in ms since 1970.
    pub(crate) wall_ms: i64,
    /// During which start of the broker.
    pub(crate) start: u64,
    /// How long that had been up.
    pub(crate) up_ms: i64,
}

impl Uptime {
    /// Begins now; `start` is a number that no other start has.
    pub(crate) fn new(clock: Arc<dyn Clock>, start: u64) -> Self {
        let (started, started_wall_ms) = (clock.now(), clock.wall_ms());
        Self { clock, start, started, started_wall_ms }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// How long the broker has been up, in ms.
    pub(crate) fn ms(&self) -> i64 {
        i64::try_from(self.clock.now().since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { wall_ms: self.clock.wall_ms(), start: self.start, up_ms: self.ms() }
    }

    /// The wall clock as it would be had nobody stepped it since the start: for what is compared with moments of earlier starts.
    pub(crate) fn steady_wall_ms(&self) -> i64 {
        self.started_wall_ms.saturating_add(self.ms())
    }

    /// How long ago a moment was, in ms. Steps of the wall clock since the start do not count.
    pub(crate) fn ms_since(&self, moment: &Moment) -> i64 {
        match moment.start == self.start {
            true => self.ms().saturating_sub(moment.up_ms),
            false => self.steady_wall_ms().saturating_sub(moment.wall_ms),
        }
    }
}
