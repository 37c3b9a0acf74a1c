//! The view against a queue too simple to be wrong, through crashes and replays; the set of holes and the stored
//! forms against plain ranges; bytes that nobody wrote.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::settled::Settled;
use super::{
    Acknowledge, ConsumerId, Counters, DecodeError, Delivery, Facts, Handle, Past, Policy, Progress, Reason,
    Returned, RowKey, View,
};

/// Shortly before a chunk ends, so that small cases cross it.
const START: u64 = 65_536 - 9;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ready,
    Delayed(i64),
    Flying { consumer: u32, deadline: Option<i64>, handle: Handle },
    Dead { told: bool },
    Settled,
}

#[derive(Debug, Clone)]
struct Item {
    position: u64,
    state: State,
    attempts: u16,
    delivered: bool,
    recorded: Option<Past>,
    /// Whether it was settled, and what was recorded, at the last commit.
    committed: (bool, Option<Past>),
}

/// The queue: every position ever offered with its state, searched from the front.
struct Model {
    policy: Policy,
    items: Vec<Item>,
    offered: Vec<Range<u64>>,
    end: u64,
    now: i64,
}

#[derive(Debug, Clone)]
enum Op {
    Offer { gap: u64, count: u64 },
    Deliver { consumer: u32, credit: u32 },
    Settle(usize),
    SettlePosition(usize),
    SettleUpTo(usize, u64),
    GiveBack { at: usize, reason: Reason, delay_ms: u32 },
    Extend(usize),
    Gone(u32),
    Tick(i64),
    PollDead,
    Commit,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let reason = prop_oneof![
        3 => Just(Reason::Refused),
        1 => Just(Reason::Rejected),
        1 => Just(Reason::Released),
        1 => Just(Reason::TimedOut),
    ];
    let delay = prop_oneof![Just(0u32), 1u32..30];
    prop_oneof![
        5 => (prop_oneof![3 => Just(0u64), 1 => 1u64..4], 1u64..6).prop_map(|(gap, count)| Op::Offer { gap, count }),
        6 => (0u32..3, 0u32..5).prop_map(|(consumer, credit)| Op::Deliver { consumer, credit }),
        6 => any::<usize>().prop_map(Op::Settle),
        2 => any::<usize>().prop_map(Op::SettlePosition),
        1 => (any::<usize>(), 0u64..8).prop_map(|(at, beyond)| Op::SettleUpTo(at, beyond)),
        5 => (any::<usize>(), reason, delay).prop_map(|(at, reason, delay_ms)| Op::GiveBack { at, reason, delay_ms }),
        1 => any::<usize>().prop_map(Op::Extend),
        1 => (0u32..3).prop_map(Op::Gone),
        3 => (1i64..20).prop_map(Op::Tick),
        1 => Just(Op::PollDead),
        2 => Just(Op::Commit),
        1 => Just(Op::Crash),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let acknowledge = prop_oneof![
        1 => Just(Acknowledge::None),
        2 => Just(Acknowledge::Cumulative),
        5 => Just(Acknowledge::Individual)
    ];
    let wait = prop_oneof![Just(None), Just(Some(15u32))];
    let max = prop_oneof![Just(None), (1u16..4).prop_map(Some)];
    (acknowledge, wait, max, 3u32..12).prop_map(|(acknowledge, ack_wait_ms, deliveries_max, unacked_max)| {
        Policy { acknowledge, ack_wait_ms, deliveries_max, unacked_max, durable: true }
    })
}

impl Model {
    fn deliver(&mut self, consumer: u32, credit: u32, got: &[Delivery]) -> Result<(), TestCaseError> {
        let flying = self.items.iter().filter(|item| matches!(item.state, State::Flying { .. })).count();
        let limit = (credit as usize).min((self.policy.unacked_max as usize).saturating_sub(flying));
        let deadline = self.deadline();
        let acknowledge = self.policy.acknowledge;
        let mut got = got.iter();
        let ready = self.items.iter_mut().filter(|item| item.state == State::Ready);
        for item in ready.take(limit) {
            let delivery = got.next().ok_or_else(|| TestCaseError::fail("too few deliveries"))?;
            prop_assert_eq!((delivery.position, delivery.attempt), (item.position, item.attempts + 1));
            prop_assert!(delivery.redelivered || !item.delivered);
            prop_assert_eq!(delivery.handle.is_none(), acknowledge == Acknowledge::None);
            item.delivered = true;
            item.state = match delivery.handle {
                Some(handle) => State::Flying { consumer, deadline, handle },
                None => State::Settled,
            };
        }
        prop_assert!(got.next().is_none(), "too many deliveries");
        Ok(())
    }

