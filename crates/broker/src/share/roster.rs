//! Who of a share gets the next record, who has which, and what must be given to somebody else. Pure state: no clock, no
//! I/O, no thread of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delivery::Batch;

/// How a share chooses the member for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// In turns, among those that have room.
    #[default]
    RoundRobin,
    /// Whoever has the fewest records that are not settled.
    LeastInFlight,
    /// One member gets everything until it leaves.
    Sticky,
    /// Records of one subject go to one member, as long as the members are the same.
    HashSubject,
    /// Records of one publisher go to one member, as long as the members are the same. Records whose publisher is not known
    /// go by subject.
    HashPublisher,
    /// Members of the node that has the record first; among those in turns.
    LocalFirst,
}

/// One record that a member has, or had.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) batch: Arc<Batch>,
    pub(super) index: u32,
}

/// What a member was given in one hand-over.
struct Parcel {
    number: u64,
    batch: Arc<Batch>,
    /// Index in the batch; `None` once it is settled.
    records: Vec<Option<u32>>,
    unsettled: usize,
}

/// A connected member.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) core: u16,
    /// Records that it may have unsettled.
    credit: usize,
    unsettled: usize,
    parcels: VecDeque<Parcel>,
    next_number: u64,
}

/// A record for a member: `(member, parcel, index in the batch)`; consecutive ones of one batch and member share a parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) member: u64,
    pub(super) core: u16,
    pub(super) parcel: u64,
    pub(super) records: Vec<u32>,
}

/// The members of one share on this node, and what they have.
#[derive(Default)]
pub(super) struct Roster {
    members: Vec<Member>,
    /// Whose turn is next.
    turn: usize,
    /// What came back from members that left, oldest first.
    pub(super) returned: VecDeque<Item>,
}

/// What a strategy goes by besides the members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) strategy: Strategy,
    /// For the strategies that hash.
    pub(super) hash: u64,
}

impl Roster {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn add(&mut self, id: u64, core: u16, credit: usize) {
        let credit = credit.max(1);
        let member = Member { id, core, credit, unsettled: 0, parcels: VecDeque::new(), next_number: 0 };
        self.members.push(member);
    }

    /// A member is gone: what it did not settle comes back.
    pub(super) fn remove(&mut self, id: u64) {
        let Some(at) = self.members.iter().position(|member| member.id == id) else { return };
        let member = self.members.remove(at);
        if self.turn > at {
            self.turn -= 1;
        }
        for parcel in member.parcels {
            let left = parcel.records.into_iter().flatten();
            self.returned.extend(left.map(|index| Item { batch: Arc::clone(&parcel.batch), index }));
        }
        self.give_back(Vec::new());
    }

    /// Records that are to be handed out again, in the order of the log.
    pub(super) fn give_back(&mut self, items: Vec<Item>) {
        self.returned.extend(items);
        let place = |item: &Item| (item.batch.group, item.batch.position, item.index);
        self.returned.make_contiguous().sort_by_key(place);
    }

    /// A record that a member has.
    pub(super) fn item(&self, id: u64, parcel: u64, nth: usize) -> Option<Item> {
        let member = self.members.iter().find(|member| member.id == id)?;
        let first = member.parcels.front()?.number;
        let found = member.parcels.get(parcel.wrapping_sub(first) as usize)?;
        let index = found.records.get(nth).copied().flatten()?;
        Some(Item { batch: Arc::clone(&found.batch), index })
    }

