//! The outbox of a core: single messages become one batch per shard and turn, batches become one command per
//! group, and what becomes of them is told to whoever pushed. Hot path.
//!
//! ```text
//!  push ----> open batch (shard, guarantee) --turn ends--> sealed --a flight is free--> Group::submit
//!                                                 \--> live subscribers (at-most-once messages)
//! ```
//!
//! A turn ends when the core has run everything that was ready. While two commands of a group are in flight, the next one
//! fills. What nobody waits for (at-most-once messages, which live subscribers have by then) lingers a little, so that
//! single messages do not cost an entry and a sync each; it goes at once with anything that somebody does wait for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use cluster::{AppendCommand, Command, Group, Reply, SubmitError};
use model::batch::BatchBuilder;
use model::{Error, ErrorKind, ShardId};
use slab::Slab;
use storage::{Append, BatchFlags, kv};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::{Event, Sink};
use crate::delivery::Batch;
use crate::message::{Guarantee, Message, Published, Retain};
use crate::node::{CoreEvent, CoreMailbox, Counters};
use crate::partition::partition;
use crate::rows::RowWrite;
use crate::topic::Topic;
use crate::{gather, retained};

pub use crate::publisher::Publisher;

/// Commands of one core and group that are submitted and not decided.
const FLIGHTS_MAX: usize = 2;
/// How long batches may linger that nobody waits for, and how many bytes of them.
const LINGER: Duration = Duration::from_millis(5);
const LINGER_BYTES_MAX: usize = 64 * 1024;
/// An open batch is sealed at this size at most.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// What a publisher shares with the batches that hold its messages.
pub(crate) struct Account {
    pub(crate) sink: Rc<dyn Sink>,
    /// Bytes pushed and not yet decided.
    pub(crate) bytes: Cell<usize>,
    pub(crate) next_ticket: Cell<u64>,
}

/// Who hears what became of a batch.
enum Waiter {
    /// Messages of a publisher; no tickets if nobody waits for them.
    Publisher { account: Rc<Account>, tickets: std::ops::Range<u64>, bytes: usize },
    /// A caller of `append`.
    Caller(oneshot::Sender<Result<Append, Error>>),
}

struct OpenBatch {
    topic: Arc<Topic>,
    shard: ShardId,
    guarantee: Guarantee,
    builder: BatchBuilder,
    waiters: Vec<Waiter>,
    rows: Vec<kv::Operation>,
    /// About how many bytes `rows` take in an entry.
    rows_bytes: usize,
}

struct Sealed {
    append: AppendCommand,
    waiters: Vec<Waiter>,
    /// About how many bytes its rows take in an entry.
    rows_bytes: usize,
    /// Nobody waits for it.
    may_linger: bool,
}

struct Lane {
    group: Group,
    sealed: Vec<Sealed>,
    flights: usize,
    linger: Linger,
}

impl Lane {
    /// Whether what is sealed waits for company.
    fn lingers(&mut self) -> bool {
        let may = !self.sealed.is_empty() && self.sealed.iter().all(|sealed| sealed.may_linger);
        let bytes = || self.sealed.iter().map(|sealed| sealed.append.batch.len()).sum();
        self.linger.holds(may.then(bytes), Instant::now())
    }
}

/// How long a lane holds back what nobody waits for.
#[derive(Default)]
struct Linger {
    until: Option<Instant>,
}

impl Linger {
    /// Whether to hold back. `bytes`: how much waits; `None` if there is nothing, or somebody waits for some of it.
    fn holds(&mut self, bytes: Option<usize>, now: Instant) -> bool {
        let until = *self.until.get_or_insert(now + LINGER);
        let holds = bytes.is_some_and(|bytes| bytes < LINGER_BYTES_MAX) && now < until;
        if !holds {
            self.until = None;
        }
        holds
    }
}

struct Flight {
    lane: usize,
    /// Bytes of its batches.
    bytes: usize,
    waiters: Vec<Vec<Waiter>>,
}