    fn deadline(&self) -> Option<i64> {
        self.policy.ack_wait_ms.map(|wait| self.now + i64::from(wait))
    }

    fn flying(&mut self, wanted: Handle) -> Option<&mut Item> {
        self.items
            .iter_mut()
            .find(|item| matches!(item.state, State::Flying { handle, .. } if handle == wanted))
    }

    fn settle_up_to(&mut self, end: u64) {
        self.items.iter_mut().filter(|item| item.position < end).for_each(|item| item.state = State::Settled);
        self.end = self.end.max(end);
    }

    fn give_back(policy: &Policy, item: &mut Item, reason: Reason, due: Option<i64>) {
        item.attempts += u16::from(reason != Reason::Released);
        let dead =
            reason == Reason::Rejected || policy.deliveries_max.is_some_and(|max| item.attempts >= max);
        item.state = match due {
            _ if dead => State::Dead { told: false },
            Some(due) => State::Delayed(due),
            None => State::Ready,
        };
        let due = if dead { 0 } else { due.unwrap_or(0) };
        if dead || due != 0 || (policy.deliveries_max.is_some() && item.attempts > 0) {
            item.recorded = Some(Past { attempts: item.attempts, due, dead });
        }
    }

    fn tick(&mut self, passed: i64) {
        self.now += passed;
        for item in &mut self.items {
            match item.state {
                State::Flying { deadline: Some(deadline), .. } if deadline <= self.now => {
                    Model::give_back(&self.policy, item, Reason::TimedOut, None);
                }
                State::Delayed(due) if due <= self.now => item.state = State::Ready,
                _ => {}
            }
        }
    }

    fn crash(&mut self) {
        for item in &mut self.items {
            let (settled, recorded) = item.committed;
            item.recorded = recorded;
            item.attempts = recorded.map_or(0, |past| past.attempts);
            item.delivered &= settled;
            item.state = match recorded {
                _ if settled => State::Settled,
                Some(past) if past.dead => State::Dead { told: false },
                Some(past) if past.due != 0 => State::Delayed(past.due),
                _ => State::Ready,
            };
        }
        self.end = self.offered.last().map_or(START, |range| range.end);
    }

