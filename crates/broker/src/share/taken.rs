//! Records of shares that sessions made their own: a QoS 2 delivery that began is its session's and nobody else's, also after
//! a crash. What a session took is written in the session's row, in one piece with the state that knows the exchange, and
//! stays there until the share's own row, which lags behind, is durable without the record.
//!
//! ```text
//!   records u16 x (length u16, key of the share's row | shard u64, base u64, index u32)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::stored::{Spot, row_key};
use super::{Receipt, Share};
use crate::node::SessionKey;

/// Not settled with the share yet.
const OPEN: u64 = 0;

/// What sessions of this node took, by session.
#[derive(Default)]
pub(crate) struct TakenIndex {
    /// Entries of all sessions: nobody looks while there are none.
    count: AtomicUsize,
    /// Bound: what may be in flight to the session's client, and what it settled in the last [`super::feed::SAVE_EVERY`].
    by_session: Mutex<AHashMap<SessionKey, Vec<Arc<Entry>>>>,
}

/// One record that a session took.
pub(super) struct Entry {
    share: Arc<Share>,
    spot: Spot,
    /// Number of its settlement among those of the share, or [`OPEN`].
    settled: AtomicU64,
}

/// A record that its member's session is about to own. Dropped before it is settled, it goes back with what the member
/// leaves.
pub struct Taken {
    receipt: Receipt,
    nth: usize,
    session: SessionKey,
    entry: Arc<Entry>,
}

impl TakenIndex {
    fn add(&self, session: SessionKey, entry: Arc<Entry>) {
        self.by_session.lock().entry(session).or_default().push(entry);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, session: &SessionKey, entry: &Arc<Entry>) {
        self.retain(session, |known| !Arc::ptr_eq(known, entry));
    }

    fn retain(&self, session: &SessionKey, keep: impl Fn(&Arc<Entry>) -> bool) -> Vec<Arc<Entry>> {
        let mut by_session = self.by_session.lock();
        let Some(entries) = by_session.get_mut(session) else { return Vec::new() };
        let before = entries.len();
        entries.retain(keep);
        self.count.fetch_sub(before - entries.len(), Ordering::Relaxed);
        let left = entries.clone();
        if left.is_empty() {
            by_session.remove(session);
        }
        left
    }

    /// For the session's row; nothing if it took nothing that its shares do not know by themselves.
    pub(crate) fn encode(&self, session: &SessionKey) -> Bytes {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Bytes::new();
        }
        let entries = self.retain(session, |entry| !entry.is_known_to_share());
        let mut out = BytesMut::new();
        // Bound: a window has at most 65,535 exchanges.
        let entries = &entries[..entries.len().min(usize::from(u16::MAX))];
        if entries.is_empty() {
            return Bytes::new();
        }
        out.put_u16(entries.len() as u16);
        for entry in entries {
            let key = row_key(&entry.share.key);
            // Names and filters are shorter than a topic, which has at most 65,535 bytes with its share's name.
            out.put_u16(key.len() as u16);
            out.put_slice(&key);
            entry.spot.encode(&mut out);
        }
        out.freeze()
    }

    /// A session was found, at the start, that had taken `spot`.
    pub(super) fn restore(&self, session: SessionKey, share: &Arc<Share>, spot: Spot) -> Arc<Entry> {
        let entry = Arc::new(Entry { share: Arc::clone(share), spot, settled: AtomicU64::new(OPEN) });
        self.add(session, Arc::clone(&entry));
        entry
    }
}

/// Reads what [`TakenIndex::encode`] wrote: the key of the share's row, and the record.
pub(super) fn decode(input: &mut Bytes) -> Option<Vec<(Bytes, Spot)>> {
    let count = input.try_get_u16().ok()?;
    let mut found = Vec::new();
    for _ in 0..count {
        let length = usize::from(input.try_get_u16().ok()?);
        if input.remaining() < length {
            return None;
        }
        let key = input.split_to(length);
        found.push((key, Spot::decode(input)?));
    }
    Some(found)
}

impl Entry {
    fn is_known_to_share(&self) -> bool {
        let settled = self.settled.load(Ordering::Relaxed);
        settled != OPEN && settled <= self.share.settled_durably.load(Ordering::Relaxed)
    }

    /// The share does not have the record any more; `number` of that.
    pub(super) fn note_settled(&self, number: u64) {
        self.settled.store(number, Ordering::Relaxed);
    }
}

impl Receipt {
    /// The `nth` picked record is about to become the session's: whatever is saved of the session from now on says so. `None` for
    /// what the member no longer has, or is not in the log.
    pub fn take(&self, nth: usize) -> Option<Taken> {
        let (session, spot) = {
            let state = self.share.state.lock();
            let client = Arc::clone(state.clients.get(&self.member)?);
            let item = state.roster.item(self.member, self.parcel, nth)?;
            ((self.share.key.tenant.clone(), client), Spot::of(&item)?)
        };
        let entry = Arc::new(Entry { share: Arc::clone(&self.share), spot, settled: AtomicU64::new(OPEN) });
        self.share.taken.add(session.clone(), Arc::clone(&entry));
        Some(Taken { receipt: self.clone(), nth, session, entry })
    }
}

impl Taken {
    /// The session has it, durably: the share has it no more.
    pub fn settle(self) {
        self.receipt.settle_as(self.nth, Some(&self.entry));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.entry.settled.load(Ordering::Relaxed) == OPEN {
            self.receipt.share.taken.remove(&self.session, &self.entry);
        }
    }
}
