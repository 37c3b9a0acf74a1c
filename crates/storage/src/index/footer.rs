//! The index of one sealed segment, as a file: which batches of which shards it holds, and what its entries changed.
//!
//! ```text
//! body = seq u64 | groups | changes | bloom | directory | sections
//!
//!   groups     n, then per group: group, first index, last index, applied index     (ascending by group)
//!   changes    n, then per change: group, log index, what                           (by group, then index)
//!   bloom      length, bits: the shards that have a section
//!   directory  n, then per SECTIONS_PER_BLOCK sections: first shard u64, where in `sections` u32
//!   sections   per shard and group, ascending:
//!                shard (delta), group, n, then n extents by offset, each as differences to the one before:
//!                base gap, count, index, timestamp, offset, length, ordinal, flags [, producer, epoch, sequence]
//! ```
//!
//! Numbers are varints unless a width is given. A section is found through bloom and directory and decoded alone: reading one
//! quiet shard does not decode its neighbours. Where files lie and when they are written is not known here.

use bytes::Bytes;
use model::{GroupId, ShardId};

use super::bloom::Bloom;
use super::envelope::{self, FileKind, Unusable};
use super::extent::{Extent, Mark, Row};
use super::varint::{Cursor, Malformed, put, put_signed};
use crate::log::{BatchFlags, Change};

/// Sections between two entries of the directory: what a lookup decodes at most beside its own.
const SECTIONS_PER_BLOCK: usize = 32;
/// In a stored flags byte: producer fields follow.
const FLAG_MARK: u8 = 0x80;
/// The fewest bytes of an extent.
const EXTENT_LEN_MIN: usize = 8;

/// What a segment holds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupRange {
    pub(crate) group: GroupId,
    /// First log index that was written to the segment.
    pub(crate) first: u64,
    /// Last log index that was written to the segment.
    pub(crate) last: u64,
    /// This footer and the earlier ones say all about the group's entries up to here.
    pub(crate) applied: u64,
}

/// A command that was applied between the footers before and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) change: Change,
}

/// The batches of one shard, appended through one group, by offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) shard: ShardId,
    pub(crate) group: GroupId,
    pub(crate) rows: Vec<Row>,
}

/// What goes into a footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) seq: u64,
    pub(crate) groups: Vec<GroupRange>,
    pub(crate) changes: Vec<Changed>,
    /// Ascending by shard, then group.
    pub(crate) sections: Vec<Section>,
}

/// A footer as loaded: sections stay encoded.
#[derive(Clone, Debug)]
pub(crate) struct Footer {
    pub(crate) seq: u64,
    pub(crate) groups: Vec<GroupRange>,
    pub(crate) changes: Vec<Changed>,
    bloom: Bloom,
    directory: Vec<(u64, u32)>,
    sections: Bytes,
}

/// Encodes a whole file.
pub(crate) fn encode(contents: &Contents) -> Vec<u8> {
    let mut out = envelope::begin();
    out.extend_from_slice(&contents.seq.to_le_bytes());
    put(&mut out, contents.groups.len() as u64);
    for range in &contents.groups {
        put(&mut out, u64::from(range.group.0));
        [range.first, range.last, range.applied].into_iter().for_each(|number| put(&mut out, number));
    }
    put(&mut out, contents.changes.len() as u64);
    contents.changes.iter().for_each(|changed| put_changed(&mut out, changed));
    let bloom = Bloom::build(contents.sections.iter().map(|section| section.shard.to_u64()));
    put(&mut out, bloom.as_bytes().len() as u64);
    out.extend_from_slice(bloom.as_bytes());
    let (directory, sections) = encode_sections(&contents.sections);
    put(&mut out, directory.len() as u64);
    for (shard, at) in directory {
        out.extend_from_slice(&shard.to_le_bytes());
        out.extend_from_slice(&at.to_le_bytes());
    }
    out.extend_from_slice(&sections);
    envelope::close(out, FileKind::Footer)
}

fn encode_sections(sections: &[Section]) -> (Vec<(u64, u32)>, Vec<u8>) {
    let mut directory = Vec::with_capacity(sections.len().div_ceil(SECTIONS_PER_BLOCK));
    let mut out = Vec::new();
    for block in sections.chunks(SECTIONS_PER_BLOCK) {
        let first = block[0].shard.to_u64();
        directory.push((first, u32::try_from(out.len()).expect("a segment's index is far below 4 GiB")));
        let mut before = first;
        for section in block {
            put(&mut out, section.shard.to_u64() - before);
            before = section.shard.to_u64();
            put(&mut out, u64::from(section.group.0));
            put(&mut out, section.rows.len() as u64);
            put_rows(&mut out, &section.rows);
        }
    }
    (directory, out)
}

