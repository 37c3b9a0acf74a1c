//! [`Pressure`]: how close the node is to what it can bear, and what it asks of clients then.
//!
//! ```text
//!   Normal --90 % of a limit--> NoNewcomers --100 %--> SlowPublishers        back: 10 points below
//! ```
//!
//! Nothing is polled: somebody who accepts a connection or reads from one has the node looked at, at most every
//! [`LOOK_INTERVAL`]. While nobody does, there is nothing to protect.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// How often the signals are looked at, at most. One look costs some microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often changes are told in the log, at most.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a core that was late counts as late, unless it says otherwise.
const LATE_FOR: Duration = Duration::from_secs(2);

/// Where levels begin, in thousandths of a limit.
const REFUSE_AT: u64 = 900;
const SLOW_AT: u64 = 1000;
/// A level ends this far below where it begins.
const HYSTERESIS: u64 = 100;

/// What is asked of clients. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Normal = 0,
    /// New connections are refused, with words where the protocol has them.
    NoNewcomers = 1,
    /// Who publishes is read only now and then.
    SlowPublishers = 2,
}

/// What a node is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Shortage {
    /// Memory of the process.
    Memory = 0,
    /// Room for what was published and is not decided.
    Backlog = 1,
    /// Time of a core: a round of its work takes long.
    Time = 2,
    /// The journal takes no writes.
    Storage = 3,
}

impl Shortage {
    const ALL: [Shortage; 4] = [Shortage::Memory, Shortage::Backlog, Shortage::Time, Shortage::Storage];

    /// What to tell people.
    pub const fn words(self) -> &'static str {
        match self {
            Shortage::Memory => "the broker's memory is nearly used up",
            Shortage::Backlog => "more is published than can be stored at once",
            Shortage::Time => "the broker has more to do than it can keep up with",
            Shortage::Storage => "the journal takes no writes",
        }
    }
}

/// From where on something is too much. `None`: nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureLimits {
    /// Bytes of memory of the process.
    pub memory: Option<u64>,
    /// Bytes that are published and not decided.
    pub backlog: Option<u64>,
    /// How long one round of a core's work may take.
    pub delay: Option<Duration>,
}

/// What the outside says when it is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Bytes of memory of the process; 0 if that is not known.
    pub memory: u64,
    /// Bytes that are published and not decided.
    pub backlog: u64,
    /// Whether the journal takes no writes.
    pub is_unwritable: bool,
}

/// The pressure on a node, shared by all its threads.
pub struct Pressure {
    limits: PressureLimits,
    signals: Box<dyn Fn() -> Signals + Send + Sync>,
    started: Instant,
    level: AtomicU8,
    shortage: AtomicU8,
    /// Milliseconds after `started`.
    next_look: AtomicU64,
    next_tell: AtomicU64,
    /// The longest round of late, in milliseconds, and when it was.
    delay: AtomicU64,
    delay_at: AtomicU64,
    /// Connections that were refused for it since the start.
    refused: AtomicU64,
}

