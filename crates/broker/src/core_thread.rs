//! [`Core`]: the broker as one core sees it. Runs the core's outbox and hands deliveries to its subscribers.
//! Hot path.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use ahash::AHashMap;
use bytes::Bytes;
use cluster::Group;
use model::{Error, ErrorKind, Offset, ShardId, TenantId, TopicName};
use storage::{Append, LogError, Position, StoredBatch};
use tokio::sync::Notify;

use crate::broker::{Event, Sink};
use crate::delivery::{Batch, Cursor, Delivery, Pick, Picked};
use crate::dispatch::{Addressed, CoreTargets, MatchCache, Targets, address};
use crate::message::{Message, Retain};
use crate::node::{CoreEvent, CoreMailbox, Counters, Shared};
use crate::outbox::{Account, Outbox, Parked, SharedOutbox, count_in};
use crate::rows::Rows;
use crate::sessions::{self, Owned, OwnedSessions};
use crate::subscriber::SubscriberState;
use crate::topic::Topic;
use crate::uptime::Uptime;
use crate::{gather, lifecycle};

/// The broker on one core. Clones are the same core; not `Send`. Lives on a `LocalSet`.
#[derive(Clone)]
pub struct Core {
    inner: Rc<Inner>,
}

/// Where the members of shares are told, by member.
pub(crate) type ShareSinks = AHashMap<u64, Rc<dyn Sink>>;

struct Inner {
    id: u16,
    shared: Arc<Shared>,
    groups: Vec<Group>,
    mailbox: Arc<CoreMailbox>,
    outbox: SharedOutbox,
    /// What the node was told of the outbox's backlog.
    backlog: Cell<u64>,
    subscribers: RefCell<AHashMap<u64, Rc<SubscriberState>>>,
    next_subscriber: Cell<u64>,
    cache: RefCell<MatchCache>,
    owned: RefCell<OwnedSessions>,
    /// Members of shares that are connected to this core.
    share_sinks: RefCell<ShareSinks>,
    /// Feeds of shares that run on this core.
    feeds: Cell<usize>,
    /// Messages whose topic is being opened, or whose subject's retained message is being moved to it.
    parked: RefCell<AHashMap<(TenantId, TopicName), Vec<Parked>>>,
    /// Told at the end of each turn.
    turned: Notify,
}

