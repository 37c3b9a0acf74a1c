//! Sessions: who owns one, what is stored of it, and when it ends.
//!
//! ```text
//! s <tenant> 00 <id>  ->  flags u8 | keep u64 ms (max: for ever) | since i64 wall ms | start u64 | up i64 ms
//!                         | length u32, what it took of shares
//!                         | length u8, what its rows begin with (with flag 2) | state     (group by hash of the id)
//! ```
//!
//! Flag 1, owned: a connection has the session; after a crash it counts as given up at the start of the broker. Otherwise
//! `since` says when it was given up, and `up` says it again, as time that the broker had been up at its `start`.
//!
//! **Rows of its own.** A front may keep rows for a session, in any group ([`SessionLease::owns_rows`]). They are removed when it
//! ends: before its row is, where it expires, so that a crash in between loses none of them from sight.
//!
//! **Time.** A session ends so long after it was given up as it is to be kept, whatever somebody does to the wall clock meanwhile:
//! while the broker that wrote the row is up, only `up` counts. Over a restart there is nothing but the wall clock.
//!
//! One owner in the whole node: the registry maps a session to the core that has it. A claim replaces the entry
//! first and then asks the former owner for its state, so that two claims at once are served one after the other. An owner that
//! gives the session up before it is asked leaves the state for whoever asks: what it writes may not be readable yet.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Error, TenantId};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::warn;

use crate::broker::{Event, Keep, SessionLease, Sink, TakeOver};
use crate::core_thread::Core;
use crate::node::{CoreEvent, SessionKey, TakeOverAnswer};
use crate::rows::{Check, Place, RowWrite, RowsOutcome};
use crate::share;
use crate::uptime::{Moment, Uptime};

/// Locks of the registry: claims of different sessions hardly ever meet.
const REGISTRY_SHARDS: usize = 64;

/// Rows of one session that are removed together.
const SCAN_ROWS: usize = 1024;

/// Who owns which session. Locked for one look-up or one insert; never while anything waits.
pub(crate) struct Registry {
    shards: Vec<Mutex<AHashMap<SessionKey, Entry>>>,
    epochs: AtomicU64,
}

enum Entry {
    /// A connection of this core has it, or is claiming it.
    Owned { core: u16, epoch: u64 },
    /// Given up; the write of this state is under way. Boxed: there are far more that are owned.
    Leaving { state: Box<Option<Bytes>>, epoch: u64 },
}

impl Default for Registry {
    fn default() -> Self {
        let shards = (0..REGISTRY_SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, epochs: AtomicU64::new(1) }
    }
}

impl Registry {
    fn shard(&self, key: &SessionKey) -> &Mutex<AHashMap<SessionKey, Entry>> {
        let hash = key.1.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        &self.shards[hash as usize % REGISTRY_SHARDS]
    }

    fn is_owned(&self, key: &SessionKey) -> bool {
        matches!(self.shard(key).lock().get(key), Some(Entry::Owned { .. }))
    }
}

/// What a core keeps of a session that one of its connections has or claims.
pub(crate) enum Owned {
    /// A connection has it.
    Connected {
        sink: Rc<dyn Sink>,
        /// While the claim is not finished: who asks meanwhile waits here.
        claiming: Option<Box<Option<TakeOverAnswer>>>,
    },
    /// Given up when it was claimed already, by somebody who is about to ask. Boxed: there are far more that are connected.
    Left(Box<Option<Bytes>>),
}

impl Owned {
    fn claiming(sink: Rc<dyn Sink>) -> Self {
        Self::Connected { sink, claiming: Some(Box::default()) }
    }
}

/// What a former owner answers to a claim.
pub(crate) enum Former {
    /// This is the session; `None`: it is over, and the removal of its row is submitted.
    Left(Option<Bytes>),
    /// It went without a word: what it submitted last is the session.
    Silent,
}

/// Sessions owned on one core, by the epoch of their claim: while a claim is on its way, a later one of the same core waits
/// beside it.
pub(crate) type OwnedSessions = AHashMap<u64, Owned>;