    /// A record is done with. Answers whether its member had no room before.
    pub(super) fn settle(&mut self, id: u64, parcel: u64, nth: usize) -> bool {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return false };
        let first = member.parcels.front().map_or(parcel, |parcel| parcel.number);
        let at = parcel.wrapping_sub(first) as usize;
        let Some(found) = member.parcels.get_mut(at) else { return false };
        if found.records.get_mut(nth).and_then(Option::take).is_none() {
            return false;
        }
        found.unsettled -= 1;
        let was_full = member.unsettled >= member.credit;
        member.unsettled -= 1;
        while member.parcels.front().is_some_and(|parcel| parcel.unsettled == 0) {
            member.parcels.pop_front();
        }
        was_full
    }

    /// Gives out records of a batch, in order. Answers how many, which is fewer than there are when nobody who may take
    /// the next one has room.
    pub(super) fn assign(
        &mut self,
        batch: &Arc<Batch>,
        records: &[u32],
        mut choice: impl FnMut(u32) -> Choice,
        out: &mut Vec<Assigned>,
    ) -> usize {
        let begin = out.len();
        for (count, &index) in records.iter().enumerate() {
            let Some(at) = self.pick(choice(index)) else { return count };
            let member = &mut self.members[at];
            member.unsettled += 1;
            let open = out[begin..].iter_mut().find(|assigned| assigned.member == member.id);
            match (open, member.parcels.back_mut()) {
                (Some(open), Some(parcel)) => {
                    open.records.push(index);
                    parcel.records.push(Some(index));
                    parcel.unsettled += 1;
                }
                _ => {
                    let number = member.next_number;
                    member.next_number += 1;
                    let (batch, records) = (Arc::clone(batch), vec![Some(index)]);
                    member.parcels.push_back(Parcel { number, batch, records, unsettled: 1 });
                    let (id, core) = (member.id, member.core);
                    out.push(Assigned { member: id, core, parcel: number, records: vec![index] });
                }
            }
        }
        records.len()
    }

    /// Everything that is not settled, oldest first per member: what a crash must not lose.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = Item> {
        let held = self.members.iter().flat_map(|member| &member.parcels).flat_map(|parcel| {
            let left = parcel.records.iter().flatten();
            left.map(|index| Item { batch: Arc::clone(&parcel.batch), index: *index })
        });
        self.returned.iter().cloned().chain(held)
    }

    fn pick(&mut self, choice: Choice) -> Option<usize> {
        let count = self.members.len();
        let has_room = |member: &Member| member.unsettled < member.credit;
        let at = match choice.strategy {
            Strategy::RoundRobin | Strategy::LocalFirst => {
                let mut turns = (0..count).map(|step| (self.turn + step) % count);
                turns.find(|at| has_room(&self.members[*at]))?
            }
            Strategy::LeastInFlight => {
                // From the turn on, so that equals take turns.
                let turns = (0..count).map(|step| (self.turn + step) % count);
                let least = turns.min_by_key(|at| self.members[*at].unsettled)?;
                has_room(&self.members[least]).then_some(least)?
            }
            // Order is what these are chosen for: they wait for their member.
            Strategy::Sticky => self.members.first().filter(|member| has_room(member)).map(|_| 0)?,
            Strategy::HashSubject | Strategy::HashPublisher => {
                let at = self.by_hash(choice.hash)?;
                has_room(&self.members[at]).then_some(at)?
            }
        };
        self.turn = at + 1;
        Some(at)
    }

    /// Highest random weight: a member that comes or goes moves only its own part.
    fn by_hash(&self, hash: u64) -> Option<usize> {
        let weight = |member: &Member| {
            let mixed =
                (hash ^ member.id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            mixed ^ mixed >> 33
        };
        (0..self.members.len()).max_by_key(|at| weight(&self.members[*at]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use model::batch::BatchBuilder;
    use model::{EngineKind, GroupId, Offset, ShardId, TenantId, TopicId, TopicName, TopicNumber};
    use proptest::prelude::*;
    use storage::{BatchFlags, Position, StoredBatch};

    use super::{Arc, Batch, Choice, Item, Roster, Strategy as Choose};
    use crate::topic::{Origin, Retention, Topic, TopicConfig};

    pub(in crate::share) fn topic() -> Arc<Topic> {
        let retention = Retention { ms: None, bytes: None };
        let config =
            TopicConfig { engine: EngineKind::Segment, retention, captures: Vec::new(), extra: Vec::new() };
        Arc::new(Topic {
            id: TopicId::from_bytes([0; 16]),
            tenant: TenantId::default(),
            name: TopicName::new("t").unwrap(),
            shards: Vec::new(),
            origin: Origin::FirstUse,
            config,
        })
    }

    /// Of four records.
    pub(in crate::share) fn batch(topic: &Arc<Topic>, index: u64) -> Arc<Batch> {
        let mut builder = BatchBuilder::with_capacity(64);
        builder
            .push(0, None, Some(&b"x"[..]), std::iter::empty::<(&[u8], Option<&[u8]>)>())
            .expect("it fits");
        let shard = ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(1), 0);
        let stored = StoredBatch {
            base: Offset(index),
            count: 4,
            flags: BatchFlags::NONE,
            position: Position { index, ordinal: 0 },
            timestamp_max: 0,
            bytes: builder.finish(),
        };
        Arc::new(Batch::committed(Arc::clone(topic), shard, stored))
    }

    #[derive(Debug, Clone)]
    enum Action {
        Join { credit: usize },
        Leave { which: prop::sample::Index },
        Settle { which: prop::sample::Index },
        Offer,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            2 => (1_usize..6).prop_map(|credit| Action::Join { credit }),
            1 => any::<prop::sample::Index>().prop_map(|which| Action::Leave { which }),
            6 => any::<prop::sample::Index>().prop_map(|which| Action::Settle { which }),
            4 => Just(Action::Offer),
        ]
    }

    fn sorted(records: impl Iterator<Item = (u64, u32)>) -> Vec<(u64, u32)> {
        let mut records: Vec<_> = records.collect();
        records.sort_unstable();
        records
    }

    proptest! {
        /// Against a plain list of who holds what: every record is with one member, came back, or is settled; no member has
        /// more than its credit.
        #[test]
        fn every_record_is_in_one_place(
            actions in proptest::collection::vec(action(), 1..120),
            strategy in prop_oneof![
                Just(Choose::RoundRobin), Just(Choose::LeastInFlight), Just(Choose::Sticky), Just(Choose::HashSubject),
            ],
        ) {
            let topic = topic();
            let mut roster = Roster::default();
            let mut credits: BTreeMap<u64, usize> = BTreeMap::new();
            // (member, parcel, nth) of what is not settled, by record.
            let mut held: BTreeMap<(u64, u32), (u64, u64, usize)> = BTreeMap::new();
            let (mut next_member, mut next_batch) = (0, 1);
            for action in actions {
                match action {
                    Action::Join { credit } => {
                        roster.add(next_member, 0, credit);
                        credits.insert(next_member, credit);
                        next_member += 1;
                    }
                    Action::Leave { which } => {
                        if credits.is_empty() { continue }
                        let id = *credits.keys().nth(which.index(credits.len())).unwrap();
                        credits.remove(&id);
                        let before = roster.returned.len();
                        roster.remove(id);
                        let mine = held.values().filter(|(member, ..)| *member == id).count();
                        prop_assert_eq!(roster.returned.len(), before + mine);
                        held.retain(|_, (member, ..)| *member != id);
                    }
                    Action::Settle { which } => {
                        if held.is_empty() { continue }
                        let record = *held.keys().nth(which.index(held.len())).unwrap();
                        let (member, parcel, nth) = held.remove(&record).unwrap();
                        roster.settle(member, parcel, nth);
                        // Again changes nothing.
                        prop_assert!(!roster.settle(member, parcel, nth));
                    }
                    Action::Offer => {
                        let (batch, records) = match roster.returned.pop_front() {
                            Some(item) => (item.batch, vec![item.index]),
                            None => {
                                next_batch += 1;
                                (batch(&topic, next_batch), vec![0, 1, 2, 3])
                            }
                        };
                        let mut out = Vec::new();
                        let choice = |index| Choice { strategy, hash: u64::from(index) };
                        let count = roster.assign(&batch, &records, choice, &mut out);
                        for index in &records[count..] {
                            roster.returned.push_back(Item { batch: Arc::clone(&batch), index: *index });
                        }
                        for assigned in out {
                            for (nth, index) in assigned.records.iter().enumerate() {
                                let record = (batch.base.0, *index);
                                let place = (assigned.member, assigned.parcel, nth);
                                prop_assert!(held.insert(record, place).is_none(), "with two members");
                            }
                        }
                    }
                }
                for (id, credit) in &credits {
                    let mine = held.values().filter(|(member, ..)| member == id).count();
                    prop_assert!(mine <= *credit);
                }
                let unsettled = sorted(roster.unsettled().map(|item| (item.batch.base.0, item.index)));
                let returned = roster.returned.iter().map(|item| (item.batch.base.0, item.index));
                let expected = sorted(held.keys().copied().chain(returned));
                prop_assert_eq!(unsettled, expected);
            }
        }
    }
}
