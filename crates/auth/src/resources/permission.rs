//! `Permission`: a rule with somebody whom it is for.

use bytes::BytesMut;
use model::{Resource, ResourceError, TenantId};
use serde::{Deserialize, Serialize};

use super::{check_name, read, tenant_text, write};
use crate::authorizer::Object;
use crate::pattern::{Pattern, PatternError};
use crate::rule::{Effect, Right, Rule};

/// Bound: patterns of a permission.
const PATTERNS_MAX: usize = 64;

/// A rule of a tenant. Its key is `tenant/id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// Whose rule it is.
    #[serde(with = "tenant_text")]
    pub tenant: TenantId,
    /// What it is called, 1 to 255 bytes without control characters; an explanation names it.
    pub id: String,
    /// For whom it holds.
    pub who: Who,
    /// What it does.
    pub effect: Effect,
    /// To which rights; none: to all.
    pub rights: Vec<Right>,
    /// On which kind of thing.
    pub object: Object,
    /// On which names, 1 to 64 patterns; see [`Pattern`].
    pub patterns: Vec<String>,
    /// Only with one of these qualities of service; none: with any.
    pub qos: Vec<u8>,
    /// Only with or without the wish to be retained; `None`: either way.
    pub retain: Option<bool>,
}

/// For whom a permission holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// For every client of the tenant, the anonymous ones too.
    Everyone,
    /// For anonymous clients.
    Anonymous,
    /// For a user.
    User(String),
    /// For the users of a group.
    Group(String),
    /// For a client id. Anybody can choose one, unless something else ties it to a user.
    Client(String),
}

impl Permission {
    /// A permission to (or a refusal of) everything on the topics of one pattern.
    pub fn new(
        tenant: TenantId,
        id: impl Into<String>,
        who: Who,
        effect: Effect,
        pattern: impl Into<String>,
    ) -> Permission {
        Permission {
            tenant,
            id: id.into(),
            who,
            effect,
            rights: Vec::new(),
            object: Object::Topic,
            patterns: vec![pattern.into()],
            qos: Vec::new(),
            retain: None,
        }
    }

    /// The rule in it.
    ///
    /// # Errors
    /// If a pattern is none.
    pub(crate) fn rule(&self) -> Result<Rule, PatternError> {
        Ok(Rule {
            effect: self.effect,
            rights: self.rights.clone(),
            object: self.object,
            patterns: self
                .patterns
                .iter()
                .map(|pattern| pattern.parse::<Pattern>())
                .collect::<Result<_, _>>()?,
            qos: self.qos.clone(),
            retain: self.retain,
        })
    }
}

impl Resource for Permission {
    const KIND: &'static str = "permission";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Permission, ResourceError> {
        read(Permission::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = |field, rule| ResourceError::Invalid { kind: Permission::KIND, field, rule };
        check_name(Permission::KIND, "id", &self.id)?;
        match &self.who {
            Who::Everyone | Who::Anonymous => {}
            Who::User(name) | Who::Group(name) | Who::Client(name) => {
                check_name(Permission::KIND, "who", name)?;
            }
        }
        if !(1..=PATTERNS_MAX).contains(&self.patterns.len()) {
            return Err(invalid("patterns", "must be 1 to 64"));
        }
        if self.rights.len() > Right::ALL.len() {
            return Err(invalid("rights", "must not be named twice"));
        }
        if self.qos.len() > 3 || self.qos.iter().any(|&qos| qos > 2) {
            return Err(invalid("qos", "must be 0, 1 or 2"));
        }
        let rule = "must be names with `+`, a last `#`, ${username}, ${clientid} or ${cert_common_name}";
        self.rule().map(|_| ()).map_err(|_| invalid("patterns", rule))
    }
}
