//! From files to state: what opening a stripe does before the first append.
//!
//! The newest segment is read first. Its checkpoint and what follows say what is purged and which segments should
//! exist; older segments are read only if they hold log entries above that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::GroupId;
use rt::{Disk, DiskFile};

use super::checkpoint::{Checkpoint, GroupState, RECYCLED, Ranges, STATE, decode_recycled};
use super::draft::Groups;
use super::error::io_error;
use super::format::{ALIGN, BadHeader, EntryHeader, SEGMENT_HEADER_LEN, SegmentHeader, VERSION};
use super::scan::{Ends, Expected, Scanned, SegmentReader, find_salt, scan};
use super::stripe::{Active, Position, widen_by};
use super::table::{SealedFile, Segment, segment_path};
use super::{
    EntryKind, JournalConfig, JournalError, Location, LogPosition, Payload, Quarantined, Recovered,
    RecoveredEntry, RecoveredGroup,
};

/// Bound: frames in the largest segment.
const SEGMENT_FRAMES_MAX: u64 = (1 << 30) / ALIGN as u64;

/// What was found, ready for the writer and the readers.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    pub(crate) position: Position,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// Segments whose recycling is on disk but whose files are still there.
    pub(crate) retired: Vec<(u64, Segment)>,
}

/// A segment file at opening.
struct SegmentFile {
    seq: u64,
    file: Arc<dyn DiskFile>,
    reader: SegmentReader,
    /// `None` if neither header nor any frame can be read.
    start: Option<(u32, Expected)>,
    /// The first frame's number by the header, even where the frame itself is gone.
    first_frame: Option<u64>,
    /// Number of the first frame behind it, if it is not the newest and that is known.
    end: Option<u64>,
    /// What the first frame says, if it can be read.
    checkpoint: Option<Checkpoint>,
    header_damaged: bool,
}

/// One thing that a segment says.
enum Fact {
    Checkpoint(Checkpoint),
    Recycled(Vec<(u64, u64)>),
    Append(GroupId, RecoveredEntry),
    Truncate(GroupId, u64),
    Purge(GroupId, LogPosition),
    Vote(GroupId, Bytes),
    Committed(GroupId, Bytes),
}

/// What reading one segment brought.
struct Read {
    facts: Vec<Fact>,
    scanned: Scanned,
    at: Expected,
}

/// Reads the stripe. Writes nothing but zeros over the headers of frames behind a cut.
pub(crate) fn recover(
    disk: &dyn Disk,
    config: &JournalConfig,
    dir: &Path,
    seqs: &[u64],
) -> Result<Found, JournalError> {
    let mut files = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let frame_min =
            files.last().and_then(|file: &SegmentFile| file.first_frame).map_or(1, |first| first + 1);
        files.push(open_segment(disk, config, dir, *seq, frame_min)?);
    }
    let mut recovery =
        Recovery { dir, state: State::default(), recovered: Recovered::default(), ranges: BTreeMap::new() };
    let Some(newest) = files.len().checked_sub(1) else {
        let position =
            Position { groups: Groups::new(), active: None, next_segment: 1, next_frame: 1, last_crc: 0 };
        return Ok(Found {
            recovered: recovery.recovered,
            position,
            segments: BTreeMap::new(),
            retired: Vec::new(),
        });
    };
    let last = recovery.read(&mut files[newest], Ends::Open)?;
    let listed = listed_segments(&last.facts, files[newest].seq);
    let purged = purged_by(&last.facts);
    let gaps = ends_at_gaps(&last.facts);
    for i in 0..newest {
        let next = &files[i + 1];
        let end = match next.seq - files[i].seq {
            1 => next.first_frame,
            _ => gaps.get(&files[i].seq).copied(),
        };
        files[i].end = end;
        let gone = listed.as_ref().is_some_and(|listed| !listed.contains(&files[i].seq));
        let held = files[i + 1].checkpoint.as_ref().filter(|_| files[i + 1].seq == files[i].seq + 1);
        let held = held.map(|next| &next.previous);
        if gone {
            continue;
        }
        if let Some((held, _)) = held.zip(purged.as_ref()).filter(|(held, purged)| is_purged(held, purged)) {
            recovery.ranges.insert(files[i].seq, held.clone());
            continue;
        }
        let read = recovery.read(&mut files[i], end.map_or(Ends::Somewhere, Ends::Before))?;
        recovery.state.apply_all(read.facts);
    }
    recovery.state.apply_all(last.facts);
    recovery.finish(files, listed, last.scanned, last.at)
}

