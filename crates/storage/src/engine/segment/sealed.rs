//! The sealed segments of a stripe: their footers, on disk and in a small cache, how many readable runs each still
//! holds, and when one may be recycled. Which shard is in which segment is the groups' knowledge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{GroupId, ShardId};
use parking_lot::{Mutex, RwLock};

use super::lru::Lru;
use crate::error::LogError;
use crate::index::{Contents, Extent, Footer, GroupRange, IndexFiles, Tails, Unusable, encode};
use crate::log::Selection;

/// Bound: bytes of footers kept in memory for readers of old data.
const FOOTERS_CACHED_BYTES: usize = 64 << 20;

/// Bound: bytes of decoded sections kept for readers that go through old data in order.
const SECTIONS_CACHED_BYTES: usize = 16 << 20;

/// What a cached section costs beside its extents.
const SECTION_OVERHEAD: usize = 128;

/// Bound: bytes of segments' extents in log order kept for scans over all shards.
const ORDERED_CACHED_BYTES: usize = 32 << 20;

/// The extents of a group in a segment, in log order.
pub(super) type LogOrder = Vec<(ShardId, Extent)>;

/// All sealed segments that have a footer.
pub(super) struct Sealed {
    files: IndexFiles,
    segments: RwLock<BTreeMap<u64, SealedSegment>>,
    footers: Mutex<Lru<u64, Footer>>,
    sections: Mutex<Lru<(u64, ShardId, GroupId), Vec<Extent>>>,
    ordered: Mutex<Lru<(u64, GroupId), LogOrder>>,
    /// Segments below this one may be recycled without losing what must outlive them: the tails file tells it.
    tails_below: Mutex<u64>,
}

/// One of them.
pub(super) struct SealedSegment {
    pub(super) groups: Vec<GroupRange>,
    /// Readable runs: shards that still have a record here, per group that wrote it.
    runs: AtomicUsize,
}

impl Sealed {
    pub(super) fn new(files: IndexFiles) -> Sealed {
        Sealed {
            files,
            segments: RwLock::default(),
            footers: Mutex::new(Lru::new(FOOTERS_CACHED_BYTES)),
            sections: Mutex::new(Lru::new(SECTIONS_CACHED_BYTES)),
            ordered: Mutex::new(Lru::new(ORDERED_CACHED_BYTES)),
            tails_below: Mutex::new(0),
        }
    }

    /// The tails file, if there is a sound one. One that a later release wrote is an error.
    pub(super) fn load_tails(&self) -> Result<Tails, LogError> {
        let file = self.files.read_tails().map_err(|err| LogError::io("read tails", err))?;
        let Some(file) = file else { return Ok(Tails::default()) };
        let tails = Tails::decode(&file).map_err(|err| unusable(err, "tails"))?;
        *self.tails_below.lock() = tails.below;
        Ok(tails)
    }

    /// The footer of a segment, from the cache or from disk; `None` if it is missing or damaged.
    pub(super) fn load(&self, seq: u64) -> Result<Option<Arc<Footer>>, LogError> {
        if let Some(found) = self.footers.lock().get(&seq) {
            return Ok(Some(found));
        }
        let Some(file) = self.files.read_footer(seq).map_err(|err| LogError::io("read footer", err))? else {
            return Ok(None);
        };
        match Footer::decode(&file) {
            Ok(footer) if footer.seq == seq => {
                let footer = Arc::new(footer);
                self.footers.lock().insert(seq, footer.clone(), footer.memory());
                Ok(Some(footer))
            }
            Ok(_) | Err(Unusable::Damaged) => Ok(None),
            Err(version @ Unusable::Version(_)) => Err(unusable(version, "footer")),
        }
    }

    /// The footer of a segment that a run names.
    pub(super) fn footer(&self, seq: u64) -> Result<Arc<Footer>, LogError> {
        self.load(seq)?.ok_or(LogError::Damaged { what: "footer" })
    }

    /// As after so many others were read that this one is in memory no more.
    #[cfg(test)]
    pub(super) fn forget_cached(&self, seq: u64) {
        self.footers.lock().remove(&seq);
    }

    /// The extents of a shard in a segment that a run names.
    pub(super) fn extents(
        &self,
        seq: u64,
        shard: ShardId,
        group: GroupId,
    ) -> Result<Arc<Vec<Extent>>, LogError> {
        let key = (seq, shard, group);
        if let Some(found) = self.sections.lock().get(&key) {
            return Ok(found);
        }
        let rows = self.footer(seq)?.rows(shard, group).map_err(|err| unusable(err, "footer"))?;
        let extents: Arc<Vec<Extent>> = Arc::new(rows.into_iter().map(|row| row.extent).collect());
        let bytes = extents.len() * size_of::<Extent>() + SECTION_OVERHEAD;
        self.sections.lock().insert(key, extents.clone(), bytes);
        Ok(extents)
    }

    /// All extents of a group in a segment, in log order.
    pub(super) fn log_order(&self, seq: u64, group: GroupId) -> Result<Arc<LogOrder>, LogError> {
        if let Some(found) = self.ordered.lock().get(&(seq, group)) {
            return Ok(found);
        }
        let mut all = Vec::new();
        for section in self.footer(seq)?.sections() {
            let section = section.map_err(|err| unusable(err, "footer"))?;
            if section.group == group {
                all.extend(section.rows.iter().map(|row| (section.shard, row.extent)));
            }
        }
        all.sort_unstable_by_key(|(_, extent)| extent.position());
        let all = Arc::new(all);
        self.ordered.lock().insert((seq, group), all.clone(), all.len() * size_of::<(ShardId, Extent)>());
        Ok(all)
    }

