//! A value is a value: whatever a client calls itself, no rule becomes wider.

use proptest::prelude::*;
use proptest::sample::select;

use super::decisions::{compile, decide, principal};
use super::permission;
use crate::{Action, Decision, Effect, Permission, Principal, Request, Who};

fn allow(pattern: &str) -> Permission {
    permission("a", Who::Everyone, Effect::Allow, &[], pattern)
}

fn deny(pattern: &str) -> Permission {
    permission("d", Who::Everyone, Effect::Deny, &[], pattern)
}

fn may(rules: &[Permission], who: &Principal, action: Action, name: &str) -> bool {
    decide(rules, who, &Request::new(action, name)).is_allowed()
}

/// Mosquitto's CVE-2017-7650: a client called `#` could read everything that a pattern with its id allowed anybody.
#[test]
fn a_client_called_like_a_wildcard_has_only_its_own() {
    for id in ["#", "+", "a/#", "a/+", "/", "a/b"] {
        let who = principal(Some("u"), id);
        let rules = [allow("dev/${clientid}/#"), allow("${clientid}"), allow("in/x-${clientid}")];
        for name in ["dev/a/b", "dev/a", "dev", "a", "a/b", "in/x-a", "dev/a/b/c"] {
            assert!(!may(&rules, &who, Action::Publish, name), "{id} publishes to {name}");
            assert!(!may(&rules, &who, Action::Receive, name), "{id} is given {name}");
        }
        for filter in ["#", "+", "dev/+/#", "dev/#", "dev/a/#", "dev/+", "+/+", "in/+", "a/#", "a/+"] {
            assert!(!may(&rules, &who, Action::Subscribe, filter), "{id} subscribes to {filter}");
        }
    }
    let who = principal(Some("u"), "c1");
    assert!(may(&[allow("dev/${clientid}/#")], &who, Action::Subscribe, "dev/c1/#"));
    assert!(may(&[allow("in/x-${clientid}")], &who, Action::Publish, "in/x-c1"));
}

#[test]
fn no_client_id_escapes_a_deny_rule() {
    for (id, name) in [("a", "own/a/x"), ("a/b", "own/a/b/x"), ("+", "own/+/x"), ("#", "own/#/x")] {
        let rules = [allow("#"), deny("own/${clientid}/x")];
        let who = principal(Some("u"), id);
        assert!(!may(&rules, &who, Action::Publish, name), "{id}");
        assert!(may(&rules, &who, Action::Publish, "own/other/x"), "{id}");
        let subscribe = decide(&rules, &who, &Request::new(Action::Subscribe, "own/#"));
        assert_eq!(subscribe, Decision::AllowChecked, "{id}");
    }
}

#[test]
fn a_missing_value_matches_nothing() {
    let mut who = principal(None, "");
    let rules = [allow("a/${username}"), allow("b/${clientid}"), allow("c/${cert_common_name}/#")];
    for name in ["a/", "a", "b/", "b", "c", "c/", "c//x", "a/${username}"] {
        assert!(!may(&rules, &who, Action::Publish, name), "{name}");
    }
    who.certificate = Some("device".into());
    assert!(may(&rules, &who, Action::Publish, "c/device/x"));
    assert!(!may(&rules, &who, Action::Publish, "c/devices/x"));
}

proptest! {
    /// Whatever the value, an allow rule with a placeholder allows at most what the rule with that text as a literal level would;
    /// so everything that is allowed has exactly the value in that level.
    #[test]
    fn a_value_never_acts_as_a_wildcard(
        id in "[ab/+#$*>.{}]{1,5}",
        name in proptest::collection::vec("[ab+#$*>.{}]{0,5}", 1..5).prop_map(|levels| levels.join("/")),
        action in select(vec![Action::Publish, Action::Subscribe, Action::Receive, Action::Consume]),
    ) {
        let who = principal(Some("u"), &id);
        let table = compile(&[allow("dev/${clientid}/#")]);
        for name in [name.clone(), format!("dev/{name}"), format!("dev/{id}/{name}")] {
            let allowed = table.decide(&who, &Request::new(action, &name), Decision::Deny).decision.is_allowed();
            let own = name.split('/').next() == Some("dev") && name.split('/').nth(1) == Some(&*id);
            prop_assert!(!allowed || own, "{} may {:?} {}", &id, action, &name);
            let wild = action == Action::Subscribe && (id == "+" || id == "#");
            prop_assert_eq!(allowed, own && !wild);
        }
    }
}