/// The log entries of one sealed segment by itself: see [`Journal::entries_of`](super::Journal::entries_of).
pub(crate) fn entries_of(
    dir: &Path,
    seq: u64,
    sealed: SealedFile,
) -> Result<BTreeMap<GroupId, VecDeque<RecoveredEntry>>, JournalError> {
    let path = segment_path(dir, seq);
    let mut reader = SegmentReader::new(sealed.file, sealed.bytes);
    let header = reader.bytes(0, SEGMENT_HEADER_LEN).map_err(io_error("read", &path))?;
    let Some(Ok(header)) = header.map(SegmentHeader::decode) else {
        return Err(JournalError::Corrupt { segment: seq, offset: 0 });
    };
    let offset = SEGMENT_HEADER_LEN as u64;
    let mut at = Expected { offset, frame: header.first_frame, prev_crc: Some(header.prev_crc) };
    let mut logs: BTreeMap<GroupId, RecoveredGroup> = BTreeMap::new();
    let mut visit = |offset: u64, frame: &[u8], entries: &[(EntryHeader, usize)]| {
        for (header, payload_at) in entries {
            let payload = &frame[*payload_at..*payload_at + header.len as usize];
            match fact(seq, offset + *payload_at as u64, header, payload) {
                Some(Fact::Append(group, entry)) => logs.entry(group).or_default().append(entry),
                Some(Fact::Truncate(group, index)) => logs.entry(group).or_default().truncate(index),
                Some(
                    Fact::Checkpoint(_)
                    | Fact::Recycled(_)
                    | Fact::Purge(..)
                    | Fact::Vote(..)
                    | Fact::Committed(..),
                )
                | None => {}
            }
        }
    };
    let ends = sealed.end.map_or(Ends::Somewhere, Ends::Before);
    let scanned = scan(&mut reader, header.salt as u32, &mut at, ends, &mut visit);
    let scanned = scanned.map_err(io_error("read", &path))?;
    match scanned.damage.first() {
        Some((offset, _)) => Err(JournalError::Corrupt { segment: seq, offset: *offset }),
        None => Ok(logs.into_iter().map(|(group, log)| (group, log.entries)).collect()),
    }
}

struct Recovery<'a> {
    dir: &'a Path,
    state: State,
    recovered: Recovered,
    ranges: BTreeMap<u64, Ranges>,
}

