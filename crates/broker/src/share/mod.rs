//! Shared subscriptions: each record of a filter goes to one of the members. A share is one more subscriber of the log,
//! with a cursor of its own, and its feed hands out what it gets.
//!
//! ```text
//!   log --live or catch_up--> feed (one task, on the core of the first member)
//!                               | assign: a member that has room     ^ settle: the record is done with
//!                               v                                    |
//!                             member's sink (its own core) ----------+
//! ```
//!
//! - **Slow members** have no room and get nothing; when nobody has room the feed stops being fed and goes on from the
//!   log later. What is held is bounded by the members' credits.
//! - **A member that leaves** gives back what it did not settle; others get it, oldest first.
//! - **Nobody there**: if a member's session lasts, the share keeps its cursor (and what was given back) in a row, and goes
//!   on when a member comes; else it is gone.
//!
//! What is stored lags behind by at most [`feed::SAVE_EVERY`]: after a crash, records of the last moments come again, but for those
//! that a session took for good ([`Receipt::take`]).

mod feed;
mod lasting;
mod roster;
mod state;
mod stored;
mod taken;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use bytes::Bytes;
use model::{Error, ErrorKind, TenantId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::broker::{Event, Sink};
use crate::core_thread::Core;
use crate::delivery::Delivery;
use crate::node::{CoreEvent, SessionKey};
use crate::routing::Filter;
use crate::rows::{Place, RowWrite};
use crate::subscriber::is_gone;

pub use roster::Strategy;
pub use taken::Taken;

use lasting::LastingIndex;
use roster::Assigned;
use state::State;
use stored::{Spot, Stored};

pub(crate) use stored::PREFIX;
pub(crate) use taken::TakenIndex;

/// Which shared subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShareKey {
    /// Whose.
    pub tenant: TenantId,
    /// Name of the group of subscribers.
    pub name: Arc<str>,
    /// What it is interested in; the same name with another filter is another share.
    pub filter: Filter,
}

/// How a member joins.
#[derive(Debug, Clone)]
pub struct ShareJoin {
    /// Which share.
    pub share: ShareKey,
    /// Name of the session that joins.
    pub client: Arc<str>,
    /// The session outlives its connection: the share waits for it.
    pub lasts: bool,
    /// Records that may be with the member and not settled; at least 1.
    pub credit: usize,
    /// How members are chosen; the first member's counts while the share has members.
    pub strategy: Strategy,
    /// Name of the header that tells a record's publisher, for [`Strategy::HashPublisher`].
    pub publisher_header: &'static str,
}

/// Records for a member of a share, to be settled one by one.
pub struct SharedDelivery {
    /// What is delivered; the tags are empty.
    pub delivery: Delivery,
    /// To say when a record is done with.
    pub receipt: Receipt,
}

/// Settles the records of one [`SharedDelivery`]. What is not settled when its member leaves goes to another one.
#[derive(Clone)]
pub struct Receipt {
    share: Arc<Share>,
    member: u64,
    parcel: u64,
}

impl Receipt {
    /// Which membership of the client; see [`ShareMember::id`].
    pub fn member(&self) -> u64 {
        self.member
    }

    /// The `nth` picked record was acknowledged, is owned by the member's session, or can never be delivered. Any thread; again
    /// is harmless.
    pub fn settle(&self, nth: usize) {
        self.settle_as(nth, None);
    }

    fn settle_as(&self, nth: usize, taken: Option<&taken::Entry>) {
        let has_room_again = {
            let mut state = self.share.state.lock();
            state.dirty = true;
            if let Some(taken) = taken {
                taken.note_settled(state.next_settlement());
            }
            state.roster.settle(self.member, self.parcel, nth)
        };
        if has_room_again {
            self.share.changed.notify_one();
        }
    }
}

/// Membership in a share. Dropping it leaves: what is not settled goes to others.
pub struct ShareMember {
    core: Core,
    share: Arc<Share>,
    id: u64,
    client: Arc<str>,
    /// Tells when the share's row, which says that it waits for this session, is durable.
    stored: Option<Durable>,
}

/// Tells when a row is durable.
type Durable = oneshot::Receiver<Result<(), Error>>;

impl ShareMember {
    /// Differs for every membership of the node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Resolves when the share is sure to wait for this session, also after a crash. To be asked once.
    pub fn stored(&mut self) -> impl Future<Output = Result<(), Error>> + use<> {
        let stored = self.stored.take();
        async move {
            match stored {
                None => Ok(()),
                Some(stored) => {
                    stored.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "store a share")))
                }
            }
        }
    }

    /// Leaves for good: the share does not wait for this session any more.
    pub fn unsubscribe(self) {
        self.share.forget(&self.core, &self.client);
    }
}

