//! `CountedTopic`: a topic or filter whose messages are counted, as it is stored.

use bytes::BytesMut;
use model::{Resource, ResourceError, TenantId};
use serde::{Deserialize, Serialize};

use super::{read, write};
use crate::observe::is_countable;

/// Bound: bytes of a filter. It is part of a key.
const COUNTED_LEN_MAX: usize = 512;

/// A filter whose messages every node counts. Its key is `tenant/filter`: there is nothing to it but that it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedTopic {
    /// Whose messages are counted.
    pub tenant: String,
    /// The topic or filter as clients write it, 1 to 512 bytes.
    pub filter: String,
}

impl CountedTopic {
    /// Bound: filters of a tenant. Those with wildcards are looked at one by one for each message.
    pub const COUNT_MAX: usize = 512;

    /// In the default tenant.
    pub fn new(filter: impl Into<String>) -> CountedTopic {
        CountedTopic { tenant: TenantId::DEFAULT.to_owned(), filter: filter.into() }
    }
}

impl Resource for CountedTopic {
    const KIND: &'static str = "counted_topic";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.filter)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<CountedTopic, ResourceError> {
        read(CountedTopic::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = |field, rule| Err(ResourceError::Invalid { kind: CountedTopic::KIND, field, rule });
        if TenantId::new(&self.tenant).is_err() {
            return invalid("tenant", "must be the name of a tenant");
        }
        if self.filter.len() > COUNTED_LEN_MAX || !is_countable(&self.filter) {
            return invalid("filter", "must be a topic or a filter, not a shared one, of at most 512 bytes");
        }
        Ok(())
    }
}
