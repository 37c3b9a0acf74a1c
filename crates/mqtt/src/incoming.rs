//! Publications that a client sends: their acknowledgements in the order of the publications [MQTT-4.6.0-2, 4.6.0-3], and the
//! packet identifiers of QoS 2. Hot path.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use broker::{Published, Publisher, RowWrite};
use bytes::{BufMut, Bytes, BytesMut};
use model::{ErrorKind, GroupId};

use crate::aliases::Given;

/// What a client's publications need.
pub(crate) struct Incoming {
    pub(crate) publisher: Publisher,
    pub(crate) acks: Acks,
    /// QoS 2 publications whose PUBREL has not been answered.
    pub(crate) received: BTreeMap<u16, Received>,
    /// Durable messages pushed so far: the next ticket.
    pub(crate) pushed: u64,
    /// PUBRELs whose rows are to be deleted with the next transaction, and those of the one under way.
    pub(crate) releasing: Releasing,
    /// Topics that the client has given numbers to.
    pub(crate) aliases: Given,
}

impl Incoming {
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            acks: Acks::default(),
            received: BTreeMap::new(),
            pushed: 0,
            releasing: Releasing::default(),
            aliases: Given::default(),
        }
    }

    /// Publications that count against our Receive Maximum [MQTT-3.3.4-7].
    pub(crate) fn unacknowledged(&self) -> usize {
        self.acks.undecided_qos1 + self.received.len()
    }

    /// Whether a QoS 2 publication is not decided yet.
    pub(crate) fn has_undecided_qos2(&self) -> bool {
        self.received.values().any(|received| matches!(received, Received::Undecided(_)))
    }
}

/// How far a QoS 2 publication has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Pushed, not decided. The group that will hold its row, if that is known.
    Undecided(Option<GroupId>),
    /// Stored; PUBREC is sent. The group that holds its row, if that is known.
    Stored(Option<GroupId>),
    /// PUBREL came; its row is being deleted.
    Releasing,
}

/// PUBRELs on their way.
#[derive(Default)]
pub(crate) struct Releasing {
    pub(crate) next: Vec<(NonZeroU16, Option<GroupId>)>,
    pub(crate) under_way: Vec<NonZeroU16>,
}

/// Which acknowledgement a publication gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckOf {
    /// PUBACK.
    Qos1,
    /// PUBREC.
    Qos2,
}

/// An acknowledgement that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) id: NonZeroU16,
    pub(crate) of: AckOf,
    /// None while it is undecided.
    pub(crate) result: Option<Result<(), ErrorKind>>,
    /// Of its push; of one without a push, that of the next push.
    ticket: u64,
}

/// Acknowledgements in the order of the publications, whatever the order in which they are decided.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    owed: VecDeque<Owed>,
    undecided_qos1: usize,
}

impl Acks {
    /// A publication was pushed under `ticket`.
    #[inline]
    pub(crate) fn push(&mut self, id: NonZeroU16, of: AckOf, ticket: u64) {
        self.undecided_qos1 += usize::from(of == AckOf::Qos1);
        self.owed.push_back(Owed { id, of, result: None, ticket });
    }

    /// A publication was answered without a push; `next_ticket` is that of the next push.
    pub(crate) fn push_decided(
        &mut self,
        id: NonZeroU16,
        of: AckOf,
        result: Result<(), ErrorKind>,
        next_ticket: u64,
    ) {
        self.owed.push_back(Owed { id, of, result: Some(result), ticket: next_ticket });
    }

    /// Notes what became of some pushes.
    pub(crate) fn decide(&mut self, published: &Published) {
        let first = self.owed.front().map_or(0, |owed| owed.ticket);
        let mut at = match published.tickets.start <= first {
            true => 0,
            false => self.owed.partition_point(|owed| owed.ticket < published.tickets.start),
        };
        while let Some(owed) = self.owed.get_mut(at) {
            if owed.ticket >= published.tickets.end {
                break;
            }
            if owed.result.is_none() && published.tickets.contains(&owed.ticket) {
                owed.result = Some(published.result);
                self.undecided_qos1 -= usize::from(owed.of == AckOf::Qos1);
            }
            at += 1;
        }
    }

    /// The next acknowledgement that can be sent.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Owed> {
        let _decided = self.owed.front()?.result?;
        let next = self.owed.pop_front();
        if self.owed.is_empty() && self.owed.capacity() > 64 {
            self.owed = VecDeque::new();
        }
        next
    }
}