pub(crate) async fn claim(
    core: Core,
    tenant: TenantId,
    id: Arc<str>,
    sink: Rc<dyn Sink>,
) -> Result<(SessionLease, Option<Bytes>), Error> {
    let key: SessionKey = (tenant, id);
    let registry = &core.shared().registry;
    let epoch = registry.epochs.fetch_add(1, Ordering::Relaxed);
    let previous = {
        let mut shard = registry.shard(&key).lock();
        shard.insert(key.clone(), Entry::Owned { core: core.id(), epoch })
    };
    let former = match previous {
        Some(Entry::Owned { core: owner, epoch: owner_epoch }) => {
            let (answer, former) = oneshot::channel();
            let answer: TakeOverAnswer = Box::new(move |former| {
                let _ = answer.send(former);
            });
            if owner == core.id() {
                take_over(&core, owner_epoch, answer);
            } else {
                let event = CoreEvent::TakeOver { epoch: owner_epoch, answer };
                core.shared().mailboxes[usize::from(owner)].post(event);
            }
            core.own(epoch, Owned::claiming(sink));
            Some(former.await.unwrap_or(Former::Silent))
        }
        Some(Entry::Leaving { state, .. }) => {
            core.own(epoch, Owned::claiming(sink));
            Some(Former::Left(*state))
        }
        None => {
            core.own(epoch, Owned::claiming(sink));
            None
        }
    };
    let found = match former {
        Some(Former::Left(state)) => {
            // Where the session is over its row is being removed, and that may fail: it counts as there.
            Ok(Before { has_row: true, state, ..Before::default() })
        }
        Some(Former::Silent) => stored_at_last(&core, &key).await,
        None => stored(&core, &key).await,
    };
    finish_claim(&core, epoch);
    let before = match found {
        Ok(before) => before,
        Err(error) => {
            give_up_ownership(&core, &key, epoch);
            return Err(error);
        }
    };
    drop_later(&core, before.left_over);
    let writer = Writer {
        core,
        key,
        epoch,
        has_row: before.has_row.into(),
        kept: before.keep,
        own_rows: RefCell::default(),
        given_up: false.into(),
    };
    Ok((SessionLease { owner: Owner(Rc::new(writer)) }, before.state))
}

/// Asks whoever has, or had, the session on this core as of `epoch` for its state. Once for each epoch.
pub(crate) fn take_over(core: &Core, epoch: u64, answer: TakeOverAnswer) {
    let mut owned = core.owned_sessions();
    if let Some(Owned::Connected { claiming: Some(waiting), .. }) = owned.get_mut(&epoch) {
        **waiting = Some(answer);
        return;
    }
    let owner = owned.remove(&epoch);
    drop(owned);
    match owner {
        Some(Owned::Connected { sink, .. }) => sink.tell(Event::TakeOver(TakeOver::new(answer))),
        Some(Owned::Left(state)) => answer(Former::Left(*state)),
        None => answer(Former::Silent),
    }
}

fn finish_claim(core: &Core, epoch: u64) {
    let waiting = match core.owned_sessions().get_mut(&epoch) {
        Some(Owned::Connected { claiming, .. }) => claiming.take().and_then(|waiting| *waiting),
        Some(Owned::Left(_)) | None => None,
    };
    if let Some(answer) = waiting {
        take_over(core, epoch, answer);
    }
}

/// What a claim finds.
#[derive(Default)]
struct Before {
    has_row: bool,
    /// What the row says, if it was read.
    keep: Option<Keep>,
    /// None if there is no session, or it has ended.
    state: Option<Bytes>,
    /// What the rows of one that has ended begin with.
    left_over: Bytes,
}

async fn stored(core: &Core, key: &SessionKey) -> Result<Before, Error> {
    let Some(found) = core.rows_handle().get(&place(key), row_key(key)).await? else {
        return Ok(Before::default());
    };
    let before = Before { has_row: true, ..Before::default() };
    let Some(row) = Row::decode(found.value) else { return Ok(before) };
    let before = Before { keep: Some(row.keep), ..before };
    Ok(match row.has_ended(core.uptime()) {
        true => Before { left_over: row.own_rows, ..before },
        false => Before { state: Some(row.state), ..before },
    })
}

