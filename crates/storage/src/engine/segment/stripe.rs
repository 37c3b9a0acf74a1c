//! The groups' logs over one journal stripe: opening from footers, writing a footer per sealed segment, and saying which
//! segments may be recycled.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{GroupId, ShardId};
use parking_lot::{Mutex, RwLock};
use rt::Disk;

use super::SegmentLog;
use super::sealed::{Sealed, unusable};
use super::shard::Run;
use super::state::{Sealing, State, changed};
use crate::budget::{Budget, Evict};
use crate::engine::StripeContents;
use crate::error::LogError;
use crate::index::{Contents, GroupRange, IndexFiles, Section, Tails};
use crate::journal::SegmentInfo;
use crate::source::BatchSource;

/// Shards that are looked at under one lock while a segment is sealed: readers and apply go on in between.
const SHARDS_PER_LOCK: usize = 256;

/// Gives the committed entries of a sealed segment whose footer is missing to the logs it is handed, in order, as apply
/// does: only entries that are the current ones of their index.
pub(crate) type Rebuild<'a> =
    &'a mut dyn FnMut(&SegmentInfo, &dyn Fn(GroupId) -> Arc<SegmentLog>) -> Result<(), LogError>;

/// What all groups of a stripe share.
pub(crate) struct SegmentStripe {
    pub(super) sealed: Sealed,
    pub(super) cache: Budget,
    pub(super) source: Arc<dyn BatchSource>,
    groups: RwLock<BTreeMap<GroupId, Arc<SegmentLog>>>,
    /// What footers told about groups that nobody asked for yet.
    told: Mutex<BTreeMap<GroupId, State>>,
    /// Segments that the journal has sealed and that have no footer yet, ascending.
    pending: Mutex<VecDeque<SegmentInfo>>,
    /// Held while footers are written.
    sealing: Mutex<()>,
}

