//! Topic names and topic filters: what is valid (section 4.7), and shared subscriptions (section 4.8).

use super::reason::{Malformed, ReasonCode};

const FILTER: Malformed = Malformed::new(ReasonCode::TopicFilterInvalid, "MQTT-4.7.1-1");
const SHARE: Malformed = Malformed::new(ReasonCode::TopicFilterInvalid, "MQTT-4.8.2-1");
const TOPIC: Malformed = Malformed::new(ReasonCode::TopicNameInvalid, "MQTT-3.3.2-2");
const EMPTY: Malformed = Malformed::new(ReasonCode::TopicNameInvalid, "MQTT-4.7.3-1");
const SHARE_PREFIX: &str = "$share/";

/// Checks a topic name that does not come from a decoded PUBLISH (which is checked already): 1 to 65,535
/// bytes, no wildcard, no U+0000.
pub fn check_topic(topic: &str) -> Result<(), Malformed> {
    if topic.is_empty() || topic.len() > usize::from(u16::MAX) {
        return Err(EMPTY);
    }
    if has_wildcard(topic) || topic.contains('\0') { Err(TOPIC) } else { Ok(()) }
}

/// A topic filter that is valid, with the name of its share taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFilter<'a> {
    /// The share name of `$share/{name}/{filter}`.
    pub share: Option<&'a str>,
    /// What topics are compared with.
    pub filter: &'a str,
}

impl<'a> TopicFilter<'a> {
    /// Checks a filter of SUBSCRIBE or UNSUBSCRIBE. An invalid one is answered by its own 0x8F in SUBACK.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self { share: None, filter: check_filter(text)? });
        };
        let (share, filter) = shared.split_once('/').ok_or(SHARE)?;
        if share.is_empty() || has_wildcard(share) {
            return Err(SHARE);
        }
        Ok(Self { share: Some(share), filter: check_filter(filter)? })
    }
}

pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE_PREFIX)
}

pub(super) fn has_wildcard(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// `#` is the last level and `+` a whole one [MQTT-4.7.1-1, 4.7.1-2].
fn check_filter(filter: &str) -> Result<&str, Malformed> {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return Err(FILTER);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let valid = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !has_wildcard(level),
        };
        if !valid {
            return Err(FILTER);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_valid_or_not() {
        for filter in
            ["a", "#", "+", "/", "+/+", "a/#", "/+/b/#", "a//b", "$SYS/#", "$share", "\u{feff}a", " "]
        {
            assert_eq!(TopicFilter::parse(filter), Ok(TopicFilter { share: None, filter }), "{filter:?}");
        }
        for filter in ["", "a/#/b", "a#", "+a", "#/a", "a/+b", "a/b#", "##", "++", "a\0"] {
            let reason = TopicFilter::parse(filter).map_err(|bad| bad.reason);
            assert_eq!(reason, Err(ReasonCode::TopicFilterInvalid), "{filter:?}");
        }
    }

    #[test]
    fn shared_filters_are_taken_apart() {
        for (text, share, filter) in
            [("$share/g/f", "g", "f"), ("$share/g//", "g", "/"), ("$share/g/+/#", "g", "+/#")]
        {
            assert_eq!(TopicFilter::parse(text), Ok(TopicFilter { share: Some(share), filter }));
        }
        for text in
            ["$share/", "$share/g", "$share/g/", "$share//f", "$share/+/f", "$share/a#/f", "$share/g/a#"]
        {
            let reason = TopicFilter::parse(text).map_err(|bad| bad.reason);
            assert_eq!(reason, Err(ReasonCode::TopicFilterInvalid), "{text:?}");
        }
    }

    #[test]
    fn topics_are_valid_or_not() {
        for topic in ["a", "/", "a//b", "$SYS/x", "\u{feff}"] {
            assert_eq!(check_topic(topic), Ok(()), "{topic:?}");
        }
        let long = "x".repeat(65_536);
        for topic in ["", "+", "a/#", "a\0b", &long] {
            assert_eq!(check_topic(topic).map_err(|bad| bad.reason), Err(ReasonCode::TopicNameInvalid));
        }
    }
}
