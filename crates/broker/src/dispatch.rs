//! Who gets a batch: routes, matched once per shard and routing generation, and the hand-over of committed
//! batches to the cores. Hot path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use cluster::{AppliedBatch, Observer};
use model::{GroupId, ShardId, TenantId};
use parking_lot::Mutex;
use storage::{BatchFlags, StoredBatch};

use crate::delivery::Batch;
use crate::node::CoreMailbox;
use crate::routing::{Filter, Scratch, Trie};
use crate::topic::Topic;
use crate::topics::Directory;

/// Where a filter leads: a subscriber of a core, and which of its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) core: u16,
    pub(crate) subscriber: u64,
    pub(crate) tag: u32,
}

/// A subscriber that a subject concerns, with the tags of its matching subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) subscriber: u64,
    pub(crate) tags: Arc<[u32]>,
}

/// The subscribers of one core that a subject concerns.
pub(crate) type CoreTargets = Arc<[Target]>;
/// The same for all cores that have any.
pub(crate) type Targets = Arc<[(u16, CoreTargets)]>;

/// The filters of every subscriber on this node.
///
/// The lock is held to change a filter or to match a subject that no cache knows; never while anything waits.
#[derive(Default)]
pub(crate) struct Routes {
    tries: Mutex<AHashMap<TenantId, Trie<Route>>>,
    /// Grows with every change, after it; a cached match is good while it stands.
    generation: AtomicU64,
}

impl Routes {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Replaces (`old` is removed if given) or adds a route, in one step for whoever matches.
    pub(crate) fn put(&self, tenant: &TenantId, filter: &Filter, old: Option<Route>, new: Route) {
        let mut tries = self.tries.lock();
        let trie = tries.entry(tenant.clone()).or_default();
        if let Some(old) = old {
            trie.remove(filter, old);
        }
        trie.insert(filter, new);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn remove(&self, tenant: &TenantId, filter: &Filter, route: Route) {
        let mut tries = self.tries.lock();
        if let Some(trie) = tries.get_mut(tenant) {
            trie.remove(filter, route);
            if trie.is_empty() {
                tries.remove(tenant);
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether any subscriber of the tenant exists.
    fn is_empty(&self, tenant: &TenantId) -> bool {
        !self.tries.lock().contains_key(tenant)
    }

    fn matches(&self, tenant: &TenantId, subject: &str, scratch: &mut Scratch) -> Targets {
        let mut found = Vec::new();
        if let Some(trie) = self.tries.lock().get(tenant) {
            trie.matches(subject, scratch, |route| found.push(route));
        }
        // A subscriber has a tag as often as its filters match [MQTT-3.3.4-4].
        found.sort_unstable();
        let by_core = found.chunk_by(|a, b| a.core == b.core);
        by_core
            .map(|routes| {
                let by_subscriber = routes.chunk_by(|a, b| a.subscriber == b.subscriber);
                let targets = by_subscriber.map(|routes| Target {
                    subscriber: routes[0].subscriber,
                    tags: routes.iter().map(|route| route.tag).collect(),
                });
                (routes[0].core, targets.collect())
            })
            .collect()
    }
}

/// Matches of one thread, by subject; valid for one generation each.
#[derive(Default)]
pub(crate) struct MatchCache {
    by_shard: AHashMap<ShardId, (u64, Targets)>,
    by_subject: AHashMap<Box<str>, (u64, Targets)>,
    scratch: Scratch,
}

/// Bound: subjects of capturing topics that a thread remembers.
const SUBJECTS_MAX: usize = 16 * 1024;
/// Bound: shards that a thread remembers.
const SHARDS_MAX: usize = 64 * 1024;

impl MatchCache {
    /// Who wants the records of a shard whose records all have the topic's name as their subject.
    pub(crate) fn for_shard(&mut self, routes: &Routes, shard: ShardId, topic: &Topic) -> Targets {
        let generation = routes.generation();
        if let Some((known, targets)) = self.by_shard.get(&shard)
            && *known == generation
        {
            return Arc::clone(targets);
        }
        let targets = routes.matches(&topic.tenant, topic.name.as_str(), &mut self.scratch);
        if self.by_shard.len() >= SHARDS_MAX {
            self.by_shard.clear();
        }
        self.by_shard.insert(shard, (generation, Arc::clone(&targets)));
        targets
    }

    /// Who wants a record of this subject.
    pub(crate) fn for_subject(&mut self, routes: &Routes, tenant: &TenantId, subject: &str) -> Targets {
        let generation = routes.generation();
        if let Some((known, targets)) = self.by_subject.get(subject)
            && *known == generation
        {
            return Arc::clone(targets);
        }
        let targets = routes.matches(tenant, subject, &mut self.scratch);
        if self.by_subject.len() >= SUBJECTS_MAX {
            self.by_subject.clear();
        }
        self.by_subject.insert(subject.into(), (generation, Arc::clone(&targets)));
        targets
    }

    /// The same, without remembering the answer.
    pub(crate) fn once(&mut self, routes: &Routes, tenant: &TenantId, subject: &str) -> Targets {
        routes.matches(tenant, subject, &mut self.scratch)
    }
}

/// A batch on its way to one core. Without targets, the core matches record by record.
pub(crate) type Addressed = (u16, Option<CoreTargets>);

/// To which cores a batch of this topic goes.
pub(crate) fn address(
    routes: &Routes,
    cache: &mut MatchCache,
    cores: usize,
    batch: &Batch,
) -> Vec<Addressed> {
    if batch.topic.config.captures.is_empty() {
        let targets = cache.for_shard(routes, batch.shard, &batch.topic);
        return targets.iter().map(|(core, targets)| (*core, Some(Arc::clone(targets)))).collect();
    }
    if routes.is_empty(&batch.topic.tenant) {
        return Vec::new();
    }
    (0..cores as u16).map(|core| (core, None)).collect()
}

/// Takes committed batches from the groups and posts them to the cores whose subscribers they concern. Runs on the
/// consensus thread.
pub(crate) struct Dispatcher {
    pub(crate) routes: Arc<Routes>,
    pub(crate) directory: Directory,
    pub(crate) mailboxes: Vec<Arc<CoreMailbox>>,
    pub(crate) cache: Mutex<MatchCache>,
}

impl Observer for Dispatcher {
    fn applied(&self, group: GroupId, batches: &mut Vec<AppliedBatch>, through: u64) {
        let mut cache = self.cache.lock();
        let mut posts: Vec<Vec<_>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for applied in batches.drain(..) {
            if applied.flags.contains(BatchFlags::AT_MOST_ONCE) {
                continue;
            }
            // A topic that nobody on this node has resolved yet: it was appended to by its own core, which had
            // to; so this is a batch of a topic that was deleted meanwhile.
            let Some(topic) = self.directory.by_shard(applied.shard) else { continue };
            let stored = StoredBatch {
                base: applied.base,
                count: 0,
                flags: applied.flags,
                position: applied.position,
                timestamp_max: 0,
                bytes: applied.bytes,
            };
            let batch = Arc::new(Batch::committed(topic, applied.shard, stored));
            for (core, targets) in address(&self.routes, &mut cache, self.mailboxes.len(), &batch) {
                posts[usize::from(core)].push((Arc::clone(&batch), targets));
            }
        }
        for (mailbox, post) in self.mailboxes.iter().zip(posts) {
            mailbox.post_committed(group, post, through);
        }
    }
}
