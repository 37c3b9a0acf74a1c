//! Storing a ban, and removing those that have ended.

use meta::{Expect, MetaError, Resources, Transaction};
use model::Resource as _;

use crate::access::Access;
use crate::resources::Ban;

/// How long a ban that has ended stays. It keeps nobody out, but does again if the clock was ahead and is put right.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;
/// Bound: bans that have ended and are removed when one is stored. What is left over goes with the next ones.
const REMOVED_AT_ONCE: usize = 100;

/// Stores a ban if what is there is as expected (`None`: whatever is there), and removes bans that ended a day ago or earlier, whoever made them.
/// Answers its version.
///
/// # Errors
/// Those of the Meta Service: the ban is not stored.
pub async fn store_ban(
    access: &Access,
    resources: &Resources,
    ban: &Ban,
    expect: Option<Expect>,
) -> Result<u64, MetaError> {
    let version = resources.put(ban, expect).await?;
    // They keep nobody out: what remains of them now goes another time.
    if let Err(error) = remove_ended(access, resources).await {
        tracing::debug!(err = %error, "bans that have ended could not be removed");
    }
    Ok(version)
}

async fn remove_ended(access: &Access, resources: &Resources) -> Result<(), MetaError> {
    let before = access.shared().now_ms().saturating_sub(KEPT_MS);
    let mut transaction = Transaction::new();
    for key in access.shared().tables.ended_bans(before, REMOVED_AT_ONCE) {
        // It may have been removed or replaced since.
        let known = resources.get::<Ban>(&key).await?;
        if let Some(known) = known.filter(|known| known.resource.has_ended(before)) {
            let path = known.resource.path();
            transaction = transaction.check(path.clone(), Expect::Version(known.version)).delete(path);
        }
    }
    if !transaction.operations.is_empty() {
        resources.store().transact(transaction).await?;
    }
    Ok(())
}