impl Recovery<'_> {
    /// Reads a segment and notes its damage and ranges.
    fn read(&mut self, segment: &mut SegmentFile, ends: Ends) -> Result<Read, JournalError> {
        let seq = segment.seq;
        let mut facts = Vec::new();
        if segment.header_damaged {
            self.quarantine(seq, 0, SEGMENT_HEADER_LEN as u64);
        }
        let Some((salt, mut at)) = segment.start else {
            let rest = segment.reader.len.saturating_sub(SEGMENT_HEADER_LEN as u64);
            self.quarantine(seq, SEGMENT_HEADER_LEN as u64, rest);
            let at = Expected { offset: 0, frame: segment.first_frame.unwrap_or(0), prev_crc: None };
            return Ok(Read { facts, scanned: Scanned::default(), at });
        };
        let mut visit = |offset: u64, frame: &[u8], entries: &[(EntryHeader, usize)]| {
            for (header, payload_at) in entries {
                let payload = &frame[*payload_at..*payload_at + header.len as usize];
                facts.extend(fact(seq, offset + *payload_at as u64, header, payload));
            }
        };
        let scanned = scan(&mut segment.reader, salt, &mut at, ends, &mut visit)
            .map_err(io_error("read", segment_path(self.dir, seq)))?;
        for (offset, len) in &scanned.damage {
            self.quarantine(seq, *offset, *len);
        }
        let mut ranges = Ranges::new();
        for fact in &facts {
            if let Fact::Append(group, entry) = fact {
                widen_by(&mut ranges, *group, entry.position.index);
            }
        }
        self.ranges.insert(seq, ranges);
        Ok(Read { facts, scanned, at })
    }

    fn quarantine(&mut self, segment: u64, offset: u64, len: u64) {
        tracing::error!(segment, offset, len, "damaged journal range quarantined");
        self.recovered.quarantined.push(Quarantined { segment, offset, len });
    }

    fn finish(
        mut self,
        files: Vec<SegmentFile>,
        listed: Option<BTreeSet<u64>>,
        scanned: Scanned,
        at: Expected,
    ) -> Result<Found, JournalError> {
        let newest_seq = files.last().map_or(0, |file| file.seq);
        let frames_known = files.iter().filter_map(|file| file.first_frame).max().unwrap_or(0);
        let present: BTreeSet<u64> = files.iter().map(|file| file.seq).collect();
        if let Some(listed) = &listed {
            self.recovered.missing_segments = listed.difference(&present).copied().collect();
        }
        let appendable = scanned.appendable && files.last().is_some_and(|file| !file.header_damaged);
        let mut active = None;
        let mut segments = BTreeMap::new();
        let mut retired = Vec::new();
        for SegmentFile { seq, file, reader, start, end, .. } in files {
            let is_active = seq == newest_seq && appendable;
            if let (true, Some((salt, _))) = (is_active, start) {
                wipe(&*file, &scanned.stale).map_err(io_error("wipe", segment_path(self.dir, seq)))?;
                let (file, bytes) = (Arc::clone(&file), reader.len);
                active = Some(Active {
                    seq,
                    file,
                    salt,
                    offset: at.offset,
                    bytes,
                    unsynced: false,
                    of_reserve: false,
                });
            }
            let ranges = self.ranges.remove(&seq).unwrap_or_default();
            let segment = Segment { file, bytes: reader.len, sealed: !is_active, end, ranges };
            if listed.as_ref().is_none_or(|listed| listed.contains(&seq)) {
                segments.insert(seq, segment);
            } else {
                retired.push((seq, segment));
            }
        }
        // Where frames may be missing at the end, their numbers are not used again.
        let next_frame =
            if appendable { at.frame } else { frames_known.max(at.frame) + 2 * SEGMENT_FRAMES_MAX };
        let position = Position {
            groups: self.state.hard(),
            active,
            next_segment: newest_seq + 1,
            next_frame,
            last_crc: at.prev_crc.unwrap_or(0),
        };
        self.recovered.cut_bytes = scanned.cut_bytes;
        self.recovered.quarantined.sort_by_key(|range| (range.segment, range.offset));
        self.recovered.groups = self.state.into_groups();
        Ok(Found { recovered: self.recovered, position, segments, retired })
    }
}

/// The states of all groups, built up fact by fact.
#[derive(Default)]
struct State {
    groups: BTreeMap<GroupId, (GroupState, RecoveredGroup)>,
}

impl State {
    fn apply_all(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            self.apply(fact);
        }
    }

    fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Recycled(_) => {}
            Fact::Checkpoint(checkpoint) => {
                for (group, state) in checkpoint.groups {
                    let (hard, log) = self.groups.entry(group).or_default();
                    log.truncate(state.last.map_or(0, |last| last.saturating_add(1)));
                    if let Some(purged) = state.purged {
                        log.purge(purged);
                    }
                    *hard = state;
                }
            }
            Fact::Append(group, entry) => {
                let (hard, log) = self.groups.entry(group).or_default();
                hard.last = Some(entry.position.index);
                log.append(entry);
            }
            Fact::Truncate(group, index) => {
                let (hard, log) = self.groups.entry(group).or_default();
                hard.truncate(index);
                log.truncate(index);
            }
            Fact::Purge(group, upto) => {
                let (hard, log) = self.groups.entry(group).or_default();
                hard.purge(upto);
                log.purge(upto);
            }
            Fact::Vote(group, vote) => self.groups.entry(group).or_default().0.vote = Some(vote),
            Fact::Committed(group, hint) => self.groups.entry(group).or_default().0.committed = Some(hint),
        }
    }

    fn hard(&self) -> Groups {
        self.groups.iter().map(|(group, (hard, _))| (*group, hard.clone())).collect()
    }

    fn into_groups(self) -> BTreeMap<GroupId, RecoveredGroup> {
        let payload = |bytes: Option<Bytes>| bytes.and_then(|bytes| Payload::decode(&bytes).ok());
        self.groups
            .into_iter()
            .map(|(group, (hard, mut log))| {
                log.vote = payload(hard.vote);
                log.committed = payload(hard.committed);
                log.purged = hard.purged;
                (group, log)
            })
            .collect()
    }
}