/// See the file's comment. One per core.
pub(crate) struct Outbox {
    mailbox: Arc<CoreMailbox>,
    open: AHashMap<(ShardId, bool), OpenBatch>,
    /// Sealed batches that live subscribers get at the end of the turn.
    live: Vec<Arc<Batch>>,
    /// An open batch is sealed at this size.
    batch_bytes_max: usize,
    /// Keys of `open` in the order in which they were opened: the same turn always gives the same command.
    order: Vec<(ShardId, bool)>,
    lanes: Vec<Lane>,
    flights: Slab<Flight>,
    /// Bytes of batches that are sealed and not decided.
    backlog: usize,
    /// Wall-clock ms of this turn.
    turn_ms: i64,
    requested: bool,
    waker: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(mailbox: Arc<CoreMailbox>, groups: &[Group]) -> Self {
        let smallest = groups.iter().map(|group| group.command_bytes_max() / 2).min();
        let batch_bytes_max = smallest.unwrap_or(BATCH_BYTES_MAX).min(BATCH_BYTES_MAX);
        let lane = |group: &Group| Lane {
            group: group.clone(),
            sealed: Vec::new(),
            flights: 0,
            linger: Linger::default(),
        };
        Self {
            mailbox,
            open: AHashMap::new(),
            live: Vec::new(),
            batch_bytes_max,
            order: Vec::new(),
            lanes: groups.iter().map(lane).collect(),
            flights: Slab::new(),
            backlog: 0,
            turn_ms: 0,
            requested: false,
            waker: None,
        }
    }

    /// Whether there is something to flush; if not, `waker` is woken when there is.
    pub(crate) fn wants_flush(&mut self, waker: &Waker) -> bool {
        if !self.requested {
            self.waker = Some(waker.clone());
        }
        self.requested
    }

    /// Copies a message into the open batch of its shard. Answers its size there.
    pub(crate) fn push(
        &mut self,
        topic: &Arc<Topic>,
        message: &Message<'_>,
        (account, ticket): (&Rc<Account>, Option<u64>),
        now_ms: impl Fn() -> i64,
    ) {
        if !self.requested {
            self.turn_ms = now_ms();
        }
        let shard = topic.shards[partition(message.key, message.subject.as_bytes(), topic.shards.len())];
        let durable = message.guarantee == Guarantee::Durable;
        let order = &mut self.order;
        let open = self.open.entry((shard, durable)).or_insert_with(|| {
            order.push((shard, durable));
            OpenBatch {
                topic: Arc::clone(topic),
                shard,
                guarantee: message.guarantee,
                builder: BatchBuilder::with_capacity(1024),
                waiters: Vec::new(),
                rows: Vec::new(),
                rows_bytes: 0,
            }
        });
        let before = open.builder.len();
        open.append(message, self.turn_ms);
        let bytes = open.builder.len() - before;
        account.bytes.set(account.bytes.get() + bytes);
        open.wait(account, ticket, bytes);
        let full = open.builder.len() >= self.batch_bytes_max;
        self.request();
        if full {
            self.seal((shard, durable));
        }
    }

    /// Takes a batch as it came from a producer.
    pub(crate) fn append(
        &mut self,
        shard: ShardId,
        batch: Bytes,
    ) -> oneshot::Receiver<Result<Append, Error>> {
        let (answer, outcome) = oneshot::channel();
        let sealed = Sealed {
            append: AppendCommand { shard, flags: BatchFlags::NONE, batch, rows: Vec::new() },
            waiters: vec![Waiter::Caller(answer)],
            rows_bytes: 0,
            may_linger: false,
        };
        match self.lanes.iter_mut().find(|lane| lane.group.id() == shard.home()) {
            Some(lane) => {
                self.backlog += sealed.append.batch.len();
                lane.sealed.push(sealed);
                self.request();
            }
            None => {
                sealed.waiters.into_iter().for_each(|waiter| waiter.tell(&Err(ErrorKind::NotFound)));
            }
        }
        outcome
    }

    /// Ends the turn: seals what is open, submits what has a free flight. Answers the batches that live subscribers
    /// get at once.
    pub(crate) fn flush(&mut self) -> Vec<Arc<Batch>> {
        self.requested = false;
        let mut order = std::mem::take(&mut self.order);
        for key in order.drain(..) {
            self.seal(key);
        }
        self.order = order;
        for lane in 0..self.lanes.len() {
            self.submit(lane);
        }
        std::mem::take(&mut self.live)
    }