impl Core {
    /// Core number `id` of the node. Each number is taken once.
    pub fn new(shared: Arc<Shared>, id: u16) -> Self {
        let mailbox = Arc::clone(&shared.mailboxes[usize::from(id)]);
        let groups = shared.node.groups().to_vec();
        let outbox = Rc::new(RefCell::new(Outbox::new(Arc::clone(&mailbox), &groups)));
        let inner = Inner {
            id,
            shared,
            groups,
            mailbox,
            outbox,
            backlog: Cell::new(0),
            subscribers: RefCell::default(),
            next_subscriber: Cell::new(1),
            cache: RefCell::default(),
            owned: RefCell::default(),
            share_sinks: RefCell::default(),
            feeds: Cell::new(0),
            parked: RefCell::default(),
            turned: Notify::new(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Does the core's share of the work for ever: to be spawned on the core's `LocalSet`.
    ///
    /// It is queued behind the connections that are ready, so a flush sees what all of them pushed in this turn.
    pub async fn run(&self) {
        loop {
            let lingers_until = self.inner.outbox.borrow().lingers_until();
            let woken = poll_fn(|cx| {
                let posted = self.inner.mailbox.poll_take(cx);
                let flush = self.inner.outbox.borrow_mut().wants_flush(cx.waker());
                match posted {
                    Poll::Ready(events) => Poll::Ready(events),
                    Poll::Pending if flush => Poll::Ready(std::collections::VecDeque::new()),
                    Poll::Pending => Poll::Pending,
                }
            });
            let events = match lingers_until {
                None => woken.await,
                Some(at) => tokio::time::timeout_at(at, woken).await.unwrap_or_default(),
            };
            for event in events {
                self.handle(event);
            }
            self.flush();
            self.inner.turned.notify_waiters();
            tokio::task::yield_now().await;
        }
    }

    /// Returns when all that was pushed is decided, and the shares without members are put down. For the end, when nothing new comes; [`Core::run`] must go on.
    pub async fn settled(&self) {
        let inner = &self.inner;
        let is_settled = || {
            inner.parked.borrow().is_empty() && inner.outbox.borrow().is_settled() && inner.feeds.get() == 0
        };
        while !is_settled() {
            self.inner.turned.notified().await;
        }
    }

    fn handle(&self, event: CoreEvent) {
        match event {
            CoreEvent::Batches(batches) => {
                for (batch, targets) in batches {
                    self.deliver(&batch, targets.as_ref());
                }
            }
            CoreEvent::Decided { flight, outcome } => {
                self.inner.outbox.borrow_mut().decided(flight, &outcome)
            }
            CoreEvent::Shared { member, delivery } => self.tell_member(member, delivery),
            CoreEvent::TakeOver { epoch, answer } => sessions::take_over(self, epoch, answer),
        }
    }

    fn flush(&self) {
        let (live, backlog) = {
            let mut outbox = self.inner.outbox.borrow_mut();
            (outbox.flush(), outbox.backlog() as u64)
        };
        let told = self.inner.backlog.replace(backlog);
        if told != backlog {
            // What it is less is added as what it wraps to.
            Counters::add(&self.inner.shared.counters.backlog_bytes, backlog.wrapping_sub(told));
        }
        let cores = self.inner.shared.mailboxes.len();
        for batch in live {
            let addressed =
                address(&self.inner.shared.routes, &mut self.inner.cache.borrow_mut(), cores, &batch);
            self.hand_out(&batch, addressed);
        }
    }

    /// Hands a batch that is not committed to the cores that it concerns.
    pub(crate) fn hand_out(&self, batch: &Arc<Batch>, addressed: impl IntoIterator<Item = Addressed>) {
        for (core, targets) in addressed {
            if core == self.inner.id {
                self.deliver(batch, targets.as_ref());
            } else {
                let post = CoreEvent::Batches(vec![(Arc::clone(batch), targets)]);
                self.inner.shared.mailboxes[usize::from(core)].post(post);
            }
        }
    }

    /// Who wants a record of this subject now. For subjects that are not met again soon: nothing is remembered.
    pub(crate) fn targets_once(&self, tenant: &TenantId, subject: &str) -> Targets {
        self.inner.cache.borrow_mut().once(&self.inner.shared.routes, tenant, subject)
    }

    /// Tells this core's subscribers about a batch.
    fn deliver(&self, batch: &Arc<Batch>, targets: Option<&CoreTargets>) {
        match targets {
            Some(targets) => {
                for target in targets.iter() {
                    self.tell(batch, target.subscriber, Picked::All(Arc::clone(&target.tags)));
                }
            }
            None => self.deliver_by_record(batch),
        }
    }

    /// A batch of a topic that captures: each record has its own subject.
    fn deliver_by_record(&self, batch: &Arc<Batch>) {
        let Ok(records) = batch.records() else { return };
        let mut picked: AHashMap<u64, Vec<Pick>> = AHashMap::new();
        {
            let mut cache = self.inner.cache.borrow_mut();
            let routes = &self.inner.shared.routes;
            for (index, record) in records.iter().enumerate() {
                let targets = cache.for_subject(routes, &batch.topic.tenant, batch.subject(&record));
                let mine = targets.iter().find(|(core, _)| *core == self.inner.id);
                for target in mine.map_or(&[][..], |(_, targets)| &targets[..]) {
                    let tags = Arc::clone(&target.tags);
                    picked.entry(target.subscriber).or_default().push((index as u32, tags));
                }
            }
        }
        for (subscriber, records) in picked {
            self.tell(batch, subscriber, Picked::Some(records.into()));
        }
    }

    fn tell(&self, batch: &Arc<Batch>, subscriber: u64, picked: Picked) {
        let subscribers = self.inner.subscribers.borrow();
        let Some(state) = subscribers.get(&subscriber) else { return };
        if batch.position.is_none() || state.live.get() {
            Counters::add(&self.inner.shared.counters.deliveries, 1);
            state.sink.tell(Event::Delivery(Delivery { batch: Arc::clone(batch), picked }));
        }
    }

    // What the rooms of this crate need of their core.

    pub(crate) fn id(&self) -> u16 {
        self.inner.id
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.inner.groups
    }

    pub(crate) fn rows_handle(&self) -> Rows {
        Rows::new(Arc::clone(&self.inner.shared))
    }

    pub(crate) fn wall_ms_now(&self) -> i64 {
        self.inner.shared.clock.wall_ms()
    }

    /// Time that nobody can step.
    pub(crate) fn uptime(&self) -> &Uptime {
        &self.inner.shared.uptime
    }

    /// Runs a future on this core.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(future);
    }

    pub(crate) fn add_subscriber(&self, state: Rc<SubscriberState>) -> u64 {
        let id = self.inner.next_subscriber.get();
        self.inner.next_subscriber.set(id + 1);
        self.inner.subscribers.borrow_mut().insert(id, state);
        id
    }

    pub(crate) fn remove_subscriber(&self, id: u64) {
        self.inner.subscribers.borrow_mut().remove(&id);
    }

    pub(crate) fn owned_sessions(&self) -> RefMut<'_, OwnedSessions> {
        self.inner.owned.borrow_mut()
    }

    pub(crate) fn share_sinks(&self) -> RefMut<'_, ShareSinks> {
        self.inner.share_sinks.borrow_mut()
    }

