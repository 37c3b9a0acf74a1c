//! The kinds of resource that access control keeps in the Meta Service: users, permissions, bans.
//!
//! A body is JSON with the fields of the struct in their order, so that equal resources give equal bytes. A field that this
//! release does not know makes it unreadable, and what cannot be read closes the door (`follow.rs`).

mod ban;
mod permission;
mod user;

pub use ban::{Ban, Banned, Network};
pub(crate) use ban::{glob_matches, holds};
pub use permission::{Permission, Who};
pub use user::{PasswordText, User};

use bytes::{BufMut, BytesMut};
use model::ResourceError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bound: bytes of the name of a user, a group or a client in a resource.
pub(crate) const NAME_LEN_MAX: usize = 255;

fn write<T: Serialize>(resource: &T, body: &mut BytesMut) {
    // Strings and numbers always have a form in JSON; an empty body would be refused when it is read.
    let _ = serde_json::to_writer(body.writer(), resource);
}

fn read<T: DeserializeOwned>(kind: &'static str, body: &[u8]) -> Result<T, ResourceError> {
    serde_json::from_slice(body).map_err(|_| ResourceError::Malformed { kind, field: "body" })
}

/// The rule for names that are part of a key.
fn check_name(kind: &'static str, field: &'static str, name: &str) -> Result<(), ResourceError> {
    const RULE: &str = "must have 1 to 255 bytes without control characters";
    let legal = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if legal { Ok(()) } else { Err(ResourceError::Invalid { kind, field, rule: RULE }) }
}

/// A tenant's name as a text.
mod tenant_text {
    use model::TenantId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(tenant: &TenantId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(tenant.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TenantId, D::Error> {
        TenantId::new(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}
