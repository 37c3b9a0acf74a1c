//! Messages that are published later: each lies in a row until it is due, so that it survives a restart; one core
//! publishes it on time. There is no limit to how far away that is, and nothing is polled.
//!
//! ```text
//! D <due ms u64> <random u64>  ->  version u8 | message             (group by hash of the key)
//! E <due ms u64> <random u64>  ->  nothing                          (group of the message's shard, in its entry)
//! ```
//!
//! The second row says that the message was published, and is committed with it. So a crash between publishing and removing
//! the first row does not publish twice.
//!
//! In memory is only what is due soon ([`WINDOW_MS`]); the rest is read when its time comes.
//!
//! **Time.** A message comes so long after it was put down as it was to wait, whatever somebody does to the wall clock meanwhile:
//! `due` is on the wall clock as it would be had nobody stepped it since the start. Over a restart the wall clock decides.
//!
//! **Taking back.** A message is published or taken back, never both. The two rows lie in different groups, so no transaction
//! decides that: whoever is to publish takes the message first (`firing`), whoever takes it back claims it (`cancelling`),
//! and each leaves it alone when the other has it. What a process published before it died is forgotten before anything is
//! taken back.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use auth::{Action, Author, Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Error, ErrorKind, GroupId, TenantId, TopicName};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tracing::warn;

use crate::broker::{Broker, Event, Sink};
use crate::core_thread::Core;
use crate::message::{Guarantee, Message, Published, Retain};
use crate::node::Shared;
use crate::rows::{Check, Place, RowWrite, Rows, RowsOutcome};

const PREFIX: u8 = b'D';
const PUBLISHED: u8 = b'E';
const VERSION: u8 = 2;
const KEY_BYTES: usize = 17;
/// How far ahead the rows are held in memory.
const WINDOW_MS: i64 = 60_000;
/// Bound: rows of one group that are held; the window is shorter if there are more.
const HELD_MAX: usize = 64 * 1024;
/// Rows that one scan asks for; they come with their payloads.
const SCAN_ROWS: usize = 16;
/// Bound: messages that are being published at once.
const FIRING_MAX: usize = 256;
/// Pause before something is tried again that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest sleep: far less than what a timer can hold.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// Names one scheduled message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId {
    /// When it is due, in ms since the epoch, by a clock that nobody steps while the broker is up. Orders messages; what people
    /// are shown is [`Scheduled::due_ms`].
    pub due_ms: i64,
    /// Tells it from others that are due then.
    pub number: u64,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Which.
    pub id: ScheduleId,
    /// When it is due, in ms since the epoch, by the wall clock as it stands now.
    pub due_ms: i64,
    /// Subject that it will be published to.
    pub subject: String,
    /// Bytes of its payload.
    pub value_bytes: usize,
}

/// What of the rows is in memory. Shared by all cores; one of them fires.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<State>,
    changed: Notify,
    /// What was published before the restart is told from what was not.
    is_recovered: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    heap: BinaryHeap<Reverse<ScheduleId>>,
    held: AHashSet<ScheduleId>,
    /// Rows of a group below this are in the heap.
    read_to: AHashMap<GroupId, ScheduleId>,
    /// The first row of any group that is not.
    beyond: Option<i64>,
    /// Messages that are being published, or may have been. Bound: [`FIRING_MAX`], and those of a group that has stopped.
    firing: AHashSet<ScheduleId>,
    /// Messages that somebody takes back just now, once for each who does. Bound: the calls under way.
    cancelling: Vec<ScheduleId>,
    /// Those of them whose time came meanwhile.
    passed_over: AHashSet<ScheduleId>,
}

/// Holds a message so that it is not published, until this is dropped.
struct Claim<'a> {
    schedule: &'a Schedule,
    id: ScheduleId,
}

impl ScheduleId {
    /// As a text without spaces: `due-number`, the number in hexadecimal.
    pub fn text(&self) -> String {
        format!("{}-{:016x}", self.due_ms, self.number)
    }

