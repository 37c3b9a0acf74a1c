//! What of a session survives its connection, as opaque bytes for the broker's session registry.
//!
//! ```text
//!   version u8 | incarnation u64 | will
//!   subscriptions u32 | (text, tag u32)*
//!   has cursor u8 | cursor | starts u32 | (filter, cursor)*           (since version 3)
//!   resumes u16 (u8 in version 1) | (cursor of one place, records u32)*
//!   sources u16 | (shard u64 (0: retained), topic)*
//!   exchanges u16 | (packet id u16, flags u8, source u16, base u64, record u32, identifier u32)*
//!   will: 0 | 1 packet, qos u8 | 2 key of its row, value of its row       texts and packets have their length u32 in front
//! ```

use std::num::NonZeroU16;

use broker::Cursor;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Offset, ShardId, TopicName};
use wire::mqtt::Qos;

use crate::subscription::{Subscription, Tag};

const VERSION: u8 = 3;

const EXACTLY_ONCE: u8 = 1;
const RELEASED: u8 = 2;
const RETAIN: u8 = 4;
const UNSENT: u8 = 8;
const WITHOUT_SHARD: u64 = 0;

/// A session at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Differs for every session that a client identifier ever had: rows of an earlier one mean nothing to a later one.
    pub(crate) incarnation: u64,
    pub(crate) subscriptions: Vec<Subscription>,
    /// What was taken from the log; none if nothing was ever subscribed.
    pub(crate) cursor: Option<Cursor>,
    /// The filters of subscriptions that begin ahead of the cursor, and where.
    pub(crate) starts: Vec<(Box<str>, Cursor)>,
    /// Batches behind the cursor whose first records were taken, at most one of each group.
    pub(crate) resumes: Vec<Resume>,
    /// Deliveries that are not acknowledged, in the order of their first sending.
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) will: StoredWill,
}

/// How much of the batch at one place was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resume {
    /// Holds the one place.
    pub(crate) at: Cursor,
    /// Picked records that were taken.
    pub(crate) taken: u32,
}

/// A will that waits for its delay, or for what the next owner of the session makes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum StoredWill {
    /// There is none.
    #[default]
    None,
    /// It comes with the session.
    Inline(
        /// The will at rest.
        Bytes,
    ),
    /// It lies in a row of its own until it is due.
    InRow {
        /// The row's key.
        key: Bytes,
        /// The row's value.
        value: Bytes,
    },
}

/// One delivery that is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) id: NonZeroU16,
    pub(crate) exactly_once: bool,
    /// PUBREC came: PUBREL is what has to be sent.
    pub(crate) is_released: bool,
    /// PUBLISH was certainly never sent, so that it is not sent any more once the message has expired.
    pub(crate) is_unsent: bool,
    pub(crate) origin: Origin,
}

