//! What a share is at a moment: its members, and how far it was read. Pure state: no clock, no I/O, no thread of its own.
//!
//! ```text
//!   the log  -----------------------------------------| cursor |------------------------->
//!            settled, or in one of                              not read
//!              left_over  to be read again
//!              roster     with a member, or given back by one that left
//!              open       the rest of a batch that was handed out in part
//! ```
//!
//! Invariant: this holds whenever the share's lock is free, so that a row made of it at any moment loses nothing.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use model::batch::Records;

use super::roster::{Assigned, Choice, Item, Roster, Strategy};
use super::stored::{Spot, Stored};
use super::taken;
use crate::delivery::{Batch, Cursor};

#[derive(Default)]
pub(super) struct State {
    pub(super) roster: Roster,
    /// Whose sessions the members are.
    pub(super) clients: AHashMap<u64, Arc<str>>,
    /// Number of the last settlement of what a session took, or was found to have taken.
    pub(super) settlements: u64,
    /// To be passed over when the log is read again: sessions took it before a crash.
    pub(super) passed_over: AHashMap<Spot, Arc<taken::Entry>>,
    /// Sessions that the share waits for.
    pub(super) lasting: AHashSet<Arc<str>>,
    /// A feed runs.
    pub(super) is_fed: bool,
    /// How far the log was read; `None`: the next feed begins with the present.
    pub(super) cursor: Option<Cursor>,
    /// Lies before the cursor, and is to be read again.
    pub(super) left_over: Vec<Spot>,
    /// A batch of which some records are not handed out.
    open: Option<Open>,
    pub(super) strategy: Strategy,
    pub(super) publisher_header: &'static str,
    /// Something changed since it was stored.
    pub(super) dirty: bool,
    /// There is a row.
    pub(super) has_row: bool,
    /// Removed from the node: not to be joined.
    pub(super) is_gone: bool,
}

struct Open {
    batch: Arc<Batch>,
    records: Vec<u32>,
    handed_out: usize,
}

impl State {
    /// Something is settled that the row has to know.
    pub(super) fn next_settlement(&mut self) -> u64 {
        self.dirty = true;
        self.settlements += 1;
        self.settlements
    }

    /// Takes up a batch that was read, while none is open: these of its records are to be handed out, but for what sessions
    /// took before a crash.
    pub(super) fn open(&mut self, batch: &Arc<Batch>, mut records: Vec<u32>) {
        if !self.passed_over.is_empty() {
            records.retain(|index| !self.passes_over(batch, *index));
        }
        if let (Some(cursor), Some(position)) = (&mut self.cursor, batch.position) {
            cursor.set(batch.group, position);
        }
        self.open = Some(Open { batch: Arc::clone(batch), records, handed_out: 0 });
        self.dirty = true;
    }

    /// Whether a session took a record before the crash.
    fn passes_over(&mut self, batch: &Arc<Batch>, index: u32) -> bool {
        let spot = Spot::of(&Item { batch: Arc::clone(batch), index });
        let Some(entry) = spot.and_then(|spot| self.passed_over.remove(&spot)) else { return false };
        entry.note_settled(self.next_settlement());
        true
    }

    /// Everything that the last node left has been read again: what was not met lies before the cursor.
    pub(super) fn has_caught_up(&mut self) {
        if !self.passed_over.is_empty() {
            let number = self.next_settlement();
            self.passed_over.drain().for_each(|(_, entry)| entry.note_settled(number));
        }
    }

    /// The batch whose turn it is: of what came back first, then the open one.
    pub(super) fn waiting(&self) -> Option<Arc<Batch>> {
        let returned = self.roster.returned.front().map(|item| &item.batch);
        returned.or(self.open.as_ref().map(|open| &open.batch)).cloned()
    }

