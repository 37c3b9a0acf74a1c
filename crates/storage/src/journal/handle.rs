//! The handle of a stripe: opening, appending, reading, recycling; and the loop of its I/O thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use model::GroupId;
use parking_lot::Mutex;
use rt::{Disk, DiskLock, Rng};

use super::draft::Limits;
use super::error::io_error;
use super::format::ENTRY_HEADER_LEN;
use super::queue::{Append, Op, Queue, Rejected, Taken, frame_len};
use super::recovery::{Found, entries_of, recover};
use super::spares::{Prepare, Spares};
use super::stripe::{Finished, Shared, Stripe};
use super::table::{Counters, SegmentTable, parse_segment_name};
use super::{
    Entry, JournalConfig, JournalCounters, JournalError, Location, Payload, Recovered, RecoveredEntry,
};

/// How durable an append is before it is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Completed after a sync that covers it (and everything appended before it).
    Sync,
    /// Completed once the operating system has it; synced within `JournalConfig::sync_interval`. Lost by a power
    /// failure before that, not by a crash of the process.
    OsBuffered,
}

/// Called in append order, on the I/O thread, with one [`Location`] per entry of the append. Must not block; may append.
pub type Completion = Box<dyn FnOnce(Result<Vec<Location>, JournalError>) + Send>;

/// The queue is at a bound: nothing was taken, here is the append back. Retry when
/// [`Journal::queued_bytes`] has fallen (any completion means that it has).
pub struct QueueFull {
    /// The entries as given.
    pub entries: Vec<Entry>,
    /// The completion as given, not called.
    pub done: Completion,
}

impl std::fmt::Debug for QueueFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueFull").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

/// One segment and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Sequence number in the stripe; never used twice.
    pub seq: u64,
    /// Whether it is complete, and durable as a whole.
    pub sealed: bool,
    /// Size of its file.
    pub bytes: u64,
    /// Per group, the first and last index of what was appended: a superset of what is live.
    pub groups: Vec<(GroupId, u64, u64)>,
}

/// Whether a stripe takes appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum JournalState {
    /// It does.
    Open = 0,
    /// The disk is full: log entries were refused last time, votes and purges are still taken.
    Full = 1,
    /// A write or sync failed: nothing is taken until the process is restarted.
    Sealed = 2,
}

/// Who does the work of a journal.
pub enum Driver {
    /// Two threads of its own: one writes frames, one prepares spare segments.
    Threads,
    /// The caller, by [`Journal::turn`]; `wake` is called after each append. For simulation: no thread, no clock.
    Manual {
        /// Told that there is something to do.
        wake: Arc<dyn Fn() + Send + Sync>,
    },
}

/// A stripe of the journal.
///
/// # Promises
///
/// * The entries of one append are in one frame: after a crash all of them are there or none.
/// * Appends are written in the order of the calls, and completed in that order. When an append with
///   [`Durability::Sync`] completes `Ok`, it and everything before it survives a power loss.
/// * A completion with an error means that the entries are not in the log of this run, with one exception:
///   [`JournalError::Sealed`] says that they may be found after a restart.
/// * A group's log has no holes: an Append must carry an index of at most the last one plus one (the first one ever is
///   free); an index at or below the last one replaces everything from there on. A Purge beyond the last index moves it.
/// * Reads see every completed append, from any thread, also of a sealed stripe or on a full disk.
///
/// # Shutting down
///
/// Dropping the handle writes what is queued, completes it, syncs, and ends the threads. Nothing is appended to after that.
pub struct Journal {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    work: Work,
    _lock: Box<dyn DiskLock>,
}

enum Work {
    Threads(Vec<JoinHandle<()>>),
    Manual { worker: Box<Mutex<Worker>>, wake: Arc<dyn Fn() + Send + Sync> },
}

impl Journal {
    /// Opens or creates the stripe, and says what it holds. `rng` only salts segments.
    ///
    /// Errors: `Locked`, `Foreign`, `Version`, `Config`, `Io`; `Full` if there is no space for a first segment. Damage is
    /// not an error: see [`Recovered::quarantined`].
    pub fn open(
        config: JournalConfig,
        disk: Arc<dyn Disk>,
        rng: Arc<dyn Rng>,
        driver: Driver,
    ) -> Result<(Journal, Recovered), JournalError> {
        config.check()?;
        let dir = config.stripe_dir();
        disk.create_dir_all(&dir).map_err(io_error("create", &dir))?;
        let lock = lock(&*disk, &dir)?;
        let counters = Arc::new(Counters::default());
        let spares = Spares::new(Arc::clone(&disk), &config, Arc::clone(&counters));
        let found = find(&*disk, &config, &dir, &spares)?;
        Counters::add(&counters.quarantined, found.recovered.quarantined.len() as u64);
        let table = SegmentTable::default();
        for (seq, segment) in found.segments {
            table.insert(seq, segment);
        }
        for (seq, segment) in found.retired {
            spares.retire(seq, segment.file, segment.bytes);
        }
        let shared = Arc::new(Shared {
            dir,
            disk,
            table,
            spares,
            counters,
            state: AtomicU8::new(JournalState::Open as u8),
            observers: Mutex::default(),
            config,
        });
        let queue = Arc::new(Queue::new(shared.config.queue_len_max, shared.config.queue_bytes_max));
        let stripe = Stripe::new(Arc::clone(&shared), rng, found.position);
        let worker = Worker::new(stripe, Arc::clone(&shared), Arc::clone(&queue));
        let work = start(worker, &shared, driver)?;
        Ok((Journal { shared, queue, work, _lock: lock }, found.recovered))
    }