fn put_rows(out: &mut Vec<u8>, rows: &[Row]) {
    let mut before = zero_extent();
    for Row { extent, mark } in rows {
        put(out, extent.base - before.end());
        put(out, u64::from(extent.count));
        put(out, extent.index - before.index);
        put_signed(out, extent.timestamp_max.wrapping_sub(before.timestamp_max));
        put_signed(out, i64::from(extent.offset) - i64::from(before.offset));
        put(out, u64::from(extent.len));
        put(out, u64::from(extent.ordinal));
        out.push(extent.flags.bits() | if mark.is_some() { FLAG_MARK } else { 0 });
        if let Some(mark) = mark {
            put_signed(out, mark.producer);
            put_signed(out, i64::from(mark.epoch));
            put_signed(out, i64::from(mark.sequence));
        }
        before = *extent;
    }
}

fn zero_extent() -> Extent {
    let flags = BatchFlags::NONE;
    Extent { base: 0, index: 0, timestamp_max: 0, segment: 0, offset: 0, len: 0, count: 0, ordinal: 0, flags }
}

fn put_changed(out: &mut Vec<u8>, changed: &Changed) {
    put(out, u64::from(changed.group.0));
    put(out, changed.index);
    match changed.change {
        Change::Trim { shard, to } => {
            out.push(1);
            put(out, shard.to_u64());
            put(out, to.0);
        }
        Change::Drop { shard } => {
            out.push(2);
            put(out, shard.to_u64());
        }
        Change::ExpireProducers { before } => {
            out.push(3);
            put_signed(out, before);
        }
    }
}

impl Footer {
    /// Checks and opens a file. Sections are decoded on demand: what is wrong within one shows then.
    pub(crate) fn decode(file: &Bytes) -> Result<Footer, Unusable> {
        let body = envelope::open(file, FileKind::Footer)?;
        let mut cursor = Cursor::new(&body);
        let seq = cursor.fixed_u64()?;
        let groups = (0..cursor.count(4)?).map(|_| take_range(&mut cursor)).collect::<Result<_, _>>()?;
        let changes = (0..cursor.count(4)?).map(|_| take_changed(&mut cursor)).collect::<Result<_, _>>()?;
        let bloom_len = cursor.count(1)?;
        let bloom = Bloom::from_bytes(cursor.take(bloom_len)?);
        let directory = (0..cursor.count(12)?)
            .map(|_| Ok((cursor.fixed_u64()?, cursor.fixed_u32()?)))
            .collect::<Result<Vec<_>, Malformed>>()?;
        let sections = body.slice(body.len() - cursor.remaining()..);
        if directory.first().is_some_and(|first| first.1 != 0)
            || directory.iter().any(|(_, at)| *at as usize >= sections.len())
            || !directory.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1)
            || directory.is_empty() != sections.is_empty()
        {
            return Err(Unusable::Damaged);
        }
        Ok(Footer { seq, groups, changes, bloom, directory, sections })
    }

    /// The batches of a shard that came through a group, by offset; empty if there are none.
    pub(crate) fn rows(&self, shard: ShardId, group: GroupId) -> Result<Vec<Row>, Unusable> {
        if !self.bloom.may_hold(shard.to_u64()) {
            return Ok(Vec::new());
        }
        // A shard that two groups wrote to may begin in the block before one that starts with it.
        let block = self.directory.partition_point(|(first, _)| *first < shard.to_u64()).saturating_sub(1);
        for section in self.sections_from(block) {
            let section = section?;
            if section.shard == shard && section.group == group {
                return Ok(section.rows);
            }
            if section.shard > shard {
                break;
            }
        }
        Ok(Vec::new())
    }

    /// All sections, ascending by shard, then group. Ends after the first error.
    pub(crate) fn sections(&self) -> impl Iterator<Item = Result<Section, Unusable>> + '_ {
        self.sections_from(0)
    }

    /// Memory that the footer keeps, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.sections.len()
            + self.directory.len() * 16
            + self.bloom.as_bytes().len()
            + self.changes.len() * 40
            + 256
    }

    fn sections_from(&self, block: usize) -> Sections<'_> {
        let start = self.directory.get(block).map_or(self.sections.len(), |(_, at)| *at as usize);
        Sections { footer: self, cursor: Cursor::new(&self.sections[start..]), block, left: 0, shard: 0 }
    }
}