/// Which record is delivered, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Topic that stores it; of a retained message, its subject.
    pub(crate) topic: TopicName,
    /// Where it is stored; none for a retained message.
    pub(crate) shard: Option<ShardId>,
    /// Of its batch.
    pub(crate) base: Offset,
    /// Its number in the batch.
    pub(crate) index: u32,
    /// RETAIN is set towards the client.
    pub(crate) retain: bool,
    /// Subscription identifier, 0 if there is none.
    pub(crate) identifier: u32,
}

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + 32 * self.subscriptions.len() + 24 * self.in_flight.len());
        out.put_u8(VERSION);
        out.put_u64(self.incarnation);
        self.will.encode(&mut out);
        out.put_u32(self.subscriptions.len() as u32);
        for subscription in &self.subscriptions {
            put_block(&mut out, subscription.text.as_bytes());
            out.put_u32(subscription.tag.0);
        }
        out.put_u8(u8::from(self.cursor.is_some()));
        if let Some(cursor) = &self.cursor {
            cursor.encode(&mut out);
        }
        out.put_u32(self.starts.len() as u32);
        for (filter, start) in &self.starts {
            put_block(&mut out, filter.as_bytes());
            start.encode(&mut out);
        }
        out.put_u16(self.resumes.len() as u16);
        for resume in &self.resumes {
            resume.at.encode(&mut out);
            out.put_u32(resume.taken);
        }
        self.encode_in_flight(&mut out);
        out.freeze()
    }

    fn encode_in_flight(&self, out: &mut BytesMut) {
        let mut sources: Vec<(Option<ShardId>, &TopicName)> = Vec::new();
        let mut last = 0;
        let mut numbers = Vec::with_capacity(self.in_flight.len());
        for exchange in &self.in_flight {
            let source = (exchange.origin.shard, &exchange.origin.topic);
            if sources.get(last) != Some(&source) {
                last = sources.iter().position(|known| *known == source).unwrap_or(sources.len());
                if last == sources.len() {
                    sources.push(source);
                }
            }
            numbers.push(last as u16);
        }
        out.put_u16(sources.len() as u16);
        for (shard, topic) in sources {
            out.put_u64(shard.map_or(WITHOUT_SHARD, ShardId::to_u64));
            put_block(out, topic.as_str().as_bytes());
        }
        out.put_u16(self.in_flight.len() as u16);
        for (exchange, number) in self.in_flight.iter().zip(numbers) {
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            out.put_u16(exchange.id.get());
            out.put_u8(
                bit(exchange.exactly_once, EXACTLY_ONCE)
                    | bit(exchange.is_released, RELEASED)
                    | bit(exchange.is_unsent, UNSENT)
                    | bit(exchange.origin.retain, RETAIN),
            );
            out.put_u16(number);
            out.put_u64(exchange.origin.base.0);
            out.put_u32(exchange.origin.index);
            out.put_u32(exchange.origin.identifier);
        }
    }

    /// None if the bytes are damaged, or of a version that this build does not know.
    pub(crate) fn decode(mut input: Bytes) -> Option<Self> {
        let input = &mut input;
        let version = input.try_get_u8().ok()?;
        if !(1..=VERSION).contains(&version) {
            return None;
        }
        let incarnation = input.try_get_u64().ok()?;
        let will = StoredWill::decode(input)?;
        let count = input.try_get_u32().ok()?;
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            let text = take_text(input)?;
            subscriptions.push(Subscription { text, tag: Tag(input.try_get_u32().ok()?) });
        }
        let cursor = match input.try_get_u8().ok()? {
            0 => None,
            _ => Some(Cursor::decode(input)?),
        };
        let count = if version >= 3 { input.try_get_u32().ok()? } else { 0 };
        let mut starts = Vec::new();
        for _ in 0..count {
            starts.push((take_text(input)?, Cursor::decode(input)?));
        }
        let count = if version >= 2 { input.try_get_u16().ok()? } else { input.try_get_u8().ok()?.into() };
        let mut resumes = Vec::new();
        for _ in 0..count {
            resumes.push(Resume { at: Cursor::decode(input)?, taken: input.try_get_u32().ok()? });
        }
        let in_flight = decode_in_flight(input)?;
        let state = Self { incarnation, subscriptions, cursor, starts, resumes, in_flight, will };
        input.is_empty().then_some(state)
    }
}

fn decode_in_flight(input: &mut Bytes) -> Option<Vec<InFlight>> {
    let count = input.try_get_u16().ok()?;
    let mut sources = Vec::new();
    for _ in 0..count {
        let shard = match input.try_get_u64().ok()? {
            WITHOUT_SHARD => None,
            packed => Some(ShardId::from_u64(packed).ok()?),
        };
        let topic = TopicName::new(std::str::from_utf8(&take_block(input)?).ok()?).ok()?;
        sources.push((shard, topic));
    }
    let count = input.try_get_u16().ok()?;
    let mut in_flight = Vec::new();
    for _ in 0..count {
        let id = NonZeroU16::new(input.try_get_u16().ok()?)?;
        let flags = input.try_get_u8().ok()?;
        let (shard, topic) = sources.get(usize::from(input.try_get_u16().ok()?))?.clone();
        in_flight.push(InFlight {
            id,
            exactly_once: flags & EXACTLY_ONCE != 0,
            is_released: flags & RELEASED != 0,
            is_unsent: flags & UNSENT != 0,
            origin: Origin {
                topic,
                shard,
                base: Offset(input.try_get_u64().ok()?),
                index: input.try_get_u32().ok()?,
                retain: flags & RETAIN != 0,
                identifier: input.try_get_u32().ok()?,
            },
        });
    }
    Some(in_flight)
}

impl StoredWill {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::None => out.put_u8(0),
            Self::Inline(will) => {
                out.put_u8(1);
                put_block(out, will);
            }
            Self::InRow { key, value } => {
                out.put_u8(2);
                put_block(out, key);
                put_block(out, value);
            }
        }
    }

    fn decode(input: &mut Bytes) -> Option<Self> {
        match input.try_get_u8().ok()? {
            0 => Some(Self::None),
            1 => Some(Self::Inline(take_block(input)?)),
            2 => Some(Self::InRow { key: take_block(input)?, value: take_block(input)? }),
            _ => None,
        }
    }
}

/// QoS from its number.
pub(crate) fn qos_of(number: u8) -> Option<Qos> {
    match number {
        0 => Some(Qos::AtMostOnce),
        1 => Some(Qos::AtLeastOnce),
        2 => Some(Qos::ExactlyOnce),
        _ => None,
    }
}

fn put_block(out: &mut BytesMut, block: &[u8]) {
    out.put_u32(block.len() as u32);
    out.put_slice(block);
}

