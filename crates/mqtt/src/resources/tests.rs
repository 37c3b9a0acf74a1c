//! What is stored reads back, bytes of anybody do no harm, and what breaks a rule is named.

use model::{Resource, ResourceError};
use proptest::prelude::*;

use super::{AutoSubscription, CountedTopic, RewriteRule, SendRetained};
use crate::rewrite::RewriteAction;

fn rule() -> RewriteRule {
    RewriteRule {
        tenant: "default".to_owned(),
        name: "r".to_owned(),
        order: 7,
        action: RewriteAction::All,
        filter: "x/#".to_owned(),
        pattern: "^x/(.+)$".to_owned(),
        topic: "y/${clientid}/$1".to_owned(),
    }
}

fn auto() -> AutoSubscription {
    AutoSubscription {
        tenant: "default".to_owned(),
        name: "a".to_owned(),
        filter: "to/${clientid}".to_owned(),
        qos: 1,
        no_local: false,
        retain_as_published: true,
        retain: SendRetained::New,
    }
}

/// The field that breaks a rule.
fn field(resource: &impl Resource) -> Option<&'static str> {
    match resource.validate() {
        Ok(()) => None,
        Err(ResourceError::Invalid { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn bodies_are_json_with_all_fields() {
    let stored = rule().encode();
    let body = r#"{"tenant":"default","name":"r","order":7,"action":"all","filter":"x/#","pattern":"^x/(.+)$","topic":"y/${clientid}/$1"}"#;
    assert_eq!((&stored[..2], &stored[2..]), (&b"\0\x01"[..], body.as_bytes()));
    let stored = auto().encode();
    let body = r#"{"tenant":"default","name":"a","filter":"to/${clientid}","qos":1,"no_local":false,"retain_as_published":true,"retain":"new"}"#;
    assert_eq!(&stored[2..], body.as_bytes());
    assert_eq!(&CountedTopic::new("a/#").encode()[..], b"\0\x01{\"tenant\":\"default\",\"filter\":\"a/#\"}");
    assert_eq!(CountedTopic::new("a/#").path(), "counted_topic/default/a/#");
    assert_eq!((rule().path(), auto().key()), ("rewrite_rule/default/r".to_owned(), "default/a".to_owned()));
}

#[test]
fn what_a_newer_release_wrote_is_not_guessed_at() {
    let newer = ResourceError::Newer { kind: "rewrite_rule", version: 2, known: 1 };
    assert_eq!(RewriteRule::decode(b"\0\x02{}"), Err(newer));
    let malformed = ResourceError::Malformed { kind: "rewrite_rule", field: "body" };
    for body in ["", "{", "{}", "[]", r#"{"name":"r"}"#] {
        assert_eq!(RewriteRule::decode_body(1, body.as_bytes()), Err(malformed), "{body}");
    }
    let more = String::from_utf8(rule().encode()[2..].to_vec()).unwrap().replace('{', r#"{"more":1,"#);
    assert_eq!(RewriteRule::decode_body(1, more.as_bytes()), Err(malformed));
}

#[test]
fn a_rule_that_breaks_a_rule_says_which_field() {
    assert_eq!(field(&rule()), None);
    let named = |name: &str| RewriteRule { name: name.to_owned(), ..rule() };
    let filtered = |filter: &str| RewriteRule { filter: filter.to_owned(), ..rule() };
    let matching = |pattern: &str| RewriteRule { pattern: pattern.to_owned(), ..rule() };
    let giving = |topic: &str| RewriteRule { topic: topic.to_owned(), ..rule() };
    let long = "x".repeat(1025);
    for (broken, wanted) in [
        (RewriteRule { tenant: "*".to_owned(), ..rule() }, Some("tenant")),
        (named(""), Some("name")),
        (named("a\nb"), Some("name")),
        (named(&"x".repeat(256)), Some("name")),
        (named("a/b +"), None),
        (filtered(""), Some("filter")),
        (filtered("a#"), Some("filter")),
        (filtered(&long), Some("filter")),
        (matching("("), Some("pattern")),
        (matching("(.){1000}{1000}"), Some("pattern")),
        (matching("(\\w{100}){100}"), Some("pattern")),
        (matching(&long), Some("pattern")),
        (giving(""), Some("topic")),
        (giving("$2"), Some("topic")),
        (giving("${nobody}"), Some("topic")),
        (giving(&long), Some("topic")),
    ] {
        assert_eq!(field(&broken), wanted, "{broken:?}");
    }
}

#[test]
fn a_subscription_or_a_counted_topic_that_breaks_a_rule_says_which_field() {
    assert_eq!(field(&auto()), None);
    let filtered = |filter: &str| AutoSubscription { filter: filter.to_owned(), ..auto() };
    for (broken, wanted) in [
        (AutoSubscription { tenant: String::new(), ..auto() }, Some("tenant")),
        (AutoSubscription { name: String::new(), ..auto() }, Some("name")),
        (AutoSubscription { qos: 3, ..auto() }, Some("qos")),
        (filtered("$share/g/t"), None),
        (filtered("a#"), Some("filter")),
        (filtered("$exclusive/a"), Some("filter")),
        (filtered("${nobody}"), Some("filter")),
        (filtered(&"x".repeat(1025)), Some("filter")),
    ] {
        assert_eq!(field(&broken), wanted, "{broken:?}");
    }
    assert_eq!(field(&CountedTopic::new("a/+")), None);
    assert_eq!(field(&CountedTopic { tenant: String::new(), ..CountedTopic::new("a") }), Some("tenant"));
    for broken in ["", "a/#/b", "$share/g/a", &"x".repeat(513)] {
        assert_eq!(field(&CountedTopic::new(broken)), Some("filter"), "{broken}");
    }
}

fn check_bytes<R: Resource + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(found) = R::decode(bytes) {
        // What is read may break a rule; it is written as it was meant.
        let _ = found.validate();
        prop_assert_eq!(R::decode(&found.encode()), Ok(found));
    }
    Ok(())
}

fn any_rule() -> impl Strategy<Value = RewriteRule> {
    let action =
        prop_oneof![Just(RewriteAction::Publish), Just(RewriteAction::Subscribe), Just(RewriteAction::All)];
    (any::<[String; 3]>(), any::<[String; 2]>(), any::<u32>(), action).prop_map(
        |([tenant, name, filter], [pattern, topic], order, action)| RewriteRule {
            tenant,
            name,
            order,
            action,
            filter,
            pattern,
            topic,
        },
    )
}

fn any_auto() -> impl Strategy<Value = AutoSubscription> {
    let retain = prop_oneof![Just(SendRetained::Always), Just(SendRetained::New), Just(SendRetained::Never)];
    (any::<[String; 3]>(), any::<u8>(), any::<[bool; 2]>(), retain).prop_map(
        |([tenant, name, filter], qos, [no_local, retain_as_published], retain)| AutoSubscription {
            tenant,
            name,
            filter,
            qos,
            no_local,
            retain_as_published,
            retain,
        },
    )
}

proptest! {
    #[test]
    fn resources_come_back(rule in any_rule(), auto in any_auto(), texts in any::<[String; 2]>()) {
        prop_assert_eq!(RewriteRule::decode(&rule.encode()), Ok(rule));
        prop_assert_eq!(AutoSubscription::decode(&auto.encode()), Ok(auto));
        let [tenant, filter] = texts;
        let counted = CountedTopic { tenant, filter };
        prop_assert_eq!(CountedTopic::decode(&counted.encode()), Ok(counted));
    }

    #[test]
    fn hostile_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        rule in any_rule(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut changed = rule.encode().to_vec();
        let place = at.index(changed.len());
        changed[place] = byte;
        for bytes in [&bytes[..], &[b"\0\x01", &bytes[..]].concat(), &changed, &rule.encode()[..place]] {
            check_bytes::<RewriteRule>(bytes)?;
            check_bytes::<AutoSubscription>(bytes)?;
            check_bytes::<CountedTopic>(bytes)?;
        }
    }
}