/// The same, behind whatever was submitted before: a write that is under way is waited for.
async fn stored_at_last(core: &Core, key: &SessionKey) -> Result<Before, Error> {
    core.rows_handle().transact(&place(key), Vec::new(), Vec::new()).await?;
    stored(core, key).await
}

/// Who has a session; dropped, it has given it up.
pub(crate) struct Owner(Rc<Writer>);

impl Owner {
    pub(crate) fn save(&self, state: Bytes, keep: Keep) -> impl Future<Output = Result<(), Error>> + use<> {
        let since = self.0.core.uptime().now();
        self.0.write(Some(&Row { owned: true, keep, since, own_rows: self.0.own_rows(), state }))
    }

    pub(crate) fn owns_rows(&self, prefix: Bytes) {
        *self.0.own_rows.borrow_mut() = prefix;
    }

    pub(crate) fn has_own_rows(&self) -> bool {
        !self.0.own_rows.borrow().is_empty()
    }

    pub(crate) fn kept(&self) -> Option<Keep> {
        self.0.kept
    }

    pub(crate) fn hand_over(&self, take_over: TakeOver, state: Option<Bytes>) {
        if state.is_none() {
            self.release(None, Keep::For(0));
        }
        take_over.answer(Former::Left(state));
    }

    pub(crate) fn release(&self, state: Option<Bytes>, keep: Keep) {
        let writer = &self.0;
        writer.given_up.set(true);
        let state = if keep == Keep::For(0) { None } else { state };
        if state.is_none() {
            share::forget(&writer.core, &writer.key);
        }
        if state.is_none() && !writer.has_row.get() {
            writer.give_up_ownership();
            return;
        }
        let since = writer.core.uptime().now();
        let own_rows = writer.own_rows();
        let over = if state.is_none() { own_rows.clone() } else { Bytes::new() };
        let row = state.clone().map(|state| Row { owned: false, keep, since, own_rows, state });
        let endings = &writer.core.shared().endings;
        match (&row, keep) {
            (Some(_), Keep::For(ms)) => {
                endings.set(writer.key.clone(), since.up_ms.saturating_add_unsigned(ms))
            }
            (Some(_), Keep::Forever) | (None, _) => endings.remove(&writer.key),
        }
        // Submitted before anybody can claim: what a next owner saves comes later in the group's log.
        let written = writer.write(row.as_ref());
        writer.leave(state);
        let writer = Rc::clone(writer);
        writer.core.clone().spawn(async move {
            if let Err(error) = written.await {
                warn!(client = &*writer.key.1, err = %error, "a session could not be stored");
            }
            writer.left();
            drop_later(&writer.core, over);
        });
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.0.given_up.get() {
            self.0.give_up_ownership();
        }
    }
}

/// Writes the row of one session for one owner.
struct Writer {
    core: Core,
    key: SessionKey,
    epoch: u64,
    /// There may be a row: a session that was never stored leaves nothing to remove.
    has_row: Cell<bool>,
    /// How long the row that the claim read is kept.
    kept: Option<Keep>,
    /// What the keys of the session's rows begin with; empty if it has none.
    own_rows: RefCell<Bytes>,
    given_up: Cell<bool>,
}

impl Writer {
    /// Submits the write at once; writes of all owners take effect in the order of these calls.
    fn write(&self, row: Option<&Row>) -> impl Future<Output = Result<(), Error>> + use<> {
        let key = row_key(&self.key);
        self.has_row.set(true);
        let write = match row {
            Some(row) => {
                let taken = self.core.shared().shares.taken.encode(&self.key);
                RowWrite::Put { key, value: row.encode(&taken) }
            }
            None => RowWrite::Delete { key },
        };
        let outcome = self.core.rows_handle().submit(&place(&self.key), Vec::new(), vec![write]);
        async move { outcome.await.map(|_| ()) }
    }

    fn own_rows(&self) -> Bytes {
        self.own_rows.borrow().clone()
    }

