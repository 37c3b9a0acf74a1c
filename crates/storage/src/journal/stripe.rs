//! The writer of a stripe: one frame per call, written and synced once. Owned by the I/O thread. On the hot path.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use rt::{Disk, DiskFile, Rng, is_full};

use super::checkpoint::{self, Checkpoint, Ranges};
use super::draft::{Draft, Groups, Limits};
use super::error::io_error;
use super::format::{
    ALIGN, EntryHeader, FRAME_HEADER_LEN, FrameHeader, SegmentHeader, align_up, encode_entry, finish_frame,
};
use super::queue::{Append, Op};
use super::spares::{Need, Spare, Spares};
use super::table::{Counters, Segment, SegmentTable, segment_path, widen};
use super::{EntryKind, JournalConfig, JournalError, JournalState, Location, Payload, SegmentInfo};

/// Told of each segment that is complete, on the I/O thread.
pub(crate) type SealObserver = Box<dyn FnMut(&SegmentInfo) + Send>;

/// What the writer shares with the handle.
pub(crate) struct Shared {
    pub(crate) config: JournalConfig,
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) table: SegmentTable,
    pub(crate) spares: Spares,
    pub(crate) counters: Arc<Counters>,
    pub(crate) state: AtomicU8,
    pub(crate) observers: Mutex<Vec<SealObserver>>,
}

