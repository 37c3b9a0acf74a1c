//! Users that settings make: the first one of a cluster, and the one by which operators come in again who have lost the way.

use std::io;

use meta::{Expect, MetaError, Resources};
use model::{Resource as _, TenantId};

use crate::credentials::{NEW_PASSWORD_BYTES, Secret};
use crate::passwords::Passwords;
use crate::resources::{PasswordText, User};

/// What became of the wish for a first user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstUser {
    /// It was created.
    Created,
    /// Nothing was done: there is a user, this one or another.
    NotNeeded,
}

/// What became of the wish to recover a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveredUser {
    /// It is a superuser with this password now.
    Recovered,
    /// It was already.
    NotNeeded,
}

/// Why settings do not make a user.
#[derive(Debug, thiserror::Error)]
pub enum FirstUserError {
    /// The store does not answer, or refuses the user.
    #[error("users cannot be read or written")]
    Meta(#[from] MetaError),
    /// The password was not to be had.
    #[error("the password cannot be read")]
    Password(#[source] io::Error),
    /// It cannot be a password.
    #[error("the password must have 1 to 1024 bytes")]
    Length,
    /// Too many comparisons wait.
    #[error("too many passwords wait to be compared")]
    Busy,
}

/// Creates a superuser of the default tenant, if there is no user at all, in no tenant, disabled ones included. Otherwise it does
/// nothing, so that settings which stay where they are give nobody a broker that is set up; who wants that says so ([`recover_user`]). The
/// password is asked for only if it is needed.
///
/// Belongs before anybody is served, and before [`Access::open`](crate::Access::open), so that no client finds the broker open
/// meanwhile.
///
/// # Errors
/// [`FirstUserError`]; then there is no such user, or [`MetaError`] says that it is not known.
pub async fn create_first_user(
    resources: &Resources,
    passwords: &Passwords,
    name: &str,
    password: impl FnOnce() -> io::Result<Secret>,
) -> Result<FirstUser, FirstUserError> {
    if !resources.list::<User>("", "", 1).await?.resources.is_empty() {
        return Ok(FirstUser::NotNeeded);
    }
    let password = usable(password())?;
    let user = User { superuser: true, ..User::new(TenantId::default(), name) };
    let user = passwords.give(user, password.expose()).await.map_err(|_| FirstUserError::Busy)?;
    resources.put(&user, Some(Expect::Absent)).await?;
    Ok(FirstUser::Created)
}

/// Makes a user of the default tenant a superuser with this password, and not disabled, whatever it was; its groups stay. One that is
/// not there is created. Nothing is written if it is all that already, so that a setting that was forgotten changes nothing at each start.
///
/// Belongs before anybody is served, like [`create_first_user`].
///
/// # Errors
/// [`FirstUserError`]; then the user is as it was, or [`MetaError`] says that it is not known.
pub async fn recover_user(
    resources: &Resources,
    passwords: &Passwords,
    name: &str,
    password: io::Result<Secret>,
) -> Result<RecoveredUser, FirstUserError> {
    let password = usable(password)?;
    let new = User::new(TenantId::default(), name);
    let known = resources.get::<User>(&new.key()).await?;
    let expect = known.as_ref().map_or(Expect::Absent, |known| Expect::Version(known.version));
    let user = known.map_or(new, |known| known.resource);
    if user.can_administer() {
        let hash = user.password.as_ref().and_then(PasswordText::parse);
        let is_right = passwords.verify(hash, password.expose().to_vec()).await;
        if is_right.map_err(|_| FirstUserError::Busy)? {
            return Ok(RecoveredUser::NotNeeded);
        }
    }
    let user = User { superuser: true, disabled: false, ..user };
    let user = passwords.give(user, password.expose()).await.map_err(|_| FirstUserError::Busy)?;
    resources.put(&user, Some(expect)).await?;
    Ok(RecoveredUser::Recovered)
}

fn usable(password: io::Result<Secret>) -> Result<Secret, FirstUserError> {
    let password = password.map_err(FirstUserError::Password)?;
    if NEW_PASSWORD_BYTES.contains(&password.expose().len()) {
        Ok(password)
    } else {
        Err(FirstUserError::Length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meta::MemoryMeta;
    use rt::SystemRng;

    use super::*;
    use crate::offload_to_blocking_threads;

    fn desk() -> (Resources, Passwords) {
        let passwords = Passwords::new(offload_to_blocking_threads(), 1, Arc::new(SystemRng));
        (Resources::new(Arc::new(MemoryMeta::new())), passwords)
    }

    fn given(password: &str) -> io::Result<Secret> {
        Ok(Secret::new(password.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn it_is_created_once_and_is_a_superuser() {
        let (resources, passwords) = desk();
        let first = create_first_user(&resources, &passwords, "root", || given("s3cret")).await;
        assert_eq!(first.unwrap(), FirstUser::Created);
        let root = resources.get::<User>("default/root").await.unwrap().unwrap();
        let hash = root.resource.password.as_ref().unwrap().parse().unwrap();
        assert!(hash.verify(b"s3cret") && root.resource.superuser && root.resource.scram_sha_256.is_some());
        for name in ["root", "other"] {
            let again = create_first_user(&resources, &passwords, name, || panic!("it is not asked for"));
            assert_eq!(again.await.unwrap(), FirstUser::NotNeeded);
        }
        assert_eq!(resources.list::<User>("", "", 10).await.unwrap().resources, [root]);
    }

    #[tokio::test]
    async fn whoever_exists_is_enough() {
        let (resources, passwords) = desk();
        let elsewhere = TenantId::new("other").unwrap();
        let locked = User { disabled: true, ..User::new(elsewhere, "x") };
        resources.put(&locked, None).await.unwrap();
        let first = create_first_user(&resources, &passwords, "root", || given("s3cret")).await;
        assert_eq!(first.unwrap(), FirstUser::NotNeeded);
    }

    #[tokio::test]
    async fn a_user_is_recovered_from_whatever_it_was() {
        let (resources, passwords) = desk();
        let groups = vec!["g".to_owned()];
        let locked = User { disabled: true, groups, ..User::new(TenantId::default(), "root") };
        resources.put(&locked, None).await.unwrap();
        for name in ["root", "new"] {
            let recovered = recover_user(&resources, &passwords, name, given("s3cret")).await;
            assert_eq!(recovered.unwrap(), RecoveredUser::Recovered);
            let user = resources.get::<User>(&format!("default/{name}")).await.unwrap().unwrap();
            let hash = user.resource.password.as_ref().unwrap().parse().unwrap();
            assert!(hash.verify(b"s3cret") && user.resource.can_administer());
            assert_eq!(user.resource.groups.is_empty(), name == "new");
            // At the next start it is as wished, and has its version still.
            let again = recover_user(&resources, &passwords, name, given("s3cret")).await;
            assert_eq!(again.unwrap(), RecoveredUser::NotNeeded);
            assert_eq!(resources.get::<User>(&format!("default/{name}")).await.unwrap(), Some(user));
        }
        let other = recover_user(&resources, &passwords, "root", given("other")).await;
        assert_eq!(other.unwrap(), RecoveredUser::Recovered);
        let empty = recover_user(&resources, &passwords, "root", given("")).await;
        assert!(matches!(empty, Err(FirstUserError::Length)));
    }

    #[tokio::test]
    async fn without_a_password_there_is_none() {
        let (resources, passwords) = desk();
        let lost = || Err(io::Error::from(io::ErrorKind::NotFound));
        let first = create_first_user(&resources, &passwords, "root", lost).await;
        assert!(matches!(first, Err(FirstUserError::Password(_))));
        for password in ["", &"x".repeat(1025)] {
            let first = create_first_user(&resources, &passwords, "root", || given(password)).await;
            assert!(matches!(first, Err(FirstUserError::Length)));
        }
        let first = create_first_user(&resources, &passwords, "a\nb", || given("s3cret")).await;
        assert!(matches!(first, Err(FirstUserError::Meta(MetaError::Resource(_)))));
        assert!(resources.list::<User>("", "", 1).await.unwrap().resources.is_empty());
    }
}