    /// The connection gives the session up: until the row is written, claims find the state here.
    fn leave(&self, state: Option<Bytes>) {
        let state = Box::new(state);
        {
            let mut shard = self.core.shared().registry.shard(&self.key).lock();
            if let Some(entry) = shard.get_mut(&self.key)
                && matches!(entry, Entry::Owned { epoch, .. } if *epoch == self.epoch)
            {
                *entry = Entry::Leaving { state, epoch: self.epoch };
                drop(shard);
                return self.core.disown(self.epoch);
            }
        }
        // Claimed: who did that has asked, or is about to.
        if let Some(owned) = self.core.owned_sessions().get_mut(&self.epoch) {
            *owned = Owned::Left(state);
        }
    }

    /// Everything is written: the store has the truth.
    fn left(&self) {
        let mut shard = self.core.shared().registry.shard(&self.key).lock();
        if matches!(shard.get(&self.key), Some(Entry::Leaving { epoch, .. }) if *epoch == self.epoch) {
            shard.remove(&self.key);
        }
    }

    fn give_up_ownership(&self) {
        give_up_ownership(&self.core, &self.key, self.epoch);
    }
}

fn give_up_ownership(core: &Core, key: &SessionKey, epoch: u64) {
    core.disown(epoch);
    let mut shard = core.shared().registry.shard(key).lock();
    if matches!(shard.get(key), Some(Entry::Owned { epoch: of, .. }) if *of == epoch) {
        shard.remove(key);
    }
}

/// Whether rows that begin so are those of one session. What is shorter might be anybody's, and is not believed.
fn is_own(prefix: &[u8]) -> bool {
    (OWN_ROWS_MIN..=OWN_ROWS_MAX).contains(&prefix.len())
}