impl Drop for ShareMember {
    fn drop(&mut self) {
        self.core.share_sinks().remove(&self.id);
        let is_orphan = {
            let mut state = self.share.state.lock();
            state.roster.remove(self.id);
            state.clients.remove(&self.id);
            state.dirty = true;
            state.roster.is_empty() && state.lasting.is_empty() && !state.is_fed
        };
        if is_orphan {
            self.core.shared().shares.remove(&self.share);
        }
        self.share.changed.notify_one();
    }
}

/// All shares of the node that have members or wait for some.
#[derive(Default)]
pub(crate) struct Shares {
    by_key: Mutex<AHashMap<ShareKey, Arc<Share>>>,
    numbers: AtomicU64,
    /// Whom they wait for.
    lasting: LastingIndex,
    /// What sessions took of them.
    pub(crate) taken: Arc<TakenIndex>,
}

/// One share. Its lock is held for one hand-over, one settlement or the queueing of its row, never while anything waits.
pub(crate) struct Share {
    key: ShareKey,
    /// Members came, went, or have room again.
    changed: Notify,
    state: Mutex<State>,
    /// The last settlement that its row knows of.
    settled_durably: AtomicU64,
    taken: Arc<TakenIndex>,
}

impl Shares {
    fn open(&self, key: &ShareKey) -> Arc<Share> {
        let mut by_key = self.by_key.lock();
        let share =
            by_key.entry(key.clone()).or_insert_with(|| Arc::new(Share::new(key.clone(), &self.taken)));
        Arc::clone(share)
    }

    /// Removes a share that nobody needs.
    fn remove(&self, share: &Arc<Share>) {
        let mut by_key = self.by_key.lock();
        let mut state = share.state.lock();
        let is_unused = state.roster.is_empty() && state.lasting.is_empty() && !state.is_fed;
        if is_unused && by_key.get(&share.key).is_some_and(|known| Arc::ptr_eq(known, share)) {
            by_key.remove(&share.key);
            state.is_gone = true;
        }
    }

    /// Takes up a share that waits for its sessions, at the start. Rows that cannot be read are passed over.
    pub(crate) fn restore(&self, key: &[u8], value: Bytes) {
        let Some((key, stored)) = stored::key_of(key).zip(Stored::decode(value)) else {
            tracing::warn!("a stored share cannot be read; it is passed over");
            return;
        };
        let share = self.open(&key);
        let mut state = share.state.lock();
        for client in &stored.lasting {
            self.lasting.add(&share, &mut state, client);
        }
        state.cursor = Some(stored.cursor);
        state.left_over = stored.left_over;
        state.has_row = true;
    }

    /// What stored sessions took goes to nobody else. At the start, when all shares are restored.
    pub(crate) fn restore_taken(&self, session: &SessionKey, mut taken: Bytes) {
        for (key, spot) in taken::decode(&mut taken).unwrap_or_default() {
            let share = stored::key_of(&key).and_then(|key| self.by_key.lock().get(&key).cloned());
            // Nobody waits for it any more.
            let Some(share) = share else { continue };
            let entry = self.taken.restore(session.clone(), &share, spot);
            let mut state = share.state.lock();
            match state.left_over.iter().position(|known| *known == spot) {
                Some(at) => {
                    state.left_over.remove(at);
                    entry.note_settled(state.next_settlement());
                }
                None => {
                    state.passed_over.insert(spot, entry);
                }
            }
        }
    }
}

impl Share {
    fn new(key: ShareKey, taken: &Arc<TakenIndex>) -> Self {
        Self {
            key,
            changed: Notify::new(),
            state: Mutex::default(),
            settled_durably: AtomicU64::new(0),
            taken: Arc::clone(taken),
        }
    }

    /// The share does not wait for a session any more.
    fn forget(self: &Arc<Self>, core: &Core, client: &Arc<str>) {
        let is_orphan = {
            let mut state = self.state.lock();
            if !core.shared().shares.lasting.remove(self, &mut state, client) {
                return;
            }
            drop(self.store(core, &mut state));
            state.roster.is_empty() && !state.is_fed
        };
        if is_orphan {
            core.shared().shares.remove(self);
        }
    }