/// Opens a segment's file and reads its header and checkpoint.
fn open_segment(
    disk: &dyn Disk,
    config: &JournalConfig,
    dir: &Path,
    seq: u64,
    frame_min: u64,
) -> Result<SegmentFile, JournalError> {
    let path = segment_path(dir, seq);
    let file = disk.open_rw(&path).map_err(io_error("open", &path))?;
    let len = file.len().map_err(io_error("measure", &path))?;
    let mut reader = SegmentReader::new(Arc::clone(&file), len);
    let bytes = reader.bytes(0, SEGMENT_HEADER_LEN).map_err(io_error("read", &path))?;
    let header = match bytes.map(SegmentHeader::decode) {
        Some(Ok(header)) => Some(header),
        Some(Err(BadHeader::Newer(found))) => {
            return Err(JournalError::Version { path, found, supported: VERSION });
        }
        Some(Err(BadHeader::Damaged)) | None => None,
    };
    if let Some(header) = &header {
        check_identity(config, header, &path)?;
    }
    let header = header.filter(|header| header.seq == seq);
    let start = match &header {
        Some(header) => {
            let offset = SEGMENT_HEADER_LEN as u64;
            let at = Expected { offset, frame: header.first_frame, prev_crc: Some(header.prev_crc) };
            Some((header.salt as u32, at))
        }
        None => find_salt(&mut reader, frame_min).map_err(io_error("read", &path))?,
    };
    let first_frame =
        start.map(|(_, at)| at).filter(|at| at.offset == SEGMENT_HEADER_LEN as u64).map(|at| at.frame);
    let mut segment = SegmentFile {
        seq,
        file,
        reader,
        start,
        first_frame,
        end: None,
        checkpoint: None,
        header_damaged: header.is_none(),
    };
    segment.checkpoint = read_checkpoint(&mut segment).map_err(io_error("read", &path))?;
    Ok(segment)
}

fn check_identity(config: &JournalConfig, header: &SegmentHeader, path: &Path) -> Result<(), JournalError> {
    let foreign = |what| Err(JournalError::Foreign { path: path.to_path_buf(), what });
    if header.cluster != config.identity.cluster {
        foreign("cluster")
    } else if header.node != config.identity.node {
        foreign("node")
    } else if header.stripe != u32::from(config.stripe) {
        foreign("stripe")
    } else {
        Ok(())
    }
}

/// The checkpoint in the first frame, if both are intact.
fn read_checkpoint(segment: &mut SegmentFile) -> std::io::Result<Option<Checkpoint>> {
    let Some((salt, mut at)) = segment.start.filter(|(_, at)| Some(at.frame) == segment.first_frame) else {
        return Ok(None);
    };
    let mut checkpoint = None;
    let mut visit = |offset: u64, frame: &[u8], entries: &[(EntryHeader, usize)]| {
        if let Some((header, payload_at)) = entries.first() {
            let payload = &frame[*payload_at..*payload_at + header.len as usize];
            if let Some(Fact::Checkpoint(found)) = fact(0, offset, header, payload) {
                checkpoint = Some(found);
            }
        }
    };
    // Reading just the first frame: as if the segment ended behind it.
    let ends = Ends::Before(at.frame.saturating_add(1));
    scan(&mut segment.reader, salt, &mut at, ends, &mut visit)?;
    Ok(checkpoint)
}

/// What an entry says; nothing for an entry of the journal that cannot be read.
fn fact(segment: u64, payload_at: u64, header: &EntryHeader, payload: &[u8]) -> Option<Fact> {
    let position = LogPosition { index: header.index, term: header.term, node: header.node };
    let own = || Payload::decode(&Bytes::copy_from_slice(payload)).ok();
    Some(match header.kind {
        EntryKind::Append => {
            let location = Location { segment, offset: u32::try_from(payload_at).ok()?, len: header.len };
            Fact::Append(header.group, RecoveredEntry { position, location })
        }
        EntryKind::Truncate => Fact::Truncate(header.group, header.index),
        EntryKind::Purge => Fact::Purge(header.group, position),
        EntryKind::Vote => Fact::Vote(header.group, Bytes::copy_from_slice(payload)),
        EntryKind::Committed => Fact::Committed(header.group, Bytes::copy_from_slice(payload)),
        EntryKind::Checkpoint if header.index == STATE => Fact::Checkpoint(Checkpoint::decode(&own()?.head)?),
        EntryKind::Checkpoint if header.index == RECYCLED => Fact::Recycled(decode_recycled(&own()?.head)),
        EntryKind::Checkpoint => return None,
    })
}