    /// Gives members what waits of `batch`, unless it is another one's turn by now. False: nobody has room for the next record.
    pub(super) fn hand_out(
        &mut self,
        batch: &Arc<Batch>,
        decoded: Option<&Records>,
        out: &mut Vec<Assigned>,
    ) -> bool {
        self.hand_out_returned(batch, decoded, out) && self.hand_out_open(batch, decoded, out)
    }

    fn hand_out_returned(
        &mut self,
        batch: &Arc<Batch>,
        decoded: Option<&Records>,
        out: &mut Vec<Assigned>,
    ) -> bool {
        while let Some(item) = self.roster.returned.pop_front_if(|item| Arc::ptr_eq(&item.batch, batch)) {
            // What is delivered at most once is given to nobody else.
            if batch.position.is_some() && self.assign(batch, decoded, &[item.index], out) == 0 {
                self.roster.returned.push_front(item);
                return false;
            }
        }
        true
    }

    fn hand_out_open(
        &mut self,
        batch: &Arc<Batch>,
        decoded: Option<&Records>,
        out: &mut Vec<Assigned>,
    ) -> bool {
        if !self.roster.returned.is_empty() {
            return true;
        }
        let Some(mut open) = self.open.take_if(|open| Arc::ptr_eq(&open.batch, batch)) else { return true };
        open.handed_out += self.assign(batch, decoded, &open.records[open.handed_out..], out);
        // What is delivered at most once waits for nobody.
        if open.handed_out == open.records.len() || batch.position.is_none() {
            return true;
        }
        self.open = Some(open);
        false
    }

    fn assign(
        &mut self,
        batch: &Arc<Batch>,
        decoded: Option<&Records>,
        records: &[u32],
        out: &mut Vec<Assigned>,
    ) -> usize {
        let (strategy, header) = (self.strategy, self.publisher_header);
        let choice = |index| Choice { strategy, hash: hash(strategy, header, batch, (decoded, index)) };
        self.roster.assign(batch, records, choice, out)
    }

    /// What lies before the cursor and is not settled.
    fn unsettled(&self) -> Vec<Spot> {
        let rest = self.open.iter().flat_map(|open| {
            let rest = open.records[open.handed_out..].iter();
            rest.map(|index| Item { batch: Arc::clone(&open.batch), index: *index })
        });
        let in_memory = self.roster.unsettled().chain(rest).filter_map(|item| Spot::of(&item));
        self.left_over.iter().copied().chain(in_memory).collect()
    }

    /// What a crash must not lose; `None` before the first member came.
    pub(super) fn stored(&self) -> Option<Stored> {
        Some(Stored {
            cursor: self.cursor.clone()?,
            left_over: self.unsettled(),
            lasting: self.lasting.iter().cloned().collect(),
        })
    }

    /// The last member left: what waits is for the next feed to read again.
    pub(super) fn put_down(&mut self) {
        self.left_over = self.unsettled();
        self.roster.returned.clear();
        self.open = None;
        self.is_fed = false;
    }
}