/// Removes the rows of a session that is over, if it may have any.
async fn drop_rows(core: &Core, prefix: Bytes) -> Result<(), Error> {
    if !is_own(&prefix) {
        return Ok(());
    }
    let rows = core.rows_handle();
    for place in rows.groups().into_iter().map(Place::Group) {
        loop {
            let page = rows.scan(&place, prefix.clone(), Bytes::new(), SCAN_ROWS).await?;
            let is_last = page.len() < SCAN_ROWS;
            let writes: Vec<_> = page.into_iter().map(|row| RowWrite::Delete { key: row.key }).collect();
            if !writes.is_empty() {
                rows.transact(&place, Vec::new(), writes).await?;
            }
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

/// The same, beside what goes on.
fn drop_later(core: &Core, prefix: Bytes) {
    if !is_own(&prefix) {
        return;
    }
    let task = core.clone();
    core.spawn(async move {
        if let Err(error) = drop_rows(&task, prefix).await {
            warn!(err = %error, "rows of an ended session could not be removed");
        }
    });
}

/// Removes a session whose time is over, unless somebody has it. Answers whether that ended it.
pub(crate) async fn expire(core: &Core, key: &SessionKey) -> Result<bool, Error> {
    let Some(found) = core.rows_handle().get(&place(key), row_key(key)).await? else { return Ok(false) };
    let Some(row) = Row::decode(found.value) else { return Ok(false) };
    // It was taken up meanwhile, and may have been given up again. Who claims it after this sees that it has ended.
    if !row.has_ended(core.uptime()) || core.shared().registry.is_owned(key) {
        return Ok(false);
    }
    drop_rows(core, row.own_rows).await?;
    let key_bytes = row_key(key);
    let checks = vec![Check::Version { key: key_bytes.clone(), version: found.version }];
    let outcome =
        core.rows_handle().transact(&place(key), checks, vec![RowWrite::Delete { key: key_bytes }]).await?;
    // Refused: the client was here meanwhile.
    let is_ended = matches!(outcome, RowsOutcome::Done { .. });
    if is_ended {
        share::forget(core, key);
    }
    Ok(is_ended)
}

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    owned: bool,
    keep: Keep,
    /// When it was given up.
    since: Moment,
    /// What the keys of its rows begin with; empty if it never had any.
    own_rows: Bytes,
    state: Bytes,
}

/// What a start of the broker needs to know of a stored session.
pub(crate) struct Found {
    pub(crate) key: SessionKey,
    /// After how many ms it ends, if it does.
    pub(crate) left_ms: Option<i64>,
    /// What it took of shares.
    pub(crate) taken: Bytes,
}

const OWNED: u8 = 1;
/// Flag: it is said what its rows begin with.
const HAS_ROWS: u8 = 2;
const FIXED_BYTES: usize = 37;
/// Bounds: bytes of what a session's rows begin with. The least is two letters and a number that nobody else has.
const OWN_ROWS_MIN: usize = 10;
const OWN_ROWS_MAX: usize = 255;

impl Row {
    fn encode(&self, taken: &Bytes) -> Bytes {
        let own_rows = if is_own(&self.own_rows) { &self.own_rows[..] } else { b"" };
        let mut out =
            BytesMut::with_capacity(FIXED_BYTES + 1 + taken.len() + own_rows.len() + self.state.len());
        let has_rows = if own_rows.is_empty() { 0 } else { HAS_ROWS };
        out.put_u8(if self.owned { OWNED } else { 0 } | has_rows);
        out.put_u64(match self.keep {
            Keep::Forever => u64::MAX,
            Keep::For(ms) => ms,
        });
        out.put_i64(self.since.wall_ms);
        out.put_u64(self.since.start);
        out.put_i64(self.since.up_ms);
        // Bound: 65,535 records with the keys of their shares.
        out.put_u32(taken.len() as u32);
        out.put_slice(taken);
        if has_rows != 0 {
            out.put_u8(own_rows.len() as u8);
            out.put_slice(own_rows);
        }
        out.put_slice(&self.state);
        out.freeze()
    }

    fn decode(input: Bytes) -> Option<Self> {
        Self::decode_all(input).map(|(row, _)| row)
    }

    /// The row, and what the session took of shares.
    fn decode_all(mut input: Bytes) -> Option<(Self, Bytes)> {
        if input.len() < FIXED_BYTES {
            return None;
        }
        let flags = input.get_u8();
        let owned = flags & OWNED != 0;
        let keep = match input.get_u64() {
            u64::MAX => Keep::Forever,
            ms => Keep::For(ms),
        };
        let since = Moment { wall_ms: input.get_i64(), start: input.get_u64(), up_ms: input.get_i64() };
        let length = input.get_u32() as usize;
        if input.len() < length {
            return None;
        }
        let taken = input.split_to(length);
        let length = if flags & HAS_ROWS != 0 { usize::from(input.try_get_u8().ok()?) } else { 0 };
        if input.len() < length {
            return None;
        }
        let own_rows = input.split_to(length);
        Some((Self { owned, keep, since, own_rows, state: input }, taken))
    }

    fn has_ended(&self, uptime: &Uptime) -> bool {
        self.left_ms(uptime).is_some_and(|left| left <= 0)
    }

    /// After how many ms the session ends; `None`: never, or not while it is owned.
    fn left_ms(&self, uptime: &Uptime) -> Option<i64> {
        let Keep::For(keep) = self.keep else { return None };
        let passed = match (self.owned, self.since.start == uptime.start()) {
            (true, true) => return None,
            (true, false) => uptime.now().up_ms,
            (false, _) => uptime.ms_since(&self.since),
        };
        Some(i64::try_from(keep).unwrap_or(i64::MAX).saturating_sub(passed))
    }
}

/// A session that was found in the store at the start.
pub(crate) fn found(key: &[u8], value: Bytes, uptime: &Uptime) -> Option<Found> {
    let rest = key.strip_prefix(b"s")?;
    let cut = rest.iter().position(|byte| *byte == 0)?;
    let tenant = TenantId::new(std::str::from_utf8(&rest[..cut]).ok()?).ok()?;
    let id: Arc<str> = std::str::from_utf8(&rest[cut + 1..]).ok()?.into();
    let (row, taken) = Row::decode_all(value)?;
    Some(Found { key: (tenant, id), left_ms: row.left_ms(uptime), taken })
}

fn row_key(key: &SessionKey) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + key.0.as_str().len() + key.1.len());
    out.put_u8(b's');
    out.put_slice(key.0.as_str().as_bytes());
    out.put_u8(0);
    out.put_slice(key.1.as_bytes());
    out.freeze()
}

