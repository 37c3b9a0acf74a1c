//! Changes of users, of which none takes the last operator away.

use meta::{Expect, Known, MetaError, Resources, Transaction};
use model::Resource as _;

use crate::resources::User;

/// Users that are read at once.
const PAGE_USERS: usize = 1000;

/// Why a user was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeUserError {
    /// Nobody else could administer afterwards.
    #[error(
        "no other superuser has a password and is not disabled, so that nobody could administer afterwards"
    )]
    LastSuperuser,
    /// The store does not answer, or refuses the change. A conflict names the user's own key if it was changed since it was read.
    #[error(transparent)]
    Store(#[from] MetaError),
}

/// Stores what a user is to become since it was read; `None` removes it. Answers the store's revision after it.
///
/// Of the superusers of a tenant who have a password and are not disabled, one always stays: bans and permissions do not
/// stand in its way, so that there is somebody who can mend what was stored by mistake. That holds also when several are taken
/// away at once: each change is made only if the one that stays is as it was.
///
/// # Errors
/// [`ChangeUserError`]; then nothing was changed, or [`MetaError`] says that it is not known.
pub async fn change_user(
    resources: &Resources,
    before: &Known<User>,
    after: Option<&User>,
) -> Result<u64, ChangeUserError> {
    let path = before.resource.path();
    let mut transaction = Transaction::new().check(path.clone(), Expect::Version(before.version));
    if before.resource.can_administer() && !after.is_some_and(User::can_administer) {
        let stays = another(resources, &before.resource).await?.ok_or(ChangeUserError::LastSuperuser)?;
        transaction = transaction.check(stays.resource.path(), Expect::Version(stays.version));
    }
    let transaction = match after {
        Some(user) => transaction.put_resource(user)?,
        None => transaction.delete(path),
    };
    Ok(resources.store().transact(transaction).await?)
}

/// Another user of the tenant who can administer.
async fn another(resources: &Resources, user: &User) -> Result<Option<Known<User>>, MetaError> {
    let (prefix, mut after) = (format!("{}/", user.tenant), String::new());
    loop {
        let page = resources.list::<User>(&prefix, &after, PAGE_USERS).await?;
        let can = |known: &Known<User>| known.resource.can_administer() && known.resource.name != user.name;
        match (page.resources.into_iter().find(can), page.next) {
            (None, Some(next)) => after = next,
            (found, _) => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meta::{MemoryMeta, MetaFuture, MetaStore, MetaWatch, Page, Versioned, WatchError};
    use model::TenantId;
    use rt::SystemRng;

    use super::*;
    use crate::password::PasswordHash;

    async fn store(resources: &Resources, user: User) -> Known<User> {
        let version = resources.put(&user, None).await.unwrap();
        Known { resource: user, version }
    }

    fn superuser(name: &str) -> User {
        let hash = PasswordHash::argon2id(b"s3cret", &SystemRng);
        User { superuser: true, ..User::new(TenantId::default(), name).with_password(&hash) }
    }

    #[tokio::test]
    async fn the_last_superuser_who_can_log_in_stays_one() {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let root = store(&resources, superuser("root")).await;
        let elsewhere = TenantId::new("other").unwrap();
        for unable in [
            User { disabled: true, ..superuser("disabled") },
            User { password: None, ..superuser("without") },
            User { superuser: false, ..superuser("usual") },
            User { tenant: elsewhere, ..superuser("else") },
        ] {
            store(&resources, unable).await;
        }
        let demoted = User { superuser: false, ..root.resource.clone() };
        let disabled = User { disabled: true, ..root.resource.clone() };
        for after in [None, Some(&demoted), Some(&disabled)] {
            let refused = change_user(&resources, &root, after).await;
            assert_eq!(refused, Err(ChangeUserError::LastSuperuser), "{after:?}");
        }
        store(&resources, superuser("second")).await;
        change_user(&resources, &root, Some(&demoted)).await.unwrap();
        let demoted = resources.get::<User>("default/root").await.unwrap().unwrap();
        change_user(&resources, &demoted, None).await.unwrap();
    }

    /// A store in which others have their turn between a listing and what is made of it.
    struct Unhurried(MemoryMeta);

    impl MetaStore for Unhurried {
        fn get<'a>(&'a self, key: &'a str) -> MetaFuture<'a, Option<Versioned>> {
            self.0.get(key)
        }

        fn list<'a>(&'a self, prefix: &'a str, after: &'a str, limit: usize) -> MetaFuture<'a, Page> {
            Box::pin(async move {
                let page = self.0.list(prefix, after, limit).await;
                tokio::task::yield_now().await;
                page
            })
        }

        fn transact(&self, transaction: Transaction) -> MetaFuture<'_, u64> {
            self.0.transact(transaction)
        }

        fn watch(&self, prefix: &str, after: u64) -> Result<MetaWatch, WatchError> {
            self.0.watch(prefix, after)
        }
    }

    #[tokio::test]
    async fn two_who_find_each_other_do_not_both_go() {
        let resources = Resources::new(Arc::new(Unhurried(MemoryMeta::new())));
        let known = [store(&resources, superuser("a")).await, store(&resources, superuser("b")).await];
        let [a, b] = &known;
        let (of_a, of_b) = tokio::join!(change_user(&resources, a, None), change_user(&resources, b, None));
        // Each found the other one, who was to stay.
        let (gone, refused) = if of_a.is_ok() { (0, of_b) } else { (1, of_a) };
        let moved = MetaError::Conflict { key: known[gone].resource.path(), found: None };
        assert_eq!(refused, Err(ChangeUserError::Store(moved)));
        let left = resources.list::<User>("", "", 10).await.unwrap().resources;
        assert_eq!(left, [known[1 - gone].clone()]);
    }
}
