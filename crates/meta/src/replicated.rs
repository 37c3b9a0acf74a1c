//! `ReplicatedMeta`: the store over consensus, on group 0.

use std::sync::Arc;

use consensus::{GroupHandle, Groups, OpenError};
use model::GroupId;
use rt::{OnFailure, OnShutdown, TaskKind, Tasks};
use storage::journal::{Payload, RecoveredGroup};
use storage::kv::{Kv, KvError};

use crate::command;
use crate::error::{MetaError, WatchError};
use crate::machine::MetaMachine;
use crate::state::{answer, check_transaction};
use crate::store::{MetaFuture, MetaStore, Page, Transaction, Versioned};
use crate::watch::{MetaWatch, Published};

/// Keeps group 0's log short. It holds nothing that anybody waits for.
const PURGER: TaskKind =
    TaskKind { name: "meta purger", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Log };

/// The Meta Service on this node. Usable from any thread; its state machine runs where the groups do.
pub struct ReplicatedMeta {
    group: GroupHandle,
    published: Arc<Published>,
}

/// Why the Meta Service did not start.
#[derive(Debug, thiserror::Error)]
pub enum MetaOpenError {
    /// Its rows cannot be read.
    #[error("the meta service's rows cannot be loaded")]
    Rows(#[from] KvError),
    /// Its group did not start.
    #[error("the meta service's group did not start")]
    Group(#[from] OpenError),
}

impl ReplicatedMeta {
    /// Opens group 0 over its rows and what the journal recovered of it. Belongs on the consensus thread;
    /// resolves when the store serves and has everything that was acknowledged before.
    pub async fn open(
        groups: &Groups,
        recovered: RecoveredGroup,
        kv: Arc<dyn Kv>,
        tasks: &Tasks,
    ) -> Result<ReplicatedMeta, MetaOpenError> {
        let machine = MetaMachine::load(kv)?;
        let (published, flushes) = (machine.published(), machine.flushes());
        let group = groups.open(GroupId::META, recovered, Box::new(machine)).await?;
        let purged = group.clone();
        tasks.spawn(PURGER, "group 0", async move {
            loop {
                flushes.notified().await;
                if purged.purge().await.is_err() {
                    return;
                }
            }
        });
        Ok(ReplicatedMeta { group, published })
    }

    /// The group that it runs on.
    pub fn group(&self) -> &GroupHandle {
        &self.group
    }
}

impl MetaStore for ReplicatedMeta {
    fn get<'a>(&'a self, key: &'a str) -> MetaFuture<'a, Option<Versioned>> {
        Box::pin(async move {
            self.group.read_barrier().await?;
            Ok(self.published.state.read().get(key))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str, limit: usize) -> MetaFuture<'a, Page> {
        Box::pin(async move {
            self.group.read_barrier().await?;
            Ok(self.published.state.read().list(prefix, after, limit))
        })
    }

    fn transact(&self, transaction: Transaction) -> MetaFuture<'_, u64> {
        Box::pin(async move {
            check_transaction(&transaction)?;
            let reply = self.group.propose(Payload::of_head(command::encode(&transaction))).await?;
            // A reply is made by this release's machine on this node: it cannot be unreadable.
            let outcome = command::decode_outcome(&reply).map_err(|_| MetaError::Unknown)?;
            answer(outcome, &transaction.checks)
        })
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<MetaWatch, WatchError> {
        self.published.watch(prefix, after)
    }
}