/// Which segments should exist by the newest one; `None` if its checkpoint is not readable.
fn listed_segments(facts: &[Fact], newest: u64) -> Option<BTreeSet<u64>> {
    let mut listed: Option<BTreeSet<u64>> = None;
    for fact in facts {
        match fact {
            Fact::Checkpoint(checkpoint) => listed = Some(expand(&checkpoint.segments, newest)?),
            Fact::Recycled(seqs) => {
                if let Some(listed) = &mut listed {
                    listed.retain(|seq| seqs.iter().all(|(gone, _)| gone != seq));
                }
            }
            Fact::Append(..)
            | Fact::Truncate(..)
            | Fact::Purge(..)
            | Fact::Vote(..)
            | Fact::Committed(..) => {}
        }
    }
    listed
}

/// Where segments end whose successor is recycled, by the newest segment.
fn ends_at_gaps(facts: &[Fact]) -> BTreeMap<u64, u64> {
    let mut ends = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Checkpoint(checkpoint) => ends.extend(checkpoint.ends.iter().copied()),
            Fact::Recycled(pairs) => {
                let known = pairs.iter().filter(|(seq, end)| *seq > 0 && *end > 0);
                ends.extend(known.map(|(seq, end)| (seq - 1, *end)));
            }
            Fact::Append(..)
            | Fact::Truncate(..)
            | Fact::Purge(..)
            | Fact::Vote(..)
            | Fact::Committed(..) => {}
        }
    }
    ends
}

/// The numbers of some runs, and `newest`. `None` if they are not below `newest` or more than a disk can hold.
fn expand(runs: &[(u64, u64)], newest: u64) -> Option<BTreeSet<u64>> {
    /// Bound: 64 TiB of the smallest segments.
    const SEGMENTS_MAX: u64 = 1 << 30;
    let mut total = 0u64;
    let mut seqs = BTreeSet::from([newest]);
    for (first, count) in runs {
        total = total.checked_add(*count)?;
        if total > SEGMENTS_MAX || first.checked_add(*count)? > newest {
            return None;
        }
        seqs.extend(*first..first + count);
    }
    Some(seqs)
}

/// The purged index of each group by the newest segment alone; `None` if its checkpoint is not readable.
fn purged_by(facts: &[Fact]) -> Option<BTreeMap<GroupId, u64>> {
    if !matches!(facts.first(), Some(Fact::Checkpoint(_))) {
        return None;
    }
    let mut purged = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Checkpoint(checkpoint) => {
                let known = checkpoint.groups.iter();
                purged.extend(known.filter_map(|(group, state)| Some((*group, state.purged?.index))));
            }
            Fact::Purge(group, upto) => {
                let index = purged.entry(*group).or_insert(0);
                *index = upto.index.max(*index);
            }
            Fact::Append(..)
            | Fact::Truncate(..)
            | Fact::Vote(..)
            | Fact::Committed(..)
            | Fact::Recycled(_) => {}
        }
    }
    Some(purged)
}

/// Whether everything that a segment holds is purged. One of which nothing is known may be damaged, and is read again.
fn is_purged(held: &Ranges, purged: &BTreeMap<GroupId, u64>) -> bool {
    !held.is_empty()
        && held.iter().all(|(group, (_, last))| purged.get(group).is_some_and(|index| last <= index))
}

/// Overwrites the headers of cut frames, so that they never count as "later" once other frames stand before them.
fn wipe(file: &dyn DiskFile, stale: &[u64]) -> std::io::Result<()> {
    if stale.is_empty() {
        return Ok(());
    }
    for offset in stale {
        file.write_all_at(&[0; ALIGN], *offset)?;
    }
    file.sync_data()
}
