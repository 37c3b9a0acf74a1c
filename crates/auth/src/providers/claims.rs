//! Rules that come with a proof: the `acl` of a token or of an HTTP answer, in EMQX's spellings.

use serde_json::Value;

use crate::authorizer::Object;
use crate::pattern::Pattern;
use crate::rule::{Effect, Right, Rule};

/// Bound: rules that come with one proof.
const RULES_MAX: usize = 256;

/// An entry is not understood. Then the whole proof is not: half of its rules would mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood;

/// Reads either spelling:
///
/// ```json
/// [{"permission": "allow", "action": "publish", "topic": "a/${clientid}/#", "qos": [0, 1], "retain": false}]
/// {"pub": ["a/#"], "sub": ["b"], "all": ["c"]}
/// ```
pub(super) fn rules(acl: Option<&Value>) -> Result<Vec<Rule>, NotUnderstood> {
    match acl {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(entries)) if entries.len() <= RULES_MAX => entries.iter().map(entry).collect(),
        Some(Value::Object(lists)) => {
            let mut rules = Vec::new();
            for (list, patterns) in lists {
                let rights = rights_of(match list.as_str() {
                    "pub" => "publish",
                    "sub" => "subscribe",
                    "all" => "all",
                    _ => return Err(NotUnderstood),
                })?;
                let patterns = self::patterns(patterns)?;
                rules.push(rule(Effect::Allow, rights, patterns));
            }
            Ok(rules)
        }
        Some(_) => Err(NotUnderstood),
    }
}

fn entry(entry: &Value) -> Result<Rule, NotUnderstood> {
    let fields = entry.as_object().ok_or(NotUnderstood)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let effect = match text("permission") {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        _ => return Err(NotUnderstood),
    };
    let rights = rights_of(text("action").ok_or(NotUnderstood)?)?;
    let topics = fields.get("topic").or_else(|| fields.get("topics")).ok_or(NotUnderstood)?;
    let mut rule = rule(effect, rights, patterns(topics)?);
    rule.qos = fields.get("qos").map_or(Ok(Vec::new()), qos)?;
    rule.retain = match fields.get("retain") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(retain)) => Some(*retain),
        Some(Value::String(text)) if text == "all" => None,
        Some(Value::String(text)) if text == "true" || text == "1" => Some(true),
        Some(Value::String(text)) if text == "false" || text == "0" => Some(false),
        Some(Value::Number(number)) if number.as_u64() == Some(1) => Some(true),
        Some(Value::Number(number)) if number.as_u64() == Some(0) => Some(false),
        Some(_) => return Err(NotUnderstood),
    };
    // A condition that we do not know may be what keeps the rule narrow.
    let known = ["permission", "action", "topic", "topics", "qos", "retain"];
    let both = fields.contains_key("topic") && fields.contains_key("topics");
    if both || fields.keys().any(|name| !known.contains(&name.as_str())) {
        Err(NotUnderstood)
    } else {
        Ok(rule)
    }
}

fn rule(effect: Effect, rights: Vec<Right>, patterns: Vec<Pattern>) -> Rule {
    Rule { effect, rights, object: Object::Topic, patterns, qos: Vec::new(), retain: None }
}

fn rights_of(action: &str) -> Result<Vec<Right>, NotUnderstood> {
    match action {
        "publish" | "pub" => Ok(vec![Right::Publish]),
        "subscribe" | "sub" => Ok(vec![Right::Subscribe]),
        "all" | "pubsub" => Ok(vec![Right::Publish, Right::Subscribe]),
        _ => Err(NotUnderstood),
    }
}

fn patterns(value: &Value) -> Result<Vec<Pattern>, NotUnderstood> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    if values.len() > RULES_MAX {
        return Err(NotUnderstood);
    }
    // EMQX's `eq a/+` means the filter as a text, which no rule of ours can: it must not become a pattern.
    let legal = |text: &&str| !text.starts_with("eq ");
    let parse = |value: &Value| value.as_str().filter(legal)?.parse().ok();
    values.iter().map(|value| parse(value).ok_or(NotUnderstood)).collect()
}

fn qos(value: &Value) -> Result<Vec<u8>, NotUnderstood> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    let parse = |value: &Value| value.as_u64().filter(|&qos| qos <= 2).map(|qos| qos as u8);
    values.iter().take(4).map(|value| parse(value).ok_or(NotUnderstood)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let read = rules(Some(&json!([
            {"permission": "allow", "action": "publish", "topic": "a/${clientid}/#", "qos": [0, 1], "retain": false},
            {"permission": "deny", "action": "all", "topics": ["b", "c/+"], "qos": 2},
        ])))
        .unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].effect, &*read[0].rights, read[0].retain),
            (Effect::Allow, &[Right::Publish][..], Some(false))
        );
        assert_eq!((&*read[0].qos, &*read[1].qos), (&[0, 1][..], &[2][..]));
        assert_eq!((read[1].effect, read[1].patterns.len()), (Effect::Deny, 2));

        let read = rules(Some(&json!({"pub": ["a/#"], "sub": ["b"], "all": ["c"]}))).unwrap();
        assert!(read.len() == 3 && read.iter().all(|rule| rule.effect == Effect::Allow));
        assert_eq!(rules(None), Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for acl in [
            json!("a"),
            json!([1]),
            json!([{"permission": "allow", "action": "publish"}]),
            json!([{"permission": "maybe", "action": "publish", "topic": "a"}]),
            json!([{"permission": "allow", "action": "fly", "topic": "a"}]),
            json!([{"permission": "allow", "action": "publish", "topic": "eq a/+"}]),
            json!([{"permission": "allow", "action": "publish", "topic": "a/#/b"}]),
            json!([{"permission": "allow", "action": "publish", "topic": "a", "qos": 3}]),
            json!([{"permission": "allow", "action": "publish", "topic": "a", "ipaddr": "10.0.0.0/8"}]),
            json!({"publish": ["a"]}),
            json!({"pub": [1]}),
        ] {
            assert_eq!(rules(Some(&acl)), Err(NotUnderstood), "{acl}");
        }
    }
}