impl std::fmt::Debug for Pressure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pressure").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Pressure {
    /// Judges by `limits` what `signals` answers. It is called on serving threads: it must not block.
    pub fn new(
        limits: PressureLimits,
        signals: impl Fn() -> Signals + Send + Sync + 'static,
        now: Instant,
    ) -> Self {
        Self {
            limits,
            signals: Box::new(signals),
            started: now,
            level: AtomicU8::new(0),
            shortage: AtomicU8::new(0),
            next_look: AtomicU64::new(0),
            next_tell: AtomicU64::new(0),
            delay: AtomicU64::new(0),
            delay_at: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The level, by a look that is not older than [`LOOK_INTERVAL`].
    #[inline]
    pub fn level(&self, now: Instant) -> Level {
        // Relaxed everywhere: the numbers guard no other memory.
        let now = self.millis(now);
        let due = self.next_look.load(Ordering::Relaxed);
        if now >= due {
            self.look(due, now);
        }
        level_of(self.level.load(Ordering::Relaxed))
    }

    /// What the node is short of, if anything is asked of clients; by a fresh look.
    pub fn shortage(&self, now: Instant) -> Option<Shortage> {
        let shortage = || Shortage::ALL[usize::from(self.shortage.load(Ordering::Relaxed)) % 4];
        (self.level(now) != Level::Normal).then(shortage)
    }

    /// A connection was refused for it.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that were refused for it since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How long a round of a core's work took.
    pub(crate) fn note_delay(&self, delay: Duration, now: Instant) {
        let (delay, now) = (to_millis(delay), self.millis(now));
        let is_old = now.saturating_sub(self.delay_at.load(Ordering::Relaxed)) >= to_millis(LATE_FOR) / 2;
        if is_old || delay >= self.delay.load(Ordering::Relaxed) {
            self.delay.store(delay, Ordering::Relaxed);
            self.delay_at.store(now, Ordering::Relaxed);
        }
    }

    #[cold]
    fn look(&self, due: u64, now: u64) {
        let next = now + to_millis(LOOK_INTERVAL);
        if self.next_look.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            // Another thread looks.
            return;
        }
        let (load, shortage) = self.load(now);
        let before = level_of(self.level.load(Ordering::Relaxed));
        let level = next_level(before, load);
        self.shortage.store(shortage as u8, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        if level != before {
            self.tell(level, shortage, now);
        }
    }

    /// The greatest part of a limit that is in use, in thousandths, and of which.
    fn load(&self, now: u64) -> (u64, Shortage) {
        let signals = (self.signals)();
        let part =
            |used: u64, limit: Option<u64>| limit.map_or(0, |limit| used.saturating_mul(1000) / limit.max(1));
        let age = now.saturating_sub(self.delay_at.load(Ordering::Relaxed));
        let is_late = age < to_millis(LATE_FOR);
        let delay = if is_late { self.delay.load(Ordering::Relaxed) } else { 0 };
        // Publishers hear of it with every message: newcomers are what can be kept away.
        let storage = if signals.is_unwritable { REFUSE_AT } else { 0 };
        let loads = [
            (part(signals.memory, self.limits.memory), Shortage::Memory),
            (part(signals.backlog, self.limits.backlog), Shortage::Backlog),
            (part(delay, self.limits.delay.map(to_millis)), Shortage::Time),
            (storage, Shortage::Storage),
        ];
        loads.into_iter().max_by_key(|(load, _)| *load).unwrap_or((0, Shortage::Memory))
    }

    fn tell(&self, level: Level, shortage: Shortage, now: u64) {
        let next = now + to_millis(TELL_INTERVAL);
        let due = |at: u64| (at <= now).then_some(next);
        if self.next_tell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_err() {
            return;
        }
        let (why, refused) = (shortage.words(), self.refused());
        match level {
            Level::Normal => info!(refused, "the overload is over"),
            Level::NoNewcomers => warn!(why, refused, "overloaded; new connections are refused"),
            Level::SlowPublishers => {
                warn!(why, refused, "overloaded; new connections are refused, publishers are slowed");
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        to_millis(now.saturating_duration_since(self.started))
    }
}

fn to_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn level_of(number: u8) -> Level {
    match number {
        0 => Level::Normal,
        1 => Level::NoNewcomers,
        _ => Level::SlowPublishers,
    }
}

/// The level at this load, coming from another one.
fn next_level(before: Level, load: u64) -> Level {
    let begins = |level: Level, at: u64| if before >= level { at - HYSTERESIS } else { at };
    if load >= begins(Level::SlowPublishers, SLOW_AT) {
        Level::SlowPublishers
    } else if load >= begins(Level::NoNewcomers, REFUSE_AT) {
        Level::NoNewcomers
    } else {
        Level::Normal
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LIMITS: PressureLimits =
        PressureLimits { memory: Some(1000), backlog: Some(1000), delay: Some(Duration::from_secs(2)) };

    struct Node {
        pressure: Pressure,
        memory: Arc<AtomicU64>,
        backlog: Arc<AtomicU64>,
        unwritable: Arc<AtomicU64>,
        now: Instant,
    }

    impl Node {
        fn new() -> Self {
            let [memory, backlog, unwritable]: [Arc<AtomicU64>; 3] = Default::default();
            let told = (memory.clone(), backlog.clone(), unwritable.clone());
            let signals = move || Signals {
                memory: told.0.load(Ordering::Relaxed),
                backlog: told.1.load(Ordering::Relaxed),
                is_unwritable: told.2.load(Ordering::Relaxed) != 0,
            };
            let now = Instant::now();
            Self { pressure: Pressure::new(LIMITS, signals, now), memory, backlog, unwritable, now }
        }

        /// The level after a while.
        fn level(&mut self) -> Level {
            self.now += LOOK_INTERVAL;
            self.pressure.level(self.now)
        }
    }

    #[test]
    fn levels_come_and_go_with_hysteresis() {
        use Level::{NoNewcomers, Normal, SlowPublishers};
        let mut node = Node::new();
        for (memory, level) in [
            (899, Normal),
            (900, NoNewcomers),
            (801, NoNewcomers),
            (799, Normal),
            (899, Normal),
            (1000, SlowPublishers),
            (900, SlowPublishers),
            (899, NoNewcomers),
            (999, NoNewcomers),
            (5000, SlowPublishers),
            (10, Normal),
        ] {
            node.memory.store(memory, Ordering::Relaxed);
            assert_eq!(node.level(), level, "at {memory}");
        }
        assert_eq!(node.pressure.shortage(node.now), None);
    }

    #[test]
    fn the_greatest_shortage_counts_and_is_named() {
        let mut node = Node::new();
        node.unwritable.store(1, Ordering::Relaxed);
        assert_eq!(node.level(), Level::NoNewcomers);
        assert_eq!(node.pressure.shortage(node.now), Some(Shortage::Storage));
        node.backlog.store(1200, Ordering::Relaxed);
        assert_eq!(node.level(), Level::SlowPublishers);
        assert_eq!(node.pressure.shortage(node.now), Some(Shortage::Backlog));
        for shortage in Shortage::ALL {
            assert_eq!(Shortage::ALL[shortage as usize], shortage);
        }
    }

    #[test]
    fn a_late_core_counts_until_it_keeps_up_or_is_idle() {
        let mut node = Node::new();
        node.pressure.note_delay(Duration::from_millis(2500), node.now);
        assert_eq!(node.level(), Level::SlowPublishers);
        // Another core, or another round, is quick: that alone is no relief.
        node.pressure.note_delay(Duration::from_millis(1), node.now);
        assert_eq!(node.level(), Level::SlowPublishers);
        node.now += LATE_FOR / 2;
        node.pressure.note_delay(Duration::from_millis(1), node.now);
        assert_eq!(node.level(), Level::Normal);
        node.pressure.note_delay(Duration::from_millis(1900), node.now);
        assert_eq!(node.level(), Level::NoNewcomers);
        node.now += LATE_FOR;
        assert_eq!(node.level(), Level::Normal);
    }

    #[test]
    fn looks_are_rare_and_no_limit_is_never_reached() {
        let looks = Arc::new(AtomicU64::new(0));
        let counted = looks.clone();
        let signals = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Signals { memory: u64::MAX, backlog: u64::MAX, is_unwritable: false }
        };
        let start = Instant::now();
        let pressure = Pressure::new(PressureLimits::default(), signals, start);
        for ms in 0..1000 {
            assert_eq!(pressure.level(start + Duration::from_millis(ms)), Level::Normal);
        }
        assert_eq!(looks.load(Ordering::Relaxed), 10);
    }
}
