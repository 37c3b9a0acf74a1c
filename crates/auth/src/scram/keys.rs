//! What is stored of a user for SCRAM: nothing that could be used to log in somewhere else.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rt::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

/// Iterations of new keys. RFC 7677 asks for 4,096 at least; clients pay this at each login.
const ITERATIONS: u32 = 8_192;
/// Bound: iterations of stored keys. More would only keep the clients busy.
const ITERATIONS_MAX: u32 = 1_000_000;
const SALT_LEN: usize = 16;
const SALT_LEN_MAX: usize = 128;

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Mechanism {
    /// The mechanism's registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM-SHA-256",
            Mechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of a registered name. The `-PLUS` ones bind to the channel, and are not offered.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        [Mechanism::Sha256, Mechanism::Sha512].into_iter().find(|mechanism| mechanism.name() == name)
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Mechanism::Sha256 => 32,
            Mechanism::Sha512 => 64,
        }
    }

    pub(super) fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Mechanism::Sha256 => Sha256::digest(bytes).to_vec(),
            Mechanism::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    pub(crate) fn hmac(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length: there is no error to be had.
        match self {
            Mechanism::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| mac.chain_update(bytes).finalize().into_bytes().to_vec())
                .unwrap_or_default(),
            Mechanism::Sha512 => Hmac::<Sha512>::new_from_slice(key)
                .map(|mac| mac.chain_update(bytes).finalize().into_bytes().to_vec())
                .unwrap_or_default(),
        }
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut salted = vec![0; self.len()];
        match self {
            Mechanism::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted),
            Mechanism::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut salted),
        }
        salted
    }
}

/// The stored half of a password: salt, iterations, StoredKey and ServerKey. Not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKeys {
    #[serde(with = "base64_text")]
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
    #[serde(with = "base64_text")]
    pub(super) stored_key: Vec<u8>,
    #[serde(with = "base64_text")]
    pub(super) server_key: Vec<u8>,
}

impl StoredKeys {
    /// Derives the keys of a password with a new salt. It takes some milliseconds: not for a serving core.
    pub fn derive(mechanism: Mechanism, password: &[u8], rng: &dyn Rng) -> StoredKeys {
        let salt: Vec<u8> =
            std::iter::repeat_with(|| rng.next_u64().to_be_bytes()).flatten().take(SALT_LEN).collect();
        StoredKeys::derive_with(mechanism, password, salt, ITERATIONS)
    }

    pub(super) fn derive_with(
        mechanism: Mechanism,
        password: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> StoredKeys {
        let salted = mechanism.salted(password, &salt, iterations);
        StoredKeys {
            salt,
            iterations,
            stored_key: mechanism.hash(&mechanism.hmac(&salted, b"Client Key")),
            server_key: mechanism.hmac(&salted, b"Server Key"),
        }
    }

    /// Keys for somebody who does not exist: always the same for one name, so that asking twice reveals nothing.
    pub(crate) fn of_nobody(mechanism: Mechanism, secret: &[u8], user: &str) -> StoredKeys {
        let mut salt = mechanism.hmac(secret, user.as_bytes());
        let stored_key = mechanism.hmac(&salt, secret);
        salt.truncate(SALT_LEN);
        StoredKeys { salt, iterations: ITERATIONS, server_key: stored_key.clone(), stored_key }
    }

    /// Whether these are whole keys of a mechanism whose hash has `len` bytes.
    pub(crate) fn is_of(&self, len: usize) -> bool {
        self.stored_key.len() == len
            && self.server_key.len() == len
            && (1..=SALT_LEN_MAX).contains(&self.salt.len())
            && (1..=ITERATIONS_MAX).contains(&self.iterations)
    }

    pub(super) fn salt_text(&self) -> String {
        STANDARD.encode(&self.salt)
    }
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKeys")
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