impl SegmentStripe {
    /// Opens the index of a stripe. A sealed segment without a sound footer is rebuilt from its entries, unless it is among the
    /// last ones and no entry of it is purged: it had no footer yet then, and is left to the caller's replay.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        journal: StripeContents<'_>,
        cache_bytes: usize,
        rebuild: Rebuild<'_>,
    ) -> Result<Arc<SegmentStripe>, LogError> {
        loop {
            let files =
                IndexFiles::open(disk.clone(), dir.clone()).map_err(|err| LogError::io("open index", err))?;
            let (stripe, missing) = SegmentStripe::load(files, journal, cache_bytes)?;
            let Some(missing) = missing else { return Ok(stripe) };
            rebuild(&missing, &|group| stripe.group(group))?;
            if !stripe.seal(&missing)? {
                return Err(LogError::Damaged { what: "footer that could not be rebuilt" });
            }
        }
    }

    /// Folds footers. Stops at the first that is lost, and names its segment: the stripe is then as it was before that one.
    fn load(
        files: IndexFiles,
        journal: StripeContents<'_>,
        cache_bytes: usize,
    ) -> Result<(Arc<SegmentStripe>, Option<SegmentInfo>), LogError> {
        let StripeContents { source, segments, purged } = journal;
        let sealed = Sealed::new(files);
        let sealed_segments = || segments.iter().filter(|segment| segment.sealed);
        sealed.remove_strays(|seq| sealed_segments().any(|segment| segment.seq == seq))?;
        let mut tails = sealed.load_tails()?;
        check_tails(&tails, segments)?;
        let present = sealed.present()?;
        let mut runs = Vec::new();
        let mut pending = VecDeque::new();
        let mut missing = None;
        for segment in sealed_segments() {
            let footer = sealed.load(segment.seq)?;
            match footer {
                Some(footer) => {
                    fold(&mut tails, &mut runs, &footer)?;
                    sealed.register(segment.seq, footer.groups.clone());
                }
                None if segment.seq < tails.below => {
                    tracing::error!(segment = segment.seq, "footer lost, its records cannot be read");
                }
                None if present.last().is_some_and(|last| *last >= segment.seq)
                    || begins_purged(segment, purged) =>
                {
                    missing = Some(segment.clone());
                    break;
                }
                None => pending.push_back(segment.clone()),
            }
        }
        let mut told: BTreeMap<GroupId, State> = BTreeMap::new();
        for (group, tails) in tails.groups {
            told.entry(group).or_default().restore(tails);
        }
        for (group, shard, run, end) in runs {
            if told.entry(group).or_default().restore_run(shard, run, end) {
                sealed.hold(run.segment, 1);
            }
        }
        sealed_segments().for_each(|segment| sealed.release(&[segment.seq]));
        let stripe = SegmentStripe {
            sealed,
            cache: Budget::new(cache_bytes),
            source: source.clone(),
            groups: RwLock::default(),
            told: Mutex::new(told),
            pending: Mutex::new(pending),
            sealing: Mutex::default(),
        };
        Ok((Arc::new(stripe), missing))
    }

    /// Lets go of the logs: they hold the stripe.
    pub(crate) fn release(&self) {
        self.groups.write().clear();
    }

    /// The log of a group, made at the first call.
    pub(crate) fn group(self: &Arc<SegmentStripe>, group: GroupId) -> Arc<SegmentLog> {
        if let Some(found) = self.groups.read().get(&group) {
            return found.clone();
        }
        let mut groups = self.groups.write();
        groups.entry(group).or_insert_with(|| self.new_group(group)).clone()
    }

    fn new_group(self: &Arc<SegmentStripe>, group: GroupId) -> Arc<SegmentLog> {
        let state = self.told.lock().remove(&group).unwrap_or_default();
        Arc::new_cyclic(|this: &std::sync::Weak<SegmentLog>| SegmentLog {
            group,
            stripe: self.clone(),
            indexed: AtomicU64::new(state.applied()),
            state: RwLock::new(state),
            watchers: Arc::default(),
            holder: self.cache.register(this.clone() as std::sync::Weak<dyn Evict>),
            this: this.clone(),
        })
    }

    /// Says that the journal has sealed a segment. Cheap; may be called from its I/O thread.
    pub(crate) fn segment_sealed(&self, segment: SegmentInfo) {
        self.pending.lock().push_back(segment);
    }

    /// Writes the footers of sealed segments whose entries are all applied, in order. Blocks on disk. Answers how many.
    /// After an error (a full disk, say) nothing is lost: the next call tries again.
    pub(crate) fn write_footers(self: &Arc<SegmentStripe>) -> Result<usize, LogError> {
        let _sealing = self.sealing.lock();
        let mut written = 0;
        loop {
            let Some(segment) = self.pending.lock().front().cloned() else { return Ok(written) };
            if !self.seal(&segment)? {
                return Ok(written);
            }
            self.pending.lock().pop_front();
            written += 1;
        }
    }

    /// Segments that hold nothing any more: no readable record, and of each group no entry above `purged`. What must outlive them is
    /// durable when this returns; the caller recycles them in the journal and then calls [`recycled`](SegmentStripe::recycled).
    pub(crate) fn dead_segments(&self, purged: impl Fn(GroupId) -> u64) -> Result<Vec<u64>, LogError> {
        let dead = self.sealed.dead(purged);
        self.sealed.prepare_recycling(&dead)?;
        Ok(dead)
    }

    /// Forgets segments that the journal has recycled.
    pub(crate) fn recycled(&self, segments: &[u64]) -> Result<(), LogError> {
        self.sealed.forget(segments)
    }

    /// Bytes of extents in memory that no footer holds: a segment is to be sealed early when they are too many.
    pub(crate) fn live_index_bytes(&self) -> usize {
        self.groups.read().values().map(|log| log.state.read().live_bytes()).sum()
    }

    /// Bytes that the tail cache holds.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Writes one footer and moves the segment's extents out of memory; `false` if not all its entries are applied.
    fn seal(self: &Arc<SegmentStripe>, segment: &SegmentInfo) -> Result<bool, LogError> {
        let mut contents = Contents { seq: segment.seq, ..Contents::default() };
        let mut parts: Vec<(Arc<SegmentLog>, Sealing)> = Vec::new();
        for (group, first, last) in &segment.groups {
            let (group, first, last) = (*group, *first, *last);
            let mut applied = last;
            if group != GroupId::META {
                let log = self.group(group);
                let Some(mut sealing) = log.state.read().sealing(segment.seq, last) else { return Ok(false) };
                sealing.shards.sort_unstable();
                sealing.shards.dedup();
                applied = sealing.applied;
                contents.changes.extend(changed(group, &sealing.changes));
                contents.sections.extend(log.sections(segment.seq, &sealing.shards));
                parts.push((log, sealing));
            }
            contents.groups.push(GroupRange { group, first, last, applied });
        }
        contents.groups.sort_unstable_by_key(|range| range.group);
        contents.changes.sort_by_key(|changed| (changed.group, changed.index));
        contents.sections.sort_unstable_by_key(|section| (section.shard, section.group));
        self.sealed.write(&contents)?;
        self.sealed.register(segment.seq, contents.groups);
        for (log, sealing) in parts {
            log.seal(segment.seq, &sealing);
        }
        self.sealed.release(&[segment.seq]);
        Ok(true)
    }
}

