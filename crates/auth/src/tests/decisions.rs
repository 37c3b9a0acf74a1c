//! What may be done: the compiled table against a naive evaluator, and the laws that it must keep.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::{loopback, nothing, permission};
use crate::rules::{Compiled, RuleTable};
use crate::{Action, Decision, Effect, Identity, Object, Permission, Principal, Request, Right, Who};

pub(super) fn principal(user: Option<&str>, client_id: &str) -> Principal {
    let credentials = nothing(loopback());
    Principal {
        tenant: credentials.tenant,
        user: user.map(Into::into),
        client_id: client_id.into(),
        certificate: None,
        peer: credentials.peer,
        identity: Identity { groups: vec!["g".into()], ..Identity::default() },
    }
}

pub(super) fn compile(permissions: &[Permission]) -> RuleTable {
    let compiled: Vec<Arc<Compiled>> = permissions
        .iter()
        .map(|permission| {
            let (id, who) = (permission.id.clone(), permission.who.clone());
            Arc::new(Compiled { id, who, rule: permission.rule().unwrap() })
        })
        .collect();
    RuleTable::new(compiled.iter())
}

pub(super) fn decide(permissions: &[Permission], principal: &Principal, request: &Request<'_>) -> Decision {
    compile(permissions).decide(principal, request, Decision::Deny).decision
}