    /// Queues `entries` (see the type for what is permitted); `done` is called exactly once, unless the answer is
    /// [`QueueFull`]. Never blocks on the disk. No entries and [`Durability::Sync`] wait for everything before.
    pub fn append(
        &self,
        entries: Vec<Entry>,
        durability: Durability,
        done: Completion,
    ) -> Result<(), QueueFull> {
        let bytes = entries.iter().map(|entry| ENTRY_HEADER_LEN + entry.payload.encoded_len()).sum();
        match self.queue.push(Append { entries, bytes, durability, done }) {
            Ok(()) => {
                if let Work::Manual { wake, .. } = &self.work {
                    wake();
                }
                Ok(())
            }
            Err(Rejected::Full(full)) => Err(full),
            Err(Rejected::Closed(done)) => {
                done(Err(JournalError::Closed));
                Ok(())
            }
        }
    }

    /// Bytes of appends that are not completed.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// The most bytes that one append may take: 37 per entry plus the encoded payloads.
    pub fn append_bytes_max(&self) -> usize {
        Limits::of(self.shared.config.segment_bytes).append_bytes_max
    }

    /// Reads the bytes at `location` (a payload or a body) as they are; the reader checks them. Blocks on the disk.
    ///
    /// Errors: `NoSegment` once the segment is recycled; `Io`; `Corrupt` for a location outside the segment.
    pub fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        self.shared.table.read(&self.shared.dir, location)
    }

    /// Reads a whole payload and checks it against the entry's checksum. Blocks on the disk.
    ///
    /// Errors: as [`read`](Journal::read), and `Corrupt` if the bytes are damaged or `location` is not a whole payload.
    pub fn read_payload(&self, location: Location) -> Result<Payload, JournalError> {
        self.shared.table.read_payload(&self.shared.dir, location)
    }

    /// All segments, by rising sequence number.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.table.infos()
    }

    /// The log entries of a sealed segment, by group and by rising index, as they stand at its end: purged ones too, without
    /// those that it replaces or truncates itself. Whether a later segment replaced some is not looked at. Reads all of the
    /// segment; blocks on the disk.
    ///
    /// Errors: `NoSegment` if it does not exist or is not sealed; `Corrupt` if any of it is damaged; `Io`.
    pub fn entries_of(&self, seq: u64) -> Result<BTreeMap<GroupId, VecDeque<RecoveredEntry>>, JournalError> {
        let sealed = self.shared.table.sealed(seq).ok_or(JournalError::NoSegment { segment: seq })?;
        entries_of(&self.shared.dir, seq, sealed)
    }

    /// Calls `observer` for each segment that is sealed from now on, on the I/O thread, before the appends that caused
    /// it complete. Must not block. Segments that were sealed before are in [`segments`](Journal::segments).
    pub fn on_seal(&self, observer: Box<dyn FnMut(&SegmentInfo) + Send>) {
        self.shared.observers.lock().push(observer);
    }

    /// Gives a sealed segment's file back. The caller guarantees that nothing in it is needed any more: all its log entries
    /// are purged, and nobody reads its locations. Recorded on disk with the next frame; the file is renamed, or removed if
    /// there are enough spares, after that. Idempotent while it is under way.
    ///
    /// Errors: `NoSegment` if it does not exist or is not sealed; `Sealed`.
    pub fn recycle(&self, seq: u64) -> Result<(), JournalError> {
        if self.state() == JournalState::Sealed {
            return Err(JournalError::Sealed);
        }
        if !self.shared.table.is_sealed(seq) {
            return Err(JournalError::NoSegment { segment: seq });
        }
        self.queue.push_recycle(seq);
        if let Work::Manual { wake, .. } = &self.work {
            wake();
        }
        Ok(())
    }

    /// Bytes of all files of the stripe, spares and padding included.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.table.bytes() + self.shared.spares.bytes()
    }

    /// How many segments log entries can still begin before the disk is full, as it is now: asks the file system.
    ///
    /// Errors: `Io`.
    pub fn segments_left(&self) -> Result<u64, JournalError> {
        self.shared.spares.left()
    }

    /// The size of a segment, bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.shared.config.segment_bytes.into()
    }

    /// Whether it takes appends.
    pub fn state(&self) -> JournalState {
        match self.shared.state.load(Ordering::Acquire) {
            0 => JournalState::Open,
            1 => JournalState::Full,
            _ => JournalState::Sealed,
        }
    }

    /// What it has done since it was opened.
    pub fn counters(&self) -> JournalCounters {
        self.shared.counters.read()
    }

    /// How many spare segments are ready for use.
    pub fn spares_ready(&self) -> usize {
        self.shared.spares.ready()
    }

    /// With [`Driver::Manual`]: does one piece of work (a frame, a spare, an interval sync), or answers that there is none.
    /// With threads: `false`.
    pub fn turn(&self) -> bool {
        match &self.work {
            Work::Threads(_) => false,
            Work::Manual { worker, .. } => {
                let mut worker = worker.lock();
                let finished = worker.turn();
                drop(worker);
                match finished {
                    Some(finished) => {
                        complete(&self.queue, finished);
                        true
                    }
                    None => self.shared.spares.turn(),
                }
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
        match &mut self.work {
            Work::Threads(threads) => {
                self.shared.spares.close();
                for thread in threads.drain(..) {
                    // The last handle may be dropped by a completion, on the I/O thread itself.
                    if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                        tracing::error!("journal thread panicked");
                    }
                }
            }
            Work::Manual { worker, .. } => {
                while let Some(finished) = worker.get_mut().turn() {
                    complete(&self.queue, finished);
                }
            }
        }
    }
}

