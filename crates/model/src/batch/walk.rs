//! One record inside a batch's body: finding its fields, and checking a whole body.
//!
//! ```text
//! length  attributes  timestamp delta  offset delta  key length  key  value length  value  header count  headers…
//! varint  i8          varlong          varint        varint           varint               varint
//!                                      header: name length  name  value length  value
//! ```
//!
//! A length of -1 is null where null is allowed. On the hot path of validation and of every decode.

use std::ops::Range;

use super::{BatchError, BatchHeader, RecordFault, varint};

/// The fewest bytes that a record can take: seven one-byte fields.
pub(super) const RECORD_LEN_MIN: usize = 7;

/// Where the fields of one record are; ranges are positions in the body.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    pub(super) header_count: u32,
    /// From behind the header count to the record's end.
    pub(super) headers: Range<usize>,
}

/// Where one header's fields are; ranges are positions in the body.
pub(super) struct HeaderFields {
    pub(super) name: Range<usize>,
    pub(super) value: Option<Range<usize>>,
}

/// How strictly offset deltas must count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Deltas {
    /// 0, 1, 2, …: a batch as a producer builds it.
    Dense,
    /// Rising, at most the last offset delta: a batch that compaction has thinned.
    Rising,
}

/// Finds the fields of the record at `at`, all of them inside `body`. The headers are not looked at.
#[inline]
pub(super) fn fields(body: &[u8], at: usize) -> Result<Fields, RecordFault> {
    let mut at = at;
    if at >= body.len() {
        return Err(RecordFault::Missing);
    }
    let len = varint::read_i32(body, &mut at).ok_or(RecordFault::Number)?;
    let end = end_of(len, at, body.len())?;
    let record = &body[..end];
    at += 1; // The attributes of a single record are unused.
    let timestamp_delta = varint::read_i64(record, &mut at).ok_or(RecordFault::Number)?;
    let offset_delta = varint::read_i32(record, &mut at).ok_or(RecordFault::Number)?;
    let key = nullable(record, &mut at)?;
    let value = nullable(record, &mut at)?;
    let header_count = varint::read_i32(record, &mut at).ok_or(RecordFault::Number)?;
    let header_count = u32::try_from(header_count).map_err(|_| RecordFault::Length)?;
    Ok(Fields { timestamp_delta, offset_delta, key, value, header_count, headers: at..end })
}

/// Finds the fields of the header at `*at` and moves past it. `record` ends where the record does.
pub(super) fn header_fields(record: &[u8], at: &mut usize) -> Result<HeaderFields, RecordFault> {
    let name = nullable(record, at)?.ok_or(RecordFault::Length)?;
    let value = nullable(record, at)?;
    Ok(HeaderFields { name, value })
}

/// Walks all records of a decompressed body, checks them wholly, and gives `visit` each record's position.
pub(super) fn check_body(
    body: &[u8],
    header: &BatchHeader,
    deltas: Deltas,
    mut visit: impl FnMut(usize),
) -> Result<(), BatchError> {
    let mut at = 0;
    let mut delta_min = 0;
    for index in 0..header.record_count.max(0) as u32 {
        let fault = |fault| BatchError::Record { index, fault };
        let fields = fields(body, at).map_err(fault)?;
        let delta = i64::from(fields.offset_delta);
        let in_order = match deltas {
            Deltas::Dense => delta == i64::from(index),
            Deltas::Rising => (delta_min..=i64::from(header.last_offset_delta)).contains(&delta),
        };
        if !in_order {
            return Err(fault(RecordFault::OffsetDelta));
        }
        delta_min = delta + 1;
        check_headers(body, &fields).map_err(fault)?;
        visit(at);
        at = fields.headers.end;
    }
    if at == body.len() { Ok(()) } else { Err(BatchError::TrailingBytes(body.len() - at)) }
}

#[inline]
fn check_headers(body: &[u8], fields: &Fields) -> Result<(), RecordFault> {
    let mut at = fields.headers.start;
    let record = &body[..fields.headers.end];
    for _ in 0..fields.header_count {
        header_fields(record, &mut at)?;
    }
    if at == fields.headers.end { Ok(()) } else { Err(RecordFault::Extent) }
}

/// Reads a length and steps over that many bytes; `None` for the length -1.
#[inline]
fn nullable(record: &[u8], at: &mut usize) -> Result<Option<Range<usize>>, RecordFault> {
    let len = varint::read_i32(record, at).ok_or(RecordFault::Number)?;
    if len == -1 {
        return Ok(None);
    }
    let end = end_of(len, *at, record.len())?;
    let range = *at..end;
    *at = end;
    Ok(Some(range))
}

#[inline]
fn end_of(len: i32, start: usize, bound: usize) -> Result<usize, RecordFault> {
    let len = usize::try_from(len).map_err(|_| RecordFault::Length)?;
    match start.checked_add(len) {
        Some(end) if end <= bound => Ok(end),
        _ => Err(RecordFault::Length),
    }
}
