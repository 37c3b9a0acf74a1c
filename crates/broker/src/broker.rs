//! The seam between the fronts and everything below: [`Broker`], its events, and session ownership.

use std::rc::Rc;
use std::sync::Arc;

use auth::Access;
use bytes::Bytes;
use meta::Follower;
use model::{Error, ErrorKind, Offset, ShardId, TenantId, TopicName};
use storage::{Append, Offsets, StoredBatch, TimeHit, TimeQuery, Watch};

use crate::delivery::{Delivery, Subscriber};
use crate::message::{Message, Published, Publisher};
use crate::node::TakeOverAnswer;
use crate::routing::Filter;
use crate::rows::Rows;
use crate::schedule::{ScheduleId, Scheduled};
use crate::sessions::{Former, Owner};
use crate::share::{ShareJoin, ShareMember, SharedDelivery};
use crate::topic::{Topic, TopicSpec};

/// The broker as one core sees it: what a front may ask for.
///
/// A handle belongs to one core (it is not `Send`); clones are cheap and mean the same core. No method blocks the
/// thread: what needs the disk or the consensus group is a future that completes on this core.
///
/// # Promises
///
/// - **An acknowledgement is a promise.** A future that answers `Ok` after a write has seen the write committed
///   at the durability of its topic; after a crash it is there, visible to every reader of every protocol.
/// - **Nothing is half done.** A call that answers an error has either had no effect, or (only for
///   [`model::ErrorKind::Timeout`] and [`model::ErrorKind::Unavailable`]) an unknown one, which a retry with the same
///   idempotence data resolves.
/// - **Order.** What one [`Publisher`] pushes to one shard is stored in the order of the pushes. What one
///   [`Subscriber`] gets from one shard comes in offset order, each record once per [`crate::Cursor`].
/// - Dropping a future does not undo a write that was begun.
///
/// # Errors
///
/// Every error is a [`model::Error`]; its kind tells what the caller can do. A front has one exhaustive table from
/// kind to its own reason codes.
pub trait Broker: Clone + 'static {
    /// Who may come in, and what they may do. The other methods do not ask: a front admits each connection, and asks its
    /// [`auth::Grant`], with canonical names, before it calls them on the client's behalf, and before it delivers.
    fn access(&self) -> &Access;

    // Topics.

    /// The topic of that name, or `None`. Never creates.
    fn find_topic(
        &self,
        tenant: &TenantId,
        name: &TopicName,
    ) -> impl Future<Output = Result<Option<Arc<Topic>>, Error>>;

    /// The topic of that name from the cache of this node, without waiting. `None` says nothing about existence.
    fn cached_topic(&self, tenant: &TenantId, name: &TopicName) -> Option<Arc<Topic>>;

    /// The topic of that name; created with the defaults of first use if it is not there. Concurrent first uses on
    /// any node agree on one topic.
    fn open_topic(
        &self,
        tenant: &TenantId,
        name: &TopicName,
    ) -> impl Future<Output = Result<Arc<Topic>, Error>>;

    /// Creates a topic on purpose. `AlreadyExists` if it is there, however it came to be.
    fn create_topic(&self, spec: TopicSpec) -> impl Future<Output = Result<Arc<Topic>, Error>>;

    /// Removes a topic with its records. Readers that wait on its shards are woken. A topic created later under the
    /// same name is another topic with other shards (Spec: storage 32). `NotFound`.
    fn delete_topic(&self, tenant: &TenantId, name: &TopicName) -> impl Future<Output = Result<(), Error>>;

    /// Topics in name order after `after`, at most `limit`.
    fn list_topics(
        &self,
        tenant: &TenantId,
        after: Option<&TopicName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Arc<Topic>>, Error>>;

    // Writing.

    /// Appends one record batch as it came from a producer. It must have passed [`model::batch::validate`]. Answers when it
    /// is durable, with what became of it (a duplicate is told with its first offset).
    fn append(&self, shard: ShardId, batch: Bytes) -> impl Future<Output = Result<Append, Error>>;

    /// A publisher of single messages for one connection. Completions of acknowledged messages come to `sink` as
    /// [`Event::Published`].
    fn publisher(&self, tenant: &TenantId, sink: Rc<dyn Sink>) -> Publisher;

    // Reading.

    /// Whole batches from the one that contains `from` on, at most `bytes_max` together (the first is always
    /// returned). From memory at once if the tail is cached, else from the disk. Empty at the end of the shard.
    fn read(
        &self,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<StoredBatch>, Error>>;

    /// Where the shard starts and ends.
    fn offsets(&self, shard: ShardId) -> Result<Offsets, Error>;

    /// Finds a record by time, at record precision.
    fn offset_for_time(
        &self,
        shard: ShardId,
        query: TimeQuery,
    ) -> impl Future<Output = Result<Option<TimeHit>, Error>>;

    /// Resolves when the shard has grown beyond `beyond`, or is gone. Nothing is polled.
    fn watch(&self, shard: ShardId, beyond: Offset) -> Result<Watch, Error>;

    /// Raises the start of the shard to `to` (at most its end).
    fn trim(&self, shard: ShardId, to: Offset) -> impl Future<Output = Result<Offsets, Error>>;

    // Subscriptions and sessions.

    /// A new subscriber without subscriptions. Its live deliveries come to `sink` as [`Event::Delivery`].
    fn subscriber(&self, tenant: &TenantId, sink: Rc<dyn Sink>) -> Subscriber;

    /// Makes the caller the only owner of the session `id` in the whole cluster. A present owner is told
    /// [`Event::TakeOver`] and hands its state over; an absent one's state comes from the store. Answers the state as it was
    /// then, `None` if there was no session. `sink` is told [`Event::TakeOver`] when somebody else claims the session.
    fn claim_session(
        &self,
        tenant: &TenantId,
        id: &str,
        sink: Rc<dyn Sink>,
    ) -> impl Future<Output = Result<(SessionLease, Option<Bytes>), Error>>;

    // Later.

    /// Messages that wait to be published ([`Publisher::push_later`]), by when they are due, after `after`; at most `limit`.
    fn scheduled(
        &self,
        tenant: &TenantId,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Scheduled>, Error>>;

    /// Takes a message back that waits. Once this answers true it is durably gone, and is not published. False if it does not
    /// wait (any more): it is not known, published, or on its way.
    fn cancel_scheduled(
        &self,
        tenant: &TenantId,
        id: ScheduleId,
    ) -> impl Future<Output = Result<bool, Error>>;

    // Shared subscriptions, rows.

    /// Joins a shared subscription: each of its records goes to one member, as [`Event::Shared`]. A share that begins here
    /// begins with the present.
    fn join_share(&self, join: ShareJoin, sink: Rc<dyn Sink>) -> ShareMember;

    /// The session `client` begins anew: no share waits for it any more. (The broker does the same when a session ends.)
    fn forget_shares(&self, tenant: &TenantId, client: &str);

    /// Replicated rows, for state that a front keeps: consumer groups, packet identifiers, schedules.
    fn rows(&self) -> Rows;

    // Retained messages.

    /// Retained messages whose subject matches `filter`, in subject order after `after`, at most `limit` of them; expired
    /// ones are left out. Page by passing the last subject. Each is a batch of one record without a position.
    fn retained(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, Error>>;

    // Announcements.

    /// Whether somebody on this node subscribes to `subject` now.
    fn is_wanted(&self, tenant: &TenantId, subject: &str) -> bool;

    /// Hands a message to those who subscribe on this node now, at most once. It is stored nowhere: no log, no retained
    /// message, no other node. Costs one match if nobody wants it.
    ///
    /// # Errors
    /// `Invalid` for a subject that is no topic name, `TooLarge`; nobody got it.
    fn announce(&self, tenant: &TenantId, message: &Message<'_>) -> Result<(), ErrorKind>;

    // Resources.

    /// Follows what is stored of these kinds of resource, which are the caller's own: everything first, then each change, with
    /// the cluster's order and nothing left out. Once per node and front: what it makes of them is for all cores.
    fn follow(&self, kinds: &'static [&'static str]) -> Follower;

    // Facts.

    /// A name for this cluster that never changes.
    fn cluster_id(&self) -> Arc<str>;
    /// The largest message that a [`Publisher`] takes, by [`crate::Message::size`].
    fn message_bytes_max(&self) -> usize;
    /// This node's number.
    fn node_id(&self) -> model::NodeId;
    /// Wall-clock milliseconds since the epoch.
    fn wall_ms(&self) -> i64;
    /// A random number, for identifiers that must not be guessed or repeated.
    fn random(&self) -> u64;
}

/// Where a core leaves what it has to tell a connection. Implemented by the front over its mailbox.
///
/// `tell` is called on the front's own core. It must not call back into the broker: it queues the event and wakes the
/// connection.
pub trait Sink {
    /// Queues the event.
    fn tell(&self, event: Event);
}

/// What the broker tells a connection.
pub enum Event {
    /// Messages that were pushed with an acknowledgement are decided.
    Published(Published),
    /// Records for a subscriber that keeps up.
    Delivery(Delivery),
    /// Records of a shared subscription, which wait to be settled.
    Shared(SharedDelivery),
    /// Another connection claims the session: stop delivering, answer with the state to hand over.
    TakeOver(TakeOver),
}

/// A session's owner is asked to give it up: to be answered with [`SessionLease::hand_over`]. Dropped without that, what was
/// saved or released last is the session.
pub struct TakeOver {
    answer: Option<TakeOverAnswer>,
}

impl TakeOver {
    pub(crate) fn new(answer: TakeOverAnswer) -> Self {
        Self { answer: Some(answer) }
    }

    pub(crate) fn answer(mut self, former: Former) {
        if let Some(answer) = self.answer.take() {
            answer(former);
        }
    }
}

impl Drop for TakeOver {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer(Former::Silent);
        }
    }
}

/// Ownership of one session. The state is opaque bytes of the front.
///
/// Dropping the lease without [`SessionLease::release`] gives the session up as it was saved last.
pub struct SessionLease {
    pub(crate) owner: Owner,
}

/// How long a session is kept once nobody owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until somebody removes it.
    Forever,
    /// This many ms.
    For(u64),
}