impl Shared {
    fn set_state(&self, state: JournalState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

/// The segment that is being written.
pub(crate) struct Active {
    pub(crate) seq: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: u32,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Whether a frame was written that no sync covers.
    pub(crate) unsynced: bool,
    /// Whether its file was part of the reserve, which log entries leave alone.
    pub(crate) of_reserve: bool,
}

/// Where the log ends and what the groups' states are there.
pub(crate) struct Position {
    pub(crate) groups: Groups,
    pub(crate) active: Option<Active>,
    pub(crate) next_segment: u64,
    pub(crate) next_frame: u64,
    pub(crate) last_crc: u32,
}

/// An append and its outcome; to be completed in this order.
pub(crate) struct Finished {
    pub(crate) append: Append,
    pub(crate) result: Result<Vec<Location>, JournalError>,
}

/// Where the frame will be written.
enum Place {
    Active,
    New(Spare),
}

/// See the module.
pub(crate) struct Stripe {
    shared: Arc<Shared>,
    rng: Arc<dyn Rng>,
    limits: Limits,
    at: Position,
    /// The frame, reused.
    buf: Vec<u8>,
}

impl Stripe {
    pub(crate) fn new(shared: Arc<Shared>, rng: Arc<dyn Rng>, at: Position) -> Stripe {
        let limits = Limits::of(shared.config.segment_bytes);
        Stripe { shared, rng, limits, at, buf: Vec::new() }
    }

    /// Whether [`sync`](Stripe::sync) has something to do.
    pub(crate) fn is_unsynced(&self) -> bool {
        !self.is_sealed() && self.at.active.as_ref().is_some_and(|active| active.unsynced)
    }

    /// Writes all operations as one frame (two, if the disk is full and some may use the reserve).
    pub(crate) fn commit(&mut self, ops: impl ExactSizeIterator<Item = Op>) -> Vec<Finished> {
        let mut slots = Vec::with_capacity(ops.len());
        let mut recycled = Vec::new();
        for op in ops {
            match op {
                Op::Append(append) => slots.push(Finished { append, result: Ok(Vec::new()) }),
                Op::Recycle(seq) => recycled.push(seq),
            }
        }
        if let Err(err) = self.write(&mut slots, &recycled) {
            for slot in slots.iter_mut().filter(|slot| slot.result.is_ok()) {
                slot.result = Err(err.clone());
            }
        }
        let buf_max = 4 * self.shared.config.frame_bytes;
        if self.buf.capacity() > buf_max {
            self.buf = Vec::new();
        }
        slots
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        self.check_open()?;
        let Some(active) = self.at.active.as_mut().filter(|active| active.unsynced) else {
            return Ok(());
        };
        match active.file.sync_data() {
            Ok(()) => {
                active.unsynced = false;
                Counters::add(&self.shared.counters.syncs, 1);
                Ok(())
            }
            Err(err) => Err(self.seal("sync", err)),
        }
    }

    fn write(&mut self, slots: &mut [Finished], recycled: &[u64]) -> Result<(), JournalError> {
        self.check_open()?;
        let draft = self.draft(slots, recycled);
        let (draft, place) = match self.place(&draft) {
            Err(JournalError::Full) if draft.appends => {
                self.refuse_full(slots);
                let draft = self.draft(slots, recycled);
                let place = self.place(&draft)?;
                (draft, place)
            }
            place => (draft, place?),
        };
        if draft.entries == 0 {
            return if draft.sync { self.sync() } else { Ok(()) };
        }
        match place {
            Place::Active => self.write_active(draft, slots),
            Place::New(spare) => self.write_new(draft, slots, spare),
        }
    }

    /// Admits what can be written; the others get their error.
    fn draft(&self, slots: &mut [Finished], recycled: &[u64]) -> Draft {
        let mut draft = Draft::default();
        for slot in slots.iter_mut().filter(|slot| slot.result.is_ok()) {
            if let Err(err) = draft.admit(&self.at.groups, self.limits, &slot.append) {
                slot.result = Err(err);
            }
        }
        draft.admit_recycled(self.shared.table.ends_before(recycled));
        draft
    }

    fn place(&mut self, draft: &Draft) -> Result<Place, JournalError> {
        let need = align_up((FRAME_HEADER_LEN + draft.bytes) as u64);
        if let Some(active) = self.at.active.as_mut().filter(|active| active.of_reserve && draft.appends) {
            if !self.shared.spares.reserve_is_whole()? {
                return Err(JournalError::Full);
            }
            active.of_reserve = false;
        }
        if draft.entries == 0
            || self.at.active.as_ref().is_some_and(|active| active.offset + need <= active.bytes)
        {
            return Ok(Place::Active);
        }
        let need = if draft.appends { Need::Append } else { Need::Reserve };
        self.shared.spares.take(need).map(Place::New)
    }

    fn refuse_full(&self, slots: &mut [Finished]) {
        let mut refused = 0;
        for slot in slots.iter_mut().filter(|slot| slot.result.is_ok()) {
            if slot.append.entries.iter().any(|entry| entry.kind == EntryKind::Append) {
                slot.result = Err(JournalError::Full);
                refused += 1;
            }
        }
        Counters::add(&self.shared.counters.refused_full, refused);
        self.shared.set_state(JournalState::Full);
    }

    fn write_active(&mut self, draft: Draft, slots: &mut [Finished]) -> Result<(), JournalError> {
        // A frame that promises durability promises it for every frame before it: recovery relies on that.
        if draft.sync {
            self.sync()?;
        }
        let Some(active) = &self.at.active else {
            return Err(JournalError::Sealed);
        };
        let (seq, base, file) = (active.seq, active.offset, Arc::clone(&active.file));
        let prior_durable = !active.unsynced;
        let salt = active.salt;
        self.buf.clear();
        let crc = self.encode(&draft, slots, Target { seq, base, salt, prior_durable, checkpoint: None });
        rt::failpoint_after("journal.torn", || {
            drop(file.write_all_at(&self.buf[..self.buf.len() / 2], base))
        });
        rt::failpoint_after("journal.written", || drop(file.write_all_at(&self.buf, base)));
        let written = if draft.sync {
            file.write_durable_at(&self.buf, base)
        } else {
            file.write_all_at(&self.buf, base)
        };
        match written {
            Ok(()) => {}
            // A full disk loses nothing: the next frame goes to the same place.
            Err(err) if is_full(&err) => {
                self.refuse_full(slots);
                return Err(JournalError::Full);
            }
            Err(err) => return Err(self.seal("write", err)),
        }
        rt::failpoint("journal.synced");
        if let Some(active) = self.at.active.as_mut() {
            active.offset += self.buf.len() as u64;
            active.unsynced = !draft.sync;
        }
        self.finish(draft, seq, crc);
        Ok(())
    }

    fn write_new(&mut self, draft: Draft, slots: &mut [Finished], spare: Spare) -> Result<(), JournalError> {
        if let Err(err) = self.sync() {
            self.shared.spares.put_back(spare);
            return Err(err);
        }
        let seq = self.at.next_segment;
        let salt = self.rng.next_u64();
        let config = &self.shared.config;
        let (bytes, stripe) = (u64::from(config.segment_bytes), u32::from(config.stripe));
        let header = SegmentHeader {
            stripe,
            cluster: config.identity.cluster,
            node: config.identity.node,
            seq,
            salt,
            first_frame: self.at.next_frame,
            prev_crc: self.at.last_crc,
        };
        self.buf.clear();
        header.encode_into(&mut self.buf);
        let checkpoint = Some(self.checkpoint().encode());
        let target = Target { seq, base: 0, salt: salt as u32, prior_durable: true, checkpoint };
        let crc = self.encode(&draft, slots, target);
        if self.buf.len() as u64 > bytes {
            self.shared.spares.put_back(spare);
            return Err(JournalError::TooLarge { bytes: self.buf.len() as u64, max: bytes });
        }
        match spare.file.write_durable_at(&self.buf, 0) {
            Ok(()) => {}
            Err(err) if is_full(&err) => {
                self.shared.spares.put_back(spare);
                self.refuse_full(slots);
                return Err(JournalError::Full);
            }
            Err(err) => return Err(self.seal("write", err)),
        }
        rt::failpoint("segment.written");
        self.publish(seq, &spare)?;
        let offset = self.buf.len() as u64;
        let (salt, of_reserve) = (salt as u32, spare.of_reserve);
        self.at.active =
            Some(Active { seq, file: spare.file, salt, offset, bytes, unsynced: false, of_reserve });
        self.finish(draft, seq, crc);
        Ok(())
    }

    /// Gives the new segment its name, which seals the one before it.
    fn publish(&mut self, seq: u64, spare: &Spare) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let path = segment_path(&shared.dir, seq);
        let named = shared.disk.rename(&spare.path, &path).and_then(|()| shared.disk.sync_dir(&shared.dir));
        if let Err(err) = named {
            return Err(self.seal("rename", err));
        }
        rt::failpoint("segment.named");
        self.at.next_segment = seq + 1;
        let bytes = u64::from(shared.config.segment_bytes);
        let (file, ranges) = (Arc::clone(&spare.file), Ranges::new());
        shared.table.insert(seq, Segment { file, bytes, sealed: false, end: None, ranges });
        let end = self.at.next_frame;
        if let Some(info) = self.at.active.take().and_then(|active| shared.table.seal(active.seq, end)) {
            for observer in shared.observers.lock().iter_mut() {
                observer(&info);
            }
        }
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            groups: self.at.groups.clone(),
            previous: self.shared.table.ranges(self.at.next_segment - 1),
            segments: self.shared.table.runs(),
            ends: self.shared.table.ends_at_gaps(),
        }
    }

