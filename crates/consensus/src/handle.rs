//! `GroupHandle`: what the rest of the house holds of a group.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::{GroupId, NodeId};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use storage::journal::Payload;
use tokio::sync::oneshot;

use crate::apply::{Applier, Progress};
use crate::error::ProposeError;
use crate::health::Health;
use crate::proposals::{Done, Proposals, stopped};
use crate::types::Types;

/// A group on this node. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct GroupHandle {
    shared: Arc<Shared>,
}

struct Shared {
    group: GroupId,
    raft: openraft::Raft<Types, Applier>,
    proposals: Arc<Proposals>,
    progress: Arc<Progress>,
    health: Arc<Health>,
}

/// Where a group stands on this node, as of some recent moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The last index in the log, durable or not.
    pub last_index: Option<u64>,
    /// The last index that was applied and is visible.
    pub applied_index: u64,
    /// The last index that was purged from the log.
    pub purged_index: Option<u64>,
}

impl GroupHandle {
    pub(crate) fn new(
        group: GroupId,
        raft: openraft::Raft<Types, Applier>,
        proposals: Arc<Proposals>,
        progress: Arc<Progress>,
        health: Arc<Health>,
    ) -> GroupHandle {
        GroupHandle { shared: Arc::new(Shared { group, raft, proposals, progress, health }) }
    }

    /// Which group this is.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// Proposes a payload; the future is the machine's reply to it.
    ///
    /// The payload is queued before this returns: entries of one caller have the order of its calls. `Ok`
    /// means that the entry is durable here, committed, applied, and visible to every reader of the machine.
    /// Dropping the future withdraws nothing. Replies of one group come in the order of its entries.
    pub fn propose(
        &self,
        payload: Payload,
    ) -> impl Future<Output = Result<Bytes, ProposeError>> + Send + use<> {
        let (answer, reply) = oneshot::channel();
        self.propose_then(
            payload,
            Box::new(move |outcome| {
                // The proposer may have stopped waiting.
                let _ = answer.send(outcome);
            }),
        );
        let health = self.shared.health.clone();
        async move { reply.await.unwrap_or_else(|_| Err(stopped(&health))) }
    }

    /// As [`propose`](GroupHandle::propose), for the hot path: `done` is called with the machine's reply on the
    /// consensus thread, at the end of the turn that applied the entry. A refusal is told before this returns. `done` must not
    /// block, and must not propose.
    pub fn propose_then(&self, payload: Payload, done: Done) {
        self.shared.proposals.propose(payload, done);
    }

    /// Entries that were handed to Raft and are not applied yet.
    pub fn in_flight(&self) -> usize {
        self.shared.proposals.in_flight()
    }

    /// Whether the disk is full: entries wait for space, and proposals are refused with
    /// [`ProposeError::DiskFull`].
    pub fn is_stalled(&self) -> bool {
        self.shared.health.is_stalled()
    }

    /// Resolves when the disk is full, as [`is_stalled`](GroupHandle::is_stalled) tells it. Costs nothing while it is not.
    pub async fn stalled(&self) {
        loop {
            let changed = self.shared.health.stall_changed.notified();
            if self.is_stalled() {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when an entry proposed now would be written at once: no proposal waits and fewer than
    /// [`Limits::in_flight_max`](crate::Limits) are on their way. Whoever bundles many commands into one
    /// entry waits for this and then bundles what has come in meanwhile.
    pub async fn ready(&self) -> Result<(), ProposeError> {
        self.shared.proposals.ready().await
    }

    /// Resolves when this node is known to lead and its machine has everything that was committed before the
    /// call: a read of the machine afterwards is linearizable. Writes nothing. Returns an applied index that
    /// is at least the barrier's.
    pub async fn read_barrier(&self) -> Result<u64, ProposeError> {
        match self.shared.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(self.shared.progress.applied.load(Ordering::Acquire)),
            Err(RaftError::Fatal(_)) => Err(stopped(&self.shared.health)),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            Err(RaftError::APIError(_)) => Err(ProposeError::NotLeader { leader: None }),
        }
    }

    /// Purges the log up to what the machine reports as flushed. To be called after the machine flushed;
    /// returns when the purge was asked for. A purge is lazy: it is in [`status`](GroupHandle::status) when
    /// it happened, and a crash may undo it.
    pub async fn purge(&self) -> Result<(), ProposeError> {
        self.shared.raft.trigger().snapshot().await.map_err(|_| stopped(&self.shared.health))
    }

    /// Where the group stands.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        GroupStatus {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied_index: self.shared.progress.applied.load(Ordering::Acquire),
            purged_index: metrics.purged.as_ref().map(|id| id.index),
        }
    }
}
