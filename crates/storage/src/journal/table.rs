//! The segments that exist, shared between the writer and all readers; and the counters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rt::DiskFile;

use super::checkpoint::{Ranges, runs};
use super::error::io_error;
use super::format::{ENTRY_HEADER_LEN, EntryHeader};
use super::{JournalError, Location, Payload, SegmentInfo};

/// Path of a segment's file.
pub(crate) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.seg"))
}

/// The sequence number in a segment's file name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|seq| format!("{seq:016x}") == digits)
}

/// One segment that holds data.
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    /// Number of the first frame behind it, once it is sealed and if that is known.
    pub(crate) end: Option<u64>,
    pub(crate) ranges: Ranges,
}

impl Segment {
    pub(crate) fn info(&self, seq: u64) -> SegmentInfo {
        let groups = self.ranges.iter().map(|(group, (first, last))| (*group, *first, *last)).collect();
        SegmentInfo { seq, sealed: self.sealed, bytes: self.bytes, groups }
    }
}

/// A sealed segment that is to be read from its beginning.
pub(crate) struct SealedFile {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    /// As in [`Segment`].
    pub(crate) end: Option<u64>,
}

/// All segments of the stripe by sequence number.
///
/// Lock order: a leaf. Held for map operations only, never over I/O.
#[derive(Default)]
pub(crate) struct SegmentTable {
    segments: RwLock<BTreeMap<u64, Segment>>,
}

impl SegmentTable {
    pub(crate) fn insert(&self, seq: u64, segment: Segment) {
        self.segments.write().insert(seq, segment);
    }

    pub(crate) fn is_sealed(&self, seq: u64) -> bool {
        self.segments.read().get(&seq).is_some_and(|segment| segment.sealed)
    }

    /// File, size and end of a sealed segment; `None` if it is not there or not sealed.
    pub(crate) fn sealed(&self, seq: u64) -> Option<SealedFile> {
        let segments = self.segments.read();
        let segment = segments.get(&seq).filter(|segment| segment.sealed)?;
        Some(SealedFile { file: Arc::clone(&segment.file), bytes: segment.bytes, end: segment.end })
    }

    /// Takes a sealed segment out; `None` if it is not there or not sealed.
    pub(crate) fn remove_sealed(&self, seq: u64) -> Option<Segment> {
        let mut segments = self.segments.write();
        if segments.get(&seq)?.sealed { segments.remove(&seq) } else { None }
    }

    /// Marks a segment complete, with the number of the first frame behind it, and describes it.
    pub(crate) fn seal(&self, seq: u64, end: u64) -> Option<SegmentInfo> {
        let mut segments = self.segments.write();
        let segment = segments.get_mut(&seq)?;
        segment.sealed = true;
        segment.end = Some(end);
        Some(segment.info(seq))
    }

    /// Notes what a frame brought to a segment.
    pub(crate) fn widen(&self, seq: u64, ranges: &Ranges) {
        if let Some(segment) = self.segments.write().get_mut(&seq) {
            widen(&mut segment.ranges, ranges);
        }
    }

    pub(crate) fn ranges(&self, seq: u64) -> Ranges {
        self.segments.read().get(&seq).map(|segment| segment.ranges.clone()).unwrap_or_default()
    }

    pub(crate) fn infos(&self) -> Vec<SegmentInfo> {
        self.segments.read().iter().map(|(seq, segment)| segment.info(*seq)).collect()
    }

    /// Pairs each segment with the end of the one before it (0: not there).
    pub(crate) fn ends_before(&self, seqs: &[u64]) -> Vec<(u64, u64)> {
        let segments = self.segments.read();
        let end = |seq: &u64| segments.get(&(seq - 1)).and_then(|before| before.end).unwrap_or(0);
        seqs.iter().map(|seq| (*seq, end(seq))).collect()
    }

    /// The ends of sealed segments that have no successor.
    pub(crate) fn ends_at_gaps(&self) -> Vec<(u64, u64)> {
        let segments = self.segments.read();
        let at_gap = segments.iter().filter(|(seq, _)| !segments.contains_key(&(*seq + 1)));
        at_gap.filter_map(|(seq, segment)| Some((*seq, segment.end?))).collect()
    }

    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        runs(self.segments.read().keys().copied())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.bytes).sum()
    }

    /// Reads exactly what `location` names, without checking it.
    pub(crate) fn read(&self, dir: &Path, location: Location) -> Result<Bytes, JournalError> {
        let (offset, len) = (u64::from(location.offset), location.len as usize);
        self.read_range(dir, location.segment, offset, len).map(Bytes::from)
    }

    /// Reads a whole payload and checks it against its entry's checksum.
    pub(crate) fn read_payload(&self, dir: &Path, location: Location) -> Result<Payload, JournalError> {
        let corrupt = JournalError::Corrupt { segment: location.segment, offset: u64::from(location.offset) };
        let Some(offset) = u64::from(location.offset).checked_sub(ENTRY_HEADER_LEN as u64) else {
            return Err(corrupt);
        };
        let bytes =
            self.read_range(dir, location.segment, offset, ENTRY_HEADER_LEN + location.len as usize)?;
        match EntryHeader::decode(&bytes) {
            Some(header) if header.is_intact(&bytes) => {
                Payload::decode(&Bytes::from(bytes).slice(ENTRY_HEADER_LEN..)).map_err(|_| corrupt)
            }
            _ => Err(corrupt),
        }
    }

    fn read_range(&self, dir: &Path, seq: u64, offset: u64, len: usize) -> Result<Vec<u8>, JournalError> {
        let (file, bytes) = match self.segments.read().get(&seq) {
            Some(segment) => (Arc::clone(&segment.file), segment.bytes),
            None => return Err(JournalError::NoSegment { segment: seq }),
        };
        // Bound: a location is never longer than its segment, so a made-up one allocates nothing.
        if offset + len as u64 > bytes {
            return Err(JournalError::Corrupt { segment: seq, offset });
        }
        let mut buf = vec![0; len];
        file.read_exact_at(&mut buf, offset).map_err(io_error("read", segment_path(dir, seq)))?;
        Ok(buf)
    }
}

/// Extends `ranges` so that it covers `more`.
pub(crate) fn widen(ranges: &mut Ranges, more: &Ranges) {
    for (group, (first, last)) in more {
        let range = ranges.entry(*group).or_insert((*first, *last));
        range.0 = range.0.min(*first);
        range.1 = range.1.max(*last);
    }
}

/// What a stripe has done since it was opened. All monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalCounters {
    /// Frames written.
    pub frames: u64,
    /// Bytes written to segments, padding included.
    pub bytes: u64,
    /// Syncs done (a write that is durable on return counts as one).
    pub syncs: u64,
    /// Segments started without a pre-written spare: each costs latency.
    pub slow_segments: u64,
    /// Appends refused for want of disk space.
    pub refused_full: u64,
    /// Damaged ranges found at opening.
    pub quarantined: u64,
}

/// The atomic form of [`JournalCounters`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) slow_segments: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) quarantined: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> JournalCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalCounters {
            frames: load(&self.frames),
            bytes: load(&self.bytes),
            syncs: load(&self.syncs),
            slow_segments: load(&self.slow_segments),
            refused_full: load(&self.refused_full),
            quarantined: load(&self.quarantined),
        }
    }
}
