//! What all cores of a node share: the groups below, the directory of topics, the routes, and a mailbox for each
//! core.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use ahash::AHashMap;
use auth::Access;
use cluster::{Group, Node, Observer, Reply, SubmitError};
use model::{Error, ErrorKind, GroupId, TenantId};
use parking_lot::Mutex;
use rt::{Clock, Rng};
use storage::Position;
use storage::journal::{JournalCounters, JournalState};
use tokio::sync::oneshot;

use crate::captures::Captures;
use crate::delivery::{Batch, Cursor};
use crate::dispatch::{CoreTargets, Dispatcher, Routes};
use crate::endings::Endings;
use crate::gather::Gathering;
use crate::retained::Round;
use crate::schedule::Schedule;
use crate::sessions::{Former, Registry};
use crate::share::{SharedDelivery, Shares};
use crate::topic::Retention;
use crate::topics::Directory;
use crate::uptime::Uptime;

/// Runs a closure that may block, away from the threads that serve connections.
pub type Offload = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// Settings of the broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Largest message and largest record batch, bytes.
    pub message_bytes_max: usize,
    /// Shards of a topic that does not say.
    pub shards_default: u16,
    /// Retention of topics made by first use.
    pub retention_first_use: Retention,
    /// Retention of topics created on purpose.
    pub retention_created: Retention,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self {
            message_bytes_max: model::MAX_MESSAGE_BYTES,
            shards_default: 1,
            retention_first_use: Retention { ms: Some(DAY_MS), bytes: Some(1 << 30) },
            retention_created: Retention { ms: Some(7 * DAY_MS), bytes: None },
        }
    }
}

/// State that all cores of a node share. Each part has its own short lock; `docs/locks.md` has their order.
pub struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) config: BrokerConfig,
    pub(crate) access: Access,
    pub(crate) clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    pub(crate) offload: Offload,
    pub(crate) directory: Directory,
    pub(crate) routes: Arc<Routes>,
    pub(crate) captures: Captures,
    pub(crate) registry: Registry,
    pub(crate) endings: Endings,
    pub(crate) shares: Shares,
    pub(crate) schedule: Schedule,
    pub(crate) gathering: Gathering,
    pub(crate) mailboxes: Vec<Arc<CoreMailbox>>,
    pub(crate) counters: Counters,
    /// Topic numbers that this node may give out, by home group.
    pub(crate) numbers: tokio::sync::Mutex<AHashMap<GroupId, Range<u32>>>,
    pub(crate) cluster_name: Arc<str>,
    pub(crate) uptime: Uptime,
    /// The hour, since 1970, in which producers were last expired.
    pub(crate) expired_hour: AtomicI64,
    /// A round over retained messages that has not come to its end.
    pub(crate) retained_round: Mutex<Option<Round>>,
}

/// What the broker needs from outside.
pub struct Outside {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Where blocking work goes.
    pub offload: Offload,
    /// Who may come in, and what they may do. Its follower is the caller's to run.
    pub access: Access,
}

/// What exists before the groups are opened, because they tell it what they apply.
pub struct Foundation {
    routes: Arc<Routes>,
    directory: Directory,
    mailboxes: Vec<Arc<CoreMailbox>>,
}

impl Foundation {
    /// For a node of `cores` cores.
    pub fn new(cores: usize) -> Self {
        Self {
            routes: Arc::default(),
            directory: Directory::default(),
            mailboxes: (0..cores.max(1)).map(|_| Arc::default()).collect(),
        }
    }

    /// What the groups tell what they apply.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Dispatcher {
            routes: Arc::clone(&self.routes),
            directory: self.directory.clone(),
            mailboxes: self.mailboxes.clone(),
            cache: Mutex::default(),
        })
    }

    /// The shared state, over an open node.
    pub fn build(self, node: Arc<Node>, config: BrokerConfig, outside: Outside) -> Arc<Shared> {
        let cluster_name = node.cluster_name();
        let started_ms = outside.clock.wall_ms();
        let uptime = Uptime::new(Arc::clone(&outside.clock), outside.rng.next_u64());
        Arc::new(Shared {
            node,
            config,
            access: outside.access,
            clock: outside.clock,
            rng: outside.rng,
            offload: outside.offload,
            directory: self.directory,
            routes: self.routes,
            captures: Captures::default(),
            registry: Registry::default(),
            endings: Endings::default(),
            shares: Shares::default(),
            schedule: Schedule::default(),
            gathering: Gathering::default(),
            mailboxes: self.mailboxes,
            counters: Counters::default(),
            numbers: tokio::sync::Mutex::default(),
            cluster_name,
            uptime,
            expired_hour: AtomicI64::new(started_ms / (60 * 60 * 1000)),
            retained_round: Mutex::default(),
        })
    }
}

