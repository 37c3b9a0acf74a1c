//! openraft's own suite for log stores and state machines, on a real journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model::GroupId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use rt::SimDisk;

use super::{GroupLog, LogIndex, Stripe};
use crate::apply::Applier;
use crate::fixture::{Tally, TestJournal};
use crate::health::Health;
use crate::types::Types;

/// Each store is a new group of one journal.
struct Builder {
    stripe: Stripe,
    groups: AtomicU32,
}

impl StoreBuilder<Types, GroupLog, Applier> for Builder {
    async fn build(&self) -> Result<((), GroupLog, Applier), StorageError<Types>> {
        let group = GroupId(self.groups.fetch_add(1, Ordering::Relaxed));
        let health = Arc::new(Health::default());
        let log = GroupLog::new(group, self.stripe.clone(), LogIndex::new(1 << 20), health.clone());
        let journal = self.stripe.journal.clone();
        let applier = Applier::new(Box::new(Tally::default()), journal, log.reader(), health, None);
        applier.progress().serving.store(true, Ordering::Release);
        Ok(((), log, applier))
    }
}

async fn run(journal: &TestJournal) {
    let (journal, _) = journal.open(GroupId(0));
    let builder = Builder { stripe: Stripe::new(journal), groups: AtomicU32::new(0) };
    Suite::test_all(builder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_on_a_real_disk() {
    run(&TestJournal::new()).await;
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_on_a_simulated_disk() {
    run(&TestJournal::Simulated(SimDisk::new())).await;
}
