//! Who is let in: how many connections are open at once (one count for all cores and fronts of the node, and one for each
//! listener that has a bound of its own), and whether the node can bear more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mqtt::Unwelcome;
use net::{Level, Pressure, Shortage};
use tracing::warn;

/// Refusals come as fast as a client can connect: they are told together, at most this often.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Bound: connections at once that are open only to hear that there is no room. Further ones are closed.
const UNWELCOME_MAX: u32 = 256;

/// What the node as a whole lets in. Clones share the counts.
#[derive(Clone, Debug)]
pub(super) struct Door {
    all: Admission,
    unwelcome: Admission,
    pressure: Arc<Pressure>,
}

/// What becomes of a connection that was accepted.
pub(super) enum Verdict {
    /// It is let in, and holds these as long as it is open.
    Welcome(Permits),
    /// It is told that there is no room, and closed then.
    Unwelcome(Unwelcome, Permits),
    /// There is no room even for that.
    Close,
}

/// What a connection holds as long as it is open.
pub(super) type Permits = (Permit, Option<Permit>);

impl Door {
    /// Lets in as many as `limits.max_connections` says, as long as the node can bear more; `now` is the start.
    pub(super) fn new(open_max: u32, pressure: Arc<Pressure>, now: Instant) -> Self {
        let all = Admission::new("limits.max_connections", open_max, now);
        let unwelcome = Admission::new("connections that are refused", UNWELCOME_MAX, now);
        Self { all, unwelcome, pressure }
    }

    /// Judges a connection of a listener that may have a bound of its `own`.
    pub(super) fn judge(&self, own: Option<&Admission>, now: Instant) -> Verdict {
        match self.admit(own, now) {
            Ok(permits) => Verdict::Welcome(permits),
            Err(why) => match self.unwelcome.count() {
                Some(permit) => Verdict::Unwelcome(why, (permit, None)),
                None => Verdict::Close,
            },
        }
    }

    /// Judges a connection of a protocol that has no words for a refusal: it is closed. Its readers are let in while the
    /// journal takes no writes.
    pub(super) fn admit_reader(&self, now: Instant) -> Option<Permit> {
        let is_overloaded = self.pressure.shortage(now).is_some_and(|shortage| shortage != Shortage::Storage);
        if is_overloaded {
            self.pressure.note_refused();
            return None;
        }
        self.all.admit(now)
    }

    fn admit(&self, own: Option<&Admission>, now: Instant) -> Result<Permits, Unwelcome> {
        if self.pressure.level(now) != Level::Normal {
            self.pressure.note_refused();
            return Err(Unwelcome::Overloaded);
        }
        let own = match own {
            Some(own) => Some(own.admit(now).ok_or(Unwelcome::Full)?),
            None => None,
        };
        Ok((self.all.admit(now).ok_or(Unwelcome::Full)?, own))
    }

    /// What the node has to bear.
    pub(super) fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }
}

/// Admits connections up to a limit. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<State>);

#[derive(Debug)]
struct State {
    /// The setting that bounds it.
    limit: String,
    open_max: usize,
    open: AtomicUsize,
    /// Connections that were refused since the start.
    refused: AtomicU64,
    started: Instant,
    /// Milliseconds after `started` before which refusals are not told again.
    silent_until: AtomicU64,
}

/// One open connection. It counts until this is dropped.
#[derive(Debug)]
pub(super) struct Permit(Admission);

impl Admission {
    /// Admits `open_max` connections at once, as the setting `limit` says; `now` is the start.
    pub(super) fn new(limit: impl Into<String>, open_max: u32, now: Instant) -> Self {
        Self(Arc::new(State {
            limit: limit.into(),
            open_max: usize::try_from(open_max).unwrap_or(usize::MAX),
            open: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            started: now,
            silent_until: AtomicU64::new(0),
        }))
    }