/// Whether a pattern matches a name, by trying every way; the pattern's values are filled in with characters that no name
/// has in the place of what would be special.
fn naive_match(pattern: &[String], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((level, _)), _) if level == "#" => true,
        (Some((level, rest)), Some((part, names))) => {
            (level == "+" || level.trim_start_matches('\u{1}') == *part) && naive_match(rest, names)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// The levels of a pattern with its values; a level that has a value is marked, so that it is no wildcard.
fn fill(pattern: &str, principal: &Principal, effect: Effect) -> Option<Vec<String>> {
    let mut levels = Vec::new();
    for level in pattern.split('/') {
        if !level.contains("${") {
            levels.push(level.to_owned());
            continue;
        }
        let user = principal.user.as_deref().unwrap_or_default();
        if level.contains("${username}") && user.is_empty() {
            return None;
        }
        if level.contains("${clientid}") && principal.client_id.is_empty() {
            return None;
        }
        let level = level.replace("${username}", user).replace("${clientid}", &principal.client_id);
        if level.contains('/') && effect == Effect::Allow {
            return None;
        }
        levels.extend(level.split('/').map(|part| format!("\u{1}{part}")));
    }
    Some(levels)
}

fn concerns(permission: &Permission, principal: &Principal, request: &Request<'_>) -> bool {
    let who = match &permission.who {
        Who::Everyone => true,
        Who::Anonymous => principal.user.is_none(),
        Who::User(name) => principal.user.as_deref() == Some(name),
        Who::Group(name) => principal.identity.groups.iter().any(|group| **group == **name),
        Who::Client(id) => *principal.client_id == **id,
    };
    let right = permission.rights.is_empty() || permission.rights.contains(&request.action.right());
    who && right && permission.object == request.object
}

/// Whether the permission matches the name, read out of the definition.
fn naive_hit(permission: &Permission, principal: &Principal, name: &str) -> bool {
    permission.patterns.iter().any(|pattern| {
        let Some(levels) = fill(pattern, principal, permission.effect) else { return false };
        let hidden = permission.effect == Effect::Allow
            && name.starts_with('$')
            && matches!(levels[0].as_str(), "+" | "#");
        !hidden && naive_match(&levels, &name.split('/').collect::<Vec<_>>())
    })
}

fn naive(permissions: &[Permission], principal: &Principal, request: &Request<'_>) -> Decision {
    let hits = |effect: Effect| {
        permissions.iter().any(|permission| {
            permission.effect == effect
                && concerns(permission, principal, request)
                && naive_hit(permission, principal, request.name)
        })
    };
    if hits(Effect::Deny) || !hits(Effect::Allow) { Decision::Deny } else { Decision::Allow }
}

/// Every name of up to three levels over a small alphabet.
fn universe() -> Vec<String> {
    let levels = ["a", "b", "", "$s", "c1", "u"];
    let mut names: Vec<String> = levels.map(str::to_owned).to_vec();
    let mut last = names.clone();
    for _ in 0..2 {
        last = last.iter().flat_map(|name| levels.map(|level| format!("{name}/{level}"))).collect();
        names.extend(last.clone());
    }
    names
}

fn patterns() -> impl Strategy<Value = String> {
    let level = select(vec!["a", "b", "+", "", "$s", "${clientid}", "${username}", "x${username}"]);
    let levels = proptest::collection::vec(level, 1..4);
    (levels, any::<bool>())
        .prop_map(|(mut levels, many)| {
            if many {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("an empty text is no pattern", |pattern| !pattern.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let level = select(vec!["a", "b", "+", "", "$s", "c1", "u", "#"]);
    proptest::collection::vec(level, 1..4).prop_map(|levels| levels.join("/"))
}

fn permissions() -> impl Strategy<Value = Vec<Permission>> {
    let who = select(vec![
        Who::Everyone,
        Who::Anonymous,
        Who::User("u".into()),
        Who::User("v".into()),
        Who::Group("g".into()),
        Who::Client("c1".into()),
    ]);
    let rights = select(vec![vec![], vec![Right::Publish], vec![Right::Subscribe, Right::Create]]);
    let effect = select(vec![Effect::Allow, Effect::Allow, Effect::Deny]);
    let one = (who, rights, effect, patterns()).prop_map(|(who, rights, effect, pattern)| Permission {
        rights,
        ..permission("p", who, effect, &[], &pattern)
    });
    proptest::collection::vec(one, 0..6)
}

fn principals() -> impl Strategy<Value = Principal> {
    let ids = select(vec!["c1", "", "+", "#", "a/b", "/", "u", "$s"]);
    let users = select(vec![None, Some("u"), Some("v"), Some("+"), Some("#"), Some("a/#")]);
    (users, ids).prop_map(|(user, id)| principal(user, id))
}

/// Whether a filter matches a name, with `#` anywhere.
fn filter_matches(filter: &[&str], name: &[&str]) -> bool {
    match (filter.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => (0..=name.len()).any(|taken| filter_matches(rest, &name[taken..])),
        (Some((level, rest)), Some((part, names))) => {
            (*level == "+" || level == part) && filter_matches(rest, names)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn matched_by<'a>(filter: &str, universe: &'a [String]) -> Vec<&'a String> {
    let filter: Vec<&str> = filter.split('/').collect();
    let wild = matches!(filter[0], "+" | "#");
    let names = universe.iter().filter(|name| !(wild && name.starts_with('$')));
    names.filter(|name| filter_matches(&filter, &name.split('/').collect::<Vec<_>>())).collect()
}

proptest! {
    #[test]
    fn the_compiled_table_equals_the_naive_evaluator(
        rules in permissions(), who in principals(),
        action in select(vec![Action::Publish, Action::Receive, Action::Consume, Action::Create, Action::Alter]),
    ) {
        let table = compile(&rules);
        for name in universe() {
            let request = Request::new(action, &name);
            let decision = table.decide(&who, &request, Decision::Deny).decision;
            prop_assert_eq!(decision, naive(&rules, &who, &request), "{} of {:?}", &name, &who);
        }
    }

    #[test]
    fn deny_wins(rules in permissions(), who in principals(), pattern in patterns(), superuser in any::<bool>()) {
        let mut who = who;
        who.identity.superuser = superuser;
        let deny = permission("deny", Who::Everyone, Effect::Deny, &[], &pattern);
        let with_deny = [rules, vec![deny.clone()]].concat();
        for name in universe().iter().filter(|name| naive_hit(&deny, &who, name)) {
            for action in [Action::Publish, Action::Receive, Action::Consume, Action::Administer] {
                prop_assert_eq!(decide(&with_deny, &who, &Request::new(action, name)), Decision::Deny);
            }
        }
    }

    #[test]
    fn a_subscription_gives_nothing_that_its_messages_would_not(
        rules in permissions(), who in principals(), filter in filters(),
    ) {
        let table = compile(&rules);
        let decision = table.decide(&who, &Request::new(Action::Subscribe, &filter), Decision::Deny).decision;
        let universe = universe();
        for name in matched_by(&filter, &universe) {
            let message = naive(&rules, &who, &Request::new(Action::Receive, name));
            match decision {
                // Without a question for each message, each must be allowed.
                Decision::Allow => prop_assert_eq!(message, Decision::Allow, "{} by {}", name, &filter),
                Decision::AllowChecked | Decision::Deny => {}
            }
        }
    }
}

#[test]
fn a_filter_is_refused_checked_or_free() {
    let who = principal(Some("u"), "c1");
    let rules = [
        permission("1", Who::Everyone, Effect::Allow, &[Right::Subscribe], "a/#"),
        permission("2", Who::Everyone, Effect::Deny, &[Right::Subscribe], "a/secret/+"),
        permission("3", Who::Everyone, Effect::Allow, &[Right::Subscribe], "own/${clientid}/+"),
    ];
    for (filter, decision) in [
        ("a/b", Decision::Allow),
        ("a/b/#", Decision::Allow),
        ("a/#", Decision::AllowChecked),
        ("a/+/x", Decision::AllowChecked),
        ("a/secret/+", Decision::Deny),
        ("a/secret/x", Decision::Deny),
        ("a/secret/#", Decision::AllowChecked),
        ("a", Decision::Allow),
        ("#", Decision::Deny),
        ("+/b", Decision::Deny),
        ("own/c1/+", Decision::Allow),
        ("own/c1/#", Decision::Deny),
        ("own/+/x", Decision::Deny),
        ("a/#/x", Decision::AllowChecked),
        ("#/a", Decision::Deny),
    ] {
        assert_eq!(decide(&rules, &who, &Request::new(Action::Subscribe, filter)), decision, "{filter}");
    }
    assert_eq!(decide(&rules, &who, &Request::new(Action::Receive, "a/secret/x")), Decision::Deny);
    assert_eq!(decide(&rules, &who, &Request::new(Action::Receive, "a/secret")), Decision::Allow);
}

#[test]
fn wildcards_of_allow_rules_do_not_reach_names_with_a_dollar_and_those_of_deny_rules_do() {
    let who = principal(Some("u"), "c1");
    let allow = |pattern| permission("a", Who::Everyone, Effect::Allow, &[], pattern);
    let deny = |pattern| permission("d", Who::Everyone, Effect::Deny, &[], pattern);
    let receive = |rules: &[Permission]| decide(rules, &who, &Request::new(Action::Receive, "$SYS/x"));
    assert_eq!(receive(&[allow("#")]), Decision::Deny);
    assert_eq!(receive(&[allow("+/x")]), Decision::Deny);
    assert_eq!(receive(&[allow("$SYS/#")]), Decision::Allow);
    assert_eq!(receive(&[allow("$SYS/#"), deny("#")]), Decision::Deny);
    let subscribe = Request::new(Action::Subscribe, "$SYS/#");
    assert_eq!(decide(&[allow("#")], &who, &subscribe), Decision::Deny);
}

#[test]
fn conditions_that_the_request_does_not_speak_of_are_taken_against_it() {
    let who = principal(Some("u"), "c1");
    let mut allow = permission("a", Who::Everyone, Effect::Allow, &[], "t");
    let publish = Request::new(Action::Publish, "t");
    allow.qos = vec![0, 1];
    allow.retain = Some(false);
    for (request, decision) in [
        (publish.qos(1).retain(false), Decision::Allow),
        (publish.qos(2).retain(false), Decision::Deny),
        (publish.qos(1).retain(true), Decision::Deny),
        (publish.qos(1), Decision::Deny),
        (publish, Decision::Deny),
        (publish.qos(1).retain(false).on(Object::Group), Decision::Deny),
    ] {
        assert_eq!(decide(&[allow.clone()], &who, &request), decision, "{request:?}");
    }
    let all = permission("b", Who::Everyone, Effect::Allow, &[], "t");
    let deny = Permission { effect: Effect::Deny, retain: Some(true), qos: Vec::new(), ..allow };
    let rules = [all, deny];
    assert_eq!(decide(&rules, &who, &publish.retain(false)), Decision::Allow);
    assert_eq!(decide(&rules, &who, &publish), Decision::Deny);
}
