//! A rule: what it does, to which rights, on which names, under which conditions.

use serde::{Deserialize, Serialize};

use crate::authorizer::{Action, Object, Request};
use crate::pattern::Pattern;

/// What a rule does where it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It allows, if nothing denies.
    Allow,
    /// It denies, whatever allows.
    Deny,
}

/// What a rule gives or takes. Coarser than [`Action`], so that no view is a way around a rule of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To write.
    Publish,
    /// To read, in whatever way: subscribe, receive, consume.
    Subscribe,
    /// To create on purpose.
    Create,
    /// To remove.
    Delete,
    /// To change settings.
    Alter,
    /// To see.
    Describe,
    /// To run the cluster.
    Administer,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 7] = [
        Right::Publish,
        Right::Subscribe,
        Right::Create,
        Right::Delete,
        Right::Alter,
        Right::Describe,
        Right::Administer,
    ];
}

impl Action {
    /// The right that it needs.
    pub fn right(self) -> Right {
        match self {
            Action::Publish => Right::Publish,
            Action::Subscribe | Action::Receive | Action::Consume => Right::Subscribe,
            Action::Create => Right::Create,
            Action::Delete => Right::Delete,
            Action::Alter => Right::Alter,
            Action::Describe => Right::Describe,
            Action::Administer => Right::Administer,
        }
    }
}

/// A rule for somebody who is known from elsewhere: from the permission that holds it, or from the proof it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// To which rights; none: to all of them.
    pub rights: Vec<Right>,
    /// On which kind of thing.
    pub object: Object,
    /// On which names: any of these.
    pub patterns: Vec<Pattern>,
    /// Only with one of these qualities of service; none: with any.
    pub qos: Vec<u8>,
    /// Only with (`true`) or without (`false`) the wish to be retained; `None`: either way.
    pub retain: Option<bool>,
}

impl Rule {
    /// Whether everything but the name fits. A condition on what the request does not say holds for a deny rule and does
    /// not for an allow rule.
    pub(crate) fn concerns(&self, request: &Request<'_>) -> bool {
        let right = request.action.right();
        if self.object != request.object || !(self.rights.is_empty() || self.rights.contains(&right)) {
            return false;
        }
        let unsaid = self.effect == Effect::Deny;
        let qos = self.qos.is_empty() || request.qos.map_or(unsaid, |qos| self.qos.contains(&qos));
        let retain = self.retain.is_none_or(|retain| request.retain.map_or(unsaid, |asked| asked == retain));
        qos && retain
    }
}