/// Rows of the packet identifiers of QoS 2: `mq <incarnation 8> <packet id 2>`, beside the records that they brought.
pub(crate) struct ReceivedRows {
    incarnation: u64,
}

impl ReceivedRows {
    pub(crate) fn of(incarnation: u64) -> Self {
        Self { incarnation }
    }

    /// What the keys of a session begin with.
    pub(crate) fn prefix(&self) -> Bytes {
        self.key_with(&[])
    }

    pub(crate) fn put(&self, id: NonZeroU16) -> RowWrite {
        RowWrite::Put { key: self.key_with(&id.get().to_be_bytes()), value: Bytes::new() }
    }

    pub(crate) fn delete(&self, id: NonZeroU16) -> RowWrite {
        RowWrite::Delete { key: self.key_with(&id.get().to_be_bytes()) }
    }

    /// The packet identifier of a key.
    pub(crate) fn id_of(key: &[u8]) -> Option<NonZeroU16> {
        let id: [u8; 2] = key.get(10..)?.try_into().ok()?;
        NonZeroU16::new(u16::from_be_bytes(id))
    }

    fn key_with(&self, rest: &[u8]) -> Bytes {
        let mut key = BytesMut::with_capacity(12);
        key.put_slice(b"mq");
        key.put_u64(self.incarnation);
        key.put_slice(rest);
        key.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    proptest! {
        /// Whatever the order of the decisions, acknowledgements come in the order of the publications, each once
        /// and with its own result.
        #[test]
        fn mqtt_4_6_0_2_acks_come_in_the_order_of_the_publications(
            kinds in proptest::collection::vec(0u8..4, 1..60),
            cuts in proptest::collection::vec(1usize..5, 1..60),
            order in any::<u64>(),
        ) {
            let mut acks = Acks::default();
            let mut ticket = 0;
            let mut expected = Vec::new();
            for (number, kind) in kinds.iter().enumerate() {
                let id = id(number as u16 + 1);
                let of = if kind % 2 == 0 { AckOf::Qos1 } else { AckOf::Qos2 };
                if *kind < 3 {
                    acks.push(id, of, ticket);
                    let result = if ticket % 7 == 3 { Err(ErrorKind::StorageFull) } else { Ok(()) };
                    expected.push((id, of, result));
                    ticket += 1;
                } else {
                    acks.push_decided(id, of, Ok(()), ticket);
                    expected.push((id, of, Ok(())));
                }
            }
            let mut ranges = Vec::new();
            let mut start = 0;
            for cut in cuts.iter().cycle() {
                if start >= ticket { break; }
                let single = start % 7 == 3;
                let mut end = (start + *cut as u64).min(ticket);
                if single { end = start + 1; } else if let Some(bad) = (start..end).find(|t| t % 7 == 3) { end = bad; }
                let result = if single { Err(ErrorKind::StorageFull) } else { Ok(()) };
                ranges.push(Published { tickets: start..end, result });
                start = end;
            }
            let mut seed = order;
            let mut answered = Vec::new();
            while let Some(owed) = acks.next() {
                answered.push((owed.id, owed.of, owed.result.unwrap()));
            }
            while !ranges.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let published = ranges.remove((seed >> 33) as usize % ranges.len());
                acks.decide(&published);
                while let Some(owed) = acks.next() {
                    answered.push((owed.id, owed.of, owed.result.unwrap()));
                }
            }
            prop_assert_eq!(answered, expected);
            prop_assert_eq!(acks.undecided_qos1, 0);
        }
    }

    #[test]
    fn an_event_without_tickets_decides_nothing() {
        let mut acks = Acks::default();
        acks.push(id(1), AckOf::Qos1, 0);
        acks.decide(&Published { tickets: 0..0, result: Ok(()) });
        assert_eq!(acks.next(), None);
    }

    #[test]
    fn keys_of_received_rows_name_their_packet_identifier() {
        let rows = ReceivedRows::of(7);
        let RowWrite::Put { key, .. } = rows.put(id(513)) else { unreachable!() };
        assert!(key.starts_with(&rows.prefix()));
        assert_eq!(ReceivedRows::id_of(&key), Some(id(513)));
        assert_eq!(ReceivedRows::id_of(b"mq"), None);
        assert!(!key.starts_with(&ReceivedRows::of(8).prefix()));
    }
}
