//! Row changes with preconditions: all of a command's writes are made, or none. Generic: what the keys mean is the
//! caller's.
//!
//! ```text
//! checks u32 | checks x (tag u8 | key | value if tag is 2)      tag 1: absent, 2: equals
//! writes u32 | writes x (tag u8 | key | value or end key)       tag 1: put, 2: delete, 3: delete range
//! key, value: length u32 | bytes
//! ```

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use storage::kv::{Kv, KvError, KvWrite};

use crate::command::Unreadable;

/// Row changes that are committed together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsCommand {
    /// All must hold, or nothing is written.
    pub checks: Vec<RowCheck>,
    /// Made in order.
    pub writes: Vec<KvWrite>,
}

/// A precondition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowCheck {
    /// The row is not there.
    Absent {
        /// Its key.
        key: Bytes,
    },
    /// The row is there with exactly this value.
    Equals {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
}

/// What became of row changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOutcome {
    /// All writes are made.
    Done,
    /// A check did not hold; nothing is written.
    Refused,
}

impl RowsCommand {
    /// About how many bytes it takes in an entry.
    pub(crate) fn size(&self) -> usize {
        let checks: usize = self.checks.iter().map(|check| match check {
            RowCheck::Absent { key } => key.len() + 8,
            RowCheck::Equals { key, value } => key.len() + value.len() + 12,
        }).sum();
        let writes: usize = self.writes.iter().map(|write| match write {
            KvWrite::Put { key, value } => key.len() + value.len() + 12,
            KvWrite::Delete { key } => key.len() + 8,
            KvWrite::DeleteRange { from, to } => from.len() + to.len() + 12,
        }).sum();
        checks + writes + 8
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.checks.len() as u32);
        for check in &self.checks {
            match check {
                RowCheck::Absent { key } => {
                    out.put_u8(1);
                    put(out, key);
                }
                RowCheck::Equals { key, value } => {
                    out.put_u8(2);
                    put(out, key);
                    put(out, value);
                }
            }
        }
        out.put_u32(self.writes.len() as u32);
        for write in &self.writes {
            match write {
                KvWrite::Put { key, value } => {
                    out.put_u8(1);
                    put(out, key);
                    put(out, value);
                }
                KvWrite::Delete { key } => {
                    out.put_u8(2);
                    put(out, key);
                }
                KvWrite::DeleteRange { from, to } => {
                    out.put_u8(3);
                    put(out, from);
                    put(out, to);
                }
            }
        }
    }

    pub(crate) fn decode(mut input: Bytes) -> Result<Self, Unreadable> {
        let count = input.try_get_u32().map_err(|_| Unreadable)?;
        let mut command = Self::default();
        for _ in 0..count {
            command.checks.push(match input.try_get_u8().map_err(|_| Unreadable)? {
                1 => RowCheck::Absent { key: take(&mut input)? },
                2 => RowCheck::Equals { key: take(&mut input)?, value: take(&mut input)? },
                _ => return Err(Unreadable),
            });
        }
        let count = input.try_get_u32().map_err(|_| Unreadable)?;
        for _ in 0..count {
            command.writes.push(match input.try_get_u8().map_err(|_| Unreadable)? {
                1 => KvWrite::Put { key: take(&mut input)?, value: take(&mut input)? },
                2 => KvWrite::Delete { key: take(&mut input)? },
                3 => KvWrite::DeleteRange { from: take(&mut input)?, to: take(&mut input)? },
                _ => return Err(Unreadable),
            });
        }
        if input.has_remaining() { Err(Unreadable) } else { Ok(command) }
    }
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn take(input: &mut Bytes) -> Result<Bytes, Unreadable> {
    let length = input.try_get_u32().map_err(|_| Unreadable)? as usize;
    if input.remaining() < length { Err(Unreadable) } else { Ok(input.split_to(length)) }
}

/// Row changes that are not in the store yet, seen through to the store.
#[derive(Default)]
pub(crate) struct Overlay {
    writes: Vec<KvWrite>,
    values: HashMap<Bytes, Option<Bytes>>,
    ranges: Vec<(Bytes, Bytes)>,
}

impl Overlay {
    pub(crate) fn apply(&mut self, kv: &dyn Kv, command: RowsCommand) -> Result<RowsOutcome, KvError> {
        for check in &command.checks {
            let holds = match check {
                RowCheck::Absent { key } => self.get(kv, key)?.is_none(),
                RowCheck::Equals { key, value } => self.get(kv, key)?.as_ref() == Some(value),
            };
            if !holds {
                return Ok(RowsOutcome::Refused);
            }
        }
        for write in command.writes {
            match &write {
                KvWrite::Put { key, value } => {
                    self.values.insert(key.clone(), Some(value.clone()));
                }
                KvWrite::Delete { key } => {
                    self.values.insert(key.clone(), None);
                }
                KvWrite::DeleteRange { from, to } => {
                    self.values.retain(|key, _| key < from || key >= to);
                    self.ranges.push((from.clone(), to.clone()));
                }
            }
            self.writes.push(write);
        }
        Ok(RowsOutcome::Done)
    }

    fn get(&self, kv: &dyn Kv, key: &Bytes) -> Result<Option<Bytes>, KvError> {
        match self.values.get(key) {
            Some(value) => Ok(value.clone()),
            None if self.ranges.iter().any(|(from, to)| from <= key && key < to) => Ok(None),
            None => kv.get(key),
        }
    }

    /// The writes since the last call, in order.
    pub(crate) fn take(&mut self) -> Vec<KvWrite> {
        self.values.clear();
        self.ranges.clear();
        std::mem::take(&mut self.writes)
    }
}
