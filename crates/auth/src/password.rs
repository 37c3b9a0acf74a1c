//! Password hashes: argon2id for our own, and what Mosquitto writes for imports.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rt::Rng;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

/// Our own cost: 19 MiB, 2 passes, 1 lane (the second of OWASP's equivalent choices; 0.02 s on one core).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_LEN: usize = 32;
const SALT_LEN: usize = 16;

/// Bound: memory that a stored hash may ask for, however it got there.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Bound: passes that a stored hash may ask for.
const PASSES_MAX: u32 = 16;
/// Bound: iterations that a stored hash may ask for.
const ITERATIONS_MAX: u32 = 2_000_000;
/// Bound: bytes of a salt or a hash.
const FIELD_LEN_MAX: usize = 128;

/// What a password is compared with.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// `$argon2id$v=19$m=,t=,p=$salt$hash`.
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
    /// Mosquitto's `$6$salt$hash`: one SHA-512 over password and salt.
    Sha512,
    /// Mosquitto's `$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2Sha512 { iterations: u32 },
}

/// The text is no hash that this release can compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password hash begins with $argon2id$, $6$ or $7$, and keeps to the bounds")]
pub struct NotAHash;

impl PasswordHash {
    /// Hashes a password with argon2id and a new salt. It takes 19 MiB and some 20 ms: not for a serving core.
    pub fn argon2id(password: &[u8], rng: &dyn Rng) -> PasswordHash {
        let scheme = Scheme::Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
        let salt: Vec<u8> =
            std::iter::repeat_with(|| rng.next_u64().to_be_bytes()).flatten().take(SALT_LEN).collect();
        let mut hash = vec![0; HASH_LEN];
        // Nothing but memory can be lacking; what has no hash then is equal to nothing.
        if !compute(scheme, password, &salt, &mut hash) {
            hash.clear();
        }
        PasswordHash { scheme, salt, hash }
    }

    /// Whether this is the password. It takes as long for a wrong one as for the right one.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut computed = vec![0; self.hash.len()];
        let done = compute(self.scheme, password, &self.salt, &mut computed);
        done && !self.hash.is_empty() && bool::from(computed.ct_eq(&self.hash))
    }

    /// Whether comparing takes as long as with those that are made here.
    pub(crate) fn is_of_usual_cost(&self) -> bool {
        self.scheme == Scheme::Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES }
    }

    /// The stored spelling.
    pub fn to_text(&self) -> String {
        match self.scheme {
            Scheme::Argon2id { memory_kib, passes, lanes } => {
                let (salt, hash) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.hash));
                format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
            }
            Scheme::Sha512 => {
                format!("$6${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash))
            }
            Scheme::Pbkdf2Sha512 { iterations } => {
                format!("$7${iterations}${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash))
            }
        }
    }
}

fn compute(scheme: Scheme, password: &[u8], salt: &[u8], hash: &mut [u8]) -> bool {
    match scheme {
        Scheme::Argon2id { memory_kib, passes, lanes } => {
            Params::new(memory_kib, passes, lanes, Some(hash.len())).is_ok_and(|params| {
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, hash).is_ok()
            })
        }
        Scheme::Sha512 => {
            let digest = Sha512::new().chain_update(password).chain_update(salt).finalize();
            hash.copy_from_slice(&digest);
            true
        }
        Scheme::Pbkdf2Sha512 { iterations } => {
            pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, hash);
            true
        }
    }
}

impl FromStr for PasswordHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<PasswordHash, NotAHash> {
        parse(text).ok_or(NotAHash)
    }
}