    /// Counts one more connection, unless as many as may be are open.
    fn count(&self) -> Option<Permit> {
        let state = &*self.0;
        // Relaxed everywhere: the numbers guard no other memory.
        let below = |open: usize| (open < state.open_max).then_some(open + 1);
        let counted = state.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below);
        counted.is_ok().then(|| Permit(self.clone()))
    }

    /// The same, and logs refusals.
    fn admit(&self, now: Instant) -> Option<Permit> {
        if let Some(permit) = self.count() {
            return Some(permit);
        }
        let state = &*self.0;
        let refused = state.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_to_be_told(now) {
            let limit = &state.limit;
            warn!(limit, open_max = state.open_max, refused, "connection limit reached; connections refused");
        }
        None
    }

    /// Whether refusals are to be told now; at most once in [`TELL_INTERVAL`], whichever core asks.
    fn is_to_be_told(&self, now: Instant) -> bool {
        let state = &*self.0;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(state.started));
        let next = now.saturating_add(millis(TELL_INTERVAL));
        let due = |until: u64| (until <= now).then_some(next);
        state.silent_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use net::{PressureLimits, Signals};

    use super::*;

    #[test]
    fn who_finds_no_room_is_told_so_as_far_as_there_is_room_for_that() {
        let now = Instant::now();
        let full = Arc::new(AtomicBool::new(false));
        let told = full.clone();
        let signals = move || Signals { is_unwritable: told.load(Ordering::Relaxed), ..Signals::default() };
        let pressure = Arc::new(Pressure::new(PressureLimits::default(), signals, now));
        let door = Door::new(3, pressure.clone(), now);
        let own = Admission::new("x", 1, now);
        let Verdict::Welcome(first) = door.judge(Some(&own), now) else { panic!("there is room") };
        let Verdict::Unwelcome(Unwelcome::Full, told) = door.judge(Some(&own), now) else {
            panic!("the listener is full")
        };
        let others: Vec<_> = (0..2).map(|_| door.admit(None, now).unwrap()).collect();
        assert_eq!(door.admit(None, now).err(), Some(Unwelcome::Full));
        drop((first, others));
        full.store(true, Ordering::Relaxed);
        let later = now + Duration::from_secs(1);
        let mut refused = vec![told];
        for _ in 1..UNWELCOME_MAX {
            let Verdict::Unwelcome(Unwelcome::Overloaded, permits) = door.judge(None, later) else {
                panic!("the node is overloaded")
            };
            refused.push(permits);
        }
        assert!(matches!(door.judge(None, later), Verdict::Close));
        assert!(door.admit_reader(later).is_some());
        refused.pop();
        assert!(matches!(door.judge(None, later), Verdict::Unwelcome(..)));
        assert_eq!(u64::from(UNWELCOME_MAX) + 1, pressure.refused());
    }

    #[test]
    fn as_many_as_may_be_are_open_and_a_closed_one_makes_room() {
        let now = Instant::now();
        let admission = Admission::new("x", 2, now);
        let other_core = admission.clone();
        let first = admission.admit(now);
        let second = other_core.admit(now);
        assert!(first.is_some() && second.is_some());
        assert!(admission.admit(now).is_none());
        assert!(other_core.admit(now).is_none());
        drop(first);
        let third = other_core.admit(now);
        assert!(third.is_some());
        assert!(admission.admit(now).is_none());
        assert_eq!(admission.0.refused.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn no_race_between_cores_admits_too_many() {
        let now = Instant::now();
        let admission = Admission::new("x", 100, now);
        let cores: Vec<_> = (0..4)
            .map(|_| {
                let admission = admission.clone();
                std::thread::spawn(move || (0..1000).filter_map(|_| admission.admit(now)).collect::<Vec<_>>())
            })
            .collect();
        let permits: Vec<_> = cores.into_iter().flat_map(|core| core.join().unwrap()).collect();
        assert_eq!(permits.len(), 100);
        drop(permits);
        assert!(admission.admit(now).is_some());
    }

    #[test]
    fn refusals_are_told_at_most_once_a_second() {
        let start = Instant::now();
        let admission = Admission::new("x", 1, start);
        let told = [0, 1, 999, 1000, 1500, 1999, 2000, 9000]
            .map(|ms| admission.is_to_be_told(start + Duration::from_millis(ms)));
        assert_eq!(told, [true, false, false, true, false, false, true, true]);
    }
}
