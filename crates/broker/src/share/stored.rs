//! What of a share survives the node, as a row.
//!
//! ```text
//! S <tenant> 00 <name> 00 <$ or -> (00 <level>)*  ->  version u8 | cursor | spots u32 x (shard u64, base u64, index u32)
//!                                       | sessions u32 x (length u16, name)              (group by hash of the key)
//!                                                          level: = and its text, or + or #
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Offset, ShardId, TenantId};

use super::ShareKey;
use super::roster::Item;
use crate::delivery::Cursor;
use crate::routing::{Filter, Level};

/// First byte of the keys.
pub(crate) const PREFIX: &[u8] = b"S";
const VERSION: u8 = 1;
const SPOT_BYTES: usize = 20;

const HIDES_DOLLAR: u8 = b'$';
const SHOWS_DOLLAR: u8 = b'-';
const LITERAL: u8 = b'=';
const ONE: u8 = b'+';
const MANY: u8 = b'#';

/// Where a record lies that was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) shard: ShardId,
    pub(super) base: Offset,
    pub(super) index: u32,
}

impl Spot {
    /// `None` for what is delivered at most once: it is not in the log yet.
    pub(super) fn of(item: &Item) -> Option<Self> {
        item.batch.position?;
        Some(Self { shard: item.batch.shard, base: item.batch.base, index: item.index })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.shard.to_u64());
        out.put_u64(self.base.0);
        out.put_u32(self.index);
    }

    pub(super) fn decode(input: &mut Bytes) -> Option<Self> {
        if input.remaining() < SPOT_BYTES {
            return None;
        }
        let shard = ShardId::from_u64(input.get_u64());
        let (base, index) = (Offset(input.get_u64()), input.get_u32());
        Some(Self { shard: shard.ok()?, base, index })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) cursor: Cursor,
    pub(super) left_over: Vec<Spot>,
    pub(super) lasting: Vec<Arc<str>>,
}

impl Stored {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + SPOT_BYTES * self.left_over.len());
        out.put_u8(VERSION);
        self.cursor.encode(&mut out);
        out.put_u32(self.left_over.len() as u32);
        self.left_over.iter().for_each(|spot| spot.encode(&mut out));
        out.put_u32(self.lasting.len() as u32);
        for client in &self.lasting {
            // A client identifier has at most 65,535 bytes.
            out.put_u16(client.len() as u16);
            out.put_slice(client.as_bytes());
        }
        out.freeze()
    }

    pub(super) fn decode(mut input: Bytes) -> Option<Self> {
        if input.try_get_u8().ok()? != VERSION {
            return None;
        }
        let cursor = Cursor::decode(&mut input)?;
        let count = input.try_get_u32().ok()? as usize;
        if input.remaining() < count.checked_mul(SPOT_BYTES)? {
            return None;
        }
        let left_over: Option<Vec<_>> = (0..count).map(|_| Spot::decode(&mut input)).collect();
        let left_over = left_over?;
        let count = input.try_get_u32().ok()?;
        let mut lasting = Vec::new();
        for _ in 0..count {
            let length = usize::from(input.try_get_u16().ok()?);
            if input.remaining() < length {
                return None;
            }
            lasting.push(std::str::from_utf8(&input.split_to(length)).ok()?.into());
        }
        input.is_empty().then_some(Self { cursor, left_over, lasting })
    }
}

pub(super) fn row_key(key: &ShareKey) -> Bytes {
    let mut out = BytesMut::from(PREFIX);
    out.put_slice(key.tenant.as_str().as_bytes());
    out.put_u8(0);
    out.put_slice(key.name.as_bytes());
    out.put_u8(0);
    out.put_u8(if key.filter.hides_dollar() { HIDES_DOLLAR } else { SHOWS_DOLLAR });
    for level in key.filter.levels() {
        out.put_u8(0);
        match level {
            Level::Literal(text) => {
                out.put_u8(LITERAL);
                out.put_slice(text.as_bytes());
            }
            Level::One => out.put_u8(ONE),
            Level::Many => out.put_u8(MANY),
        }
    }
    out.freeze()
}

/// Names and levels hold no NUL in any protocol.
pub(super) fn key_of(key: &[u8]) -> Option<ShareKey> {
    let text = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    let mut parts = text.split('\0');
    let (tenant, name, dollar) = (parts.next()?, parts.next()?, parts.next()?);
    let hides_dollar = dollar.as_bytes() == [HIDES_DOLLAR];
    let levels = parts.map(|part| match part.as_bytes() {
        [LITERAL, ..] => Some(Level::Literal(&part[1..])),
        [ONE] => Some(Level::One),
        [MANY] => Some(Level::Many),
        _ => None,
    });
    let levels: Option<Vec<_>> = levels.collect();
    let filter = Filter::from_levels(levels?, hides_dollar).ok()?;
    Some(ShareKey { tenant: TenantId::new(tenant).ok()?, name: name.into(), filter })
}

#[cfg(test)]
mod tests {
    use model::GroupId;
    use proptest::prelude::*;
    use storage::Position;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_read_as_it_was_written(
            levels in proptest::collection::vec(prop_oneof![
                "[^/\u{0}]{0,4}".prop_map(Some), Just(None),
            ], 1..5),
            many in any::<bool>(),
            name in "[^/+#\u{0}]{1,8}",
        ) {
            let spelled = levels.iter().map(|level| level.as_deref().map_or(Level::One, Level::Literal));
            let levels = spelled.chain(many.then_some(Level::Many));
            let Ok(filter) = Filter::from_levels(levels, true) else { return Ok(()) };
            let key = ShareKey { tenant: TenantId::new("t").unwrap(), name: name.as_str().into(), filter };
            prop_assert_eq!(key_of(&row_key(&key)), Some(key));
        }

        #[test]
        fn a_row_is_read_as_it_was_written_and_a_cut_one_is_refused(
            spots in proptest::collection::vec((0_u64..1 << 20, any::<u32>()), 0..5),
            clients in proptest::collection::vec(".{0,9}", 0..4),
            index in any::<u64>(),
        ) {
            let mut cursor = Cursor::default();
            cursor.set(GroupId(1), Position { index, ordinal: 3 });
            let shard = ShardId::new(model::EngineKind::Segment, GroupId(1), model::TopicNumber(7), 0);
            let left_over = spots.into_iter().map(|(base, index)| Spot { shard, base: Offset(base), index });
            let stored = Stored {
                cursor,
                left_over: left_over.collect(),
                lasting: clients.into_iter().map(Arc::from).collect(),
            };
            let bytes = stored.encode();
            prop_assert_eq!(Stored::decode(bytes.clone()), Some(stored));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Stored::decode(bytes.slice(..cut)), None);
            }
        }
    }
}
