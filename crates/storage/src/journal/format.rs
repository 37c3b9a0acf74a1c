//! The bytes of a segment, version 1. Pure: no I/O, no allocation from a length that is not checked.
//!
//! ```text
//! segment  | header 4096 | frame | pad to 4096 | frame | pad | ..            (zeros or stale bytes follow)
//!
//! header   0 magic 8 | 8 version u32 | 12 stripe u32 | 16 cluster u128 | 32 node u64 | 40 seq u64
//!          48 salt u64 | 56 first frame u64 | 64 crc of the frame before u32 | zeros | 4092 crc32c u32
//!
//! frame    0 magic u32 | 4 len u32 | 8 frame u64 | 16 salt u32 | 20 crc of the frame before u32
//!          24 entries u24 | 27 flags u8 | 28 crc32c u32 | 32 entry | entry | ..
//!
//! entry    0 kind u8 | 1 group u32 | 5 index u64 | 13 term u64 | 21 node u64 | 29 len u32
//!          33 crc32c u32 | 37 payload                                        (all little-endian)
//! ```
//!
//! The frame's `len` counts its header and entries, not the padding. Checksums cover everything before and after their
//! own field. Every later version keeps `magic`, `version` and the header's checksum where they are, so that an older
//! build can tell "newer" from "damaged".

use model::GroupId;

use super::EntryKind;

/// Frames start at multiples of this, so that a write never touches a block that an earlier sync promised.
pub(crate) const ALIGN: usize = 4096;
/// Length of the header at the start of each segment.
pub(crate) const SEGMENT_HEADER_LEN: usize = 4096;
/// Length of a frame's header.
pub(crate) const FRAME_HEADER_LEN: usize = 32;
/// Length of an entry's header.
pub(crate) const ENTRY_HEADER_LEN: usize = 37;
/// The version this build writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;
/// Bound: entries per frame, by the width of the field.
const FRAME_ENTRIES_MAX: usize = (1 << 24) - 1;
// A frame is at most half of the largest segment, and the smallest entry has an empty payload of eight bytes.
const _: () = assert!((1 << 29) / (ENTRY_HEADER_LEN + 8) < FRAME_ENTRIES_MAX);

const SEGMENT_MAGIC: [u8; 8] = *b"RMQSEG\r\n";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RMQF");
const HEADER_CRC_AT: usize = SEGMENT_HEADER_LEN - 4;
/// Set in a frame that was written when every earlier frame was known to be durable.
const FLAG_PRIOR_DURABLE: u8 = 1;

/// CRC32C (Castagnoli) of two byte strings, one after the other.
pub(crate) fn crc32c(first: &[u8], second: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    digest.finalize() as u32
}

/// The next multiple of [`ALIGN`].
pub(crate) fn align_up(len: u64) -> u64 {
    len.next_multiple_of(ALIGN as u64)
}

/// What the first 4096 bytes of a segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stripe: u32,
    pub(crate) cluster: u128,
    pub(crate) node: u64,
    pub(crate) seq: u64,
    pub(crate) salt: u64,
    pub(crate) first_frame: u64,
    pub(crate) prev_crc: u32,
}

/// Why a header was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not a segment, or damaged.
    Damaged,
    /// Intact, and written by a newer version.
    Newer(u32),
}

impl SegmentHeader {
    /// Appends the 4096 bytes.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.stripe.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.first_frame.to_le_bytes());
        out.extend_from_slice(&self.prev_crc.to_le_bytes());
        out.resize(start + HEADER_CRC_AT, 0);
        let crc = crc32c(&out[start..], &[]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        if bytes.len() < SEGMENT_HEADER_LEN || bytes[..8] != SEGMENT_MAGIC {
            return Err(BadHeader::Damaged);
        }
        if crc32c(&bytes[..HEADER_CRC_AT], &[]) != u32_at(bytes, HEADER_CRC_AT) {
            return Err(BadHeader::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            newer if newer > VERSION => return Err(BadHeader::Newer(newer)),
            _ => return Err(BadHeader::Damaged),
        }
        Ok(SegmentHeader {
            stripe: u32_at(bytes, 12),
            cluster: u128::from(u64_at(bytes, 16)) | (u128::from(u64_at(bytes, 24)) << 64),
            node: u64_at(bytes, 32),
            seq: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
            first_frame: u64_at(bytes, 56),
            prev_crc: u32_at(bytes, 64),
        })
    }
}

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Header and entries, without padding.
    pub(crate) len: u32,
    pub(crate) frame: u64,
    pub(crate) salt: u32,
    pub(crate) prev_crc: u32,
    pub(crate) entries: u32,
    pub(crate) prior_durable: bool,
    pub(crate) crc: u32,
}