    /// A feed begins on this core.
    pub(crate) fn feed_began(&self) {
        self.inner.feeds.set(self.inner.feeds.get() + 1);
    }

    /// A feed of this core ended.
    pub(crate) fn feed_ended(&self) {
        self.inner.feeds.set(self.inner.feeds.get().saturating_sub(1));
        self.inner.turned.notify_waiters();
    }

    /// The cursor of whoever has everything that is readable now.
    pub(crate) fn present(&self) -> Cursor {
        let mut cursor = Cursor::with_capacity(self.groups().len());
        for group in self.groups() {
            cursor.set(group.id(), Position::end_of(group.log().applied()));
        }
        cursor
    }

    /// Moves `cursor` past what all live subscribers of this core were told of.
    pub(crate) fn advance_to_told(&self, cursor: &mut Cursor) {
        self.inner.mailbox.advance_to_seen(cursor);
    }

    pub(crate) fn own(&self, epoch: u64, owned: Owned) {
        self.inner.owned.borrow_mut().insert(epoch, owned);
    }

    pub(crate) fn disown(&self, epoch: u64) {
        self.inner.owned.borrow_mut().remove(&epoch);
    }

    /// Grows when what this core remembers about names may be stale.
    pub(crate) fn topics_generation(&self) -> u64 {
        let shared = &self.inner.shared;
        shared.directory.generation().wrapping_add(shared.captures.generation())
    }

    /// A topic that messages may be pushed to now: known, and none of its earlier messages still parked.
    pub(crate) fn resolved(&self, tenant: &TenantId, name: &TopicName) -> Option<Arc<Topic>> {
        let topic = self.inner.shared.directory.by_name(tenant, name)?;
        let parked = self.inner.parked.borrow();
        if parked.is_empty() || !parked.contains_key(&(tenant.clone(), name.clone())) {
            return Some(topic);
        }
        None
    }

    pub(crate) fn push(
        &self,
        topic: &Arc<Topic>,
        message: &Message<'_>,
        account: &Rc<Account>,
        ticket: Option<u64>,
    ) {
        count_in(&self.inner.shared.counters);
        let clock = &self.inner.shared.clock;
        self.inner.outbox.borrow_mut().push(topic, message, (account, ticket), || clock.wall_ms());
    }

