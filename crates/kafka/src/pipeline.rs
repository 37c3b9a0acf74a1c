//! The order of one connection: requests start and are answered in the order in which they came.
//!
//! Requests of one client must not overtake each other (a commit that is followed by leaving the group, say), but two kinds
//! may overlap, because that is where the speed is: appends follow each other without waiting for the disk, and what waits
//! for others does not hold up what comes behind it.

use std::collections::VecDeque;

/// Bound: requests of one connection that are not answered.
const REQUESTS_MAX: usize = 256;
/// Bound: requests of one connection that wait. Each may hold a whole response.
const WAITS_MAX: usize = 4;

/// How a request gets along with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// May start while earlier appends are under way.
    Append,
    /// Waits for others: later requests may start meanwhile.
    Wait,
    /// Starts when nothing is under way but what waits; nothing starts before it is done.
    Alone,
}

enum State<R, A> {
    Parked(R),
    Running(Lane),
    Done(A),
}

struct Slot<R, A> {
    state: State<R, A>,
    /// Bytes of the request.
    size: usize,
}

/// Requests `R` of one connection and their answers `A`.
pub(crate) struct Pipeline<R, A> {
    slots: VecDeque<Slot<R, A>>,
    /// Number of the first slot.
    first: u64,
    /// Slots from the front on that have started.
    started: usize,
    appends: usize,
    waits: usize,
    alone: usize,
    bytes: usize,
}

impl<R, A> Pipeline<R, A> {
    pub(crate) fn new() -> Self {
        Self { slots: VecDeque::new(), first: 0, started: 0, appends: 0, waits: 0, alone: 0, bytes: 0 }
    }

    /// Takes a request of `size` bytes in.
    pub(crate) fn push(&mut self, request: R, size: usize) {
        self.bytes += size;
        self.slots.push_back(Slot { state: State::Parked(request), size });
    }

    /// The next request, if it may start now, with its number. `lane` tells what kind it is. Started until [`Pipeline::finish`].
    pub(crate) fn start(&mut self, lane: impl FnOnce(&R) -> Lane) -> Option<(u64, R)> {
        let slot = self.slots.get_mut(self.started)?;
        let State::Parked(request) = &slot.state else { return None };
        let lane = lane(request);
        let is_free = match lane {
            Lane::Append => self.alone == 0,
            Lane::Wait => self.alone == 0 && self.appends == 0 && self.waits < WAITS_MAX,
            Lane::Alone => self.alone == 0 && self.appends == 0,
        };
        if !is_free {
            return None;
        }
        let State::Parked(request) = std::mem::replace(&mut slot.state, State::Running(lane)) else {
            return None;
        };
        *self.counter(lane) += 1;
        let number = self.first + self.started as u64;
        self.started += 1;
        Some((number, request))
    }

    /// The next request, whatever is under way: for a connection that is over and will not be answered.
    pub(crate) fn start_any(&mut self) -> Option<(u64, R)> {
        (self.appends, self.waits, self.alone) = (0, 0, 0);
        self.start(|_| Lane::Alone)
    }

