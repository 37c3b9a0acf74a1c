//! The view itself: progress plus what is only true while its owner lives. Performance critical: an offer, a
//! delivery and a settlement in order are a few integer operations and two look-ups in small ordered maps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use slab::Slab;

use super::facts::{Collector, Facts, Past};
use super::policy::{Acknowledge, ConsumerId, Policy, Reason, Returned};
use super::progress::Progress;

/// One subscription over one ordered stream of positions. Times are milliseconds since the epoch.
///
/// Invariant: an offered position that is not settled is in exactly one of fresh, returned, delayed, dead and in
/// flight. Deliveries are in order of position, whatever came back first among them; so without returns they are
/// in the order offered. Nothing here is a promise before its facts are committed: after a crash, what was settled
/// since is delivered again, marked as such.
#[derive(Debug)]
pub struct View {
    policy: Policy,
    progress: Progress,
    facts: Collector,
    /// One after the last position offered.
    end: u64,
    /// Before it, an offer may hold positions that an earlier owner saw settled or returned.
    known_end: u64,
    /// One after the last position delivered, by this owner or perhaps an earlier one.
    delivered_end: u64,
    /// In order; neither empty nor touching.
    fresh: VecDeque<Range<u64>>,
    fresh_count: u64,
    returned: BTreeSet<u64>,
    /// By due time; each has the same time in the progress's past.
    delayed: BTreeSet<(i64, u64)>,
    dead: BTreeSet<u64>,
    dead_untold: BTreeSet<u64>,
    in_flight: Slab<InFlight>,
    by_position: BTreeMap<u64, u32>,
    /// When deliveries time out, by slot.
    deadlines: BTreeSet<(i64, u32)>,
    /// Attempts that no fact tells of, because nothing depends on them.
    attempts: BTreeMap<u64, u16>,
    serial: u32,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    position: u64,
    deadline: Option<i64>,
    consumer: ConsumerId,
    serial: u32,
    attempt: u16,
}

/// One delivery, as long as it is in flight. An old handle never settles a new delivery (until 2^32 deliveries
/// later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    slot: u32,
    serial: u32,
}

/// A position to be sent to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Which record.
    pub position: u64,
    /// What to settle or return it by. None if the view does not acknowledge: then it is settled.
    pub handle: Option<Handle>,
    /// 1, plus the attempts before that count.
    pub attempt: u16,
    /// Whether it may have been delivered before, also by an earlier owner.
    pub redelivered: bool,
}

/// A position that will not be delivered again and waits for its owner to settle it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// Which record.
    pub position: u64,
    /// How often it was tried.
    pub attempts: u16,
}

/// How many offered positions are where. What is in none of them is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// To be delivered as soon as somebody has credit.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// In flight.
    pub unacked: u64,
    /// Waiting to be settled as dead.
    pub dead: u64,
}