    /// Appends the frame and its padding to the buffer, fills in the locations, and answers the frame's checksum.
    fn encode(&mut self, draft: &Draft, slots: &mut [Finished], target: Target) -> u32 {
        let out = &mut self.buf;
        let start = out.len();
        out.reserve(align_up((FRAME_HEADER_LEN + draft.bytes) as u64) as usize);
        out.resize(start + FRAME_HEADER_LEN, 0);
        let mut entries = draft.entries as u32;
        if let Some(checkpoint) = target.checkpoint {
            encode_own(out, checkpoint::STATE, &checkpoint);
            entries += 1;
        }
        for slot in slots.iter_mut() {
            let Ok(locations) = &mut slot.result else { continue };
            locations.reserve_exact(slot.append.entries.len());
            for entry in &slot.append.entries {
                let header = EntryHeader {
                    kind: entry.kind,
                    group: entry.group,
                    index: entry.index,
                    term: entry.term,
                    node: entry.node,
                    len: 0,
                    crc: 0,
                };
                let (at, len) = encode_entry(out, &header, |out| entry.payload.encode_into(out));
                let offset = (target.base + at as u64) as u32;
                locations.push(Location { segment: target.seq, offset, len });
            }
        }
        if !draft.recycled.is_empty() {
            encode_own(out, checkpoint::RECYCLED, &checkpoint::encode_recycled(&draft.recycled));
        }
        let header = FrameHeader {
            len: 0,
            frame: self.at.next_frame,
            salt: target.salt,
            prev_crc: self.at.last_crc,
            entries,
            prior_durable: target.prior_durable,
            crc: 0,
        };
        let crc = finish_frame(out, start, &header);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        crc
    }

    /// Takes over what the frame changed.
    fn finish(&mut self, draft: Draft, seq: u64, crc: u32) {
        self.at.next_frame += 1;
        self.at.last_crc = crc;
        self.at.groups.extend(draft.touched);
        if draft.appends {
            self.shared.set_state(JournalState::Open);
        }
        if !draft.ranges.is_empty() {
            self.shared.table.widen(seq, &draft.ranges);
        }
        let counters = &self.shared.counters;
        Counters::add(&counters.frames, 1);
        Counters::add(&counters.bytes, self.buf.len() as u64);
        Counters::add(&counters.syncs, u64::from(draft.sync));
        for (seq, _) in draft.recycled {
            if let Some(segment) = self.shared.table.remove_sealed(seq) {
                self.shared.spares.retire(seq, segment.file, segment.bytes);
            }
        }
    }

    fn is_sealed(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == JournalState::Sealed as u8
    }

    fn check_open(&self) -> Result<(), JournalError> {
        if self.is_sealed() { Err(JournalError::Sealed) } else { Ok(()) }
    }

    /// After a failed write or sync nothing more is written: what the disk holds is unknown, and a later sync that
    /// answers well would prove nothing.
    fn seal(&self, operation: &'static str, source: std::io::Error) -> JournalError {
        self.shared.set_state(JournalState::Sealed);
        let err = match io_error(operation, &self.shared.dir)(source) {
            JournalError::Io { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        tracing::error!(stripe = self.shared.config.stripe, operation, err, "journal stripe sealed");
        JournalError::Sealed
    }
}

/// What a frame needs to know of its place.
struct Target {
    seq: u64,
    /// Offset in the segment of the buffer's first byte.
    base: u64,
    salt: u32,
    prior_durable: bool,
    checkpoint: Option<Payload>,
}

/// Appends an entry of the journal itself.
fn encode_own(out: &mut Vec<u8>, what: u64, payload: &Payload) {
    let group = model::GroupId(0);
    let header =
        EntryHeader { kind: EntryKind::Checkpoint, group, index: what, term: 0, node: 0, len: 0, crc: 0 };
    encode_entry(out, &header, |out| payload.encode_into(out));
}

/// Ranges of one more entry.
pub(crate) fn widen_by(ranges: &mut Ranges, group: model::GroupId, index: u64) {
    widen(ranges, &Ranges::from([(group, (index, index))]));
}
