//! The stored form of progress: one small head row, and a row per chunk of 65,536 positions that has holes or
//! returned positions. No row grows beyond its chunk, and none is written that did not change.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::facts::Past;
use super::progress::Progress;
use super::settled::{CHUNK_BITS, Chunk, FULL_END_MAX};
use super::varint::{Cursor, DecodeError, put};

const VERSION: u8 = 1;

const HOLES_NONE: u8 = 0;
const HOLES_PART: u8 = 1;
const HOLES_FULL: u8 = 2;

/// Which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// The floor and the mark.
    Head,
    /// Holes and returned positions of this chunk: position divided by 65,536.
    Chunk(u64),
}

/// A row to write, or to delete where it has no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which one.
    pub key: RowKey,
    /// What to write.
    pub bytes: Option<Vec<u8>>,
}

impl Progress {
    /// All rows: a snapshot.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![self.head_row()];
        rows.extend(self.live_chunks().into_iter().map(|chunk| self.chunk_row(chunk)));
        rows
    }

    /// The rows that bring what was taken before up to date: the head always, and chunks that changed since.
    /// To be written together, or not at all and then all rows.
    pub fn take_changed_rows(&mut self) -> Vec<Row> {
        let live = self.live_chunks();
        let mut rows = vec![self.head_row()];
        for chunk in std::mem::take(&mut self.changed) {
            if live.contains(&chunk) {
                rows.push(self.chunk_row(chunk));
                self.stored.insert(chunk);
            }
        }
        self.stored.retain(|chunk| {
            let is_live = live.contains(chunk);
            if !is_live {
                rows.push(Row { key: RowKey::Chunk(*chunk), bytes: None });
            }
            is_live
        });
        rows
    }

    /// Progress from stored rows in any order. Whatever the bytes say, the result is consistent in itself.
    pub fn restore<'a>(rows: impl IntoIterator<Item = (RowKey, &'a [u8])>) -> Result<Progress, DecodeError> {
        let mut progress = Progress::default();
        let mut head = None;
        for (key, bytes) in rows {
            let mut from = Cursor(bytes);
            from.version(VERSION)?;
            match key {
                RowKey::Head => head = Some((from.varint()?, from.varint()?)),
                RowKey::Chunk(chunk) => {
                    progress.restore_chunk(chunk, &mut from)?;
                    progress.stored.insert(chunk);
                }
            }
            from.end()?;
        }
        let (floor, mark) = head.ok_or(DecodeError::HeadMissing)?;
        progress.floor = progress.settled.next_unsettled(floor);
        // Holes below the floor, left in a row that was not rewritten, go with it.
        progress.settled.forget_below(progress.floor);
        let past = std::mem::take(&mut progress.past);
        progress.past = past.into_iter().filter(|(position, _)| !progress.is_settled(*position)).collect();
        progress.mark = progress.mark.max(mark).max(progress.floor);
        progress.changed.clear();
        Ok(progress)
    }

    fn head_row(&self) -> Row {
        let mut bytes = vec![VERSION];
        put(&mut bytes, self.floor);
        put(&mut bytes, self.mark);
        Row { key: RowKey::Head, bytes: Some(bytes) }
    }

    fn live_chunks(&self) -> BTreeSet<u64> {
        let past = self.past.keys().map(|position| position >> CHUNK_BITS);
        self.settled.chunks().keys().copied().chain(past).collect()
    }

    fn chunk_row(&self, chunk: u64) -> Row {
        let mut bytes = vec![VERSION];
        match self.settled.chunks().get(&chunk) {
            None => bytes.push(HOLES_NONE),
            Some(Chunk::Full { end }) => {
                bytes.push(HOLES_FULL);
                put(&mut bytes, end - chunk);
            }
            Some(Chunk::Part(part)) => {
                bytes.push(HOLES_PART);
                put(&mut bytes, part.serialized_size() as u64);
                part.serialize_into(&mut bytes).expect("writing to a vector cannot fail");
            }
        }
        let start = chunk << CHUNK_BITS;
        let past = self.past.range(start..=start | ((1 << CHUNK_BITS) - 1));
        put(&mut bytes, past.clone().count() as u64);
        for (position, past) in past {
            bytes.extend_from_slice(&(*position as u16).to_le_bytes());
            past.encode(&mut bytes);
        }
        Row { key: RowKey::Chunk(chunk), bytes: Some(bytes) }
    }

    fn restore_chunk(&mut self, chunk: u64, from: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let impossible = |field| DecodeError::Impossible { field };
        if chunk > FULL_END_MAX {
            return Err(impossible("chunk"));
        }
        let start = chunk << CHUNK_BITS;
        match from.byte()? {
            HOLES_NONE => {}
            HOLES_PART => {
                let length = from.count(1)?;
                let part =
                    RoaringBitmap::deserialize_from(from.bytes(length)?).map_err(|_| impossible("holes"))?;
                let mut holes = part.iter();
                while let Some(run) = holes.next_range() {
                    let end = start.checked_add(u64::from(*run.end()) + 1);
                    let end = end.filter(|end| end - start <= 1 << CHUNK_BITS);
                    self.settled.insert(start + u64::from(*run.start())..end.ok_or(impossible("holes"))?);
                }
            }
            HOLES_FULL => {
                let end =
                    from.varint()?.checked_add(chunk).filter(|end| *end > chunk && *end <= FULL_END_MAX);
                self.settled.insert(start..end.ok_or(impossible("run"))? << CHUNK_BITS);
            }
            _ => return Err(impossible("holes")),
        }
        for _ in 0..from.count(12)? {
            let low = from.bytes(2)?;
            let position = start | u64::from(u16::from_le_bytes([low[0], low[1]]));
            let past = Past::decode(from)?;
            self.give_back(position, past);
        }
        Ok(())
    }
}