impl View {
    /// The view of a new owner. It has nothing ready: the owner offers from the floor on, and what is known to be
    /// settled is left out, what was delayed or dead is so again.
    pub fn new(policy: Policy, progress: Progress) -> View {
        View {
            policy,
            end: progress.floor(),
            known_end: progress.mark(),
            delivered_end: progress.mark(),
            progress,
            facts: Collector::default(),
            fresh: VecDeque::new(),
            fresh_count: 0,
            returned: BTreeSet::new(),
            delayed: BTreeSet::new(),
            dead: BTreeSet::new(),
            dead_untold: BTreeSet::new(),
            in_flight: Slab::new(),
            by_position: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            attempts: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Makes positions ready that follow all offered before; a part that does not follow is left out. Positions
    /// between the last offer and this one are not of this subscription and count as settled.
    pub fn offer(&mut self, positions: Range<u64>) {
        let start = positions.start.max(self.end);
        if start >= positions.end {
            return;
        }
        if start > self.end {
            self.mark_settled(self.end..start);
        }
        self.end = positions.end;
        let known_end = positions.end.min(self.known_end).max(start);
        self.offer_known(start..known_end);
        self.push_fresh(known_end..positions.end);
    }

    /// Hands out up to `credit` positions to `to`, lowest first, fewer if fewer are ready or the policy's bound is
    /// reached; appends them to `out`. Returns how many.
    pub fn next_to_deliver(
        &mut self,
        to: ConsumerId,
        credit: u32,
        now: i64,
        out: &mut Vec<Delivery>,
    ) -> usize {
        let room = (self.policy.unacked_max as usize).saturating_sub(self.in_flight.len());
        let limit = room.min(credit as usize);
        let before = out.len();
        while out.len() - before < limit {
            let Some(position) = self.take_ready() else { break };
            let attempt = self.attempts_of(position).saturating_add(1);
            let redelivered = position < self.delivered_end;
            self.delivered_end = self.delivered_end.max(position + 1);
            let handle = match self.policy.acknowledge {
                Acknowledge::None => {
                    self.mark_settled(position..position + 1);
                    None
                }
                Acknowledge::Cumulative | Acknowledge::Individual => {
                    Some(self.fly(position, attempt, to, now))
                }
            };
            out.push(Delivery { position, handle, attempt, redelivered });
        }
        out.len() - before
    }

    /// Settles a delivery, and all positions before it if the policy is cumulative. Returns its position; None, and
    /// nothing changes, if it is in flight no more.
    pub fn settle(&mut self, handle: Handle) -> Option<u64> {
        let position = self.flying(handle)?.position;
        match self.policy.acknowledge {
            Acknowledge::Cumulative => self.settle_up_to(position + 1),
            Acknowledge::Individual | Acknowledge::None => {
                self.land(handle.slot);
                self.mark_settled(position..position + 1);
            }
        }
        Some(position)
    }

    /// Settles a position wherever it is, for acknowledgements by position, dead ones, expired and deleted records.
    /// False, and nothing changes, if it was not offered or is settled.
    pub fn settle_position(&mut self, position: u64) -> bool {
        if position >= self.end || self.progress.is_settled(position) {
            return false;
        }
        self.take_out(position);
        self.mark_settled(position..position + 1);
        true
    }

    /// Settles every position below `end`, also those not offered yet, which then never need to be.
    pub fn settle_up_to(&mut self, end: u64) {
        if end <= self.progress.floor() {
            return;
        }
        while let Some(slot) = self.by_position.first_entry().filter(|entry| *entry.key() < end) {
            let slot = *slot.get();
            self.land(slot);
        }
        while let Some(run) = self.fresh.front_mut().filter(|run| run.start < end) {
            let stop = run.end.min(end);
            self.fresh_count -= stop - run.start;
            run.start = stop;
            if run.is_empty() {
                self.fresh.pop_front();
            }
        }
        let past = self.progress.past.range(..end);
        past.for_each(|(position, past)| _ = self.delayed.remove(&(past.due, *position)));
        for set in [&mut self.returned, &mut self.dead, &mut self.dead_untold] {
            if set.first().is_some_and(|first| *first < end) {
                *set = set.split_off(&end);
            }
        }
        self.end = self.end.max(end);
        self.mark_settled(self.progress.floor()..end);
    }

    /// Takes a delivery back: for another try at once, or after `delay_ms`, or never. None, and nothing changes, if
    /// it is in flight no more.
    pub fn give_back(&mut self, handle: Handle, reason: Reason, delay_ms: u32, now: i64) -> Option<Returned> {
        self.flying(handle)?;
        Some(self.return_slot(handle.slot, reason, delay_ms, now))
    }

    /// Starts the time to acknowledge anew. False if the delivery is in flight no more.
    pub fn extend(&mut self, handle: Handle, now: i64) -> bool {
        if self.flying(handle).is_none() {
            return false;
        }
        let deadline = self.deadline(now);
        let flight = &mut self.in_flight[handle.slot as usize];
        if let Some(old) = std::mem::replace(&mut flight.deadline, deadline) {
            self.deadlines.remove(&(old, handle.slot));
        }
        self.deadlines.extend(deadline.map(|new| (new, handle.slot)));
        true
    }

    /// Takes back all that `consumer` holds; returns how many. Looks at every delivery in flight.
    pub fn handle_holder_gone(&mut self, consumer: ConsumerId, now: i64) -> usize {
        let held = self.in_flight.iter().filter(|(_, flight)| flight.consumer == consumer);
        let slots: Vec<u32> = held.map(|(slot, _)| slot as u32).collect();
        for slot in &slots {
            self.return_slot(*slot, Reason::HolderGone, 0, now);
        }
        slots.len()
    }

    /// Takes back deliveries whose time is over and makes delayed positions ready whose time has come. Returns how
    /// many it moved. To be called at [`View::next_deadline`]; calling it more often changes nothing.
    pub fn handle_deadline(&mut self, now: i64) -> usize {
        let mut moved = 0;
        while let Some((_, slot)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.return_slot(slot, Reason::TimedOut, 0, now);
            moved += 1;
        }
        while let Some((_, position)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.pop_first();
            self.returned.insert(position);
            moved += 1;
        }
        moved
    }

    /// When [`View::handle_deadline`] has something to do next.
    pub fn next_deadline(&self) -> Option<i64> {
        let first = [self.deadlines.first().map(|(at, _)| *at), self.delayed.first().map(|(at, _)| *at)];
        first.into_iter().flatten().min()
    }

    /// A dead position that was not told yet. The owner does with it what its policy says, and then settles it;
    /// a later owner is told again if that did not happen.
    pub fn poll_dead(&mut self) -> Option<Dead> {
        let position = self.dead_untold.pop_first()?;
        Some(Dead { position, attempts: self.attempts_of(position) })
    }

    /// The facts since the last call, to be committed in order of the calls. Empty if the policy is not durable.
    pub fn take_facts(&mut self) -> Facts {
        self.facts.take()
    }

    /// How many facts wait to be taken, before they are coalesced. The owner takes them before they are too many.
    pub fn facts_waiting(&self) -> usize {
        self.facts.len()
    }

    /// How many positions are where.
    pub fn counters(&self) -> Counters {
        Counters {
            ready: self.fresh_count + self.returned.len() as u64,
            delayed: self.delayed.len() as u64,
            unacked: self.in_flight.len() as u64,
            dead: self.dead.len() as u64,
        }
    }

    /// One after the last position offered: where the next offer goes on.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The durable half, ahead of what is committed by the facts that were not.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The durable half, for taking the rows that changed.
    pub fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn mark_settled(&mut self, range: Range<u64>) {
        while let Some((position, _)) = self.attempts.range(range.clone()).next() {
            let position = *position;
            self.attempts.remove(&position);
        }
        if self.policy.durable {
            self.facts.settle(range.clone());
        }
        self.progress.settle(range);
    }

    /// Offers positions of which some may be settled, delayed or dead.
    fn offer_known(&mut self, range: Range<u64>) {
        let mut at = range.start.max(self.progress.floor());
        while at < range.end {
            let start = self.progress.settled.next_unsettled(at);
            let end = self.progress.settled.next_settled(start).map_or(range.end, |end| end.min(range.end));
            if start < end {
                self.push_fresh(start..end);
            }
            at = end.max(start);
        }
        let past: Vec<(u64, Past)> = self.progress.past.range(range).map(|(at, past)| (*at, *past)).collect();
        for (position, past) in past.into_iter().filter(|(_, past)| past.dead || past.due != 0) {
            self.take_fresh(position);
            if past.dead {
                self.dead.insert(position);
                self.dead_untold.insert(position);
            } else {
                self.delayed.insert((past.due, position));
            }
        }
    }

    fn push_fresh(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        self.fresh_count += run.end - run.start;
        match self.fresh.back_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            Some(_) | None => self.fresh.push_back(run),
        }
    }

    fn take_ready(&mut self) -> Option<u64> {
        let fresh = self.fresh.front().map(|run| run.start);
        if self.returned.first().is_some_and(|returned| fresh.is_none_or(|fresh| *returned < fresh)) {
            return self.returned.pop_first();
        }
        let run = self.fresh.front_mut()?;
        run.start += 1;
        self.fresh_count -= 1;
        if run.is_empty() {
            self.fresh.pop_front();
        }
        fresh
    }

    /// Takes one position out of the middle of the fresh ones.
    fn take_fresh(&mut self, position: u64) -> bool {
        let at = self.fresh.partition_point(|run| run.end <= position);
        let Some(run) = self.fresh.get_mut(at).filter(|run| run.start <= position) else { return false };
        let after = position + 1..run.end;
        run.end = position;
        self.fresh_count -= 1;
        if run.is_empty() {
            self.fresh.remove(at);
            if !after.is_empty() {
                self.fresh.insert(at, after);
            }
        } else if !after.is_empty() {
            self.fresh.insert(at + 1, after);
        }
        true
    }

    /// Takes an unsettled position from wherever it is.
    fn take_out(&mut self, position: u64) {
        if let Some(slot) = self.by_position.get(&position) {
            self.land(*slot);
            return;
        }
        if self.returned.remove(&position) || self.take_fresh(position) {
            return;
        }
        self.dead.remove(&position);
        self.dead_untold.remove(&position);
        if let Some(past) = self.progress.past.get(&position) {
            self.delayed.remove(&(past.due, position));
        }
    }

    fn fly(&mut self, position: u64, attempt: u16, consumer: ConsumerId, now: i64) -> Handle {
        self.serial = self.serial.wrapping_add(1);
        let deadline = self.deadline(now);
        let flight = InFlight { position, deadline, consumer, serial: self.serial, attempt };
        let slot = self.in_flight.insert(flight) as u32;
        self.by_position.insert(position, slot);
        self.deadlines.extend(deadline.map(|at| (at, slot)));
        Handle { slot, serial: self.serial }
    }

    fn flying(&self, handle: Handle) -> Option<&InFlight> {
        self.in_flight.get(handle.slot as usize).filter(|flight| flight.serial == handle.serial)
    }

    fn land(&mut self, slot: u32) -> InFlight {
        let flight = self.in_flight.remove(slot as usize);
        self.by_position.remove(&flight.position);
        if let Some(deadline) = flight.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        flight
    }

    fn deadline(&self, now: i64) -> Option<i64> {
        self.policy.ack_wait_ms.map(|wait| now.saturating_add(i64::from(wait)))
    }

    fn attempts_of(&self, position: u64) -> u16 {
        let told = self.progress.past.get(&position).map_or(0, |past| past.attempts);
        told.max(self.attempts.get(&position).copied().unwrap_or(0))
    }

    fn return_slot(&mut self, slot: u32, reason: Reason, delay_ms: u32, now: i64) -> Returned {
        let InFlight { position, attempt, .. } = self.land(slot);
        let attempts = if reason == Reason::Released { attempt - 1 } else { attempt };
        let is_spent = self.policy.deliveries_max.is_some_and(|max| attempts >= max);
        let dead = reason == Reason::Rejected || is_spent;
        let due = if dead || delay_ms == 0 { 0 } else { now.saturating_add(i64::from(delay_ms)) };
        let matters_later = dead || due != 0 || (self.policy.deliveries_max.is_some() && attempts > 0);
        if matters_later {
            let past = Past { attempts, due, dead };
            self.attempts.remove(&position);
            self.progress.give_back(position, past);
            if self.policy.durable {
                self.facts.give_back(position, past);
            }
        } else if attempts > 0 {
            self.attempts.insert(position, attempts);
        }
        match (dead, due) {
            (true, _) => {
                self.dead.insert(position);
                self.dead_untold.insert(position);
                Returned::Dead
            }
            (false, 0) => {
                self.returned.insert(position);
                Returned::Ready
            }
            (false, due) => {
                self.delayed.insert((due, position));
                Returned::Delayed { due }
            }
        }
    }

    /// Every unsettled position and the place it is in; for the tests' invariants.
    #[cfg(test)]
    pub(super) fn places(&self) -> Vec<(u64, &'static str)> {
        let mut places: Vec<(u64, &'static str)> =
            self.fresh.iter().cloned().flatten().map(|at| (at, "fresh")).collect();
        places.extend(self.returned.iter().map(|at| (*at, "returned")));
        places.extend(self.delayed.iter().map(|(_, at)| (*at, "delayed")));
        places.extend(self.dead.iter().map(|at| (*at, "dead")));
        places.extend(self.in_flight.iter().map(|(_, flight)| (flight.position, "in flight")));
        places.sort_unstable();
        places
    }
}