    /// Reads what [`ScheduleId::text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (due, number) = text.split_once('-')?;
        let due_ms = due.parse().ok().filter(|due: &i64| *due >= 0)?;
        Some(Self { due_ms, number: u64::from_str_radix(number, 16).ok()? })
    }

    fn key(&self, prefix: u8) -> Bytes {
        let mut out = BytesMut::with_capacity(KEY_BYTES);
        out.put_u8(prefix);
        out.put_i64(self.due_ms);
        out.put_u64(self.number);
        out.freeze()
    }

    fn of_key(mut key: &[u8]) -> Option<Self> {
        if key.len() != KEY_BYTES {
            return None;
        }
        key.advance(1);
        Some(Self { due_ms: key.get_i64(), number: key.get_u64() })
    }

    fn place(&self) -> Place {
        Place::ByKey(self.key(PREFIX))
    }
}

impl Schedule {
    /// A row was committed in `group`.
    fn add(&self, group: GroupId, id: ScheduleId) {
        let is_first = {
            let mut state = self.state.lock();
            if state.read_to.get(&group).is_some_and(|read_to| id < *read_to) {
                let first = state.heap.peek().map(|Reverse(first)| *first);
                state.push(id);
                first.is_none_or(|first| id < first)
            } else {
                let is_first = state.beyond.is_none_or(|beyond| id.due_ms < beyond);
                if is_first {
                    state.beyond = Some(id.due_ms);
                }
                is_first
            }
        };
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Takes what is due, to publish it; [`Schedule::settled`] gives it back.
    fn take_due(&self, now_ms: i64, most: usize) -> Vec<ScheduleId> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while due.len() < most && state.heap.peek().is_some_and(|Reverse(first)| first.due_ms <= now_ms) {
            if let Some(Reverse(id)) = state.heap.pop() {
                state.held.remove(&id);
                if state.cancelling.contains(&id) {
                    state.passed_over.insert(id);
                } else {
                    state.firing.insert(id);
                    due.push(id);
                }
            }
        }
        due
    }

    /// A message that was taken is published and forgotten, or has certainly not been published.
    fn settled(&self, id: ScheduleId) {
        self.state.lock().firing.remove(&id);
    }

    /// Keeps a message from being published. `None`: it is just being published, or may have been.
    fn claim(&self, id: ScheduleId) -> Option<Claim<'_>> {
        let mut state = self.state.lock();
        if state.firing.contains(&id) {
            return None;
        }
        state.cancelling.push(id);
        Some(Claim { schedule: self, id })
    }

    /// When there is something to do: a message is due, or rows have to be read.
    fn next_ms(&self) -> Option<i64> {
        let state = self.state.lock();
        let due = state.heap.peek().map(|Reverse(first)| first.due_ms);
        let read = state.beyond.filter(|_| !state.is_full());
        let read = read.map(|beyond| beyond.saturating_sub(WINDOW_MS / 2));
        due.into_iter().chain(read).min()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let is_due = {
            let mut state = self.schedule.state.lock();
            if let Some(index) = state.cancelling.iter().position(|id| *id == self.id) {
                state.cancelling.swap_remove(index);
            }
            // Whoever fires looks whether its row is still there.
            let is_due = !state.cancelling.contains(&self.id) && state.passed_over.remove(&self.id);
            if is_due {
                state.push(self.id);
            }
            is_due
        };
        if is_due {
            self.schedule.changed.notify_one();
        }
    }
}

impl State {
    /// No more is read before some of it was published.
    fn is_full(&self) -> bool {
        self.held.len() >= HELD_MAX
    }

    fn push(&mut self, id: ScheduleId) {
        if self.held.insert(id) {
            self.heap.push(Reverse(id));
        }
    }
}

