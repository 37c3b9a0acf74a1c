//! Import of Mosquitto's password files.

use std::collections::{HashMap, HashSet};

use meta::{Expect, Known, MetaError, Resources, Transaction};
use model::{Resource, TenantId};

use crate::password::PasswordHash;
use crate::resources::User;

/// Bound: bytes of a password file.
const FILE_LEN_MAX: usize = 64 << 20;

/// Bound: users of one transaction; each is a check and a put.
const PIECE_USERS: usize = 512;

/// Users of the tenant that are read at once.
const PAGE: usize = 1000;

/// What happens with users of the file who exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is imported if there is one.
    Refused,
    /// They get the password of the file, and no other counts any more, over SCRAM either. What else they have stays.
    Replaced,
}

/// What was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Users who are new.
    pub created: usize,
    /// Users who existed and have another password now.
    pub replaced: usize,
    /// The revision of the Meta Service after it; 0 if the file names nobody.
    pub revision: u64,
}

/// Why a password file was not imported. But for [`ImportError::Store`], nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// More than 64 MiB.
    #[error("the password file has more than 64 MiB")]
    TooLarge,
    /// A line is not `user:hash`.
    #[error("line {line} is not a user, a colon and a hash")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// The hash is of an unknown kind, or the file holds the password itself.
    #[error("the password in line {line} is not hashed with $6$, $7$ or $argon2id$: run mosquitto_passwd -U")]
    Hash {
        /// Its number, from 1.
        line: usize,
    },
    /// A user's name breaks our rule, or comes twice.
    #[error("the user in line {line} has no legal name, or was named before")]
    User {
        /// Its number, from 1.
        line: usize,
    },
    /// A user exists, and such are refused.
    #[error("the user in line {line} exists already")]
    Exists {
        /// Its number, from 1.
        line: usize,
    },
    /// The users cannot be read.
    #[error("the users that exist cannot be read")]
    Read(#[source] MetaError),
    /// The users before this line are imported. Whether those of the next 512 are, the source says; the rest are not.
    #[error("the import stopped at line {line}; what stands before it was imported")]
    Store {
        /// Its number, from 1.
        line: usize,
        /// Why.
        #[source]
        source: MetaError,
    },
}

/// Stores the users of a file that `mosquitto_passwd` has written: `user:hash` per line; empty lines and those that begin with
/// `#` are skipped. The hashes are taken as they are (`$6$`: salted SHA-512, `$7$`: PBKDF2), so users keep their passwords.
///
/// The whole file is checked first, and whether its users exist. Up to 512 users are then stored in one transaction: all
/// or nothing, whatever happens. More are stored in several, in their order, so that the process may end (or the future be dropped)
/// between two of them; importing the file again with [`Existing::Replaced`] completes it.
///
/// # Errors
/// At the first line that cannot be taken: a user who is silently left out would be a surprise later.
pub async fn import_mosquitto(
    resources: &Resources,
    tenant: &TenantId,
    file: &[u8],
    existing: Existing,
) -> Result<Imported, ImportError> {
    let users = read_mosquitto(tenant, file)?;
    let known = known_among(resources, tenant, &users).await.map_err(ImportError::Read)?;
    let taken = users.iter().find(|(_, user)| known.contains_key(&user.name));
    if let (Existing::Refused, Some(&(line, _))) = (existing, taken) {
        return Err(ImportError::Exists { line });
    }
    let mut imported = Imported { replaced: known.len(), created: users.len() - known.len(), revision: 0 };
    for piece in users.chunks(PIECE_USERS) {
        let line = piece.first().map_or(0, |(line, _)| *line);
        let stored = store(resources, piece, &known).await;
        imported.revision = stored.map_err(|source| ImportError::Store { line, source })?;
    }
    Ok(imported)
}

/// The users of a password file, each with the number of its line. Nothing is stored.
///
/// # Errors
/// As for [`import_mosquitto`], but for those of the store.
pub fn read_mosquitto(tenant: &TenantId, file: &[u8]) -> Result<Vec<(usize, User)>, ImportError> {
    if file.len() > FILE_LEN_MAX {
        return Err(ImportError::TooLarge);
    }
    let mut users = Vec::new();
    let mut names = HashSet::new();
    for (at, bytes) in file.split(|&byte| byte == b'\n').enumerate() {
        let line = at + 1;
        let text = str::from_utf8(bytes).map_err(|_| ImportError::Line { line })?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, hash) = text.split_once(':').ok_or(ImportError::Line { line })?;
        let hash: PasswordHash = hash.trim_end().parse().map_err(|_| ImportError::Hash { line })?;
        let user = User::new(tenant.clone(), name).with_password(&hash);
        if user.validate().is_err() || !names.insert(name) {
            return Err(ImportError::User { line });
        }
        users.push((line, user));
    }
    Ok(users)
}

/// Those of the users who exist, by name.
async fn known_among(
    resources: &Resources,
    tenant: &TenantId,
    users: &[(usize, User)],
) -> Result<HashMap<String, Known<User>>, MetaError> {
    let names: HashSet<&str> = users.iter().map(|(_, user)| user.name.as_str()).collect();
    let (prefix, mut after) = (format!("{tenant}/"), String::new());
    let mut known = HashMap::new();
    loop {
        let page = resources.list::<User>(&prefix, &after, PAGE).await?;
        let named = page.resources.into_iter().filter(|one| names.contains(one.resource.name.as_str()));
        known.extend(named.map(|one| (one.resource.name.clone(), one)));
        match page.next {
            Some(next) => after = next,
            None => return Ok(known),
        }
    }
}