    fn places(&self) -> Vec<(u64, &'static str)> {
        let place = |item: &Item| match item.state {
            State::Ready => Some((item.position, "ready")),
            State::Delayed(_) => Some((item.position, "delayed")),
            State::Flying { .. } => Some((item.position, "in flight")),
            State::Dead { .. } => Some((item.position, "dead")),
            State::Settled => None,
        };
        self.items.iter().filter_map(place).collect()
    }
}

struct Run {
    model: Model,
    view: View,
    follower: Progress,
    rows: BTreeMap<RowKey, Vec<u8>>,
    handles: Vec<Handle>,
    floor: u64,
}

impl Run {
    fn new(policy: Policy) -> Run {
        let model = Model { policy, items: Vec::new(), offered: Vec::new(), end: START, now: 1 };
        let view = View::new(policy, Progress::starting_at(START));
        let follower = Progress::starting_at(START);
        Run { model, view, follower, rows: BTreeMap::new(), handles: Vec::new(), floor: START }
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Offer { gap, count } => self.offer(*gap, *count),
            Op::Deliver { consumer, credit } => {
                let mut got = Vec::new();
                let count =
                    self.view.next_to_deliver(ConsumerId(*consumer), *credit, self.model.now, &mut got);
                prop_assert_eq!(count, got.len());
                self.handles.extend(got.iter().filter_map(|delivery| delivery.handle));
                self.model.deliver(*consumer, *credit, &got)?;
            }
            Op::Settle(at) if !self.handles.is_empty() => {
                self.settle(self.handles[at % self.handles.len()])?
            }
            Op::SettlePosition(at) if !self.model.items.is_empty() => {
                let count = self.model.items.len();
                let item = &mut self.model.items[at % count];
                let is_new = item.state != State::Settled;
                item.state = State::Settled;
                prop_assert_eq!(self.view.settle_position(item.position), is_new);
            }
            Op::SettleUpTo(at, beyond) if !self.model.items.is_empty() => {
                let end = self.model.items[at % self.model.items.len()].position + beyond;
                self.model.settle_up_to(end);
                self.view.settle_up_to(end);
            }
            Op::GiveBack { at, reason, delay_ms } if !self.handles.is_empty() => {
                self.give_back(self.handles[at % self.handles.len()], *reason, *delay_ms)?;
            }
            Op::Extend(at) if !self.handles.is_empty() => {
                let handle = self.handles[at % self.handles.len()];
                let new = self.model.deadline();
                let is_flying = self.model.flying(handle).is_some();
                prop_assert_eq!(self.view.extend(handle, self.model.now), is_flying);
                if let Some(State::Flying { deadline, .. }) =
                    self.model.flying(handle).map(|item| &mut item.state)
                {
                    *deadline = new;
                }
            }
            Op::Gone(gone) => {
                let policy = self.model.policy;
                let held = |item: &&mut Item| matches!(item.state, State::Flying { consumer, .. } if consumer == *gone);
                let items: Vec<&mut Item> = self.model.items.iter_mut().filter(held).collect();
                prop_assert_eq!(self.view.handle_holder_gone(ConsumerId(*gone), self.model.now), items.len());
                items.into_iter().for_each(|item| Model::give_back(&policy, item, Reason::HolderGone, None));
            }
            Op::Tick(passed) => {
                self.model.tick(*passed);
                self.view.handle_deadline(self.model.now);
                prop_assert_eq!(self.view.handle_deadline(self.model.now), 0);
            }
            Op::PollDead => self.poll_dead()?,
            Op::Commit => self.commit()?,
            Op::Crash => self.crash()?,
            Op::Settle(_)
            | Op::SettlePosition(_)
            | Op::SettleUpTo(..)
            | Op::GiveBack { .. }
            | Op::Extend(_) => {}
        }
        self.check()
    }

    fn offer(&mut self, gap: u64, count: u64) {
        let range = self.model.end + gap..self.model.end + gap + count;
        self.view.offer(range.clone());
        self.model.end = range.end;
        self.model.items.extend(range.clone().map(|position| Item {
            position,
            state: State::Ready,
            attempts: 0,
            delivered: false,
            recorded: None,
            committed: (false, None),
        }));
        self.model.offered.push(range);
    }

    fn settle(&mut self, handle: Handle) -> Result<(), TestCaseError> {
        let acknowledge = self.model.policy.acknowledge;
        let item = self.model.flying(handle);
        let position = item.as_ref().map(|item| item.position);
        prop_assert_eq!(self.view.settle(handle), position);
        if let Some(item) = item {
            item.state = State::Settled;
        }
        if let (Some(position), Acknowledge::Cumulative) = (position, acknowledge) {
            self.model.settle_up_to(position + 1);
        }
        Ok(())
    }

