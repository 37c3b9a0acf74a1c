//! [`Subscriber`]: filters, the live feed, and catching up from the log. Hot path.
//!
//! ```text
//!            fall_behind (window or output full)
//!    live ------------------------------------------> behind
//!     ^  deliveries come by Event::Delivery             |  deliveries come by catch_up
//!     +-------------------------------------------------+
//!            catch_up found nothing more: CatchUp::Live
//! ```
//!
//! Why nothing is lost or doubled between the two: committed batches reach a core after they are readable. When
//! `catch_up` finds nothing after the cursor up to what is applied *now*, every batch that this core has not seen
//! yet has a higher position; and the front skips whatever is at or below its cursor.
//!
//! Why a live subscriber may pass over what it was not told of: a filter's route is there before the place at which it begins is
//! looked up, and a mailbox says how far a group has come only after what concerns its core was posted.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use cluster::Group;
use model::{Error, ErrorKind, GroupId, ShardId, TenantId};
use storage::{LogError, Position, Reach, Scanned, Selection, StoredBatch};
use tracing::warn;

use crate::broker::Sink;
use crate::core_thread::Core;
use crate::delivery::{Batch, Cursor, Delivery, Picked};
use crate::dispatch::Route;
use crate::routing::Filter;

/// Batches of a group that one scan of its log finds.
const SCAN_MAX: usize = 256;
/// Batches that one `catch_up` looks at before it lets others have their turn.
const LOOK_MAX: usize = 4 * SCAN_MAX;
/// Pause before the disk is asked again after it failed.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Bytes that one read from the disk asks for.
const COLD_READ_BYTES: usize = 1 << 20;

/// The subscriptions of one connection or session.
///
/// The front owns the [`Cursor`]: after it took a delivery that has a position, it sets the cursor to that
/// position; it skips every delivery whose position is not above the cursor. Deliveries without a position (at most once,
/// before they are committed) do not touch the cursor and come live only, also to a subscriber that is behind.
///
/// Dropping it removes all its filters.
pub struct Subscriber {
    core: Core,
    tenant: TenantId,
    id: u64,
    state: Rc<SubscriberState>,
    filters: Vec<Subscription>,
    /// Batches read from the disk that `catch_up` has not handed out yet; none while it is live.
    loaded: Option<Rc<RefCell<Loaded>>>,
}

/// What the dispatcher of a core knows of a subscriber.
pub(crate) struct SubscriberState {
    pub(crate) sink: Rc<dyn Sink>,
    pub(crate) live: Cell<bool>,
}

struct Subscription {
    filter: Filter,
    tag: u32,
    /// Records at or before these positions are not its business.
    since: Cursor,
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what is committed from now on, also if the subscriber is behind.
    Now,
    /// Wherever the subscriber's cursor is: the restored subscription of a session that returns.
    AtCursor,
    /// The same, but not before these places: what [`Subscriber::begun_ahead_of`] told of it.
    After(Cursor),
}

/// What catching up found.
pub enum CatchUp {
    /// Deliveries after the cursor, in the order of their group's log.
    Batches(Vec<Delivery>),
    /// Nothing is left: live deliveries flow from here on.
    Live,
    /// The disk has to be asked, or others are to have their turn: call again when this resolves.
    Wait(Pin<Box<dyn Future<Output = ()>>>),
}

/// What was read from the disk.
#[derive(Default)]
struct Loaded {
    batches: AHashMap<(ShardId, u64), StoredBatch>,
    failed: Option<(ShardId, u64)>,
    scan: Option<LoadedScan>,
}

/// What stands behind a place of a group.
struct LoadedScan {
    place: (GroupId, Position),
    /// Where it was looked for; `None`: everywhere.
    shards: Option<Vec<ShardId>>,
    scan: Scan,
}

/// What a scan found.
struct Scan {
    /// What was applied before it began: nothing up to there is missing.
    applied: u64,
    found: Vec<Scanned>,
}

impl Subscriber {
    pub(crate) fn new(core: Core, tenant: TenantId, sink: Rc<dyn Sink>) -> Self {
        let state = Rc::new(SubscriberState { sink, live: Cell::new(false) });
        let id = core.add_subscriber(Rc::clone(&state));
        Self { core, tenant, id, state, filters: Vec::new(), loaded: None }
    }

