//! The bytes of consensus' own journal payloads: votes, notes and memberships. All integers are
//! little-endian.
//!
//! ```text
//!   vote        [u8 1][u8 committed][u64 term][u64 node]
//!   note        [u8 1][log id: committed][log id: of the membership][membership]
//!   membership  [u8 1][u16 configs]([u16 ids][u64 id]*)*[u16 nodes][u64 id]*
//!   log id      [u8 present][u64 term][u64 index]
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{LogId, Membership, StoredMembership, Vote, log_id, term_of};

/// Version of all three formats.
const VERSION: u8 = 1;

/// Stored bytes of consensus do not decode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("stored {what} of a group is damaged or of a newer version")]
pub struct Damaged {
    /// What was being decoded.
    pub what: &'static str,
}

/// What a group remembers apart from its entries: the last commit that was written down, and the membership
/// in force there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Note {
    pub(crate) committed: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u8(u8::from(vote.is_committed()));
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.freeze()
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, Damaged> {
    let mut cursor = Cursor { bytes, what: "vote" };
    cursor.version()?;
    let committed = cursor.flag()?;
    let (term, node) = (cursor.u64()?, cursor.u64()?);
    cursor.end()?;
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

pub(crate) fn encode_note(note: &Note) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    put_log_id(&mut out, note.committed.as_ref());
    put_log_id(&mut out, note.membership.log_id().as_ref());
    put_membership(&mut out, note.membership.membership());
    out.freeze()
}

pub(crate) fn decode_note(bytes: &[u8]) -> Result<Note, Damaged> {
    let mut cursor = Cursor { bytes, what: "note" };
    cursor.version()?;
    let committed = cursor.log_id()?;
    let at = cursor.log_id()?;
    let membership = cursor.membership()?;
    cursor.end()?;
    Ok(Note { committed, membership: StoredMembership::new(at, membership) })
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let mut out = BytesMut::new();
    put_membership(&mut out, membership);
    out.freeze()
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, Damaged> {
    let mut cursor = Cursor { bytes, what: "membership" };
    let membership = cursor.membership()?;
    cursor.end()?;
    Ok(membership)
}

fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(u8::from(id.is_some()));
    out.put_u64_le(id.map_or(0, term_of));
    out.put_u64_le(id.map_or(0, |id| id.index));
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    out.put_u8(VERSION);
    let configs = membership.get_joint_config();
    out.put_u16_le(configs.len() as u16);
    for config in configs {
        out.put_u16_le(config.len() as u16);
        for id in config {
            out.put_u64_le(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u16_le(nodes.len() as u16);
    for (id, ()) in nodes {
        out.put_u64_le(*id);
    }
}

/// Checked reading: every step answers `Damaged` instead of running past the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl Cursor<'_> {
    fn need(&self, len: usize) -> Result<(), Damaged> {
        if self.bytes.len() < len { Err(self.damaged()) } else { Ok(()) }
    }

    fn damaged(&self) -> Damaged {
        Damaged { what: self.what }
    }

    fn version(&mut self) -> Result<(), Damaged> {
        self.need(1)?;
        if self.bytes.get_u8() == VERSION { Ok(()) } else { Err(self.damaged()) }
    }

    fn flag(&mut self) -> Result<bool, Damaged> {
        self.need(1)?;
        match self.bytes.get_u8() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged()),
        }
    }

    fn u16(&mut self) -> Result<usize, Damaged> {
        self.need(2)?;
        Ok(usize::from(self.bytes.get_u16_le()))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    fn log_id(&mut self) -> Result<Option<LogId>, Damaged> {
        let present = self.flag()?;
        let (term, index) = (self.u64()?, self.u64()?);
        Ok(present.then(|| log_id(term, index)))
    }

    fn membership(&mut self) -> Result<Membership, Damaged> {
        self.version()?;
        let mut configs = Vec::new();
        for _ in 0..self.u16()? {
            let mut config = BTreeSet::new();
            for _ in 0..self.u16()? {
                config.insert(self.u64()?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u16()? {
            nodes.insert(self.u64()?, ());
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|_| self.damaged())
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::{Damaged, Note, decode_note, decode_vote, encode_note, encode_vote};
    use crate::types::{Membership, StoredMembership, Vote, log_id};

    fn membership() -> impl Strategy<Value = Membership> {
        (vec(btree_set(any::<u64>(), 1..4), 1..3), btree_set(any::<u64>(), 0..3)).prop_map(
            |(configs, learners)| {
                let nodes: std::collections::BTreeMap<_, _> =
                    configs.iter().flatten().chain(&learners).map(|id| (*id, ())).collect();
                Membership::new(configs, nodes).expect("every voter has a node")
            },
        )
    }

    proptest! {
        #[test]
        fn a_vote_survives_its_encoding(term: u64, node: u64, committed: bool) {
            let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        }

        #[test]
        fn a_note_survives_its_encoding(
            committed in proptest::option::of((any::<u64>(), any::<u64>())),
            at in proptest::option::of((any::<u64>(), any::<u64>())),
            membership in membership(),
        ) {
            let note = Note {
                committed: committed.map(|(term, index)| log_id(term, index)),
                membership: StoredMembership::new(at.map(|(term, index)| log_id(term, index)), membership),
            };
            prop_assert_eq!(decode_note(&encode_note(&note)), Ok(note));
        }

        #[test]
        fn a_cut_note_is_refused(membership in membership(), cut in 0_usize..200) {
            let note = Note { committed: None, membership: StoredMembership::new(None, membership) };
            let bytes = encode_note(&note);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(decode_note(&bytes[..cut]), Err(Damaged { what: "note" }));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            let _ = decode_vote(&bytes);
            let _ = decode_note(&bytes);
        }
    }
}