/// Stores some users in one transaction, if all that exist are as they were read.
async fn store(
    resources: &Resources,
    piece: &[(usize, User)],
    known: &HashMap<String, Known<User>>,
) -> Result<u64, MetaError> {
    let mut transaction = Transaction::new();
    for (_, user) in piece {
        let (user, expect) = match known.get(&user.name) {
            // Keys for SCRAM are of the password that it had.
            Some(Known { resource, version }) => (
                User {
                    password: user.password.clone(),
                    scram_sha_256: None,
                    scram_sha_512: None,
                    ..resource.clone()
                },
                Expect::Version(*version),
            ),
            None => (user.clone(), Expect::Absent),
        };
        transaction = transaction.check(user.path(), expect).put_resource(&user)?;
    }
    resources.store().transact(transaction).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meta::MemoryMeta;
    use rt::SystemRng;

    use super::*;
    use crate::scram::{Mechanism, StoredKeys};

    /// Written by `mosquitto_passwd` 2.0.11.
    const FILE: &str = "\
# comment
six:$6$qCAl3cR1PB/zq7A+$mvyPWgrDCN3QVhBg3B4tR7gBtM4k4u1uj9ANDet/HtnfltayEKDg7xOxl3aMcsMsZmKye/WDzBU5JFOJy4UF7Q==

seven:$7$101$0GhtkKtplgFE799d$k/ZBjyRO4HbFo/iaZZmpQCoYsEnVWYFkjsbxEk6Unn+Xihr5l4N7vWK7nHUGx0ytRpBE6duXpK4V+FoyoBm8/Q==\r
";

    fn is_password(user: &User, password: &str) -> bool {
        user.password.as_ref().unwrap().parse().unwrap().verify(password.as_bytes())
    }

    async fn import(resources: &Resources, file: &str, existing: Existing) -> Result<Imported, ImportError> {
        import_mosquitto(resources, &TenantId::default(), file.as_bytes(), existing).await
    }

    async fn names(resources: &Resources) -> Vec<String> {
        let page = resources.list::<User>("", "", 10_000).await.unwrap();
        page.resources.into_iter().map(|known| known.resource.name).collect()
    }

    #[tokio::test]
    async fn users_keep_their_passwords() {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let imported = import(&resources, FILE, Existing::Refused).await;
        assert_eq!(imported, Ok(Imported { created: 2, replaced: 0, revision: 1 }));
        for (name, password) in [("six", "geheim 6"), ("seven", "geheim:7")] {
            let user = resources.get::<User>(&format!("default/{name}")).await.unwrap().unwrap().resource;
            assert!(is_password(&user, password) && !is_password(&user, "geheim"), "{name}");
        }
        assert_eq!(import(&resources, "# nobody\n", Existing::Refused).await, Ok(Imported::default()));
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_taken_is_named_and_nothing_is_stored() {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let nameless = FILE.replace("six:", ":");
        for (file, error) in [
            ("a", ImportError::Line { line: 1 }),
            ("\n\na:b", ImportError::Hash { line: 3 }),
            ("a:plain password", ImportError::Hash { line: 1 }),
            ("a:$5$AAAA$AAAA", ImportError::Hash { line: 1 }),
            (&format!("{FILE}a"), ImportError::Line { line: 5 }),
            (&FILE.repeat(2), ImportError::User { line: 6 }),
            (&nameless, ImportError::User { line: 2 }),
        ] {
            assert_eq!(import(&resources, file, Existing::Replaced).await, Err(error), "{file}");
        }
        assert!(names(&resources).await.is_empty());
    }

    #[tokio::test]
    async fn who_exists_is_refused_or_gets_the_password_of_the_file_and_keeps_the_rest() {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let before = User {
            scram_sha_256: Some(StoredKeys::derive(Mechanism::Sha256, b"old", &SystemRng)),
            superuser: true,
            groups: vec!["g".to_owned()],
            ..User::new(TenantId::default(), "seven")
        };
        resources.put(&before, None).await.unwrap();
        let refused = import(&resources, FILE, Existing::Refused).await;
        assert_eq!(refused, Err(ImportError::Exists { line: 4 }));
        assert_eq!(names(&resources).await, ["seven"]);
        let imported = import(&resources, FILE, Existing::Replaced).await;
        assert_eq!(imported, Ok(Imported { created: 1, replaced: 1, revision: 2 }));
        let after = resources.get::<User>("default/seven").await.unwrap().unwrap().resource;
        assert!(is_password(&after, "geheim:7"));
        assert_eq!(User { password: None, ..after }, User { scram_sha_256: None, ..before });
    }

    #[tokio::test]
    async fn a_file_of_any_length_is_stored_or_refused_as_a_whole() {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let hash = FILE.lines().find_map(|line| line.strip_prefix("six:")).unwrap();
        let file: String = (0..2 * PIECE_USERS + 1).map(|n| format!("u{n:05}:{hash}\n")).collect();
        resources.put(&User::new(TenantId::default(), "u01024"), None).await.unwrap();
        let refused = import(&resources, &file, Existing::Refused).await;
        assert_eq!(refused, Err(ImportError::Exists { line: 1025 }));
        assert_eq!(resources.store().list("", "", 1).await.unwrap().revision, 1);
        let imported = import(&resources, &file, Existing::Replaced).await;
        assert_eq!(imported, Ok(Imported { created: 2 * PIECE_USERS, replaced: 1, revision: 4 }));
        assert_eq!(names(&resources).await.len(), 2 * PIECE_USERS + 1);
    }
}
