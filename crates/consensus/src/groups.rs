//! `Groups`: opens groups over one journal and shuts them down. Each is an openraft instance whose tasks run
//! on the tokio runtime that [`open`](Groups::open) is called on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, ServerState, SnapshotPolicy, StepDownPolicy};
use parking_lot::Mutex;
use rt::{OnFailure, OnShutdown, TaskHandle, TaskKind, Tasks};
use storage::journal::{Journal, RecoveredGroup};

use crate::apply::Applier;
use crate::codec;
use crate::error::{OpenError, ProposeError};
use crate::handle::GroupHandle;
use crate::health::{Cause, Health};
use crate::log::{GroupLog, LogIndex, Shape, Slot, Stripe, Writer};
use crate::machine::StateMachine;
use crate::peers::Peers;
use crate::proposals::{Limits, Proposals, stopped};
use crate::types::{LogId, StoredMembership, Types, log_id};

type Raft = openraft::Raft<Types, Applier>;

/// A group's own task. It ends when [`Groups::shutdown`] has closed the group and all answers were given.
const GROUP: TaskKind =
    TaskKind { name: "group", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Shutdown };

/// The groups of one journal on this node.
///
/// # Threads
///
/// [`open`](Groups::open) and [`shutdown`](Groups::shutdown) belong on the consensus thread: a tokio
/// `current_thread` runtime with its time driver enabled, which may as well be the single thread of a
/// simulation. The tasks of a group, its proposer and its machine run there. Handles work from any thread. An
/// idle group has no timer: with one voter there is nobody to send heartbeats to and nobody to elect.
pub struct Groups {
    node: NodeId,
    stripe: Stripe,
    tasks: Tasks,
    limits: Limits,
    config: Arc<Config>,
    open: Mutex<BTreeMap<GroupId, Option<Running>>>,
}

struct Running {
    raft: Raft,
    proposals: Arc<Proposals>,
    task: TaskHandle,
    health: Arc<Health>,
}

impl Groups {
    /// No groups yet, on a journal that is `node`'s.
    pub fn new(node: NodeId, journal: Arc<Journal>, tasks: Tasks, limits: Limits) -> Groups {
        let (stripe, config) = (Stripe::new(journal), Arc::new(config()));
        Groups { node, stripe, tasks, limits, config, open: Mutex::new(BTreeMap::new()) }
    }

