//! What callers put into the journal and get back: entries, payloads and places on disk.

use bytes::Bytes;
use model::GroupId;

/// What an entry says about its group's log. The numbers are the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A log entry at `index`. Implies that everything of the group at or after `index` is gone.
    Append = 1,
    /// The group's log is cut from `index` (inclusive) on.
    Truncate = 2,
    /// The group's log is logically purged up to `index` (inclusive, of `term` and `node`). The bytes stay readable by
    /// [`Location`] until their segment is recycled.
    Purge = 3,
    /// The group's vote; the payload is opaque, the last one wins.
    Vote = 4,
    /// Written by the journal itself; refused from callers.
    Checkpoint = 5,
    /// A hint about what is committed; the payload is opaque, the last one wins. A lost hint loses no data.
    Committed = 6,
}

impl EntryKind {
    pub(crate) fn from_u8(value: u8) -> Option<EntryKind> {
        Some(match value {
            1 => EntryKind::Append,
            2 => EntryKind::Truncate,
            3 => EntryKind::Purge,
            4 => EntryKind::Vote,
            5 => EntryKind::Checkpoint,
            6 => EntryKind::Committed,
            _ => return None,
        })
    }
}

/// One entry of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: EntryKind,
    /// Whose log.
    pub group: GroupId,
    /// Log index (meaning per kind); 0 where the kind has none.
    pub index: u64,
    /// Raft term of the entry.
    pub term: u64,
    /// Raft leader node of the entry.
    pub node: u64,
    /// The content; shared, and copied once, into the frame.
    pub payload: Payload,
}

/// Where payload bytes lie: in the file of `segment`, `len` bytes from `offset`. Valid until the segment is recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Segment sequence number within the stripe.
    pub segment: u64,
    /// Byte offset in the segment's file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A small head and the bodies behind it, kept apart so that neither is copied before the frame is built.
///
/// ```text
/// | head_len u32 | n u32 | n x body_len u32 | head | body 0 | .. | body n-1 |      little-endian
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// What the owner of the log needs to make sense of the bodies.
    pub head: Bytes,
    /// Opaque byte strings, each reachable on its own through [`Payload::body_location`].
    pub bodies: Vec<Bytes>,
}

/// Bytes that are not an encoded [`Payload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an encoded payload")]
pub struct MalformedPayload;

impl Payload {
    /// A payload that is only a head.
    pub fn of_head(head: Bytes) -> Payload {
        Payload { head, bodies: Vec::new() }
    }

    /// Length of the encoded form in bytes.
    pub fn encoded_len(&self) -> usize {
        self.bodies_start() + self.bodies.iter().map(Bytes::len).sum::<usize>()
    }

    /// Decodes what [`encode_into`](Payload::encode_into) wrote; head and bodies are slices of `bytes`, nothing is
    /// copied. The lengths must add up to exactly `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Payload, MalformedPayload> {
        let word = |at: usize| -> Result<usize, MalformedPayload> {
            let four = bytes.get(at..at + 4).ok_or(MalformedPayload)?;
            Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
        };
        let head_len = word(0)?;
        let count = word(4)?;
        // Bound: each body costs four bytes of input, so the count is checked before anything is reserved.
        if count > bytes.len().saturating_sub(8) / 4 {
            return Err(MalformedPayload);
        }
        let mut at = 8 + 4 * count;
        let mut take = |len: usize| -> Result<Bytes, MalformedPayload> {
            let end = at.checked_add(len).filter(|end| *end <= bytes.len()).ok_or(MalformedPayload)?;
            let slice = bytes.slice(at..end);
            at = end;
            Ok(slice)
        };
        let head = take(head_len)?;
        let mut bodies = Vec::with_capacity(count);
        for i in 0..count {
            bodies.push(take(word(8 + 4 * i)?)?);
        }
        if at != bytes.len() {
            return Err(MalformedPayload);
        }
        Ok(Payload { head, bodies })
    }

    /// Appends the encoded form to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.head.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.bodies.len() as u32).to_le_bytes());
        for body in &self.bodies {
            out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        }
        out.extend_from_slice(&self.head);
        for body in &self.bodies {
            out.extend_from_slice(body);
        }
    }

    /// Where body `i` lies if this payload lies at `entry`; `None` if there is no such body.
    pub fn body_location(&self, entry: Location, i: usize) -> Option<Location> {
        let body = self.bodies.get(i)?;
        let before = self.bodies_start() + self.bodies[..i].iter().map(Bytes::len).sum::<usize>();
        Some(Location {
            segment: entry.segment,
            offset: entry.offset.checked_add(before as u32)?,
            len: body.len() as u32,
        })
    }

    fn bodies_start(&self) -> usize {
        8 + 4 * self.bodies.len() + self.head.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload() -> impl Strategy<Value = Payload> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        (bytes(), proptest::collection::vec(bytes(), 0..6))
            .prop_map(|(head, bodies)| Payload { head, bodies })
    }

    proptest! {
        #[test]
        fn round_trip_and_every_body_is_where_it_says(payload in payload()) {
            let mut out = Vec::new();
            payload.encode_into(&mut out);
            prop_assert_eq!(out.len(), payload.encoded_len());
            let bytes = Bytes::from(out);
            let back = Payload::decode(&bytes).unwrap();
            prop_assert_eq!(&back, &payload);
            let entry = Location { segment: 3, offset: 1000, len: bytes.len() as u32 };
            for (i, body) in payload.bodies.iter().enumerate() {
                let at = payload.body_location(entry, i).unwrap();
                let start = (at.offset - entry.offset) as usize;
                prop_assert_eq!(&bytes[start..start + at.len as usize], &body[..]);
            }
            prop_assert!(payload.body_location(entry, payload.bodies.len()).is_none());
        }

        #[test]
        fn any_cut_or_garbage_is_refused_without_panic(payload in payload(), cut in any::<u16>(), junk in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut out = Vec::new();
            payload.encode_into(&mut out);
            let cut = cut as usize % out.len();
            prop_assert!(Payload::decode(&Bytes::copy_from_slice(&out[..cut])).is_err());
            let _ = Payload::decode(&Bytes::from(junk));
        }
    }

    #[test]
    fn a_huge_count_is_refused_before_allocation() {
        let bytes = Bytes::from_static(&[0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]);
        assert_eq!(Payload::decode(&bytes), Err(MalformedPayload));
    }
}