impl Shared {
    /// Access control, the same for every front.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why the node does not take writes, if it does not.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.node.journal_state() {
            JournalState::Open if self.node.groups().iter().any(Group::has_failed) => {
                Some("a group has stopped; the log says why")
            }
            JournalState::Open if !self.node.is_space_low() => None,
            JournalState::Open | JournalState::Full => Some("the disk is full"),
            JournalState::Sealed => Some("a write or a sync of the journal failed; restart the broker"),
        }
    }

    /// Whether nothing is taken at all, neither records nor what sessions need to be stored.
    pub fn is_unwritable(&self) -> bool {
        self.node.journal_state() != JournalState::Open || self.node.groups().iter().any(Group::has_failed)
    }

    /// What the journal counted.
    pub fn journal_counters(&self) -> JournalCounters {
        self.node.journal_counters()
    }

    /// Bytes that the journal's files take.
    pub fn journal_bytes(&self) -> u64 {
        self.node.journal_bytes()
    }

    /// Runs what may block elsewhere.
    pub(crate) async fn offloaded<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, outcome) = oneshot::channel();
        (self.offload)(Box::new(move || {
            let _ = answer.send(work());
        }));
        outcome.await.map_err(|_| Error::new(ErrorKind::Unavailable, "run blocking work"))
    }

    pub(crate) fn random(&self) -> u64 {
        self.rng.next_u64()
    }
}

/// What the broker counts, per node. Read by the metrics endpoint.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages pushed by publishers.
    pub messages_in: AtomicU64,
    /// Record batches appended as they came.
    pub batches_in: AtomicU64,
    /// Batches handed to subscribers.
    pub deliveries: AtomicU64,
    /// Topics made by first use.
    pub topics_created: AtomicU64,
    /// Bytes that are published and not decided, of all cores. The only one that also falls.
    pub backlog_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What another thread tells a core.
pub(crate) enum CoreEvent {
    /// Batches that concern subscribers of this core.
    Batches(Vec<(Arc<Batch>, Option<CoreTargets>)>),
    /// Records for a member of a share.
    Shared { member: u64, delivery: SharedDelivery },
    /// A command of this core's outbox is decided.
    Decided { flight: usize, outcome: Result<Reply, SubmitError> },
    /// Somebody claims a session that a connection of this core owns.
    TakeOver { epoch: u64, answer: TakeOverAnswer },
}

/// Hears what the former owner of a session leaves.
pub(crate) type TakeOverAnswer = Box<dyn FnOnce(Former) + Send>;

/// A session of a tenant.
pub(crate) type SessionKey = (TenantId, Arc<str>);

/// Events for one core, from any thread. Posting wakes the core once, however much is posted before it runs.
///
/// Bound: what is posted is bounded by its sources (commands in flight, entries applied per run, one take-over per
/// claim).
#[derive(Default)]
pub(crate) struct CoreMailbox {
    inner: Mutex<Posted>,
}

#[derive(Default)]
struct Posted {
    events: VecDeque<CoreEvent>,
    waker: Option<Waker>,
    /// What was committed up to here and concerns the core was posted.
    posted: Cursor,
    /// Where that was when the core last took everything.
    taken: Cursor,
}

impl CoreMailbox {
    pub(crate) fn post(&self, event: CoreEvent) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.events.push_back(event);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Posts what of a run of committed batches concerns the core, in the order of their group's log. The core is not woken if that
    /// is nothing.
    pub(crate) fn post_committed(
        &self,
        group: GroupId,
        batches: Vec<(Arc<Batch>, Option<CoreTargets>)>,
        through: u64,
    ) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.posted.set(group, Position::end_of(through));
            if batches.is_empty() {
                return;
            }
            inner.events.push_back(CoreEvent::Batches(batches));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves `cursor` to where the core has seen everything that concerns it. For the core's thread, which handles what it takes
    /// before it does anything else.
    pub(crate) fn advance_to_seen(&self, cursor: &mut Cursor) {
        let inner = self.inner.lock();
        cursor.advance_to(if inner.events.is_empty() { &inner.posted } else { &inner.taken });
    }

    /// Takes everything that was posted; pending (and woken later) when there is nothing.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<VecDeque<CoreEvent>> {
        let mut inner = self.inner.lock();
        if inner.events.is_empty() {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Posted { events, posted, taken, .. } = &mut *inner;
        taken.advance_to(posted);
        Poll::Ready(std::mem::take(events))
    }
}