    /// Bytes of batches that are sealed and not decided.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    /// When something that lingers has to be flushed.
    pub(crate) fn lingers_until(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| lane.linger.until).min()
    }

    /// Whether all that was pushed is decided.
    pub(crate) fn is_settled(&self) -> bool {
        self.open.is_empty()
            && self.flights.is_empty()
            && self.lanes.iter().all(|lane| lane.sealed.is_empty())
    }

    /// A command was decided: tells everybody who waited, and submits the next one.
    pub(crate) fn decided(&mut self, flight: usize, outcome: &Result<Reply, SubmitError>) {
        let Some(flight) = self.flights.try_remove(flight) else { return };
        self.lanes[flight.lane].flights -= 1;
        self.backlog -= flight.bytes;
        for (i, waiters) in flight.waiters.into_iter().enumerate() {
            let result = match outcome {
                Ok(reply) => reply.appends.get(i).copied().ok_or(ErrorKind::Internal),
                Err(error) => Err(kind_of(*error)),
            };
            waiters.into_iter().for_each(|waiter| waiter.tell(&result));
        }
        self.submit(flight.lane);
    }

    fn request(&mut self) {
        if !self.requested {
            self.requested = true;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn seal(&mut self, key: (ShardId, bool)) {
        let Some(open) = self.open.remove(&key) else { return };
        let bytes = open.builder.finish();
        let is_live = open.guarantee == Guarantee::Live;
        let flags = if is_live { BatchFlags::AT_MOST_ONCE } else { BatchFlags::NONE };
        if is_live {
            self.live.push(Arc::new(Batch::live(open.topic, open.shard, bytes.clone())));
        }
        let may_linger = is_live && open.rows.is_empty();
        let append = AppendCommand { shard: open.shard, flags, batch: bytes, rows: open.rows };
        let sealed = Sealed { append, waiters: open.waiters, rows_bytes: open.rows_bytes, may_linger };
        match self.lanes.iter_mut().find(|lane| lane.group.id() == open.shard.home()) {
            Some(lane) => {
                self.backlog += sealed.append.batch.len();
                lane.sealed.push(sealed);
            }
            None => sealed.waiters.into_iter().for_each(|waiter| waiter.tell(&Err(ErrorKind::NotFound))),
        }
    }

    fn submit(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.flights == FLIGHTS_MAX {
            // A decision comes and submits: no timer has to.
            lane.linger = Linger::default();
            return;
        }
        if lane.lingers() {
            return;
        }
        let bytes_max = lane.group.command_bytes_max() / 4 * 3;
        while lane.flights < FLIGHTS_MAX && !lane.sealed.is_empty() {
            let mut bytes = 0;
            let fits = lane.sealed.iter().take_while(|sealed| {
                bytes += sealed.append.batch.len() + sealed.rows_bytes + 64;
                bytes <= bytes_max
            });
            let count = fits.count().max(1);
            let mut command = Command::default();
            let mut waiters = Vec::with_capacity(count);
            let mut bytes = 0;
            for sealed in lane.sealed.drain(..count) {
                bytes += sealed.append.batch.len();
                command.appends.push(sealed.append);
                waiters.push(sealed.waiters);
            }
            lane.flights += 1;
            let flight = self.flights.insert(Flight { lane: index, bytes, waiters });
            let mailbox = Arc::clone(&self.mailbox);
            lane.group.submit(
                command,
                Box::new(move |outcome| mailbox.post(CoreEvent::Decided { flight, outcome })),
            );
        }
    }
}

impl OpenBatch {
    fn append(&mut self, message: &Message<'_>, timestamp: i64) {
        let captured = !self.topic.config.captures.is_empty();
        let subject = message.subject.as_bytes();
        let headers = message.headers.iter().copied();
        // A message is at most `message_bytes_max` and a batch is sealed long before 2 GiB, where pushing fails.
        let pushed = if captured {
            let said = (model::header_name::SUBJECT.as_bytes(), Some(subject));
            let key = message.key.or(Some(subject));
            self.builder.push(timestamp, key, message.value, headers.chain(std::iter::once(said)))
        } else {
            self.builder.push(timestamp, message.key, message.value, headers)
        };
        debug_assert!(pushed.is_ok());
        match message.retain {
            Retain::Keep => {}
            Retain::Set => {
                self.push_row(retained::put(&self.topic.tenant, message, timestamp));
                gather::note(&self.topic, self.shard).into_iter().for_each(|note| self.push_row(note));
            }
            Retain::Clear => self.push_row(retained::delete(&self.topic.tenant, message.subject)),
        }
        message.rows.iter().cloned().for_each(|row| self.push_row(row));
    }

    fn push_row(&mut self, row: RowWrite) {
        self.rows_bytes += row.size();
        self.rows.push(row.into_kv());
    }

    /// Notes who waits; messages that follow each other share one note.
    fn wait(&mut self, account: &Rc<Account>, ticket: Option<u64>, size: usize) {
        if let Some(Waiter::Publisher { account: last, tickets, bytes }) = self.waiters.last_mut()
            && Rc::ptr_eq(last, account)
        {
            match ticket {
                None if tickets.is_empty() => {
                    *bytes += size;
                    return;
                }
                Some(ticket) if tickets.end == ticket && !tickets.is_empty() => {
                    tickets.end += 1;
                    *bytes += size;
                    return;
                }
                _ => {}
            }
        }
        let tickets = ticket.map_or(0..0, |ticket| ticket..ticket + 1);
        self.waiters.push(Waiter::Publisher { account: Rc::clone(account), tickets, bytes: size });
    }
}

impl Waiter {
    fn tell(self, result: &Result<Append, ErrorKind>) {
        match self {
            Waiter::Publisher { account, tickets, bytes } => {
                account.bytes.set(account.bytes.get().saturating_sub(bytes));
                let result = match result {
                    Ok(Append::Stored { .. } | Append::Duplicate { .. }) => Ok(()),
                    Ok(Append::ShardDropped) => Err(ErrorKind::NotFound),
                    Ok(Append::OutOfOrderSequence | Append::FencedEpoch | Append::AlreadyApplied) => {
                        Err(ErrorKind::Internal)
                    }
                    Err(kind) => Err(*kind),
                };
                account.sink.tell(Event::Published(Published { tickets, result }));
            }
            Waiter::Caller(answer) => {
                // A caller that went away does not undo the append.
                let _ = answer.send(result.map_err(|kind| Error::new(kind, "append a batch")));
            }
        }
    }
}

/// What a caller can do about a command that was not committed.
pub(crate) fn kind_of(error: SubmitError) -> ErrorKind {
    match error {
        SubmitError::Busy | SubmitError::NotLeader => ErrorKind::Unavailable,
        SubmitError::DiskFull => ErrorKind::StorageFull,
        SubmitError::TooLarge => ErrorKind::TooLarge,
        SubmitError::Stopped => ErrorKind::Unavailable,
    }
}

/// A message that waits for its topic.
pub(crate) struct Parked {
    pub(crate) account: Rc<Account>,
    pub(crate) ticket: Option<u64>,
    pub(crate) message: Owned,
}

/// Name and value of a header.
type OwnedHeader = (Box<[u8]>, Option<Box<[u8]>>);

/// A message's own copy.
pub(crate) struct Owned {
    subject: Box<str>,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    headers: Vec<OwnedHeader>,
    guarantee: Guarantee,
    retain: Retain,
    rows: Vec<RowWrite>,
    size: usize,
}

impl Owned {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        Self {
            subject: message.subject.into(),
            key: message.key.map(Into::into),
            value: message.value.map(Into::into),
            headers: message
                .headers
                .iter()
                .map(|(name, value)| ((*name).into(), value.map(Into::into)))
                .collect(),
            guarantee: message.guarantee,
            retain: message.retain,
            rows: message.rows.to_vec(),
            size: message.size() + 64,
        }
    }

    /// Lends the message to `use_it`.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&Message<'_>) -> R) -> R {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        use_it(&Message {
            subject: &self.subject,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
            guarantee: self.guarantee,
            retain: self.retain,
            rows: &self.rows,
        })
    }

    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