/// The stripe's writer and its queue: what the I/O thread owns.
struct Worker {
    stripe: Stripe,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// Taken from the queue, not yet in a frame.
    ops: VecDeque<Op>,
    frame_bytes: usize,
}

impl Worker {
    fn new(stripe: Stripe, shared: Arc<Shared>, queue: Arc<Queue>) -> Worker {
        let frame_bytes =
            shared.config.frame_bytes.min(Limits::of(shared.config.segment_bytes).append_bytes_max);
        Worker { stripe, shared, queue, ops: VecDeque::new(), frame_bytes }
    }

    /// Writes one frame, or syncs; what is to be completed, or `None` if there was nothing to do.
    fn turn(&mut self) -> Option<Vec<Finished>> {
        if self.ops.is_empty() {
            self.queue.try_take(&mut self.ops);
        }
        if !self.ops.is_empty() {
            return Some(self.commit());
        }
        self.stripe.is_unsynced().then(|| {
            self.sync();
            Vec::new()
        })
    }

    /// Works until the queue is closed and empty.
    fn run(mut self) {
        loop {
            while !self.ops.is_empty() {
                let finished = self.commit();
                complete(&self.queue, finished);
            }
            let wait = self.stripe.is_unsynced().then_some(self.shared.config.sync_interval);
            match self.queue.take(&mut self.ops, wait) {
                Taken::Work => {}
                Taken::Idle => self.sync(),
                Taken::Closed => {
                    self.sync();
                    return;
                }
            }
        }
    }

    fn commit(&mut self) -> Vec<Finished> {
        let frame = frame_len(&self.ops, self.frame_bytes);
        self.stripe.commit(self.ops.drain(..frame))
    }

    fn sync(&mut self) {
        // A failure seals the stripe and is logged there; the next append reports it.
        let _ = self.stripe.sync();
    }
}

fn complete(queue: &Queue, finished: Vec<Finished>) {
    queue.completed(finished.len(), finished.iter().map(|one| one.append.bytes).sum());
    for Finished { append, result } in finished {
        (append.done)(result);
    }
}

fn start(worker: Worker, shared: &Arc<Shared>, driver: Driver) -> Result<Work, JournalError> {
    match driver {
        Driver::Manual { wake } => Ok(Work::Manual { worker: Box::new(Mutex::new(worker)), wake }),
        Driver::Threads => {
            let spares = Arc::clone(shared);
            let stripe = shared.config.stripe;
            let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
                std::thread::Builder::new()
                    .name(name)
                    .spawn(body)
                    .map_err(io_error("start thread", &shared.dir))
            };
            Ok(Work::Threads(vec![
                spawn(format!("journal-{stripe}"), Box::new(move || worker.run()))?,
                spawn(format!("spares-{stripe}"), Box::new(move || spares.spares.run()))?,
            ]))
        }
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, JournalError> {
    let path: PathBuf = dir.join("lock");
    disk.lock(&path).map_err(|err| match err.kind() {
        std::io::ErrorKind::WouldBlock => JournalError::Locked { path },
        _ => io_error("lock", path)(err),
    })
}

/// Sorts the directory into segments, spares and leftovers, and reads the segments. A stripe that has none gets a spare
/// now, so that the first append does not wait for one.
fn find(disk: &dyn Disk, config: &JournalConfig, dir: &Path, spares: &Spares) -> Result<Found, JournalError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let mut seqs = BTreeSet::new();
    for name in &names {
        if let Some(seq) = parse_segment_name(name) {
            seqs.insert(seq);
        } else if name.ends_with(".spare") || name.ends_with(".tmp") {
            spares.adopt(name)?;
        }
    }
    let seqs: Vec<u64> = seqs.into_iter().collect();
    let found = recover(disk, config, dir, &seqs)?;
    if found.position.active.is_none() && spares.ready() == 0 {
        let spare = spares.make(Prepare::PreWrite)?;
        spares.put_back(spare);
    }
    Ok(found)
}
