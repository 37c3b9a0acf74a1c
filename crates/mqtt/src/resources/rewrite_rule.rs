//! `RewriteRule`: a rule that gives topics and filters another name, as it is stored.

use bytes::BytesMut;
use model::{Resource, ResourceError};
use serde::{Deserialize, Serialize};

use super::{FILTER_LEN_MAX, FILTER_RULE, check_key, read, write};
use crate::rewrite::{Rewrite, RewriteAction, RewriteError};

/// Bound: bytes of a regular expression as it is written. What it becomes has a bound of its own ([`Rewrite::new`]).
const PATTERN_LEN_MAX: usize = 1024;

/// A [`Rewrite`] of a tenant. Its key is `tenant/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteRule {
    /// Whose rule it is.
    pub tenant: String,
    /// What it is called, 1 to 255 bytes without control characters.
    pub name: String,
    /// Rules with smaller numbers are tried first; of equal ones, the one whose name comes first in byte order.
    #[serde(default)]
    pub order: u32,
    /// What it applies to.
    pub action: RewriteAction,
    /// Which topics and filters it is for.
    pub filter: String,
    /// A regular expression that has to match, too. Empty: it always does.
    #[serde(default)]
    pub pattern: String,
    /// The new name, with `$1` to `$99` for what groups of the pattern matched, and placeholders of the client.
    pub topic: String,
}

impl RewriteRule {
    /// Bound: rules of a tenant. Each is tried for each message until one matches.
    pub const COUNT_MAX: usize = 512;

    /// The rule in it, ready to be applied.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`] with the field that is none.
    pub(crate) fn rewrite(&self) -> Result<Rewrite, ResourceError> {
        let invalid = |field, rule| ResourceError::Invalid { kind: RewriteRule::KIND, field, rule };
        Rewrite::new(self.action, &self.filter, &self.pattern, &self.topic).map_err(|error| match error {
            RewriteError::Fields => invalid("action", "must be publish, subscribe or all"),
            RewriteError::Filter => invalid("filter", FILTER_RULE),
            RewriteError::Pattern(_) => {
                invalid("pattern", "must be a regular expression that takes at most 1 MiB of memory")
            }
            RewriteError::Template(_) => {
                invalid("topic", "has placeholders ${clientid}, ${username} and ${host}, and no others")
            }
            RewriteError::Group(_) => invalid("topic", "must name groups that the pattern has"),
        })
    }
}

impl Resource for RewriteRule {
    const KIND: &'static str = "rewrite_rule";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<RewriteRule, ResourceError> {
        read(RewriteRule::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = |field, rule| Err(ResourceError::Invalid { kind: RewriteRule::KIND, field, rule });
        check_key(RewriteRule::KIND, &self.tenant, &self.name)?;
        if self.filter.len() > FILTER_LEN_MAX {
            return invalid("filter", FILTER_RULE);
        }
        if self.pattern.len() > PATTERN_LEN_MAX {
            return invalid("pattern", "must have at most 1024 bytes");
        }
        if !(1..=FILTER_LEN_MAX).contains(&self.topic.len()) {
            return invalid("topic", "must have 1 to 1024 bytes");
        }
        self.rewrite().map(|_| ())
    }
}
