//! A journal in memory: segments of bytes that can be sealed and recycled, and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::GroupId;
use parking_lot::Mutex;

use crate::error::LogError;
use crate::journal::{Location, SegmentInfo};
use crate::source::BatchSource;

/// Bytes at locations, as a journal keeps them, without a disk.
pub struct MemoryJournal {
    segments: Mutex<BTreeMap<u64, Segment>>,
}

#[derive(Default)]
struct Segment {
    bytes: Vec<u8>,
    sealed: bool,
    groups: BTreeMap<GroupId, (u64, u64)>,
}

impl Default for MemoryJournal {
    fn default() -> MemoryJournal {
        MemoryJournal { segments: Mutex::new(BTreeMap::from([(1, Segment::default())])) }
    }
}

impl MemoryJournal {
    /// Appends bytes of an entry to the open segment.
    pub fn append(&self, group: GroupId, index: u64, bytes: &[u8]) -> Location {
        let mut segments = self.segments.lock();
        let (seq, segment) = segments.iter_mut().next_back().expect("one segment is always open");
        let offset = u32::try_from(segment.bytes.len()).expect("a test's segment is small");
        segment.bytes.extend_from_slice(bytes);
        let range = segment.groups.entry(group).or_insert((index, index));
        range.1 = range.1.max(index);
        Location { segment: *seq, offset, len: u32::try_from(bytes.len()).expect("a test's batch is small") }
    }

    /// Seals the open segment and opens the next one.
    pub fn seal(&self) -> SegmentInfo {
        let mut segments = self.segments.lock();
        let (seq, segment) = segments.iter_mut().next_back().expect("one segment is always open");
        segment.sealed = true;
        let (seq, info) = (*seq, info(*seq, segment));
        segments.insert(seq + 1, Segment::default());
        info
    }

    /// All segments, ascending.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.segments.lock().iter().map(|(seq, segment)| info(*seq, segment)).collect()
    }

    /// Forgets a segment.
    pub fn recycle(&self, seq: u64) {
        self.segments.lock().remove(&seq);
    }
}

fn info(seq: u64, segment: &Segment) -> SegmentInfo {
    SegmentInfo {
        seq,
        sealed: segment.sealed,
        bytes: segment.bytes.len() as u64,
        groups: segment.groups.iter().map(|(group, (first, last))| (*group, *first, *last)).collect(),
    }
}

impl BatchSource for MemoryJournal {
    fn read(&self, location: Location) -> Result<Bytes, LogError> {
        let segments = self.segments.lock();
        let start = location.offset as usize;
        let bytes = segments
            .get(&location.segment)
            .and_then(|segment| segment.bytes.get(start..start + location.len as usize));
        bytes.map(Bytes::copy_from_slice).ok_or(LogError::Damaged { what: "segment that was recycled" })
    }
}