fn parse(text: &str) -> Option<PasswordHash> {
    let fields: Vec<&str> = text.strip_prefix('$')?.splitn(6, '$').collect();
    let (scheme, salt, hash) = match fields[..] {
        ["argon2id", "v=19", costs, salt, hash] => {
            let mut costs = costs.split(',');
            let mut cost = |name: &str, max: u32| {
                let value: u32 = costs.next()?.strip_prefix(name)?.parse().ok()?;
                (1..=max).contains(&value).then_some(value)
            };
            let memory_kib = cost("m=", MEMORY_KIB_MAX)?;
            let (passes, lanes) = (cost("t=", PASSES_MAX)?, cost("p=", 16)?);
            let (salt, hash) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(hash).ok()?);
            Params::new(memory_kib, passes, lanes, Some(hash.len())).ok()?;
            (costs.next().is_none()).then_some((
                Scheme::Argon2id { memory_kib, passes, lanes },
                salt,
                hash,
            ))?
        }
        ["6", salt, hash] => (Scheme::Sha512, STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?),
        ["7", iterations, salt, hash] => {
            let iterations = iterations.parse().ok().filter(|count| (1..=ITERATIONS_MAX).contains(count))?;
            let scheme = Scheme::Pbkdf2Sha512 { iterations };
            (scheme, STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?)
        }
        _ => return None,
    };
    let whole = match scheme {
        Scheme::Argon2id { .. } => salt.len() >= 8 && hash.len() >= 16,
        Scheme::Sha512 | Scheme::Pbkdf2Sha512 { .. } => !salt.is_empty() && hash.len() == 64,
    };
    let bounded = salt.len() <= FIELD_LEN_MAX && hash.len() <= FIELD_LEN_MAX;
    (whole && bounded).then_some(PasswordHash { scheme, salt, hash })
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?})", self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use rt::SystemRng;

    use super::*;

    #[test]
    fn our_own_hash_is_argon2id_and_reads_back() {
        let hash = PasswordHash::argon2id(b"correct horse", &SystemRng);
        let text = hash.to_text();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let read: PasswordHash = text.parse().unwrap();
        assert!(read.verify(b"correct horse") && read.is_of_usual_cost());
        assert!(!read.verify(b"correct horse ") && !read.verify(b""));
        assert_ne!(
            text,
            PasswordHash::argon2id(b"correct horse", &SystemRng).to_text(),
            "a salt was used twice"
        );
    }

    /// `mosquitto_passwd`'s algorithms, computed with Python's hashlib over the salt `0123456789ab`.
    #[test]
    fn hashes_of_others_are_understood() {
        for (text, password) in [
            (
                "$6$MDEyMzQ1Njc4OWFi$qEXipeLbgxRlwd06QHfY5WITkUZg0jLg9SZbXzq3ifXjfj+v3GbJGrSfC5PAg3UNCS+UFfbhUIZX4bmIAs330w==",
                "secret",
            ),
            (
                "$7$101$MDEyMzQ1Njc4OWFi$EO/lLlkeUgIiBaS8G8UK0ZMP1u508TA7Tl+AdJ1cEsmlbGyEPAERErpfq84j1kepISs0UzmcdL4ucgZ2uodxfQ==",
                "secret",
            ),
        ] {
            let hash: PasswordHash = text.parse().unwrap();
            assert_eq!(hash.to_text(), text);
            assert!(hash.verify(password.as_bytes()), "{text}");
            assert!(!hash.verify(b"Secret") && !hash.is_of_usual_cost());
        }
    }

    #[test]
    fn damaged_and_costly_hashes_are_refused() {
        let hash = PasswordHash::argon2id(b"x", &SystemRng).to_text();
        for text in [
            "",
            "secret",
            "$",
            "$6$",
            "$6$MDEy$MDEy",
            "$7$0$MDEyMzQ1Njc4OWFi$AAAA",
            "$7$4000000000$MDEyMzQ1Njc4OWFi$AAAA",
            "$argon2i$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFi$AAAA",
            &hash.replace("m=19456", "m=4000000"),
            &hash.replace("t=2", "t=1000"),
            &hash.replace("v=19", "v=16"),
            &hash.replace(",p=1", ""),
            &format!("{hash}$x"),
            &hash[..hash.len() - 30],
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(NotAHash), "{text}");
        }
    }
}