fn place(key: &SessionKey) -> Place {
    Place::ByKey(row_key(key))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rt::ManualClock;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written_and_a_cut_one_is_no_other(
            owned in any::<bool>(),
            keep in prop_oneof![Just(Keep::Forever), (0..u64::MAX).prop_map(Keep::For)],
            (wall_ms, start, up_ms) in any::<(i64, u64, i64)>(),
            [taken, own_rows, state] in
                [0..30_usize, OWN_ROWS_MIN..12, 0..30].map(|len| proptest::collection::vec(any::<u8>(), len)),
        ) {
            let since = Moment { wall_ms, start, up_ms };
            let row = Row { owned, keep, since, own_rows: own_rows.into(), state: state.into() };
            let taken = Bytes::from(taken);
            let bytes = row.encode(&taken);
            for cut in 0..bytes.len() - row.state.len() {
                prop_assert!(Row::decode_all(bytes.slice(..cut)).is_none());
            }
            prop_assert_eq!(Row::decode_all(bytes), Some((row, taken)));
        }
    }

    /// Rows of sessions that have no rows of their own are as they were before any could have.
    #[test]
    fn a_row_that_says_nothing_of_own_rows_has_none() {
        let since = Moment { wall_ms: 1, start: 2, up_ms: 3 };
        let state = Bytes::from_static(b"\x05state");
        let row = Row { owned: true, keep: Keep::For(7), since, own_rows: Bytes::new(), state };
        let bytes = row.encode(&Bytes::from_static(b"t"));
        let expected = b"\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x01t\x05state";
        assert_eq!(&bytes[..], expected);
        assert_eq!(Row::decode(bytes), Some(row));
    }

    #[test]
    fn what_might_be_anybodys_is_not_removed_with_a_session() {
        assert!(!is_own(b"") && !is_own(b"r") && !is_own(b"mq\0\0\0\0"));
        assert!(is_own(b"mq\0\0\0\0\0\0\0\x01"));
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR_MS: i64 = 3_600_000;

    fn given_up(since: Moment) -> Row {
        let own_rows = Bytes::new();
        Row { owned: false, keep: Keep::For(10_000), since, own_rows, state: Bytes::new() }
    }

    #[test]
    fn mqtt_3_1_2_23_a_step_of_the_wall_clock_neither_ends_nor_keeps_a_session() {
        for step in [HOUR_MS, -HOUR_MS] {
            let clock = Arc::new(ManualClock::new(1_000_000_000));
            let uptime = Uptime::new(Arc::clone(&clock) as Arc<dyn rt::Clock>, 7);
            clock.advance(5 * SECOND);
            let row = given_up(uptime.now());
            clock.jump_wall(step);
            clock.advance(9 * SECOND);
            assert_eq!(row.left_ms(&uptime), Some(1_000));
            clock.advance(SECOND);
            assert_eq!(row.left_ms(&uptime), Some(0));
        }
    }

    #[test]
    fn mqtt_3_1_2_23_over_a_restart_the_wall_clock_at_the_start_counts_and_later_steps_do_not() {
        let clock = Arc::new(ManualClock::new(1_000_000_000));
        let before = Uptime::new(Arc::clone(&clock) as Arc<dyn rt::Clock>, 7);
        clock.jump_wall(HOUR_MS);
        // Written after the step, with the clock as it is then.
        let (row, owned) = (given_up(before.now()), Row { owned: true, ..given_up(before.now()) });
        clock.advance(4 * SECOND);
        let after = Uptime::new(Arc::clone(&clock) as Arc<dyn rt::Clock>, 8);
        clock.jump_wall(-2 * HOUR_MS);
        clock.advance(SECOND);
        assert_eq!(row.left_ms(&after), Some(5_000));
        assert_eq!(owned.left_ms(&after), Some(9_000), "the crash gave it up");
        assert_eq!(owned.left_ms(&before), None);
        let forever = Row { keep: Keep::Forever, ..row };
        assert_eq!(forever.left_ms(&after), None);
    }
}