/// Puts an author's message down for `delay`, together with `message.rows`. Submitted when this returns; resolves when it is
/// durable. Also answers the group that holds it.
pub(crate) fn submit(
    core: &Core,
    tenant: &TenantId,
    what: (&Message<'_>, &Author),
    delay: Duration,
) -> Result<(GroupId, impl Future<Output = Result<ScheduleId, Error>> + use<>), ErrorKind> {
    let (message, author) = what;
    TopicName::new(message.subject).map_err(|_| ErrorKind::Invalid)?;
    let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    let due_ms = core.uptime().steady_wall_ms().saturating_add(delay_ms).max(0);
    let id = ScheduleId { due_ms, number: core.shared().random() };
    let rows = core.rows_handle();
    let group = rows.group_of(&id.place()).map_err(|error| error.kind())?;
    // It waits in a row, and is no smaller for that.
    if core.shared().node.is_space_low() {
        return Err(ErrorKind::StorageFull);
    }
    let put = RowWrite::Put { key: id.key(PREFIX), value: encode(tenant, message, author) };
    let writes = message.rows.iter().cloned().chain(std::iter::once(put)).collect();
    let written = rows.submit(&id.place(), Vec::new(), writes);
    let core = core.clone();
    Ok((group, async move {
        written.await?;
        core.shared().schedule.add(group, id);
        Ok(id)
    }))
}

/// Messages that wait, of one tenant, by when they are due, after `after`; at most `limit`.
pub(crate) async fn list(
    shared: &Arc<Shared>,
    tenant: &TenantId,
    after: Option<ScheduleId>,
    limit: usize,
) -> Result<Vec<Scheduled>, Error> {
    let rows_handle = Rows::new(Arc::clone(shared));
    let stepped_ms = shared.clock.wall_ms().saturating_sub(shared.uptime.steady_wall_ms());
    let mut found = Vec::new();
    for group in rows_handle.groups() {
        let mut from = after.map_or_else(Bytes::new, |after| next_key(&after.key(PREFIX)));
        let mut here = 0;
        while here < limit {
            let prefix = Bytes::from_static(&[PREFIX]);
            let rows = rows_handle.scan(&Place::Group(group), prefix, from, SCAN_ROWS).await?;
            let Some(last) = rows.last() else { break };
            from = next_key(&last.key);
            let is_last = rows.len() < SCAN_ROWS;
            let mine = rows.into_iter().filter_map(|row| {
                let (id, waiting) = (ScheduleId::of_key(&row.key)?, decode(row.value)?);
                let value_bytes = waiting.value.map_or(0, |value| value.len());
                let due_ms = id.due_ms.saturating_add(stepped_ms);
                let is_theirs = waiting.tenant == *tenant;
                is_theirs.then_some(Scheduled { id, due_ms, subject: waiting.subject, value_bytes })
            });
            let before = found.len();
            found.extend(mine.take(limit - here));
            here += found.len() - before;
            if is_last {
                break;
            }
        }
    }
    found.sort_unstable_by_key(|scheduled| scheduled.id);
    found.truncate(limit);
    Ok(found)
}

/// Takes a message back. False if it is not there (any more), or on its way.
pub(crate) async fn cancel(shared: &Arc<Shared>, tenant: &TenantId, id: ScheduleId) -> Result<bool, Error> {
    let mut recovered = shared.schedule.is_recovered.subscribe();
    let known = recovered.wait_for(|is_recovered| *is_recovered).await.is_ok();
    if !known {
        return Err(Error::new(ErrorKind::Unavailable, "tell what was published before the restart"));
    }
    let Some(_claim) = shared.schedule.claim(id) else { return Ok(false) };
    let rows = Rows::new(Arc::clone(shared));
    let key = id.key(PREFIX);
    let Some(row) = rows.get(&id.place(), key.clone()).await? else { return Ok(false) };
    if decode(row.value).is_none_or(|waiting| waiting.tenant != *tenant) {
        return Ok(false);
    }
    let check = Check::Version { key: key.clone(), version: row.version };
    let outcome = rows.transact(&id.place(), vec![check], vec![RowWrite::Delete { key }]).await?;
    Ok(matches!(outcome, RowsOutcome::Done { .. }))
}

impl Shared {
    /// As [`Broker::scheduled`], from any thread.
    pub async fn scheduled(
        self: &Arc<Self>,
        tenant: &TenantId,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, Error> {
        list(self, tenant, after, limit).await
    }

    /// As [`Broker::cancel_scheduled`], from any thread.
    pub async fn cancel_scheduled(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: ScheduleId,
    ) -> Result<bool, Error> {
        cancel(self, tenant, id).await
    }
}

impl Core {
    /// Publishes what is due, for ever. On one core.
    pub async fn run_schedule(&self) {
        let schedule = &self.shared().schedule;
        while let Err(error) = forget_published(self).await {
            warn!(err = %error, "what was published before the restart cannot be told from what was not; trying again");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        schedule.is_recovered.send_replace(true);
        loop {
            if let Err(error) = read_ahead(self).await {
                warn!(err = %error, "scheduled messages could not be read");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            let due = schedule.take_due(self.uptime().steady_wall_ms(), FIRING_MAX);
            if !due.is_empty() {
                fire(self, due).await;
                continue;
            }
            match schedule.next_ms() {
                None => schedule.changed.notified().await,
                Some(at) => {
                    let ms = u64::try_from(at - self.uptime().steady_wall_ms()).unwrap_or(0);
                    let sleep = Duration::from_millis(ms).min(SLEEP_MAX);
                    // Woken earlier by a message that comes first.
                    let _ = tokio::time::timeout(sleep, schedule.changed.notified()).await;
                }
            }
        }
    }
}

/// What a crash left between publishing and forgetting.
async fn forget_published(core: &Core) -> Result<(), Error> {
    let rows = core.rows_handle();
    for group in rows.groups() {
        let place = Place::Group(group);
        let found = rows.scan(&place, Bytes::from_static(&[PUBLISHED]), Bytes::new(), usize::MAX).await?;
        for id in found.iter().filter_map(|row| ScheduleId::of_key(&row.key)) {
            forget(core, id, Some(group)).await?;
        }
    }
    Ok(())
}

/// Removes both rows of a message that was published.
async fn forget(core: &Core, id: ScheduleId, of_marker: Option<GroupId>) -> Result<(), Error> {
    let rows = core.rows_handle();
    rows.transact(&id.place(), Vec::new(), vec![RowWrite::Delete { key: id.key(PREFIX) }]).await?;
    let groups = of_marker.map_or_else(|| rows.groups(), |group| vec![group]);
    for group in groups {
        let delete = vec![RowWrite::Delete { key: id.key(PUBLISHED) }];
        rows.transact(&Place::Group(group), Vec::new(), delete).await?;
    }
    Ok(())
}

/// Reads the rows that are due soon, if that has not been done.
async fn read_ahead(core: &Core) -> Result<(), Error> {
    let schedule = &core.shared().schedule;
    let until = core.uptime().steady_wall_ms().saturating_add(WINDOW_MS);
    {
        let mut state = schedule.state.lock();
        let is_read = !state.read_to.is_empty();
        let is_far = state.beyond.is_none_or(|beyond| beyond > until - WINDOW_MS / 2);
        if is_read && (is_far || state.is_full()) {
            return Ok(());
        }
        // What is added meanwhile notes itself.
        state.beyond = None;
    }
    let mut beyond: Option<i64> = None;
    for group in core.rows_handle().groups() {
        let first = read_group(core, group, until).await?;
        beyond = beyond.into_iter().chain(first).min();
    }
    let mut state = schedule.state.lock();
    state.beyond = state.beyond.into_iter().chain(beyond).min();
    Ok(())
}

/// Reads on in one group; answers when the first row is due that was not read.
async fn read_group(core: &Core, group: GroupId, until: i64) -> Result<Option<i64>, Error> {
    let schedule = &core.shared().schedule;
    let end = ScheduleId { due_ms: until, number: 0 };
    let from = schedule.state.lock().read_to.get(&group).copied();
    let mut from = from.map_or_else(Bytes::new, |read_to| read_to.key(PREFIX));
    let mut count = 0;
    loop {
        let place = Place::Group(group);
        // Below this, whoever adds a row meanwhile adds it to the heap, too; what both add is held once.
        schedule.state.lock().read_to.entry(group).and_modify(|to| *to = end.max(*to)).or_insert(end);
        let rows = core.rows_handle().scan(&place, Bytes::from_static(&[PREFIX]), from, SCAN_ROWS).await?;
        // They may have been in memory: others have their turn.
        tokio::task::yield_now().await;
        let is_last = rows.len() < SCAN_ROWS;
        let mut state = schedule.state.lock();
        for id in rows.iter().filter_map(|row| ScheduleId::of_key(&row.key)) {
            if id >= end || count >= HELD_MAX {
                state.read_to.insert(group, id.min(end));
                return Ok(Some(id.due_ms));
            }
            state.push(id);
            count += 1;
        }
        let Some(last) = rows.last() else { return Ok(None) };
        from = next_key(&last.key);
        if is_last {
            return Ok(None);
        }
    }
}

fn next_key(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

async fn fire(core: &Core, due: Vec<ScheduleId>) {
    let mut published = Vec::new();
    for id in due {
        match begin(core, id).await {
            Ok(Some(outcome)) => published.push((id, outcome)),
            Ok(None) => core.shared().schedule.settled(id),
            Err(error) => again(core, id, &error.kind()),
        }
    }
    for (id, outcome) in published {
        match outcome.await.unwrap_or(Err(ErrorKind::Unavailable)) {
            Ok(group) => settle(core, id, group).await,
            // It can never be published.
            Err(kind @ (ErrorKind::Invalid | ErrorKind::TooLarge)) => {
                warn!(due_ms = id.due_ms, err = %kind, "a scheduled message is refused");
                settle(core, id, None).await;
            }
            Err(kind) => again(core, id, &kind),
        }
    }
}

/// Forgets a message, however long that takes: it must not be published twice. Nothing else is published meanwhile, so that
/// no more than one turn's messages ever wait for this.
async fn settle(core: &Core, id: ScheduleId, group: Option<GroupId>) {
    while let Err(error) = forget(core, id, group).await {
        warn!(due_ms = id.due_ms, err = %error, "a scheduled message that was published cannot be forgotten; trying again");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    core.shared().schedule.settled(id);
}

/// Tries a message again a little later. Its row still has its first due time.
fn again(core: &Core, id: ScheduleId, kind: &ErrorKind) {
    warn!(due_ms = id.due_ms, err = %kind, "a scheduled message could not be published; trying again");
    // Otherwise it is not known whether it was: nobody may be told that it was taken back.
    if !matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout) {
        core.shared().schedule.settled(id);
    }
    let core = core.clone();
    core.clone().spawn(async move {
        tokio::time::sleep(AGAIN_AFTER).await;
        let schedule = &core.shared().schedule;
        schedule.state.lock().push(id);
        schedule.changed.notify_one();
    });
}

/// The group that stores the message, if that is known.
type Fate = Result<Option<GroupId>, ErrorKind>;
type Outcome = oneshot::Receiver<Fate>;

/// Pushes the message, unless it was taken back or published already.
async fn begin(core: &Core, id: ScheduleId) -> Result<Option<Outcome>, Error> {
    let rows = core.rows_handle();
    let Some(row) = rows.get(&id.place(), id.key(PREFIX)).await? else { return Ok(None) };
    let Some(waiting) = decode(row.value) else {
        warn!(due_ms = id.due_ms, "a scheduled message cannot be read; it stays where it is");
        return Ok(None);
    };
    let retain = waiting.retain != Retain::Keep;
    let request = Request::new(Action::Publish, &waiting.subject).retain(retain);
    if !core.shared().access.may_still(&waiting.tenant, &waiting.author, &request) {
        warn!(subject = waiting.subject, "a scheduled message may not be published any more");
        forget(core, id, None).await?;
        return Ok(None);
    }
    if waiting.guarantee == Guarantee::Live {
        // At most once: forgotten first.
        rows.transact(&id.place(), Vec::new(), vec![RowWrite::Delete { key: id.key(PREFIX) }]).await?;
    }
    let (answer, outcome) = oneshot::channel();
    let sink = Rc::new(Once { answer: RefCell::new(Some(answer)), group: RefCell::default() });
    let mut publisher = core.publisher(&waiting.tenant, Rc::clone(&sink) as Rc<dyn Sink>);
    let marker = [RowWrite::Put { key: id.key(PUBLISHED), value: Bytes::new() }];
    let rows = if waiting.guarantee == Guarantee::Durable { &marker[..] } else { &[] };
    let pushed = waiting.with(rows, |message| publisher.push(message));
    match pushed {
        Ok(_) => *sink.group.borrow_mut() = publisher.last_group(),
        Err(kind) => sink.tell_result(Err(kind)),
    }
    Ok(Some(outcome))
}

/// Hears of one message.
struct Once {
    answer: RefCell<Option<oneshot::Sender<Fate>>>,
    group: RefCell<Option<GroupId>>,
}

impl Once {
    fn tell_result(&self, result: Result<(), ErrorKind>) {
        if let Some(answer) = self.answer.borrow_mut().take() {
            let _ = answer.send(result.map(|()| *self.group.borrow()));
        }
    }
}

impl Sink for Once {
    fn tell(&self, event: Event) {
        if let Event::Published(Published { result, .. }) = event {
            self.tell_result(result);
        }
    }
}

type OwnedHeader = (Bytes, Option<Bytes>);

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    tenant: TenantId,
    author: Author,
    subject: String,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<OwnedHeader>,
    guarantee: Guarantee,
    retain: Retain,
}

impl Waiting {
    fn with<R>(&self, rows: &[RowWrite], use_it: impl FnOnce(&Message<'_>) -> R) -> R {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        use_it(&Message {
            subject: &self.subject,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
            guarantee: self.guarantee,
            retain: self.retain,
            rows,
        })
    }
}

fn encode(tenant: &TenantId, message: &Message<'_>, author: &Author) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + message.subject.len() + message.value.map_or(0, <[u8]>::len));
    out.put_u8(VERSION);
    out.put_u8(u8::from(message.guarantee == Guarantee::Durable));
    out.put_u8(match message.retain {
        Retain::Keep => 0,
        Retain::Set => 1,
        Retain::Clear => 2,
    });
    put(&mut out, Some(tenant.as_str().as_bytes()));
    put(&mut out, Some(&author.encode()));
    put(&mut out, Some(message.subject.as_bytes()));
    put(&mut out, message.key);
    put(&mut out, message.value);
    out.put_u32(message.headers.len() as u32);
    for (name, value) in message.headers {
        put(&mut out, Some(name));
        put(&mut out, *value);
    }
    out.freeze()
}

/// A length (all ones: nothing) and that many bytes.
fn put(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.put_u32(bytes.len() as u32);
            out.put_slice(bytes);
        }
        None => out.put_u32(u32::MAX),
    }
}

fn take(input: &mut Bytes) -> Option<Option<Bytes>> {
    let length = input.try_get_u32().ok()?;
    if length == u32::MAX {
        return Some(None);
    }
    let length = length as usize;
    (input.len() >= length).then(|| Some(input.split_to(length)))
}

fn take_text(input: &mut Bytes) -> Option<String> {
    String::from_utf8(take(input)??.into()).ok()
}

fn decode(mut input: Bytes) -> Option<Waiting> {
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    let guarantee = if input.try_get_u8().ok()? == 1 { Guarantee::Durable } else { Guarantee::Live };
    let retain = match input.try_get_u8().ok()? {
        0 => Retain::Keep,
        1 => Retain::Set,
        2 => Retain::Clear,
        _ => return None,
    };
    let tenant = TenantId::new(&take_text(&mut input)?).ok()?;
    let author = Author::decode(&take(&mut input)??)?;
    let subject = take_text(&mut input)?;
    let (key, value) = (take(&mut input)?, take(&mut input)?);
    let count = input.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = take(&mut input)??;
        headers.push((name, take(&mut input)?));
    }
    input.is_empty().then_some(Waiting { tenant, author, subject, key, value, headers, guarantee, retain })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author() -> Author {
        Author::decode(br#"{"c":"c1","a":"10.0.0.1"}"#).unwrap()
    }

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written(
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
            header in proptest::collection::vec((".{0,5}", proptest::option::of(".{0,5}")), 0..4),
            is_durable in any::<bool>(),
        ) {
            let headers: Vec<_> = header
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_ref().map(|value| value.as_bytes())))
                .collect();
            let message = Message {
                subject: "a/b",
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
                guarantee: if is_durable { Guarantee::Durable } else { Guarantee::Live },
                retain: Retain::Set,
                rows: &[],
            };
            let bytes = encode(&TenantId::default(), &message, &author());
            let back = decode(bytes.clone()).unwrap();
            let again = back.with(&[], |message| encode(&back.tenant, message, &back.author));
            prop_assert_eq!(&again, &bytes);
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(bytes.slice(..cut)), None);
            }
        }

        #[test]
        fn an_id_is_read_as_it_was_written(due_ms in 0..i64::MAX, number in any::<u64>()) {
            let id = ScheduleId { due_ms, number };
            prop_assert_eq!(ScheduleId::parse(&id.text()), Some(id));
            prop_assert_eq!(ScheduleId::of_key(&id.key(PREFIX)), Some(id));
        }
    }
}
