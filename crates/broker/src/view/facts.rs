//! What changed and must survive: the command that the owner of a view writes to the log.

use std::collections::BTreeMap;
use std::ops::Range;

use super::varint::{Cursor, DecodeError, put};

const VERSION: u8 = 1;
const FLAG_DEAD: u8 = 1;

/// What is known of an unsettled position that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Deliveries that count and were not settled.
    pub attempts: u16,
    /// Not to be delivered before this time, in milliseconds since the epoch; 0 if there is none.
    pub due: i64,
    /// Not to be delivered again.
    pub dead: bool,
}

/// Facts of one view since the last were taken, coalesced: a position is in at most one of the two lists.
/// Applying the same facts twice changes nothing the second time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Positions that are settled: ranges in order that neither overlap nor touch.
    pub settled: Vec<Range<u64>>,
    /// Positions that came back and where that matters after a restart, in order, each with its latest state.
    pub returned: Vec<(u64, Past)>,
}

impl Facts {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.returned.is_empty()
    }

    /// Appends the encoding to `out`.
    ///
    /// ```text
    /// version:1 | ranges | (gap to the previous end, length)* | returns | (position delta, attempts, flags:1, due:8)*
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put(out, self.settled.len() as u64);
        let mut last = 0;
        for range in &self.settled {
            put(out, range.start - last);
            put(out, range.end - range.start);
            last = range.end;
        }
        put(out, self.returned.len() as u64);
        let mut last = 0;
        for (position, past) in &self.returned {
            put(out, position - last);
            last = *position;
            past.encode(out);
        }
    }

    /// Reads one encoding, which must fill `bytes`. Allocates in proportion to them.
    pub fn decode(bytes: &[u8]) -> Result<Facts, DecodeError> {
        let mut from = Cursor(bytes);
        from.version(VERSION)?;
        let mut facts = Facts::default();
        let count = from.count(2)?;
        let mut last = 0u64;
        for _ in 0..count {
            let start = last.checked_add(from.varint()?);
            let end = start.zip(Some(from.varint()?)).and_then(|(start, length)| start.checked_add(length));
            let (Some(start), Some(end)) = (start, end) else {
                return Err(DecodeError::Impossible { field: "range" });
            };
            if start == end {
                return Err(DecodeError::Impossible { field: "range" });
            }
            facts.settled.push(start..end);
            last = end;
        }
        let count = from.count(11)?;
        let mut last = 0u64;
        for _ in 0..count {
            last = last.checked_add(from.varint()?).ok_or(DecodeError::Impossible { field: "position" })?;
            facts.returned.push((last, Past::decode(&mut from)?));
        }
        from.end()?;
        Ok(facts)
    }
}

impl Past {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, u64::from(self.attempts));
        out.push(if self.dead { FLAG_DEAD } else { 0 });
        out.extend_from_slice(&self.due.to_le_bytes());
    }

    pub(super) fn decode(from: &mut Cursor<'_>) -> Result<Past, DecodeError> {
        let attempts =
            u16::try_from(from.varint()?).map_err(|_| DecodeError::Impossible { field: "attempts" })?;
        let dead = match from.byte()? {
            0 => false,
            FLAG_DEAD => true,
            _ => return Err(DecodeError::Impossible { field: "flags" }),
        };
        let due = from.bytes(8)?.try_into().map_err(|_| DecodeError::Truncated)?;
        Ok(Past { attempts, due: i64::from_le_bytes(due), dead })
    }
}

/// Facts on their way: what is settled forgets what was returned.
#[derive(Debug, Default)]
pub(super) struct Collector {
    settled: Vec<Range<u64>>,
    returned: BTreeMap<u64, Past>,
}

impl Collector {
    pub(super) fn settle(&mut self, range: Range<u64>) {
        while let Some((position, _)) = self.returned.range(range.clone()).next() {
            let position = *position;
            self.returned.remove(&position);
        }
        match self.settled.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(_) | None => self.settled.push(range),
        }
    }

    pub(super) fn give_back(&mut self, position: u64, past: Past) {
        self.returned.insert(position, past);
    }

    pub(super) fn len(&self) -> usize {
        self.settled.len() + self.returned.len()
    }

    pub(super) fn take(&mut self) -> Facts {
        let mut ranges = std::mem::take(&mut self.settled);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut settled: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match settled.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                Some(_) | None => settled.push(range),
            }
        }
        Facts { settled, returned: std::mem::take(&mut self.returned).into_iter().collect() }
    }
}