fn take_block(input: &mut Bytes) -> Option<Bytes> {
    let len = input.try_get_u32().ok()? as usize;
    (len <= input.len()).then(|| input.split_to(len))
}

fn take_text(input: &mut Bytes) -> Option<Box<str>> {
    let text = take_block(input)?;
    std::str::from_utf8(&text).ok().map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EngineKind, GroupId, TopicNumber};
    use proptest::prelude::*;

    fn cursor() -> impl Strategy<Value = Cursor> {
        proptest::collection::vec((1u32..9, any::<u64>(), any::<u16>()), 0..5).prop_map(|places| {
            let mut bytes = BytesMut::new();
            let mut seen = std::collections::BTreeMap::new();
            seen.extend(places.into_iter().map(|(group, index, ordinal)| (group, (index, ordinal))));
            bytes.put_u16(seen.len() as u16);
            for (group, (index, ordinal)) in seen {
                bytes.put_u32(group);
                bytes.put_u64(index);
                bytes.put_u16(ordinal);
            }
            Cursor::decode(&mut bytes).unwrap()
        })
    }

    fn will() -> impl Strategy<Value = StoredWill> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop_oneof![
            Just(StoredWill::None),
            bytes().prop_map(StoredWill::Inline),
            (bytes(), bytes()).prop_map(|(key, value)| StoredWill::InRow { key, value }),
        ]
    }

    fn in_flight() -> impl Strategy<Value = InFlight> {
        let shard = proptest::option::of(0u16..3);
        (any::<NonZeroU16>(), any::<[bool; 4]>(), shard, any::<(u64, u32, u32)>(), "[a-c]{1,2}").prop_map(
            |(
                id,
                [exactly_once, is_released, is_unsent, retain],
                partition,
                (base, index, identifier),
                topic,
            )| {
                InFlight {
                    id,
                    exactly_once,
                    is_released,
                    is_unsent,
                    origin: Origin {
                        topic: TopicName::new(&topic).unwrap(),
                        shard: partition.map(|partition| {
                            ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(7), partition)
                        }),
                        base: Offset(base),
                        index,
                        retain,
                        identifier,
                    },
                }
            },
        )
    }

    /// What was stored by builds that knew less of a session.
    #[test]
    fn states_of_earlier_versions_are_read() {
        let (mut cursor, mut at) = (BytesMut::new(), Cursor::default());
        at.set(model::GroupId(1), broker::Position { index: 7, ordinal: 2 });
        at.encode(&mut cursor);
        let (head, tail) = ([&[0; 8][..], &[0], &[0; 4], &[1], &cursor].concat(), [0; 4]);
        let resume = [&cursor[..], &5_u32.to_be_bytes()].concat();
        let expected = State {
            cursor: Some(at.clone()),
            resumes: vec![Resume { at: at.clone(), taken: 5 }],
            ..State::default()
        };
        let first = [&[1][..], &head, &[1], &resume, &tail].concat();
        let second = [&[2][..], &head, &[0, 1], &resume, &tail].concat();
        let third = [&[3][..], &head, &[0; 4], &[0, 1], &resume, &tail].concat();
        for bytes in [first, second, third] {
            assert_eq!(State::decode(bytes.into()), Some(expected.clone()));
        }
        assert_eq!(State::decode([&[4][..], &head, &[0; 4], &[0, 0], &tail].concat().into()), None);
    }

    fn state() -> impl Strategy<Value = State> {
        let subscription = ("[^\0]{0,20}", any::<u32>())
            .prop_map(|(text, tag)| Subscription { text: text.into(), tag: Tag(tag) });
        let resume = (cursor(), any::<u32>()).prop_map(|(at, taken)| Resume { at, taken });
        (
            any::<u64>(),
            proptest::collection::vec(subscription, 0..6),
            proptest::option::of(cursor()),
            proptest::collection::vec(("[^\0]{0,20}".prop_map(Box::from), cursor()), 0..3),
            proptest::collection::vec(resume, 0..3),
            proptest::collection::vec(in_flight(), 0..12),
            will(),
        )
            .prop_map(|(incarnation, subscriptions, cursor, starts, resumes, in_flight, will)| {
                State { incarnation, subscriptions, cursor, starts, resumes, in_flight, will }
            })
    }

    proptest! {
        #[test]
        fn every_state_comes_back(state in state()) {
            prop_assert_eq!(State::decode(state.encode()), Some(state));
        }

        #[test]
        fn a_cut_state_is_refused(state in state(), cut in any::<prop::sample::Index>()) {
            let bytes = state.encode();
            prop_assert_eq!(State::decode(bytes.slice(..cut.index(bytes.len()))), None);
        }

        #[test]
        fn hostile_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = State::decode(Bytes::from(bytes.clone()));
            bytes.insert(0, VERSION);
            let _ = State::decode(Bytes::from(bytes));
        }
    }
}