    /// Starts a group from what the journal recovered of it (`RecoveredGroup::default()` where it knows
    /// nothing) and a machine with its state as of the last run. Resolves when this node leads the group and
    /// the machine has every entry that can have been acknowledged before: the group serves.
    pub async fn open(
        &self,
        group: GroupId,
        recovered: RecoveredGroup,
        machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, OpenError> {
        self.reserve(group)?;
        let opened = self.start(group, recovered, machine).await;
        let mut open = self.open.lock();
        match opened {
            Ok((handle, running)) => {
                open.insert(group, Some(running));
                Ok(handle)
            }
            Err(error) => {
                open.remove(&group);
                Err(error)
            }
        }
    }

    /// Stops all groups: proposals that were taken are written and answered, new ones are refused. The
    /// journal stays open. Afterwards a group may be opened again.
    pub async fn shutdown(&self) {
        let running: Vec<Running> = std::mem::take(&mut *self.open.lock()).into_values().flatten().collect();
        for group in &running {
            group.proposals.close();
        }
        for mut group in running {
            group.task.ended().await;
            group.health.fail(Cause::Stopped);
            let _ = group.raft.shutdown().await;
        }
    }

    fn reserve(&self, group: GroupId) -> Result<(), OpenError> {
        match self.open.lock().entry(group) {
            MapEntry::Vacant(free) => {
                free.insert(None);
                Ok(())
            }
            MapEntry::Occupied(_) => Err(OpenError::AlreadyOpen(group)),
        }
    }

    async fn start(
        &self,
        group: GroupId,
        recovered: RecoveredGroup,
        machine: Box<dyn StateMachine>,
    ) -> Result<(GroupHandle, Running), OpenError> {
        let health = Arc::new(Health::default());
        let index = self.index(recovered)?;
        let applied = applied_id(&index, machine.applied())?;
        self.check_voter(&index)?;
        let log = GroupLog::new(group, self.stripe.clone(), index, health.clone());
        let writer = log.writer();
        let applier =
            Applier::new(machine, self.stripe.journal.clone(), log.reader(), health.clone(), applied);
        let progress = applier.progress();
        let raft = Raft::new(self.node.0, self.config.clone(), Peers, log, applier)
            .await
            .map_err(|_| OpenError::Stopped(stopped(&health)))?;
        let proposals = Proposals::new(self.limits, self.stripe.entry_bytes_max(), health.clone());
        let handle =
            GroupHandle::new(group, raft.clone(), proposals.clone(), progress.clone(), health.clone());
        lead(&raft, self.node, &handle).await.map_err(OpenError::Stopped)?;
        progress.serving.store(true, Ordering::Release);
        let task = run(proposals.clone(), raft.clone(), writer);
        let task = self.tasks.spawn(GROUP, group.0.to_string(), task);
        Ok((handle, Running { raft, proposals, task, health }))
    }

    /// The index of a recovered log. Only membership entries are read; there are few.
    fn index(&self, recovered: RecoveredGroup) -> Result<LogIndex, OpenError> {
        if let Some((first, last)) = recovered.gaps().first().copied() {
            return Err(OpenError::Gap { first, last });
        }
        let mut index = LogIndex::new(self.limits.cached_bytes_max);
        index.vote = recovered.vote.map(|vote| codec::decode_vote(&vote.head)).transpose()?;
        let note = recovered.committed.map(|note| codec::decode_note(&note.head)).transpose()?;
        let note = note.unwrap_or_default();
        let purged = recovered.purged.map(|purged| log_id(purged.term, purged.index));
        let in_force = |purged: &LogId| note.membership.log_id().as_ref() <= Some(purged);
        let membership = match &purged {
            Some(purged) if in_force(purged) => note.membership.clone(),
            Some(_) | None => StoredMembership::default(),
        };
        index.begin(purged, membership);
        for entry in recovered.entries {
            let at = entry.position.index;
            let shape =
                Shape::from_word(entry.position.node).ok_or(codec::Damaged { what: "entry's shape" })?;
            let membership = match shape {
                Shape::Command | Shape::Blank => None,
                Shape::Membership => {
                    let read = self.stripe.journal.read_payload(entry.location);
                    let payload = read.map_err(|source| OpenError::Unreadable { index: at, source })?;
                    Some(codec::decode_membership(&payload.head)?)
                }
            };
            index.push(
                Slot { term: entry.position.term, shape, location: Some(entry.location), payload: None },
                membership,
            );
        }
        // A hint may name entries that a power failure took back.
        index.committed = note.committed.filter(|id| index.log_id(id.index).as_ref() == Some(id));
        Ok(index)
    }

    fn check_voter(&self, index: &LogIndex) -> Result<(), OpenError> {
        let membership = index.membership_at(u64::MAX);
        let mine = membership.voter_ids().eq([self.node.0]);
        if index.last().is_none() || mine { Ok(()) } else { Err(OpenError::NotVoter { node: self.node }) }
    }
}

async fn run(proposals: Arc<Proposals>, raft: Raft, writer: Writer) {
    tokio::select! {
        () = proposals.run(raft) => {}
        never = writer.keep_writing() => match never {},
    }
}

/// Where a machine stands in the log, if the log can carry it on from there.
fn applied_id(index: &LogIndex, applied: u64) -> Result<Option<LogId>, OpenError> {
    let purged = index.purged().map(|id| id.index);
    if let Some(purged) = purged.filter(|purged| *purged > applied) {
        return Err(OpenError::MachineBehind { applied, purged });
    }
    match index.log_id(applied) {
        // 0 means that nothing was applied. Entry 0 is consensus' own, so that to apply it again changes
        // nothing.
        Some(id) if applied > 0 || purged.is_some() => Ok(Some(id)),
        Some(_) => Ok(None),
        None if applied == 0 => Ok(None),
        None => Err(OpenError::LogBehind { applied, last: index.last().map(|id| id.index) }),
    }
}

/// Makes this node the leader, at once: it is the only voter, so nobody has to time out first.
async fn lead(raft: &Raft, node: NodeId, handle: &GroupHandle) -> Result<(), ProposeError> {
    let stopped = |_| ProposeError::Stopped;
    if raft.is_initialized().await.map_err(stopped)? {
        raft.trigger().elect(false).await.map_err(stopped)?;
    } else {
        // Of the errors only a stopped group is possible: the log is empty and the voter is this node.
        raft.initialize([(node.0, ())].into_iter().collect::<BTreeMap<_, _>>())
            .await
            .map_err(|_| ProposeError::Stopped)?;
    }
    let mut metrics = raft.server_metrics();
    // Not `current_leader`: until the election begins that may still be this node in its last life.
    while metrics.borrow_and_update().state != ServerState::Leader {
        metrics.changed().await.map_err(|_| ProposeError::Stopped)?;
    }
    handle.read_barrier().await.map(drop)
}

/// openraft's settings for a group with one voter: nothing happens unless somebody proposes.
fn config() -> Config {
    Config {
        cluster_name: String::new(),
        // No heartbeats to nobody, no election by time: `lead` triggers the one election. A cluster turns
        // these on.
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::Never,
        // What the machine reports as flushed decides what is purged, and then all of it is.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        // The proposer keeps a few entries in flight: long channels would only hold memory.
        api_channel_size: Some(256),
        notification_channel_size: Some(1024),
        ..Config::default()
    }
}