impl SessionLease {
    /// How long what was stored when the session was claimed is kept; `None` if nothing was, or a write was under way.
    pub fn kept(&self) -> Option<Keep> {
        self.owner.kept()
    }

    /// Rows whose keys begin with `prefix`, in any group, belong to the session: from the next save or release on they are
    /// removed when it ends. At most 255 bytes, which no other session's rows begin with; an empty prefix is that of none.
    pub fn owns_rows(&self, prefix: Bytes) {
        debug_assert!(prefix.len() <= usize::from(u8::MAX));
        self.owner.owns_rows(prefix);
    }

    /// Whether rows belong to the session, or may.
    pub fn has_own_rows(&self) -> bool {
        self.owner.has_own_rows()
    }

    /// Makes `state` what is found after a crash; the time that it is `keep`t counts from the crash. Answers when that is
    /// durable. Saves take effect in the order of the calls.
    pub fn save(&self, state: Bytes, keep: Keep) -> impl Future<Output = Result<(), Error>> + use<> {
        self.owner.save(state, keep)
    }

    /// Gives the session up: kept with this state, or forgotten if there is none (or it is kept for 0 ms). The
    /// write is under way when this returns; a claim that follows sees it.
    pub fn release(self, state: Option<Bytes>, keep: Keep) {
        self.owner.release(state, keep);
    }

    /// Hands the session over to whoever claims it, as it is; without a state it is over.
    pub fn hand_over(self, take_over: TakeOver, state: Option<Bytes>) {
        self.owner.hand_over(take_over, state);
    }
}