fn hash(strategy: Strategy, header: &str, batch: &Batch, (records, index): (Option<&Records>, u32)) -> u64 {
    if !matches!(strategy, Strategy::HashSubject | Strategy::HashPublisher) {
        return 0;
    }
    let record = records.and_then(|records| records.get(index as usize));
    let Some(record) = record else { return 0 };
    let publisher = match strategy {
        Strategy::HashPublisher => record.header(header).flatten(),
        _ => None,
    };
    let bytes = publisher.unwrap_or_else(|| batch.subject(&record).as_bytes());
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::GroupId;
    use proptest::prelude::*;

    use super::super::roster::tests::{batch, topic};
    use super::{Cursor, Item, State};

    #[derive(Debug, Clone)]
    enum Action {
        Join {
            credit: usize,
        },
        Leave {
            which: prop::sample::Index,
        },
        Settle {
            which: prop::sample::Index,
        },
        Read,
        HandOut,
        /// The feed ends, and another one reads some of what it left.
        Restart {
            reads: usize,
        },
    }

    fn action() -> impl proptest::strategy::Strategy<Value = Action> {
        prop_oneof![
            2 => (1_usize..6).prop_map(|credit| Action::Join { credit }),
            2 => any::<prop::sample::Index>().prop_map(|which| Action::Leave { which }),
            6 => any::<prop::sample::Index>().prop_map(|which| Action::Settle { which }),
            4 => Just(Action::Read),
            4 => Just(Action::HandOut),
            2 => (0_usize..6).prop_map(|reads| Action::Restart { reads }),
        ]
    }

    /// Where a member has a record: member, parcel, nth in it.
    type Place = (u64, u64, usize);
    /// Index of the entry, and of the record in its batch.
    type Record = (u64, u32);

    proptest! {
        /// What would be stored is, after each step, what was read and is not settled: nothing is missing, nothing there twice.
        #[test]
        fn at_any_moment_a_row_has_all_that_was_read_and_is_not_settled(
            actions in proptest::collection::vec(action(), 1..120),
        ) {
            let topic = topic();
            let mut state = State { cursor: Some(Cursor::default()), ..State::default() };
            let mut members: Vec<u64> = Vec::new();
            let mut unsettled: BTreeSet<Record> = BTreeSet::new();
            let mut held: Vec<(Place, Record)> = Vec::new();
            for (next, action) in (1..).zip(actions) {
                match action {
                    Action::Join { credit } => {
                        state.roster.add(next, 0, credit);
                        members.push(next);
                    }
                    Action::Leave { which } if !members.is_empty() => {
                        let member = members.swap_remove(which.index(members.len()));
                        state.roster.remove(member);
                        held.retain(|((holder, ..), _)| *holder != member);
                    }
                    Action::Settle { which } if !held.is_empty() => {
                        let ((member, parcel, nth), record) = held.swap_remove(which.index(held.len()));
                        state.roster.settle(member, parcel, nth);
                        unsettled.remove(&record);
                    }
                    Action::Read if state.waiting().is_none() => {
                        state.open(&batch(&topic, next), vec![0, 1, 3]);
                        unsettled.extend([0, 1, 3].map(|index| (next, index)));
                        prop_assert_eq!(state.cursor.as_ref().unwrap().get(GroupId(1)).index, next);
                    }
                    Action::HandOut => {
                        while let Some(batch) = state.waiting() {
                            let mut out = Vec::new();
                            let has_room = state.hand_out(&batch, None, &mut out);
                            for assigned in out {
                                held.extend(assigned.records.iter().enumerate().map(|(nth, index)| {
                                    ((assigned.member, assigned.parcel, nth), (batch.base.0, *index))
                                }));
                            }
                            if !has_room {
                                break;
                            }
                        }
                    }
                    Action::Restart { reads } if members.is_empty() => {
                        state.put_down();
                        let reads = reads.min(state.left_over.len());
                        let items = state.left_over.drain(..reads);
                        let items = items.map(|spot| Item { batch: batch(&topic, spot.base.0), index: spot.index });
                        let items = items.collect();
                        state.roster.give_back(items);
                    }
                    Action::Leave { .. } | Action::Settle { .. } | Action::Read | Action::Restart { .. } => {}
                }
                let stored = state.stored().expect("there is a cursor").left_over;
                let mut stored: Vec<_> = stored.iter().map(|spot| (spot.base.0, spot.index)).collect();
                stored.sort_unstable();
                prop_assert_eq!(stored, unsettled.iter().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_look_for_somebody_with_room_changes_nothing_that_is_stored() {
        let mut state = State { cursor: Some(Cursor::default()), ..State::default() };
        let batch = batch(&topic(), 1);
        state.open(&batch, vec![0, 1, 2, 3]);
        state.dirty = false;
        assert!(!state.hand_out(&batch, None, &mut Vec::new()));
        assert!(!state.dirty);
    }
}
