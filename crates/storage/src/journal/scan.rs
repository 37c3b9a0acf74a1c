//! Reads the frames of one segment file in order, and tells a torn tail from damage.
//!
//! A frame is *expected* at an offset with a number and the checksum of its predecessor. If it is not there, later
//! offsets are searched for an intact frame of the same salt with a higher number:
//!
//! ```text
//! | 7 | 8 | ??? | 10 |     10 says that 9 was durable when it was written      => damage: ??? is quarantined, 10 kept
//! | 7 | 8 | ??? | 10 |     10 does not say so (both were never synced)         => torn: cut at ???, 10 wiped
//! | 7 | 8 | ???            nothing later, and no later segment                 => torn: cut at ???
//! | 7 | 8 | ???            nothing later, but the next segment starts with 10  => damage
//! ```

use std::io;
use std::sync::Arc;

use rt::DiskFile;

use super::format::{
    ALIGN, EntryHeader, FRAME_HEADER_LEN, FrameHeader, SEGMENT_HEADER_LEN, align_up, entries,
};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// A file read front to back through a window.
pub(crate) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
    window: Vec<u8>,
    start: u64,
}

impl SegmentReader {
    pub(crate) fn new(file: Arc<dyn DiskFile>, len: u64) -> SegmentReader {
        SegmentReader { file, len, window: Vec::new(), start: 0 }
    }

    /// `len` bytes at `offset`; `None` if the file ends before.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        // Bound: the window is at most the chunk or what was asked for, and that is at most the file.
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let held = offset >= self.start && offset + len as u64 <= self.start + self.window.len() as u64;
        if !held {
            let want = (len.max(CHUNK) as u64).min(self.len - offset) as usize;
            self.window.resize(want, 0);
            self.start = offset;
            if let Err(err) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return Err(err);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.window[at..at + len]))
    }

    /// The intact frame at `offset`, if one is there.
    fn frame(&mut self, offset: u64, wanted: Wanted) -> io::Result<Option<FrameHeader>> {
        let header = self.bytes(offset, FRAME_HEADER_LEN)?.and_then(FrameHeader::decode);
        let Some(header) = header.filter(|header| wanted.accepts(header)) else {
            return Ok(None);
        };
        let intact = self.bytes(offset, header.len as usize)?.is_some_and(|bytes| header.is_intact(bytes));
        Ok(intact.then_some(header))
    }
}

/// Which frames to accept.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// `None` accepts any: only to find the salt of a segment whose header is damaged.
    salt: Option<u32>,
    frame_min: u64,
    frame_end: u64,
}

impl Wanted {
    fn accepts(&self, header: &FrameHeader) -> bool {
        self.salt.is_none_or(|salt| salt == header.salt)
            && (self.frame_min..self.frame_end).contains(&header.frame)
    }
}

/// Where a frame is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) offset: u64,
    pub(crate) frame: u64,
    /// Checksum of the frame before; `None` if that one is damaged, and the chain is not checked.
    pub(crate) prev_crc: Option<u32>,
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It is the last one. Its first frame is durable all the same (it has its name only since then).
    Open,
    /// A later segment exists, so all its frames are durable; its own last one is the one before this number.
    Before(u64),
    /// A later segment exists, but its first frame number is not known.
    Somewhere,
}

/// What a scan found besides frames.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Damaged ranges (offset, len).
    pub(crate) damage: Vec<(u64, u64)>,
    /// Whether the log may go on at the end; not if frames may be missing there.
    pub(crate) appendable: bool,
    /// Frames behind a cut, whose headers must be wiped before anything is written.
    pub(crate) stale: Vec<u64>,
    /// Bytes of frames that were cut, as far as their headers can be read.
    pub(crate) cut_bytes: u64,
}

/// Receives each intact frame: its header, its offset, its bytes, and its entries with payload offsets.
pub(crate) type Visit<'a> = dyn FnMut(u64, &[u8], &[(EntryHeader, usize)]) + 'a;