    /// Queues the write that stores the share as it is; answers when it is durable. `None` if there is nothing to store or
    /// remove. Wants the share's lock, so that its rows take effect in the order of the states that they tell.
    fn store(self: &Arc<Self>, core: &Core, state: &mut State) -> Option<Durable> {
        let (write, settlements) = (self.row(state)?, state.settlements);
        let place = Place::ByKey(stored::row_key(&self.key));
        let written = core.rows_handle().submit(&place, Vec::new(), vec![write]);
        let (share, (answer, durable)) = (Arc::clone(self), oneshot::channel());
        core.spawn(async move {
            let written = written.await.map(|_| ());
            match &written {
                Ok(()) => {
                    share.settled_durably.fetch_max(settlements, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(share = &*share.key.name, err = %error, "a share could not be stored");
                }
            }
            // Nobody may wait.
            let _ = answer.send(written);
        });
        Some(durable)
    }

    fn row(&self, state: &mut State) -> Option<RowWrite> {
        let key = stored::row_key(&self.key);
        state.dirty = false;
        if state.lasting.is_empty() {
            return std::mem::take(&mut state.has_row).then_some(RowWrite::Delete { key });
        }
        let value = state.stored()?.encode();
        state.has_row = true;
        Some(RowWrite::Put { key, value })
    }
}

/// Makes the caller a member.
pub(crate) fn join(core: &Core, join: ShareJoin, sink: Rc<dyn Sink>) -> ShareMember {
    let shares = &core.shared().shares;
    let id = shares.numbers.fetch_add(1, Ordering::Relaxed);
    core.share_sinks().insert(id, sink);
    let present = core.present();
    loop {
        let share = shares.open(&join.share);
        let (must_feed, stored) = {
            let mut state = share.state.lock();
            if state.is_gone {
                continue;
            }
            if state.roster.is_empty() {
                state.strategy = join.strategy;
                state.publisher_header = join.publisher_header;
            }
            state.roster.add(id, core.id(), join.credit);
            state.clients.insert(id, Arc::clone(&join.client));
            let is_new = join.lasts && shares.lasting.add(&share, &mut state, &join.client);
            if state.cursor.is_none() {
                state.cursor = Some(present.clone());
            }
            let must_feed = !std::mem::replace(&mut state.is_fed, true);
            (must_feed, is_new.then(|| share.store(core, &mut state)).flatten())
        };
        if must_feed {
            feed::start(core, &share);
        }
        share.changed.notify_one();
        return ShareMember { core: core.clone(), share, id, client: join.client, stored };
    }
}

/// A session is over: no share waits for it.
pub(crate) fn forget(core: &Core, session: &SessionKey) {
    for share in core.shared().shares.lasting.of(session) {
        share.forget(core, &session.1);
    }
}

/// Hands over what was assigned, on this core or through the mailbox of the member's.
fn hand_over(core: &Core, share: &Arc<Share>, batch: &Arc<crate::delivery::Batch>, assigned: Vec<Assigned>) {
    let no_tags: Arc<[u32]> = Arc::from([]);
    for Assigned { member, core: at, parcel, records } in assigned {
        let picked = records.into_iter().map(|index| (index, Arc::clone(&no_tags))).collect();
        let delivery = Delivery { batch: Arc::clone(batch), picked: crate::delivery::Picked::Some(picked) };
        let receipt = Receipt { share: Arc::clone(share), member, parcel };
        let shared = SharedDelivery { delivery, receipt };
        if at == core.id() {
            core.tell_member(member, shared);
        } else {
            let event = CoreEvent::Shared { member, delivery: shared };
            core.shared().mailboxes[usize::from(at)].post(event);
        }
    }
}

impl Core {
    /// Tells a member; one that left meanwhile gave its records back already.
    pub(crate) fn tell_member(&self, member: u64, delivery: SharedDelivery) {
        let sink = self.share_sinks().get(&member).cloned();
        if let Some(sink) = sink {
            sink.tell(Event::Shared(delivery));
        }
    }
}

/// Reads a record again. `None`: it was trimmed, dropped or damaged meanwhile; an error may pass.
async fn reload(core: &Core, spot: Spot) -> Result<Option<roster::Item>, Error> {
    match read_again(core, spot).await {
        Err(error) if is_gone(error.kind()) => Ok(None),
        other => other,
    }
}

async fn read_again(core: &Core, spot: Spot) -> Result<Option<roster::Item>, Error> {
    use crate::broker::Broker;
    let Some(topic) = core.topic_of_shard(spot.shard).await? else { return Ok(None) };
    let batches = core.read(spot.shard, spot.base, 1).await?;
    let found = batches.into_iter().find(|batch| batch.base == spot.base);
    Ok(found.map(|stored| {
        let batch = Arc::new(crate::delivery::Batch::committed(topic, spot.shard, stored));
        roster::Item { batch, index: spot.index }
    }))
}
