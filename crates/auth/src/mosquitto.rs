//! Import of Mosquitto's password files.

use std::collections::HashSet;

use model::{Resource, TenantId};

use crate::password::PasswordHash;
use crate::resources::User;

/// Bound: bytes of a password file.
const FILE_LEN_MAX: usize = 64 << 20;

/// Why a password file was not imported. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// Reads a file that `mosquitto_passwd` has written: `user:hash` per line; empty lines and those that begin with `#` are
/// skipped. The hashes are taken as they are (`$6$`: salted SHA-512, `$7$`: PBKDF2), so users keep their passwords.
///
/// # Errors
/// At the first line that cannot be taken: a user who is silently left out would be a surprise later.
pub fn import_mosquitto(tenant: &TenantId, file: &[u8]) -> Result<Vec<User>, ImportError> {
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
        users.push(user);
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `mosquitto_passwd` 2.0.11.
    const FILE: &str = "\
# comment
six:$6$qCAl3cR1PB/zq7A+$mvyPWgrDCN3QVhBg3B4tR7gBtM4k4u1uj9ANDet/HtnfltayEKDg7xOxl3aMcsMsZmKye/WDzBU5JFOJy4UF7Q==

seven:$7$101$0GhtkKtplgFE799d$k/ZBjyRO4HbFo/iaZZmpQCoYsEnVWYFkjsbxEk6Unn+Xihr5l4N7vWK7nHUGx0ytRpBE6duXpK4V+FoyoBm8/Q==\r
";

    #[test]
    fn users_keep_their_passwords() {
        let users = import_mosquitto(&TenantId::default(), FILE.as_bytes()).unwrap();
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["six", "seven"]);
        for (user, password) in users.iter().zip(["geheim 6", "geheim:7"]) {
            let hash = user.password.as_ref().unwrap().parse().unwrap();
            assert!(hash.verify(password.as_bytes()) && !hash.verify(b"geheim"), "{}", user.name);
            assert_eq!(User::decode(&user.encode()).as_ref(), Ok(user));
        }
    }

    #[test]
    fn a_line_that_cannot_be_taken_is_named() {
        for (file, error) in [
            ("a", ImportError::Line { line: 1 }),
            ("\n\na:b", ImportError::Hash { line: 3 }),
            ("a:plain password", ImportError::Hash { line: 1 }),
            ("a:$5$AAAA$AAAA", ImportError::Hash { line: 1 }),
        ] {
            assert_eq!(import_mosquitto(&TenantId::default(), file.as_bytes()), Err(error), "{file}");
        }
        let doubled = FILE.repeat(2);
        let refused = import_mosquitto(&TenantId::default(), doubled.as_bytes());
        assert_eq!(refused, Err(ImportError::User { line: 6 }));
        let nameless = FILE.replace("six:", ":");
        let refused = import_mosquitto(&TenantId::default(), nameless.as_bytes());
        assert_eq!(refused, Err(ImportError::User { line: 2 }));
    }
}