impl Parked {
    /// The topic cannot be had.
    pub(crate) fn refuse(self, kind: ErrorKind) {
        let bytes = self.message.size();
        self.account.bytes.set(self.account.bytes.get().saturating_sub(bytes));
        let tickets = self.ticket.map_or(0..0, |ticket| ticket..ticket + 1);
        self.account.sink.tell(Event::Published(Published { tickets, result: Err(kind) }));
    }
}

/// The outbox as a core and its publishers share it.
pub(crate) type SharedOutbox = Rc<RefCell<Outbox>>;

/// Counts one message in.
pub(crate) fn count_in(counters: &Counters) {
    Counters::add(&counters.messages_in, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_lingers_until_its_time_its_bytes_or_company() {
        let mut linger = Linger::default();
        let begun = Instant::now();
        assert!(linger.holds(Some(100), begun));
        assert!(linger.holds(Some(200), begun + LINGER / 2), "more does not make it longer");
        assert!(!linger.holds(Some(200), begun + LINGER));
        assert_eq!(linger.until, None, "no timer is left");
        assert!(linger.holds(Some(100), begun + LINGER * 2), "the next ones linger again");
        assert!(!linger.holds(Some(LINGER_BYTES_MAX), begun + LINGER * 2));
        assert!(linger.holds(Some(100), begun + LINGER * 3));
        assert!(!linger.holds(None, begun + LINGER * 3), "somebody waits");
        assert_eq!(linger.until, None);
    }
}