    /// Adds a filter, or gives a filter that is there another tag (without a moment in which it does not match).
    /// Several filters may share a tag.
    pub fn subscribe(&mut self, filter: &Filter, tag: u32, start: Start) -> Result<(), Error> {
        let known = self.filters.iter_mut().find(|known| known.filter == *filter);
        let known = known.map(|known| std::mem::replace(&mut known.tag, tag));
        let old = known.filter(|old| *old != tag).map(|old| self.route(old));
        self.core.shared().routes.put(&self.tenant, filter, old, self.route(tag));
        if known.is_none() {
            let since = match start {
                // The present of after the route was there: what is committed later goes by it.
                Start::Now => self.core.present(),
                Start::AtCursor => Cursor::default(),
                Start::After(places) => places,
            };
            if self.filters.is_empty() {
                // Most have one.
                self.filters.reserve_exact(1);
            }
            self.filters.push(Subscription { filter: filter.clone(), tag, since });
        }
        Ok(())
    }

    /// Removes a filter. False if it is not there. Deliveries that are under way may still come.
    pub fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let Some(at) = self.filters.iter().position(|known| known.filter == *filter) else { return false };
        let known = self.filters.swap_remove(at);
        self.core.shared().routes.remove(&self.tenant, filter, self.route(known.tag));
        true
    }

    /// The filters that begin ahead of a cursor, and where. Whoever keeps the cursor to go on from it later has to keep them as
    /// well, or gets what was committed before it subscribed.
    pub fn begun_ahead_of<'a>(
        &'a self,
        cursor: &'a Cursor,
    ) -> impl Iterator<Item = (&'a Filter, &'a Cursor)> {
        let ahead = self.filters.iter().filter(|known| known.since.is_ahead_of(cursor));
        ahead.map(|known| (&known.filter, &known.since))
    }

    /// Begins live, from now on. Answers the cursor of the present.
    pub fn start_live(&mut self) -> Cursor {
        self.state.live.set(true);
        self.core.present()
    }

    /// Whether committed batches come live. A new subscriber is behind.
    pub fn is_live(&self) -> bool {
        self.state.live.get()
    }

    /// Stops the live feed of committed batches. Those that are already in the front's mailbox must not be taken.
    pub fn fall_behind(&mut self) {
        self.state.live.set(false);
    }

    /// Moves `cursor` past what was committed since and does not concern this subscriber, if it is live. Only if the front has taken
    /// every delivery that it was told of: they lie before that, too.
    pub fn pass_over(&self, cursor: &mut Cursor) {
        if self.is_live() {
            self.core.advance_to_told(cursor);
        }
    }

    /// Reads on after `cursor`, about `bytes_max` of batches at a time. Moves `cursor` past what does not concern this
    /// subscriber; the front moves it past what it takes. Never blocks, nor looks at much at once: what is not in memory, and a turn
    /// of the others, is waited for.
    pub fn catch_up(&mut self, cursor: &mut Cursor, bytes_max: usize) -> CatchUp {
        let groups: Vec<Group> = self.core.groups().to_vec();
        let mut haul = Haul { found: Vec::new(), looked: 0, bytes: 0, bytes_max };
        for group in &groups {
            match self.catch_up_group(group, cursor, &mut haul) {
                Step::Drained(applied) if haul.found.is_empty() => advance(cursor, group, applied),
                Step::Drained(_) | Step::More => {}
                Step::ColdScan(after) if haul.found.is_empty() => return self.load_scan(group, after),
                Step::ColdBatch(shard, base) if haul.found.is_empty() => {
                    return self.load_batch(group, shard, base);
                }
                Step::ColdScan(_) | Step::ColdBatch(..) => {}
            }
            if haul.is_full() {
                break;
            }
        }
        if !haul.found.is_empty() {
            return CatchUp::Batches(haul.found);
        }
        if haul.is_full() {
            return CatchUp::Wait(Box::pin(tokio::task::yield_now()));
        }
        self.state.live.set(true);
        self.loaded = None;
        CatchUp::Live
    }

    fn catch_up_group(&self, group: &Group, cursor: &mut Cursor, haul: &mut Haul) -> Step {
        let mut after = cursor.get(group.id());
        let before = haul.found.len();
        loop {
            // Read before the scan: whatever is applied later is not covered by it.
            let applied = group.log().applied();
            let scan = match self.loaded_scan(group, after) {
                Some(loaded) => loaded,
                None => match self.scan_at_once(group, after) {
                    Ok(Some(found)) => Scan { applied, found },
                    // What cannot be read now is asked for again.
                    Ok(None) | Err(LogError::Io { .. }) => return Step::ColdScan(after),
                    Err(error) => {
                        warn!(group = %group.id(), err = %error, "a part of the log cannot be read and is passed over");
                        return Step::Drained(applied);
                    }
                },
            };
            if scan.found.is_empty() {
                if scan.applied == applied {
                    return Step::Drained(applied);
                }
                // It was read from the disk a while ago. What came since is mostly in memory.
                after = after.max(Position::end_of(scan.applied));
                if haul.found.len() == before {
                    cursor.set(group.id(), after);
                }
                continue;
            }
            for item in &scan.found {
                haul.looked += 1;
                match self.take(group, item) {
                    Taken::Nothing { read } => {
                        haul.bytes += read;
                        if haul.found.len() == before {
                            cursor.set(group.id(), item.position);
                        }
                    }
                    Taken::Cold => return Step::ColdBatch(item.shard, item.base.0),
                    Taken::Delivery(delivery) => {
                        haul.bytes += item.size as usize;
                        haul.found.push(delivery);
                    }
                }
                after = item.position;
                if haul.is_full() {
                    return Step::More;
                }
            }
        }
    }

    /// What a scan finds in memory; `None` if the disk has to be asked.
    fn scan_at_once(&self, group: &Group, after: Position) -> Result<Option<Vec<Scanned>>, LogError> {
        match self.exact_shards(group) {
            Some(shards) if shards.is_empty() => Ok(Some(Vec::new())),
            Some(shards) => group.log().scan(after, &Selection::Shards(&shards), SCAN_MAX, Reach::Memory),
            None => group.log().scan(after, &Selection::All, SCAN_MAX, Reach::Memory),
        }
    }

    /// What a scan from here on found on the disk, once; nothing if the subscriptions look elsewhere by now.
    fn loaded_scan(&self, group: &Group, after: Position) -> Option<Scan> {
        let place = (group.id(), after);
        let loaded = self.loaded.as_ref()?.borrow_mut().scan.take_if(|loaded| loaded.place == place)?;
        (loaded.shards == self.exact_shards(group)).then_some(loaded.scan)
    }

    /// What of a scanned batch concerns this subscriber.
    fn take(&self, group: &Group, item: &Scanned) -> Taken {
        let Some(topic) = self.core.shared().directory.by_shard(item.shard) else {
            // Nobody on this node has resolved it since the start: its topic is read from the rows first.
            return if self.has_failed(item) { Taken::NOTHING } else { Taken::Cold };
        };
        let captures = !topic.config.captures.is_empty();
        let tags = if captures { Vec::new() } else { self.tags(topic.name.as_str(), group, item.position) };
        if tags.is_empty() && !captures {
            return Taken::NOTHING;
        }
        let loaded = self.loaded.as_ref();
        let loaded = loaded.and_then(|loaded| loaded.borrow_mut().batches.remove(&(item.shard, item.base.0)));
        let stored = match loaded {
            Some(stored) => stored,
            None => match group.log().read_tail(item.shard, item.base, 1) {
                Ok(Some(mut batches)) if !batches.is_empty() => batches.swap_remove(0),
                Ok(_) if self.has_failed(item) => return Taken::NOTHING,
                Ok(_) => return Taken::Cold,
                // Trimmed, dropped or damaged meanwhile: there is nothing to deliver.
                Err(LogError::OutOfRange { .. } | LogError::Dropped | LogError::Damaged { .. }) => {
                    return Taken::NOTHING;
                }
                Err(LogError::Io { .. }) => return Taken::Cold,
            },
        };
        let batch = Arc::new(Batch::committed(topic, item.shard, stored));
        let picked =
            if captures { self.pick(&batch, group, item.position) } else { Some(Picked::All(tags.into())) };
        match picked {
            Some(picked) => Taken::Delivery(Delivery { batch, picked }),
            None => Taken::Nothing { read: item.size as usize },
        }
    }

    /// Whether it was read in vain.
    fn has_failed(&self, item: &Scanned) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.borrow().failed == Some((item.shard, item.base.0)))
    }

    fn pick(&self, batch: &Arc<Batch>, group: &Group, position: Position) -> Option<Picked> {
        let records = batch.records().ok()?;
        let mut picked = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let tags = self.tags(batch.subject(&record), group, position);
            if !tags.is_empty() {
                picked.push((index as u32, tags.into()));
            }
        }
        (!picked.is_empty()).then(|| Picked::Some(picked.into()))
    }

    fn tags(&self, subject: &str, group: &Group, position: Position) -> Vec<u32> {
        let matching = self
            .filters
            .iter()
            .filter(|known| position > known.since.get(group.id()) && known.filter.matches(subject));
        let mut tags: Vec<u32> = matching.map(|known| known.tag).collect();
        tags.sort_unstable();
        tags
    }

    /// Looks on the disk for what stands behind a place of a group.
    fn load_scan(&mut self, group: &Group, after: Position) -> CatchUp {
        let loaded = Rc::clone(self.loaded.get_or_insert_default());
        let (core, group, shards) = (self.core.clone(), group.clone(), self.exact_shards(group));
        CatchUp::Wait(Box::pin(async move {
            let (log, place) = (Arc::clone(group.log()), (group.id(), after));
            let scanned = core.offload(move || {
                let applied = log.applied();
                let selection = shards.as_deref().map_or(Selection::All, Selection::Shards);
                let found = log.scan(after, &selection, SCAN_MAX, Reach::Disk)?.unwrap_or_default();
                Ok::<_, LogError>(LoadedScan { place, shards, scan: Scan { applied, found } })
            });
            match scanned.await {
                Ok(Ok(scan)) => loaded.borrow_mut().scan = Some(scan),
                Ok(Err(error)) => {
                    warn!(group = %group.id(), err = %error, "the log cannot be read; trying again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                // The node stops.
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }))
    }

    /// Reads a batch (and those behind it) from the disk, and the shard's topic if it is not known.
    fn load_batch(&mut self, group: &Group, shard: ShardId, base: u64) -> CatchUp {
        let loaded = Rc::clone(self.loaded.get_or_insert_default());
        let (core, group) = (self.core.clone(), group.clone());
        CatchUp::Wait(Box::pin(async move {
            let batches = match core.topic_of_shard(shard).await {
                Ok(Some(_)) => core.read_cold(&group, shard, model::Offset(base), COLD_READ_BYTES).await,
                Ok(None) => Err(Error::new(ErrorKind::NotFound, "find the topic of a shard")),
                Err(error) => Err(error),
            };
            match batches {
                Ok(batches) if !batches.is_empty() => {
                    let mut loaded = loaded.borrow_mut();
                    loaded.failed = None;
                    loaded.batches.extend(batches.into_iter().map(|batch| ((shard, batch.base.0), batch)));
                }
                Err(error) if !is_gone(error.kind()) => {
                    warn!(shard = %shard, err = %error, "a batch cannot be read; trying again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                // Passed over rather than asked for again and again.
                Ok(_) | Err(_) => loaded.borrow_mut().failed = Some((shard, base)),
            }
        }))
    }

    /// The shards of this group that the filters name, if all of them are exact and known; `None`: look at all.
    fn exact_shards(&self, group: &Group) -> Option<Vec<ShardId>> {
        let shared = self.core.shared();
        if shared.captures.any(&self.tenant) {
            return None;
        }
        let mut shards = Vec::new();
        for known in &self.filters {
            if !known.filter.is_exact() {
                return None;
            }
            let name = model::TopicName::new(known.filter.as_str()).ok()?;
            let topic = shared.directory.by_name(&self.tenant, &name)?;
            shards.extend(topic.shards.iter().filter(|shard| shard.home() == group.id()));
        }
        shards.sort_unstable();
        shards.dedup();
        Some(shards)
    }

    fn route(&self, tag: u32) -> Route {
        Route { core: self.core.id(), subscriber: self.id, tag }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for known in std::mem::take(&mut self.filters) {
            self.core.shared().routes.remove(&self.tenant, &known.filter, self.route(known.tag));
        }
        self.core.remove_subscriber(self.id);
    }
}

/// What one catching up has found so far.
struct Haul {
    found: Vec<Delivery>,
    /// Batches, wanted or not.
    looked: usize,
    /// Of those that were read.
    bytes: usize,
    bytes_max: usize,
}

impl Haul {
    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.looked >= LOOK_MAX
    }
}

enum Step {
    /// Nothing is left in this group up to this index.
    Drained(u64),
    /// There is more, beyond what one haul may hold.
    More,
    /// What stands behind this is not in memory.
    ColdScan(Position),
    /// The next batch is not in memory.
    ColdBatch(ShardId, u64),
}

/// Whether what was asked for is there no more, and not only out of reach for now.
pub(crate) fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::OffsetOutOfRange | ErrorKind::Corrupt)
}

enum Taken {
    /// Nothing of it is wanted. That may be known only after so many bytes were read.
    Nothing {
        read: usize,
    },
    Cold,
    Delivery(Delivery),
}

impl Taken {
    const NOTHING: Taken = Taken::Nothing { read: 0 };
}

fn advance(cursor: &mut Cursor, group: &Group, applied: u64) {
    let end = Position::end_of(applied);
    if cursor.get(group.id()) < end {
        cursor.set(group.id(), end);
    }
}
