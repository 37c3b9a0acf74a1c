//! `User`: somebody whom the broker itself can recognise.

use std::fmt;

use bytes::BytesMut;
use model::{Resource, ResourceError, TenantId};
use serde::{Deserialize, Serialize};

use super::{check_name, read, tenant_text, write};
use crate::password::PasswordHash;
use crate::scram::StoredKeys;

/// Bound: groups of a user.
const GROUPS_MAX: usize = 64;

/// A user of a tenant. Its key is `tenant/name`.
///
/// It holds no password, only what one can be compared with. A user with neither hash nor keys exists for its groups and
/// for its certificate, and no password is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Whose user it is.
    #[serde(with = "tenant_text")]
    pub tenant: TenantId,
    /// The name it logs in with, 1 to 255 bytes without control characters.
    pub name: String,
    /// What its password is compared with.
    pub password: Option<PasswordText>,
    /// What a proof of SCRAM-SHA-256 is compared with.
    pub scram_sha_256: Option<StoredKeys>,
    /// What a proof of SCRAM-SHA-512 is compared with.
    pub scram_sha_512: Option<StoredKeys>,
    /// Whether it may do everything that no rule denies, and administer the cluster whatever rules say.
    pub superuser: bool,
    /// Whether it is locked out. Its connections end, too.
    pub disabled: bool,
    /// Groups that permissions may name.
    pub groups: Vec<String>,
}

/// A password's hash in its stored spelling: `$argon2id$...`, or Mosquitto's `$6$...` and `$7$...`. It is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordText(String);

impl PasswordText {
    /// What it says, if it says something.
    pub(crate) fn parse(&self) -> Option<PasswordHash> {
        self.0.parse().ok()
    }
}

impl From<&PasswordHash> for PasswordText {
    fn from(hash: &PasswordHash) -> PasswordText {
        PasswordText(hash.to_text())
    }
}

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText")
    }
}

impl User {
    /// A user who has no password yet, and no rights.
    pub fn new(tenant: TenantId, name: impl Into<String>) -> User {
        User {
            tenant,
            name: name.into(),
            password: None,
            scram_sha_256: None,
            scram_sha_512: None,
            superuser: false,
            disabled: false,
            groups: Vec::new(),
        }
    }

    /// Whether it can administer with nothing but its name and password, whatever else is stored.
    pub(crate) fn can_administer(&self) -> bool {
        self.superuser && !self.disabled && self.password.is_some()
    }

    /// The same user with this password.
    #[must_use]
    pub fn with_password(mut self, hash: &PasswordHash) -> User {
        self.password = Some(hash.into());
        self
    }
}

impl Resource for User {
    const KIND: &'static str = "user";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<User, ResourceError> {
        read(User::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = |field, rule| ResourceError::Invalid { kind: User::KIND, field, rule };
        check_name(User::KIND, "name", &self.name)?;
        if self.password.as_ref().is_some_and(|password| password.parse().is_none()) {
            return Err(invalid("password", "must be a hash of a known kind"));
        }
        let keys = [&self.scram_sha_256, &self.scram_sha_512];
        if keys.into_iter().zip([32, 64]).any(|(keys, len)| keys.as_ref().is_some_and(|k| !k.is_of(len))) {
            return Err(invalid("scram", "must be keys of this mechanism"));
        }
        if self.groups.len() > GROUPS_MAX {
            return Err(invalid("groups", "must be at most 64"));
        }
        self.groups.iter().try_for_each(|group| check_name(User::KIND, "groups", group))
    }
}
