//! `RuleTable`: the permissions of a tenant, sorted by whom they are for, and the decision over them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::authorizer::{Action, Decision, Request};
use crate::pattern::Resolved;
use crate::principal::Principal;
use crate::resources::Who;
use crate::rule::{Effect, Rule};

/// A permission, ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) id: String,
    pub(crate) who: Who,
    pub(crate) rule: Rule,
}

/// The permissions of one tenant. Never changed, only replaced.
#[derive(Debug, Default)]
pub(crate) struct RuleTable {
    everyone: Vec<Arc<Compiled>>,
    anonymous: Vec<Arc<Compiled>>,
    users: HashMap<String, Vec<Arc<Compiled>>>,
    groups: HashMap<String, Vec<Arc<Compiled>>>,
    clients: HashMap<String, Vec<Arc<Compiled>>>,
}

/// A decision with the rule that made it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    pub(crate) decision: Decision,
    /// The permission's id, or what it was instead of one.
    pub(crate) because: &'a str,
}

/// How rule and request meet.
#[derive(PartialEq, Eq)]
enum Hit {
    Full,
    /// Some of what the filter matches.
    Part,
    None,
}

impl RuleTable {
    pub(crate) fn new<'a>(permissions: impl Iterator<Item = &'a Arc<Compiled>>) -> RuleTable {
        let mut table = RuleTable::default();
        for permission in permissions {
            let list = match &permission.who {
                Who::Everyone => &mut table.everyone,
                Who::Anonymous => &mut table.anonymous,
                Who::User(name) => table.users.entry(name.clone()).or_default(),
                Who::Group(name) => table.groups.entry(name.clone()).or_default(),
                Who::Client(id) => table.clients.entry(id.clone()).or_default(),
            };
            list.push(permission.clone());
        }
        table
    }

    /// Decides. `unmatched` is the answer if no rule matches.
    pub(crate) fn decide<'a>(
        &'a self,
        principal: &'a Principal,
        request: &Request<'_>,
        unmatched: Decision,
    ) -> Verdict<'a> {
        if request.is_of_the_broker() {
            return Verdict { decision: Decision::Deny, because: "the broker's own" };
        }
        if principal.identity.superuser && request.is_to_administer() {
            return Verdict { decision: Decision::Allow, because: "superuser" };
        }
        let mut allowed = principal.identity.superuser.then_some("superuser");
        let mut checked = false;
        for (id, rule) in self.rules_of(principal) {
            // What is allowed already can only be denied.
            if !rule.concerns(request) || rule.effect == Effect::Allow && allowed.is_some() {
                continue;
            }
            match (rule.effect, hit(rule, principal, request)) {
                (_, Hit::None) | (Effect::Allow, Hit::Part) => {}
                (Effect::Allow, Hit::Full) => allowed = Some(id),
                (Effect::Deny, Hit::Full) => return Verdict { decision: Decision::Deny, because: id },
                (Effect::Deny, Hit::Part) => checked = true,
            }
        }
        let decision = match allowed {
            Some(_) => Decision::Allow,
            None => unmatched,
        };
        let decision = match decision {
            Decision::Allow if checked => Decision::AllowChecked,
            decision => decision,
        };
        Verdict { decision, because: allowed.unwrap_or("no rule") }
    }

    /// All rules for this principal, in no order.
    fn rules_of<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = (&'a str, &'a Rule)> {
        let of = |map: &'a HashMap<String, Vec<Arc<Compiled>>>, name: &str| {
            map.get(name).map(Vec::as_slice).unwrap_or_default()
        };
        let own = match &principal.user {
            Some(user) => of(&self.users, user),
            None => &self.anonymous,
        };
        let client = of(&self.clients, &principal.client_id);
        let groups = principal.identity.groups.iter().flat_map(move |group| of(&self.groups, group));
        let stored = self.everyone.iter().chain(own).chain(client).chain(groups);
        let stored = stored.map(|compiled| (compiled.id.as_str(), &compiled.rule));
        stored.chain(principal.identity.rules.iter().map(|rule| ("with the proof", rule)))
    }
}

fn hit(rule: &Rule, principal: &Principal, request: &Request<'_>) -> Hit {
    let mut best = Hit::None;
    for pattern in &rule.patterns {
        let Some(resolved) = pattern.resolve(principal, rule.effect) else { continue };
        match hit_pattern(&resolved, rule.effect, request) {
            Hit::Full => return Hit::Full,
            Hit::Part => best = Hit::Part,
            Hit::None => {}
        }
    }
    best
}

fn hit_pattern(pattern: &Resolved<'_>, effect: Effect, request: &Request<'_>) -> Hit {
    match request.action {
        Action::Subscribe if pattern.covers(request.name) => Hit::Full,
        Action::Subscribe if effect == Effect::Deny && pattern.overlaps(request.name) => Hit::Part,
        Action::Subscribe => Hit::None,
        _ if pattern.matches(request.name) => Hit::Full,
        _ => Hit::None,
    }
}