    fn give_back(&mut self, handle: Handle, reason: Reason, delay_ms: u32) -> Result<(), TestCaseError> {
        let (policy, now) = (self.model.policy, self.model.now);
        let due = (delay_ms > 0).then(|| now + i64::from(delay_ms));
        let wanted = self.model.flying(handle).map(|item| {
            Model::give_back(&policy, item, reason, due);
            match item.state {
                State::Delayed(due) => Returned::Delayed { due },
                State::Dead { .. } => Returned::Dead,
                _ => Returned::Ready,
            }
        });
        prop_assert_eq!(self.view.give_back(handle, reason, delay_ms, now), wanted);
        Ok(())
    }

    fn poll_dead(&mut self) -> Result<(), TestCaseError> {
        let item = self.model.items.iter_mut().find(|item| item.state == State::Dead { told: false });
        let dead = self.view.poll_dead();
        prop_assert_eq!(dead.map(|dead| dead.position), item.as_ref().map(|item| item.position));
        if let Some(item) = item {
            item.state = State::Dead { told: true };
            prop_assert_eq!(dead.map(|dead| dead.attempts), Some(item.attempts));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), TestCaseError> {
        let facts = self.view.take_facts();
        prop_assert!(facts.settled.windows(2).all(|pair| pair[0].end < pair[1].start));
        let is_in_both = |position: &u64| facts.settled.iter().any(|range| range.contains(position));
        prop_assert!(!facts.returned.iter().any(|(position, _)| is_in_both(position)));
        let mut bytes = Vec::new();
        facts.encode(&mut bytes);
        let decoded = Facts::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &facts);
        self.follower.apply(&decoded);
        same(&self.follower, self.view.progress())?;
        for row in self.view.progress_mut().take_changed_rows() {
            match row.bytes {
                Some(bytes) => _ = self.rows.insert(row.key, bytes),
                None => prop_assert!(self.rows.remove(&row.key).is_some()),
            }
        }
        let restored =
            Progress::restore(self.rows.iter().map(|(key, bytes)| (*key, bytes.as_slice()))).unwrap();
        same(&restored, self.view.progress())?;
        let live: Vec<RowKey> = self.view.progress().rows().iter().map(|row| row.key).collect();
        prop_assert_eq!(self.rows.keys().copied().collect::<Vec<_>>(), live);
        for item in &mut self.model.items {
            item.committed = (item.state == State::Settled, item.recorded);
        }
        Ok(())
    }

    /// A new owner starts from what a follower knows, and reads the log again from the floor.
    fn crash(&mut self) -> Result<(), TestCaseError> {
        let rows: Vec<_> = self.follower.rows();
        let rows = rows.iter().map(|row| (row.key, row.bytes.as_deref().unwrap()));
        let mut progress = Progress::restore(rows).unwrap();
        same(&progress, &self.follower)?;
        self.rows.clear();
        progress.rows().into_iter().for_each(|row| _ = self.rows.insert(row.key, row.bytes.unwrap()));
        progress.take_changed_rows();
        self.floor = progress.floor();
        self.view = View::new(self.model.policy, progress);
        self.handles.clear();
        self.model.crash();
        self.model.offered.iter().cloned().for_each(|range| self.view.offer(range));
        self.model.end = self.view.end();
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let ready = |place| if place == "fresh" || place == "returned" { "ready" } else { place };
        let places: Vec<_> = self.view.places().into_iter().map(|(at, place)| (at, ready(place))).collect();
        let wanted = self.model.places();
        prop_assert_eq!(&places, &wanted);
        let count = |place| wanted.iter().filter(|(_, at)| *at == place).count() as u64;
        let counters = self.view.counters();
        prop_assert_eq!(
            counters,
            Counters {
                ready: count("ready"),
                delayed: count("delayed"),
                unacked: count("in flight"),
                dead: count("dead")
            }
        );
        let floor = wanted.first().map_or(self.model.end, |(position, _)| *position);
        prop_assert_eq!(self.view.progress().floor(), floor);
        prop_assert!(floor >= self.floor, "the floor fell");
        self.floor = floor;
        for item in &self.model.items {
            prop_assert_eq!(self.view.progress().is_settled(item.position), item.state == State::Settled);
        }
        let deadlines = self.model.items.iter().filter_map(|item| match item.state {
            State::Flying { deadline, .. } => deadline,
            State::Delayed(due) => Some(due),
            State::Ready | State::Dead { .. } | State::Settled => None,
        });
        prop_assert_eq!(self.view.next_deadline(), deadlines.min());
        Ok(())
    }
}