    /// Whether [`Sealed::extents`] of these shards, or [`Sealed::log_order`], need not read the disk just now.
    pub(super) fn has_at_once(&self, seq: u64, group: GroupId, selection: &Selection<'_>) -> bool {
        match selection {
            Selection::All => self.ordered.lock().get(&(seq, group)).is_some(),
            Selection::Shards(shards) => {
                let mut sections = self.sections.lock();
                shards.iter().all(|shard| sections.get(&(seq, *shard, group)).is_some())
            }
        }
    }

    /// Makes a footer durable. Readers do not see it yet.
    pub(super) fn write(&self, contents: &Contents) -> Result<(), LogError> {
        self.files
            .write_footer(contents.seq, &encode(contents))
            .map_err(|err| LogError::io("write footer", err))
    }

    /// Makes a segment known. It counts as held, once, until its maker releases it after the runs are counted.
    pub(super) fn register(&self, seq: u64, groups: Vec<GroupRange>) {
        let segment = SealedSegment { groups, runs: AtomicUsize::new(1) };
        self.segments.write().insert(seq, segment);
    }

    /// Whether it is there, and not recycled.
    pub(super) fn is_known(&self, seq: u64) -> bool {
        self.segments.read().contains_key(&seq)
    }

    /// Counts runs that a group has added.
    pub(super) fn hold(&self, seq: u64, runs: usize) {
        if let Some(segment) = self.segments.read().get(&seq) {
            segment.runs.fetch_add(runs, Ordering::Relaxed);
        }
    }

    /// Counts off runs that are trimmed or dropped: one per element.
    pub(super) fn release(&self, runs: &[u64]) {
        if runs.is_empty() {
            return;
        }
        let segments = self.segments.read();
        for segment in runs.iter().filter_map(|seq| segments.get(seq)) {
            segment.runs.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Segments with entries of the group at or above `index`, ascending.
    pub(super) fn with_group_from(&self, group: GroupId, index: u64) -> Vec<u64> {
        let holds = |segment: &SealedSegment| {
            segment.groups.iter().any(|range| range.group == group && range.last >= index)
        };
        self.segments.read().iter().filter(|(_, segment)| holds(segment)).map(|(seq, _)| *seq).collect()
    }

    /// Segments without a readable run whose entries are all purged.
    pub(super) fn dead(&self, purged: impl Fn(GroupId) -> u64) -> Vec<u64> {
        let dead = |segment: &SealedSegment| {
            segment.runs.load(Ordering::Relaxed) == 0
                && segment.groups.iter().all(|range| range.last <= purged(range.group))
        };
        self.segments.read().iter().filter(|(_, segment)| dead(segment)).map(|(seq, _)| *seq).collect()
    }

    /// Brings what must outlive these segments into the tails file, durably. Afterwards they may be recycled. One caller
    /// at a time works, others wait.
    pub(super) fn prepare_recycling(&self, dead: &[u64]) -> Result<(), LogError> {
        let mut tails_below = self.tails_below.lock();
        let Some(last) = dead.iter().max().copied().filter(|last| *last >= *tails_below) else {
            return Ok(());
        };
        let file = self.files.read_tails().map_err(|err| LogError::io("read tails", err))?;
        let mut tails = match file {
            Some(file) => Tails::decode(&file).map_err(|err| unusable(err, "tails"))?,
            None => Tails::default(),
        };
        // A write that failed in its last step may have left a file that is ahead; it is written again, to be durable.
        let segments: Vec<u64> = {
            let segments = self.segments.read();
            segments.range(tails.below..).map(|(seq, _)| *seq).take_while(|seq| *seq <= last).collect()
        };
        for seq in segments {
            tails.fold(&*self.footer(seq)?).map_err(|err| unusable(err, "footer"))?;
        }
        self.files.write_tails(&tails.encode()).map_err(|err| LogError::io("write tails", err))?;
        *tails_below = tails.below;
        Ok(())
    }

    /// Forgets segments that the journal has recycled, and removes their footers.
    pub(super) fn forget(&self, recycled: &[u64]) -> Result<(), LogError> {
        let mut segments = self.segments.write();
        for seq in recycled {
            segments.remove(seq);
            self.footers.lock().remove(seq);
            self.files.remove_footer(*seq).map_err(|err| LogError::io("remove footer", err))?;
        }
        Ok(())
    }

    /// The segments that have a footer file, sound or not, ascending.
    pub(super) fn present(&self) -> Result<Vec<u64>, LogError> {
        self.files.footers().map_err(|err| LogError::io("list footers", err))
    }

    /// Removes footers of segments that the journal does not have.
    pub(super) fn remove_strays(&self, known: impl Fn(u64) -> bool) -> Result<(), LogError> {
        let footers = self.files.footers().map_err(|err| LogError::io("list footers", err))?;
        for seq in footers.into_iter().filter(|seq| !known(*seq)) {
            self.files.remove_footer(seq).map_err(|err| LogError::io("remove footer", err))?;
        }
        Ok(())
    }
}

/// What an unusable file means to a caller. A file of a later release is kept and named, never overwritten.
pub(super) fn unusable(why: Unusable, what: &'static str) -> LogError {
    match why {
        Unusable::Damaged => LogError::Damaged { what },
        version @ Unusable::Version(_) => LogError::io("open index", version),
    }
}