impl SegmentLog {
    fn sections(&self, segment: u64, shards: &[ShardId]) -> Vec<Section> {
        let mut sections = Vec::with_capacity(shards.len());
        for some in shards.chunks(SHARDS_PER_LOCK) {
            let state = self.state.read();
            for shard in some {
                let rows = state.shard(*shard).map(|found| found.rows_in(segment)).unwrap_or_default();
                if !rows.is_empty() {
                    sections.push(Section { shard: *shard, group: self.group, rows });
                }
            }
        }
        sections
    }

    fn seal(&self, segment: u64, sealing: &Sealing) {
        for some in sealing.shards.chunks(SHARDS_PER_LOCK) {
            let runs = self.state.write().seal_shards(segment, some);
            self.stripe.sealed.hold(segment, runs);
        }
        self.state.write().seal_order(segment, sealing.applied);
        self.indexed.fetch_max(sealing.applied, Ordering::AcqRel);
    }
}

/// Refuses tails that do not reach as far as segments were recycled: what these held would be begun again at offset 0.
fn check_tails(tails: &Tails, segments: &[SegmentInfo]) -> Result<(), LogError> {
    let first = tails.below.max(1);
    let kept = segments.iter().map(|segment| segment.seq).filter(|seq| *seq >= first);
    if kept.zip(first..).all(|(seq, expected)| seq == expected) {
        Ok(())
    } else {
        Err(LogError::Damaged { what: "tails" })
    }
}

/// Whether an entry of the segment is purged. Then a footer told of it, and so all entries of the segment were applied.
fn begins_purged(segment: &SegmentInfo, purged: &dyn Fn(GroupId) -> u64) -> bool {
    // Group 0 keeps nothing here, and purges by itself.
    let mut groups = segment.groups.iter().filter(|(group, ..)| *group != GroupId::META);
    // A log begins with entry 0, and 0 says that nothing is purged.
    groups.any(|(group, first, _)| (1.max(*first)..).contains(&purged(*group)))
}

/// Goes on by one footer: what it tells, and the runs it holds with the offsets after them.
fn fold(
    tails: &mut Tails,
    runs: &mut Vec<(GroupId, ShardId, Run, u64)>,
    footer: &crate::index::Footer,
) -> Result<(), LogError> {
    for section in footer.sections() {
        let section = section.map_err(|err| unusable(err, "footer"))?;
        let end = section.rows.last().map_or(0, |row| row.extent.end());
        let extents = section.rows.iter().map(|row| row.extent);
        runs.extend(Run::of(footer.seq, extents).map(|run| (section.group, section.shard, run, end)));
    }
    tails.fold(footer).map_err(|err| unusable(err, "footer"))
}