fn same(left: &Progress, right: &Progress) -> Result<(), TestCaseError> {
    prop_assert_eq!((left.floor(), left.mark()), (right.floor(), right.mark()));
    prop_assert_eq!(&left.past, &right.past);
    prop_assert_eq!(runs(&left.settled), runs(&right.settled));
    Ok(())
}

fn runs(settled: &Settled) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(start) = settled.next_settled(at) {
        at = settled.next_unsettled(start);
        runs.push(start..at);
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_view_is_a_queue(policy in policy(), ops in vec(op(), 1..120)) {
        let mut run = Run::new(policy);
        for op in &ops {
            run.step(op)?;
        }
        run.commit()?;
    }

    #[test]
    fn holes_over_many_chunks_are_a_set_of_ranges(
        ranges in vec((0u64..12, -2i64..3, 0u64..4, -2i64..3, any::<bool>()), 1..24),
    ) {
        let mut progress = Progress::starting_at(3);
        let mut model: Vec<Range<u64>> = Vec::new();
        let mut rows: BTreeMap<RowKey, Vec<u8>> = BTreeMap::new();
        model.push(0..3);
        for (chunk, low, chunks, high, commit) in ranges {
            let start = (65_536 * (chunk + 1)).saturating_add_signed(low);
            let end = (65_536 * (chunk + 1 + chunks)).saturating_add_signed(high).max(start + 1);
            progress.settle(start..end);
            model.push(start..end);
            for edge in model.iter().flat_map(|range| [range.start, range.end]) {
                for probe in [edge.saturating_sub(1), edge, edge + 1, edge + 40_000] {
                    let wanted = model.iter().any(|range| range.contains(&probe));
                    prop_assert_eq!(progress.is_settled(probe), wanted, "{}", probe);
                }
            }
            if commit {
                for row in progress.take_changed_rows() {
                    match row.bytes {
                        Some(bytes) => _ = rows.insert(row.key, bytes),
                        None => prop_assert!(rows.remove(&row.key).is_some()),
                    }
                }
                let restored = Progress::restore(rows.iter().map(|(key, bytes)| (*key, bytes.as_slice()))).unwrap();
                same(&restored, &progress)?;
                let live: Vec<RowKey> = progress.rows().iter().map(|row| row.key).collect();
                prop_assert_eq!(rows.keys().copied().collect::<Vec<_>>(), live);
            }
        }
        progress.settle(0..65_536 * 20);
        prop_assert_eq!(progress.floor(), 65_536 * 20);
        prop_assert!(progress.settled.is_empty());
    }

    #[test]
    fn bytes_that_nobody_wrote_are_refused_or_consistent(
        chunk in any::<u64>(),
        bytes in vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..60),
        floor in any::<u64>(),
    ) {
        let mut versioned = vec![1u8];
        versioned.extend(&bytes);
        let _ = Facts::decode(&versioned).map(|facts| Progress::default().apply(&facts));
        let mut head = vec![1u8];
        super::varint::put(&mut head, floor);
        super::varint::put(&mut head, 0);
        let chunk = chunk >> (floor % 64);
        if let Ok(progress) = Progress::restore([(RowKey::Chunk(chunk), &versioned[..]), (RowKey::Head, &head[..])]) {
            prop_assert!(progress.floor() >= floor && !progress.settled.contains(progress.floor()));
        }
    }
}