/// Walks sections from the start of a block on.
struct Sections<'a> {
    footer: &'a Footer,
    cursor: Cursor<'a>,
    /// The block that begins when `left` is 0.
    block: usize,
    left: usize,
    shard: u64,
}

impl Sections<'_> {
    fn take(&mut self) -> Result<Section, Unusable> {
        if self.left == 0 {
            let at = self.footer.sections.len() - self.cursor.remaining();
            match self.footer.directory.get(self.block) {
                Some((first, start)) if *start as usize == at => self.shard = *first,
                _ => return Err(Unusable::Damaged),
            }
            self.block += 1;
            self.left = SECTIONS_PER_BLOCK;
        }
        self.left -= 1;
        self.shard = self.shard.checked_add(self.cursor.unsigned()?).ok_or(Malformed)?;
        let shard = ShardId::from_u64(self.shard).map_err(|_| Malformed)?;
        let group = GroupId(self.cursor.narrow()?);
        let rows = take_rows(&mut self.cursor, self.footer.seq)?;
        Ok(Section { shard, group, rows })
    }
}

impl Iterator for Sections<'_> {
    type Item = Result<Section, Unusable>;

    fn next(&mut self) -> Option<Result<Section, Unusable>> {
        if self.cursor.remaining() == 0 {
            return None;
        }
        let section = self.take();
        if section.is_err() {
            self.cursor = Cursor::new(&[]);
        }
        Some(section)
    }
}

fn take_rows(cursor: &mut Cursor<'_>, segment: u64) -> Result<Vec<Row>, Malformed> {
    let count = cursor.count(EXTENT_LEN_MIN)?;
    let mut rows = Vec::with_capacity(count);
    let mut before = zero_extent();
    for _ in 0..count {
        let base = before.base.checked_add(u64::from(before.count)).ok_or(Malformed)?;
        let base = base.checked_add(cursor.unsigned()?).ok_or(Malformed)?;
        let count: u32 = cursor.narrow()?;
        base.checked_add(u64::from(count)).ok_or(Malformed)?;
        let index = before.index.checked_add(cursor.unsigned()?).ok_or(Malformed)?;
        let timestamp_max = before.timestamp_max.wrapping_add(cursor.signed()?);
        let offset = i64::from(before.offset).checked_add(cursor.signed()?).ok_or(Malformed)?;
        let offset = u32::try_from(offset).map_err(|_| Malformed)?;
        let (len, ordinal, bits) = (cursor.narrow()?, cursor.narrow()?, cursor.byte()?);
        let flags = BatchFlags::from_bits(bits);
        let extent = Extent { base, index, timestamp_max, segment, offset, len, count, ordinal, flags };
        let mark = if bits & FLAG_MARK == 0 { None } else { Some(take_mark(cursor, base)?) };
        rows.push(Row { extent, mark });
        before = extent;
    }
    Ok(rows)
}

fn take_mark(cursor: &mut Cursor<'_>, base: u64) -> Result<Mark, Malformed> {
    let producer = cursor.signed()?;
    let epoch = i16::try_from(cursor.signed()?).map_err(|_| Malformed)?;
    let sequence = i32::try_from(cursor.signed()?).map_err(|_| Malformed)?;
    Ok(Mark { base, producer, epoch, sequence })
}

fn take_range(cursor: &mut Cursor<'_>) -> Result<GroupRange, Malformed> {
    let group = GroupId(cursor.narrow()?);
    Ok(GroupRange { group, first: cursor.unsigned()?, last: cursor.unsigned()?, applied: cursor.unsigned()? })
}

fn take_changed(cursor: &mut Cursor<'_>) -> Result<Changed, Malformed> {
    let (group, index) = (GroupId(cursor.narrow()?), cursor.unsigned()?);
    let shard = |number| ShardId::from_u64(number).map_err(|_| Malformed);
    let change = match cursor.byte()? {
        1 => Change::Trim { shard: shard(cursor.unsigned()?)?, to: model::Offset(cursor.unsigned()?) },
        2 => Change::Drop { shard: shard(cursor.unsigned()?)? },
        3 => Change::ExpireProducers { before: cursor.signed()? },
        _ => return Err(Malformed),
    };
    Ok(Changed { group, index, change })
}