impl FrameHeader {
    /// Reads the fields; `None` if this is no frame header. The checksum is not checked: it needs the whole frame.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER_LEN || u32_at(bytes, 0) != FRAME_MAGIC {
            return None;
        }
        let header = FrameHeader {
            len: u32_at(bytes, 4),
            frame: u64_at(bytes, 8),
            salt: u32_at(bytes, 16),
            prev_crc: u32_at(bytes, 20),
            entries: u32_at(bytes, 24) & 0x00ff_ffff,
            prior_durable: bytes[27] & FLAG_PRIOR_DURABLE != 0,
            crc: u32_at(bytes, 28),
        };
        (header.len as usize >= FRAME_HEADER_LEN && header.entries > 0).then_some(header)
    }

    /// Whether `frame` (exactly `len` bytes) matches its checksum.
    pub(crate) fn is_intact(&self, frame: &[u8]) -> bool {
        frame.len() == self.len as usize && crc32c(&frame[..28], &frame[FRAME_HEADER_LEN..]) == self.crc
    }
}

/// Fills in the header of the frame that starts at `start` of `out` and ends at its end, and answers its checksum.
/// The caller has left [`FRAME_HEADER_LEN`] bytes for it.
pub(crate) fn finish_frame(out: &mut [u8], start: usize, header: &FrameHeader) -> u32 {
    let len = (out.len() - start) as u32;
    let flags = if header.prior_durable { FLAG_PRIOR_DURABLE } else { 0 };
    let frame = &mut out[start..];
    frame[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    frame[8..16].copy_from_slice(&header.frame.to_le_bytes());
    frame[16..20].copy_from_slice(&header.salt.to_le_bytes());
    frame[20..24].copy_from_slice(&header.prev_crc.to_le_bytes());
    frame[24..28].copy_from_slice(&(header.entries | u32::from(flags) << 24).to_le_bytes());
    let crc = crc32c(&frame[..28], &frame[FRAME_HEADER_LEN..]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// What an entry's header says, and where its payload is in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub(crate) kind: EntryKind,
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl EntryHeader {
    pub(crate) fn decode(bytes: &[u8]) -> Option<EntryHeader> {
        if bytes.len() < ENTRY_HEADER_LEN {
            return None;
        }
        Some(EntryHeader {
            kind: EntryKind::from_u8(bytes[0])?,
            group: GroupId(u32_at(bytes, 1)),
            index: u64_at(bytes, 5),
            term: u64_at(bytes, 13),
            node: u64_at(bytes, 21),
            len: u32_at(bytes, 29),
            crc: u32_at(bytes, 33),
        })
    }

    /// Whether header and payload (together `bytes`) match the checksum.
    pub(crate) fn is_intact(&self, bytes: &[u8]) -> bool {
        bytes.len() == ENTRY_HEADER_LEN + self.len as usize
            && crc32c(&bytes[..33], &bytes[ENTRY_HEADER_LEN..]) == self.crc
    }
}

/// Appends one entry; `write_payload` appends its payload. Answers where the payload starts in `out`, and its length.
pub(crate) fn encode_entry(
    out: &mut Vec<u8>,
    header: &EntryHeader,
    write_payload: impl FnOnce(&mut Vec<u8>),
) -> (usize, u32) {
    let start = out.len();
    out.push(header.kind as u8);
    out.extend_from_slice(&header.group.0.to_le_bytes());
    out.extend_from_slice(&header.index.to_le_bytes());
    out.extend_from_slice(&header.term.to_le_bytes());
    out.extend_from_slice(&header.node.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let payload_at = out.len();
    write_payload(out);
    let len = (out.len() - payload_at) as u32;
    out[start + 29..start + 33].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c(&out[start..start + 33], &out[payload_at..]);
    out[start + 33..start + 37].copy_from_slice(&crc.to_le_bytes());
    (payload_at, len)
}

/// The entries of an intact frame: header, payload offset within the frame, payload.
/// `None` if they do not fill the frame exactly.
pub(crate) fn entries(frame: &[u8], header: &FrameHeader) -> Option<Vec<(EntryHeader, usize)>> {
    // Bound: each entry costs ENTRY_HEADER_LEN bytes of a frame that is in memory.
    if header.entries as usize > frame.len() / ENTRY_HEADER_LEN {
        return None;
    }
    let mut found = Vec::with_capacity(header.entries as usize);
    let mut at = FRAME_HEADER_LEN;
    for _ in 0..header.entries {
        let entry = EntryHeader::decode(&frame[at..])?;
        let payload_at = at + ENTRY_HEADER_LEN;
        at = payload_at.checked_add(entry.len as usize).filter(|end| *end <= frame.len())?;
        found.push((entry, payload_at));
    }
    (at == frame.len()).then_some(found)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            stripe: 3,
            cluster: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            node: 9,
            seq: 12,
            salt: 0xdead_beef_0bad_f00d,
            first_frame: 77,
            prev_crc: 5,
        }
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_seen() {
        let mut bytes = Vec::new();
        header().encode_into(&mut bytes);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for at in (0..80).chain(4080..4096) {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Damaged), "byte {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = Vec::new();
        header().encode_into(&mut bytes);
        bytes[8] = 2;
        let crc = crc32c(&bytes[..HEADER_CRC_AT], &[]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Newer(2)));
    }
}
