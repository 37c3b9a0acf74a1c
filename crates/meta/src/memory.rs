//! `MemoryMeta`: the store without replication or durability, for tests of whoever uses one.

use std::sync::Arc;

use crate::error::WatchError;
use crate::state::{State, answer, check_transaction};
use crate::store::{MetaFuture, MetaStore, Page, Transaction, Versioned};
use crate::watch::{MetaWatch, Published};

/// A store in memory.
pub struct MemoryMeta {
    published: Arc<Published>,
}

impl Default for MemoryMeta {
    fn default() -> MemoryMeta {
        MemoryMeta { published: Published::new(State::default()) }
    }
}

impl MemoryMeta {
    /// An empty store.
    pub fn new() -> MemoryMeta {
        MemoryMeta::default()
    }
}

impl MetaStore for MemoryMeta {
    fn get<'a>(&'a self, key: &'a str) -> MetaFuture<'a, Option<Versioned>> {
        Box::pin(async move { Ok(self.published.state.read().get(key)) })
    }

    fn list<'a>(&'a self, prefix: &'a str, after: &'a str, limit: usize) -> MetaFuture<'a, Page> {
        Box::pin(async move { Ok(self.published.state.read().list(prefix, after, limit)) })
    }

    fn transact(&self, transaction: Transaction) -> MetaFuture<'_, u64> {
        Box::pin(async move {
            check_transaction(&transaction)?;
            let checks = transaction.checks.clone();
            let (outcome, changes) = self.published.state.write().apply(transaction);
            if changes.is_some() {
                self.published.announce();
            }
            answer(outcome, &checks)
        })
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<MetaWatch, WatchError> {
        self.published.watch(prefix, after)
    }
}

impl Drop for MemoryMeta {
    fn drop(&mut self) {
        self.published.stop();
    }
}
