//! The bridge from openraft's state machine to ours: payloads are fetched, replies wait for the end of the
//! turn, snapshots are bounded by what is flushed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;
use storage::journal::Journal;

use crate::health::{Cause, Health};
use crate::log::Reader;
use crate::machine::{Committed, MachineFailed, StateMachine};
use crate::types::{Command, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, term_of};

/// Bound: entries of one turn. Replies wait for the end of their turn, and other groups for this one's.
const TURN_MAX: usize = 64;

/// One group's state machine as openraft drives it.
pub(crate) struct Applier {
    /// Behind a lock only because openraft wants `Sync`; it is reached through `get_mut`.
    machine: Mutex<Box<dyn StateMachine>>,
    journal: Arc<Journal>,
    log: Reader,
    health: Arc<Health>,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: Arc<Progress>,
}

/// What others may know of a running applier.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Last applied index.
    pub(crate) applied: AtomicU64,
    /// Set once the group serves: until then nobody wants a snapshot's content.
    pub(crate) serving: AtomicBool,
}

/// A snapshot that is only a promise: everything up to its position survives without the log.
pub(crate) struct Bound(SnapshotMeta);

impl Applier {
    /// A machine whose state is as of `applied`.
    pub(crate) fn new(
        machine: Box<dyn StateMachine>,
        journal: Arc<Journal>,
        log: Reader,
        health: Arc<Health>,
        applied: Option<LogId>,
    ) -> Applier {
        let membership =
            applied.as_ref().map(|id| log.index(|index| index.membership_at(id.index))).unwrap_or_default();
        let progress = Arc::new(Progress::default());
        progress.applied.store(applied.as_ref().map_or(0, |id| id.index), Ordering::Release);
        Applier { machine: Mutex::new(machine), journal, log, health, applied, membership, progress }
    }

    /// What others may watch.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Gives one entry to the machine, or keeps it if it is consensus' own.
    fn apply_one(&mut self, entry: Entry) -> Result<Bytes, io::Error> {
        let (index, term) = (entry.log_id.index, term_of(&entry.log_id));
        let reply = match entry.payload {
            EntryPayload::Blank => Bytes::new(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Bytes::new()
            }
            EntryPayload::Normal(Command { payload, location }) => {
                let location = location.ok_or_else(|| io::Error::other("an entry that is not durable"))?;
                let payload = match payload {
                    Some(payload) => payload,
                    // Only after a restart, or where a group lags by more than its cache: this blocks the
                    // thread for one read.
                    None => self.journal.read_payload(location).map_err(io::Error::other)?,
                };
                self.machine.get_mut().apply(Committed { index, term, payload, location })
            }
        };
        self.applied = Some(entry.log_id);
        Ok(reply)
    }

    fn end_turn(&mut self) -> Result<(), io::Error> {
        let Some(applied) = self.applied.as_ref().map(|id| id.index) else { return Ok(()) };
        let ended = self.machine.get_mut().turn_ended(applied);
        ended.map_err(|error| self.failed(error))?;
        self.progress.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn failed(&self, error: MachineFailed) -> io::Error {
        self.health.fail(Cause::MachineFailed);
        io::Error::other(error)
    }

    /// The position up to which the log is not needed: never beyond what was applied, so that openraft sees
    /// no snapshot that is newer than the machine.
    fn flushed(&mut self) -> Option<LogId> {
        let applied = self.applied?;
        let flushed = self.machine.get_mut().flushed();
        if flushed >= applied.index { Some(applied) } else { self.log.index(|index| index.log_id(flushed)) }
    }

    fn meta(&self, last: LogId) -> SnapshotMeta {
        let in_force = self.membership.log_id().as_ref().is_some_and(|id| id.index <= last.index);
        let last_membership = if in_force {
            self.membership.clone()
        } else {
            self.log.index(|index| index.membership_at(last.index))
        };
        SnapshotMeta { last_log_id: Some(last), last_membership }
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Bound;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut replies = Vec::new();
        loop {
            let mut turn = 0;
            while turn < TURN_MAX
                && let Some(item) = entries.next().await
            {
                let (entry, responder) = item?;
                let reply = self.apply_one(entry)?;
                replies.extend(responder.map(|responder| (responder, reply)));
                turn += 1;
            }
            if turn == 0 {
                return Ok(());
            }
            self.end_turn()?;
            rt::failpoint("log.applied");
            for (responder, reply) in replies.drain(..) {
                responder.send(reply);
            }
            if turn < TURN_MAX {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn get_snapshot_builder(&mut self) -> Bound {
        let flushed = self.flushed();
        Bound(flushed.map(|last| self.meta(last)).unwrap_or_default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let applied = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let restored = self.machine.get_mut().restore(applied, snapshot);
        restored.map_err(|error| self.failed(error))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.log.index(|index| index.adopt_membership(meta.last_membership.clone()));
        self.progress.applied.store(applied, Ordering::Release);
        Ok(())
    }

    /// A snapshot is made when somebody wants it. While the group starts, openraft asks only for the
    /// position.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.progress.serving.load(Ordering::Acquire) {
            let flushed = self.flushed();
            return Ok(flushed.map(|last| Snapshot { meta: self.meta(last), snapshot: Bytes::new() }));
        }
        let Some(applied) = self.applied else { return Ok(None) };
        let taken = self.machine.get_mut().checkpoint();
        let snapshot = taken.map_err(|error| self.failed(error))?;
        Ok(Some(Snapshot { meta: self.meta(applied), snapshot }))
    }
}

impl RaftSnapshotBuilder<Types> for Bound {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: Bytes::new() })
    }
}
