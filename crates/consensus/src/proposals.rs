//! The bounded queue between whoever proposes, on any thread, and the one task per group that writes to
//! openraft. Performance critical: two short locks per entry (an entry is a bundle, not a message).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use model::NodeId;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use storage::journal::Payload;
use tokio::sync::Notify;

use crate::apply::Applier;
use crate::error::ProposeError;
use crate::health::{Cause, Health};
use crate::types::{Answer, Command, Types};

/// The bounds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries that may be on their way to the journal at once. Default 4: one syncs, one is in the next
    /// frame, one is applied, one is being made.
    pub in_flight_max: usize,
    /// Proposals that may wait behind them. Default 1024.
    pub waiting_max: usize,
    /// Bytes of payload that may wait or be on their way. Default 32 MiB. One proposal is always taken.
    pub bytes_max: usize,
    /// Bytes of durable payloads that are kept until they are applied. Default 16 MiB. Beyond it they are
    /// read back from the journal.
    pub cached_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { in_flight_max: 4, waiting_max: 1024, bytes_max: 32 << 20, cached_bytes_max: 16 << 20 }
    }
}

/// The proposals of one group.
pub(crate) struct Proposals {
    state: Mutex<State>,
    /// There is something to write, or a reason to stop.
    work: Notify,
    limits: Limits,
    entry_bytes_max: usize,
    health: Arc<Health>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    in_flight: usize,
    /// Of both.
    bytes: usize,
    closed: bool,
}

struct Waiting {
    payload: Payload,
    ticket: Ticket,
}

impl Proposals {
    pub(crate) fn new(limits: Limits, entry_bytes_max: usize, health: Arc<Health>) -> Arc<Proposals> {
        Arc::new(Proposals {
            state: Mutex::new(State::default()),
            work: Notify::new(),
            limits,
            entry_bytes_max,
            health,
        })
    }

    /// Queues a payload. The order of calls is the order of entries. A refusal is told before this returns.
    pub(crate) fn propose(self: &Arc<Self>, payload: Payload, done: Done) {
        if let Err((refused, done)) = self.queue(payload, done) {
            done(Err(refused));
        }
    }

    fn queue(self: &Arc<Self>, payload: Payload, done: Done) -> Result<(), (ProposeError, Done)> {
        let bytes = payload.encoded_len();
        if let Err(refused) = self.check(bytes) {
            return Err((refused, done));
        }
        {
            let mut state = self.state.lock();
            if state.closed || self.health.cause().is_some() {
                return Err((stopped(&self.health), done));
            }
            let over = state.bytes > 0 && state.bytes + bytes > self.limits.bytes_max;
            if over || state.waiting.len() >= self.limits.waiting_max {
                return Err((ProposeError::Full, done));
            }
            state.bytes += bytes;
            let ticket = Ticket { proposals: self.clone(), done: Some(done), bytes, in_flight: false };
            state.waiting.push_back(Waiting { payload, ticket });
        }
        self.work.notify_one();
        Ok(())
    }

    fn check(&self, bytes: usize) -> Result<(), ProposeError> {
        if bytes > self.entry_bytes_max {
            return Err(ProposeError::TooLarge { bytes, max: self.entry_bytes_max });
        }
        if self.health.is_stalled() {
            return Err(ProposeError::DiskFull);
        }
        Ok(())
    }

    /// Entries that are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.lock().in_flight
    }

    /// Resolves when a proposal made now would be written at once: nothing waits and the window has room.
    pub(crate) async fn ready(&self) -> Result<(), ProposeError> {
        loop {
            let room = self.health.changed.notified();
            {
                let state = self.state.lock();
                if state.closed || self.health.cause().is_some() {
                    return Err(stopped(&self.health));
                }
                if self.health.is_stalled() {
                    return Err(ProposeError::DiskFull);
                }
                if state.waiting.is_empty() && state.in_flight < self.limits.in_flight_max {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Takes no more proposals. Those that are queued are still written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
        self.health.changed.notify_waiters();
    }

    /// Writes proposals until the queue is closed and everything was answered.
    pub(crate) async fn run(self: Arc<Self>, raft: openraft::Raft<Types, Applier>) {
        loop {
            let work = self.work.notified();
            while let Some(Waiting { payload, ticket }) = self.next() {
                let answer = Answer(Box::new(move |outcome| ticket.finish(outcome)));
                // On an error the group has stopped: the answer was dropped, and the ticket in it has told
                // the proposer.
                let written = raft.client_write_ff(Command::proposed(payload), Some(answer)).await;
                if written.is_err() {
                    self.health.fail(Cause::Stopped);
                }
            }
            if self.drained() {
                return;
            }
            work.await;
        }
    }

    /// The next proposal, if the window has room.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        if state.in_flight >= self.limits.in_flight_max {
            return None;
        }
        let mut next = state.waiting.pop_front()?;
        next.ticket.in_flight = true;
        state.in_flight += 1;
        Some(next)
    }

    fn drained(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.in_flight == 0 && state.waiting.is_empty()
    }

    fn release(&self, ticket: &Ticket) {
        let mut state = self.state.lock();
        state.bytes -= ticket.bytes;
        state.in_flight -= usize::from(ticket.in_flight);
        let work = state.closed || !state.waiting.is_empty();
        drop(state);
        if work {
            self.work.notify_one();
        }
        self.health.changed.notify_waiters();
    }
}

/// Told once what became of a proposal. Must not block, and must not propose.
pub type Done = Box<dyn FnOnce(Result<Bytes, ProposeError>) + Send>;

/// A proposer's claim to an answer. Dropped unanswered, it says why the group stopped.
struct Ticket {
    proposals: Arc<Proposals>,
    done: Option<Done>,
    bytes: usize,
    in_flight: bool,
}

impl Ticket {
    fn finish(mut self, outcome: ClientWriteResult<Types>) {
        self.answer(outcome.map(|written| written.data).map_err(refusal));
    }

    fn answer(&mut self, reply: Result<Bytes, ProposeError>) {
        if let Some(done) = self.done.take() {
            done(reply);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let cause = stopped(&self.proposals.health);
        self.answer(Err(cause));
        self.proposals.release(self);
    }
}

/// Why a group gives no more answers.
pub(crate) fn stopped(health: &Health) -> ProposeError {
    match health.cause() {
        None | Some(Cause::Stopped) => ProposeError::Stopped,
        Some(Cause::JournalSealed) => ProposeError::JournalSealed,
        Some(Cause::MachineFailed) => ProposeError::MachineFailed,
    }
}

fn refusal(error: ClientWriteError<Types>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }) => {
            ProposeError::NotLeader { leader: leader_id.map(NodeId) }
        }
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown,
        // Neither is asked for by a proposal.
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::Unknown
        }
    }
}