    /// Keeps a message until its topic is open and has the subject's retained message, if that is concerned; sees to both.
    pub(crate) fn park(&self, tenant: &TenantId, name: TopicName, message: Parked) {
        let key = (tenant.clone(), name);
        let is_first = {
            let mut parked = self.inner.parked.borrow_mut();
            let waiting = parked.entry(key.clone()).or_default();
            waiting.push(message);
            waiting.len() == 1
        };
        if is_first {
            let core = self.clone();
            self.spawn(async move {
                let topic = core.open_for_parked(&key).await;
                core.unpark(&key, topic.map_err(|error| error.kind()));
            });
        }
    }

    /// Opens a topic and moves to it what the messages that wait for it, and those that come meanwhile, are to replace or remove.
    async fn open_for_parked(&self, key: &(TenantId, TopicName)) -> Result<Arc<Topic>, Error> {
        let topic = lifecycle::open(self, &key.0, &key.1).await?;
        let mut looked_at = 0;
        loop {
            let due = {
                let parked = self.inner.parked.borrow();
                let Some(next) = parked.get(key).and_then(|waiting| waiting.get(looked_at)) else {
                    return Ok(topic);
                };
                next.message.with(|message| {
                    let is_retained = message.retain != Retain::Keep;
                    let into = is_retained.then(|| gather::due(self, &topic, message)).flatten()?;
                    Some((message.subject.to_owned(), into))
                })
            };
            if let Some((subject, into)) = due {
                gather::gather(self, &key.0, &subject, into).await?;
            }
            looked_at += 1;
        }
    }

    fn unpark(&self, key: &(TenantId, TopicName), topic: Result<Arc<Topic>, ErrorKind>) {
        let waiting = self.inner.parked.borrow_mut().remove(key).unwrap_or_default();
        for parked in waiting {
            match &topic {
                Ok(topic) => {
                    let held = parked.message.size();
                    parked.account.bytes.set(parked.account.bytes.get().saturating_sub(held));
                    parked.message.with(|message| self.push(topic, message, &parked.account, parked.ticket));
                }
                Err(kind) => parked.refuse(*kind),
            }
        }
    }

    pub(crate) async fn append_batch(&self, shard: ShardId, batch: Bytes) -> Result<Append, Error> {
        Counters::add(&self.inner.shared.counters.batches_in, 1);
        let outcome = self.inner.outbox.borrow_mut().append(shard, batch);
        outcome.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "append a batch")))
    }

    /// Runs what may block elsewhere.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.shared.offloaded(work).await
    }

    pub(crate) fn group_of(&self, shard: ShardId) -> Result<&Group, Error> {
        let group = self.inner.groups.iter().find(|group| group.id() == shard.home());
        group.ok_or_else(|| Error::new(ErrorKind::NotFound, "find the group of a shard"))
    }

    /// Reads batches, from the disk if need be.
    pub(crate) async fn read_cold(
        &self,
        group: &Group,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, Error> {
        let log = Arc::clone(group.log());
        let batches = self.offload(move || log.read(shard, from, bytes_max)).await?;
        batches.map_err(log_error)
    }

    /// The topic that a shard belongs to; none if it is gone.
    pub(crate) async fn topic_of_shard(&self, shard: ShardId) -> Result<Option<Arc<Topic>>, Error> {
        match self.inner.shared.directory.by_shard(shard) {
            Some(topic) => Ok(Some(topic)),
            None => lifecycle::load_by_shard(self, shard).await,
        }
    }
}

/// What a log's error means to a caller.
pub(crate) fn log_error(error: LogError) -> Error {
    let kind = match &error {
        LogError::OutOfRange { .. } => ErrorKind::OffsetOutOfRange,
        LogError::Dropped => ErrorKind::NotFound,
        LogError::Damaged { .. } => ErrorKind::Corrupt,
        LogError::Io { .. } => ErrorKind::Unavailable,
    };
    Error::with_source(kind, "read a shard", error)
}