/// Reads frames from `at` until the segment ends; `at` is then where the next frame goes or would have been.
pub(crate) fn scan(
    reader: &mut SegmentReader,
    salt: u32,
    at: &mut Expected,
    ends: Ends,
    visit: &mut Visit<'_>,
) -> io::Result<Scanned> {
    let mut scanned = Scanned::default();
    let first = at.frame;
    let frame_end = match ends {
        Ends::Before(frame) => frame,
        Ends::Open | Ends::Somewhere => u64::MAX,
    };
    while at.frame < frame_end {
        if take_frame(reader, salt, at, &mut scanned, visit)? {
            continue;
        }
        let wanted = Wanted { salt: Some(salt), frame_min: at.frame.saturating_add(1), frame_end };
        // The first frame of a segment was durable before the segment had its name.
        let durable = ends != Ends::Open || at.frame == first;
        let later = find_later(reader, at.offset, wanted, durable)?;
        if let Some((offset, header)) = later.proof {
            scanned.damage.push((at.offset, offset - at.offset));
            *at = Expected { offset, frame: header.frame, prev_crc: None };
            continue;
        }
        let rest = reader.len.saturating_sub(at.offset);
        let lost = match ends {
            Ends::Before(_) => true,
            Ends::Open => durable,
            Ends::Somewhere => at.frame == first,
        };
        if lost {
            scanned.damage.push((at.offset, rest));
            return Ok(scanned);
        }
        scanned.appendable = ends == Ends::Open;
        scanned.cut_bytes =
            torn_bytes(reader, salt, at)? + later.stale.iter().map(|(_, len)| len).sum::<u64>();
        scanned.stale = later.stale.into_iter().map(|(offset, _)| offset).collect();
        return Ok(scanned);
    }
    Ok(scanned)
}

/// The salt of a segment whose header is damaged, by its first intact frame that is newer than `frame_min`. Bytes of the
/// file's earlier life are older. Answers salt, offset and number of that frame.
pub(crate) fn find_salt(reader: &mut SegmentReader, frame_min: u64) -> io::Result<Option<(u32, Expected)>> {
    let wanted = Wanted { salt: None, frame_min, frame_end: u64::MAX };
    let found = find_later(reader, (SEGMENT_HEADER_LEN - ALIGN) as u64, wanted, true)?;
    Ok(found
        .proof
        .map(|(offset, header)| (header.salt, Expected { offset, frame: header.frame, prev_crc: None })))
}

/// Visits the frame at `at` and moves on; `false` if it is not there.
fn take_frame(
    reader: &mut SegmentReader,
    salt: u32,
    at: &mut Expected,
    scanned: &mut Scanned,
    visit: &mut Visit<'_>,
) -> io::Result<bool> {
    let wanted = Wanted { salt: Some(salt), frame_min: at.frame, frame_end: at.frame.saturating_add(1) };
    let found = reader.frame(at.offset, wanted)?;
    let Some(header) = found.filter(|header| at.prev_crc.is_none_or(|crc| crc == header.prev_crc)) else {
        return Ok(false);
    };
    let Some(bytes) = reader.bytes(at.offset, header.len as usize)? else {
        return Ok(false);
    };
    match entries(bytes, &header) {
        Some(entries) => visit(at.offset, bytes, &entries),
        // Intact but not readable as entries: nothing that this build wrote.
        None => scanned.damage.push((at.offset, u64::from(header.len))),
    }
    *at = Expected {
        offset: align_up(at.offset + u64::from(header.len)),
        frame: header.frame + 1,
        prev_crc: Some(header.crc),
    };
    Ok(true)
}

#[derive(Default)]
struct Later {
    /// An intact later frame that shows that the missing one was durable.
    proof: Option<(u64, FrameHeader)>,
    /// Intact later frames (offset, len) that show nothing.
    stale: Vec<(u64, u64)>,
}

/// Searches behind `offset`. With `durable` any intact frame is proof; else only one that says so itself, and then the
/// first intact one is where reading goes on.
fn find_later(reader: &mut SegmentReader, offset: u64, wanted: Wanted, durable: bool) -> io::Result<Later> {
    let mut later = Later::default();
    let mut first = None;
    let mut at = offset + ALIGN as u64;
    while at < reader.len {
        if let Some(header) = reader.frame(at, wanted)? {
            let (resume_at, resume) = *first.get_or_insert((at, header));
            if durable || header.prior_durable {
                later.proof = Some((resume_at, resume));
                return Ok(later);
            }
            later.stale.push((at, u64::from(header.len)));
            at = align_up(at + u64::from(header.len));
        } else {
            at += ALIGN as u64;
        }
    }
    Ok(later)
}

/// Length of the torn frame at `at`, if its header is readable.
fn torn_bytes(reader: &mut SegmentReader, salt: u32, at: &Expected) -> io::Result<u64> {
    let header = reader.bytes(at.offset, FRAME_HEADER_LEN)?.and_then(FrameHeader::decode);
    Ok(header
        .filter(|header| header.salt == salt && header.frame == at.frame)
        .map_or(0, |h| u64::from(h.len)))
}
