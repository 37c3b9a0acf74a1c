//! The kinds of resource of this front: rules that operators store, rather than write into settings.
//!
//! A body is JSON with the fields of the struct in their order, so that equal resources give equal bytes. A field that this
//! release does not know makes it unreadable. What cannot be read is left out, and said ([`Rules`](crate::Rules)).

mod auto_subscription;
mod counted_topic;
mod rewrite_rule;
#[cfg(test)]
mod tests;

pub use auto_subscription::{AutoSubscription, SendRetained};
pub use counted_topic::CountedTopic;
pub use rewrite_rule::RewriteRule;

use bytes::{BufMut, BytesMut};
use model::{ResourceError, TenantId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bound: bytes of the name of a resource.
const NAME_LEN_MAX: usize = 255;

/// What rules are tried against.
const FILTER_RULE: &str = "must be a filter of MQTT, of at most 1024 bytes";
/// Bound: bytes of a filter, or of the topic that a rule gives.
const FILTER_LEN_MAX: usize = 1024;

fn write<T: Serialize>(resource: &T, body: &mut BytesMut) {
    // Strings and numbers always have a form in JSON; an empty body would be refused when it is read.
    let _ = serde_json::to_writer(body.writer(), resource);
}

fn read<T: DeserializeOwned>(kind: &'static str, body: &[u8]) -> Result<T, ResourceError> {
    serde_json::from_slice(body).map_err(|_| ResourceError::Malformed { kind, field: "body" })
}

/// The rules for what a key is made of.
fn check_key(kind: &'static str, tenant: &str, name: &str) -> Result<(), ResourceError> {
    if TenantId::new(tenant).is_err() {
        return Err(ResourceError::Invalid { kind, field: "tenant", rule: "must be the name of a tenant" });
    }
    if !(1..=NAME_LEN_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
        let rule = "must have 1 to 255 bytes without control characters";
        return Err(ResourceError::Invalid { kind, field: "name", rule });
    }
    Ok(())
}