    /// A started request is answered.
    pub(crate) fn finish(&mut self, number: u64, answer: A) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else { return };
        if let State::Running(lane) = slot.state {
            slot.state = State::Done(answer);
            let counter = self.counter(lane);
            *counter = counter.saturating_sub(1);
        }
    }

    /// The oldest answer, if nothing older is missing.
    pub(crate) fn pop(&mut self) -> Option<A> {
        if !matches!(self.slots.front()?.state, State::Done(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.first += 1;
        self.started -= 1;
        self.bytes -= slot.size;
        if self.slots.is_empty() && self.slots.capacity() > 8 {
            self.slots = VecDeque::new();
        }
        match slot.state {
            State::Done(answer) => Some(answer),
            State::Parked(_) | State::Running(_) => None,
        }
    }

    /// Whether no more may be taken in.
    pub(crate) fn is_full(&self, bytes_max: usize) -> bool {
        self.slots.len() >= REQUESTS_MAX || self.bytes >= bytes_max
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn counter(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Append => &mut self.appends,
            Lane::Wait => &mut self.waits,
            Lane::Alone => &mut self.alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(pipeline: &mut Pipeline<(u64, Lane), u64>) -> Option<(u64, (u64, Lane))> {
        pipeline.start(|(_, lane)| *lane)
    }

    #[test]
    fn appends_overlap_and_what_follows_waits_for_them() {
        let mut pipeline = Pipeline::new();
        for (id, lane) in [(0, Lane::Append), (1, Lane::Append), (2, Lane::Wait), (3, Lane::Alone)] {
            pipeline.push((id, lane), 1);
        }
        assert_eq!(start(&mut pipeline).map(|(n, _)| n), Some(0));
        assert_eq!(start(&mut pipeline).map(|(n, _)| n), Some(1));
        assert_eq!(start(&mut pipeline), None);
        pipeline.finish(1, 1);
        assert_eq!(pipeline.pop(), None);
        pipeline.finish(0, 0);
        assert_eq!((pipeline.pop(), pipeline.pop(), pipeline.pop()), (Some(0), Some(1), None));
        // The read waits; what is behind it does not wait for it, but is not answered before it.
        assert_eq!(start(&mut pipeline).map(|(n, _)| n), Some(2));
        assert_eq!(start(&mut pipeline).map(|(n, _)| n), Some(3));
        pipeline.finish(3, 3);
        assert_eq!(pipeline.pop(), None);
        pipeline.finish(2, 2);
        assert_eq!((pipeline.pop(), pipeline.pop()), (Some(2), Some(3)));
        assert!(pipeline.is_empty());
    }

    #[test]
    fn requests_and_bytes_are_bounded() {
        let mut pipeline: Pipeline<_, u64> = Pipeline::new();
        for id in 0..REQUESTS_MAX as u64 {
            assert!(!pipeline.is_full(usize::MAX));
            pipeline.push((id, Lane::Alone), 1);
        }
        assert!(pipeline.is_full(usize::MAX));
        let mut pipeline = Pipeline::new();
        pipeline.push((0, Lane::Append), 10);
        assert!(pipeline.is_full(10) && !pipeline.is_full(11));
        start(&mut pipeline);
        pipeline.finish(0, 0);
        pipeline.pop();
        assert!(!pipeline.is_full(1));
    }

    fn lane() -> impl Strategy<Value = Lane> {
        prop_oneof![Just(Lane::Append), Just(Lane::Wait), Just(Lane::Alone)]
    }

    proptest! {
        /// Whatever finishes first: starts and answers come in the order of the requests, none is lost, and only what may
        /// overlap does.
        #[test]
        fn order_holds(lanes in prop::collection::vec(lane(), 1..40), picks: Vec<prop::sample::Index>) {
            let mut pipeline = Pipeline::new();
            for (id, lane) in lanes.iter().enumerate() {
                pipeline.push((id as u64, *lane), 1);
            }
            let (mut running, mut answered, mut picks) = (Vec::<(u64, Lane)>::new(), Vec::new(), picks.into_iter());
            let mut next = 0;
            while answered.len() < lanes.len() {
                while let Some((number, (id, lane))) = start(&mut pipeline) {
                    prop_assert_eq!((number, id), (next, next));
                    next += 1;
                    let others = running.iter().filter(|(_, other)| *other != Lane::Wait);
                    prop_assert!(others.clone().all(|(_, other)| *other == Lane::Append && lane == Lane::Append));
                    running.push((number, lane));
                }
                prop_assert!(!running.is_empty());
                let at = picks.next().map_or(0, |pick| pick.index(running.len()));
                let (number, _) = running.swap_remove(at);
                pipeline.finish(number, number);
                answered.extend(std::iter::from_fn(|| pipeline.pop()));
            }
            prop_assert_eq!(answered, (0..lanes.len() as u64).collect::<Vec<_>>());
        }
    }
}