const PLAIN: Policy = Policy {
    acknowledge: Acknowledge::Individual,
    ack_wait_ms: None,
    deliveries_max: None,
    unacked_max: 1000,
    durable: true,
};

fn deliver(view: &mut View, credit: u32) -> Vec<Delivery> {
    let mut out = Vec::new();
    view.next_to_deliver(ConsumerId(1), credit, 0, &mut out);
    out
}

#[test]
fn a_row_cut_anywhere_is_refused() {
    let mut progress = Progress::starting_at(0);
    progress.settle(10..20);
    progress.give_back(30, Past { attempts: 2, due: 7, dead: false });
    let rows = progress.rows();
    assert_eq!(rows.len(), 2);
    let (head, chunk) = (rows[0].bytes.as_deref().unwrap(), rows[1].bytes.as_deref().unwrap());
    for length in 0..chunk.len() {
        let cut = [(RowKey::Head, head), (RowKey::Chunk(0), &chunk[..length])];
        assert!(Progress::restore(cut).is_err(), "{length}");
    }
    assert_eq!(Progress::restore([(RowKey::Chunk(0), chunk)]).unwrap_err(), DecodeError::HeadMissing);
    let newer = [2u8, 0, 0];
    assert_eq!(
        Progress::restore([(RowKey::Head, &newer[..])]).unwrap_err(),
        DecodeError::UnknownVersion { found: 2 }
    );
}

#[test]
fn settling_in_order_is_one_range_and_one_small_row() {
    let mut view = View::new(Policy { unacked_max: u32::MAX, ..PLAIN }, Progress::starting_at(0));
    view.offer(0..200_000);
    for delivery in deliver(&mut view, 200_000) {
        view.settle(delivery.handle.unwrap());
    }
    assert_eq!(view.facts_waiting(), 1);
    assert_eq!(view.take_facts().settled.first(), Some(&(0..200_000)));
    let rows = view.progress_mut().take_changed_rows();
    assert_eq!(rows.iter().map(|row| row.key).collect::<Vec<_>>(), [RowKey::Head]);
    assert!(rows[0].bytes.as_ref().unwrap().len() < 12);
}

#[test]
fn what_a_dead_owner_delivered_comes_marked_as_redelivered() {
    let mut view = View::new(PLAIN, Progress::starting_at(0));
    view.offer(0..4);
    let deliveries = deliver(&mut view, 3);
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered));
    view.settle(deliveries[2].handle.unwrap());
    let mut follower = Progress::starting_at(0);
    follower.apply(&view.take_facts());
    let mut next = View::new(PLAIN, follower);
    next.offer(0..4);
    let again: Vec<_> = deliver(&mut next, 9).iter().map(|got| (got.position, got.redelivered)).collect();
    assert_eq!(again, [(0, true), (1, true), (3, false)]);
}

#[test]
fn a_gap_over_billions_of_positions_costs_nothing() {
    let mut view = View::new(PLAIN, Progress::starting_at(0));
    view.offer(0..1);
    view.offer(1 << 60..(1 << 60) + 1);
    let deliveries = deliver(&mut view, 9);
    assert_eq!(deliveries.iter().map(|got| got.position).collect::<Vec<_>>(), [0, 1 << 60]);
    assert_eq!(view.progress().rows().len(), 3);
    view.settle(deliveries[0].handle.unwrap());
    assert_eq!(view.progress().floor(), 1 << 60);
    assert_eq!(view.progress().rows().len(), 1);
}

#[test]
fn a_view_that_is_not_durable_collects_no_facts() {
    let mut view = View::new(Policy { durable: false, ..PLAIN }, Progress::starting_at(0));
    view.offer(0..10);
    for delivery in deliver(&mut view, 10).iter().step_by(2) {
        view.settle(delivery.handle.unwrap());
    }
    view.handle_holder_gone(ConsumerId(1), 0);
    assert_eq!(view.facts_waiting(), 0);
    assert!(view.take_facts().is_empty());
}
