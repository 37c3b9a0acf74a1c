//! `Authorizer`: the seam between an action on a canonical name and the rules.

use crate::principal::Principal;

/// Decides what a principal may do.
///
/// # Canonical names
///
/// A front translates to canonical names **before** it asks, so that one rule holds in every view. The names are those of
/// `model::Subject` and `model::TopicName`: levels joined by `/`. In a [`Request`] of [`Action::Subscribe`] the name is a
/// canonical filter: a level that is exactly `+` stands for one level, one that is exactly `#` for any number of levels.
/// In every other request each character is meant literally.
///
/// # Deny wins
///
/// If a deny rule matches, the answer is [`Decision::Deny`], whatever else matches, also for a superuser. Otherwise it is
/// [`Decision::Allow`] if an allow rule matches, and the default of `Policy` if none does. The one exception: no rule takes the cluster's
/// administration from a superuser, so that whatever was stored by mistake can be taken back.
///
/// # Filters
///
/// A filter is allowed by an allow rule whose pattern **covers** it: everything that the filter can match, the pattern
/// matches. It is denied by a deny rule whose pattern covers it. If a deny rule's pattern only **overlaps** it, the
/// subscription is made, and what is denied is left out at delivery: the answer is [`Decision::AllowChecked`], and the front
/// asks with [`Action::Receive`] and the name of each message before it delivers, also for retained ones, for what was
/// queued while the client was away, and for what a shared subscription gives it. With [`Decision::Allow`] no message needs
/// that question until [`Grant::revision`](crate::Grant::revision) has changed; then the subscription itself is asked again.
///
/// Coverage is judged conservatively: if in doubt a filter is not covered by an allow rule, and does overlap a deny rule.
///
/// # Names that begin with `$`
///
/// A leading wildcard of an *allow* pattern does not match a name that begins with `$`, as in MQTT; one of a *deny* pattern
/// does. Below `$SYS` the broker alone writes: [`Action::Publish`] and [`Action::Create`] are denied there to everybody, in every
/// view. A view whose own leading wildcards match such names asks [`Action::Receive`] for them.
///
/// # For implementers
///
/// Synchronous and from memory: it is called on serving cores. The same question gives the same answer until the revision
/// changes.
pub trait Authorizer: Send + Sync {
    /// Decides one question.
    fn decide(&self, principal: &Principal, request: &Request<'_>) -> Decision;

    /// Grows whenever an answer may have changed.
    fn revision(&self) -> u64;
}

/// What is to be done. Several actions may need one [`Right`](crate::Right), so that a rule holds whichever way a view goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write a record to a subject or a topic; also a will when it is published, and what a rule republishes.
    Publish,
    /// Make a subscription; the name is a filter.
    Subscribe,
    /// Be given one message of a subscription.
    Receive,
    /// Read a topic's log, take from a queue, browse messages; of a group: join it, fetch and commit its offsets.
    /// Reading a topic that captures subjects is also subscribing to what it captures.
    Consume,
    /// Create on purpose. What is created by its first use needs only the right to that use.
    Create,
    /// Remove.
    Delete,
    /// Change settings.
    Alter,
    /// See that it exists, and its settings. Whoever may read or write a thing sees it without this.
    Describe,
    /// Run the node or the cluster.
    Administer,
}

/// What kind of thing a name names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// A subject or a topic: they share one space of names.
    #[default]
    Topic,
    /// A group of consumers.
    Group,
    /// The cluster itself; its name is `cluster`.
    Cluster,
}

/// A question to an [`Authorizer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request<'a> {
    /// What is to be done.
    pub action: Action,
    /// With what kind of thing.
    pub object: Object,
    /// Its canonical name, or for [`Action::Subscribe`] the canonical filter.
    pub name: &'a str,
    /// Quality of service 0 to 2, where the protocol has one; for [`Action::Receive`] that of the subscription.
    pub qos: Option<u8>,
    /// Whether the message is to be retained, where the protocol knows that.
    pub retain: Option<bool>,
}

/// The level below which only the broker publishes.
const OF_THE_BROKER: &str = "$SYS";

impl<'a> Request<'a> {
    /// Whether it is nobody's but the broker's own to do.
    #[inline]
    pub(crate) fn is_of_the_broker(&self) -> bool {
        let below = self.name.strip_prefix(OF_THE_BROKER);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && self.object == Object::Topic
            && matches!(self.action, Action::Publish | Action::Create)
    }

    /// Whether it is the administration of the cluster.
    #[inline]
    pub(crate) fn is_to_administer(&self) -> bool {
        self.action == Action::Administer && self.object == Object::Cluster
    }

    /// An action on a topic or subject.
    pub fn new(action: Action, name: &'a str) -> Request<'a> {
        Request { action, object: Object::Topic, name, qos: None, retain: None }
    }

    /// The same for another kind of thing.
    #[must_use]
    pub fn on(mut self, object: Object) -> Request<'a> {
        self.object = object;
        self
    }

    /// With this quality of service.
    #[must_use]
    pub fn qos(mut self, qos: u8) -> Request<'a> {
        self.qos = Some(qos);
        self
    }

    /// With or without the wish to be retained.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Request<'a> {
        self.retain = Some(retain);
        self
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// Yes, but some of what the filter matches is denied: ask [`Action::Receive`] for each message.
    AllowChecked,
    /// No.
    Deny,
}

impl Decision {
    /// Whether it may be done at all.
    pub fn is_allowed(self) -> bool {
        match self {
            Decision::Allow | Decision::AllowChecked => true,
            Decision::Deny => false,
        }
    }
}
