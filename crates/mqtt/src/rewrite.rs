//! Rules that give topics and filters another name before anything else sees them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use broker::routing::Filter;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use wire::mqtt::{TopicFilter, check_topic};

use crate::subscription::{parse_filter, split_prefix, subject_of};
use crate::template::{Template, TemplateError, Who};

/// Bound: bytes of memory that a compiled regular expression takes, and what matching with it remembers.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewriteAction {
    /// Topics of PUBLISH and of wills.
    Publish,
    /// Filters of SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    /// Both.
    All,
}

/// One rule: what a filter matches and a regular expression, too, gets the name that a template says.
///
/// In a list the first rule that matches is applied, and no other behind it. The filter of a shared or exclusive
/// subscription is compared, and changed, without the prefix.
#[derive(Debug, Clone)]
pub struct Rewrite {
    action: RewriteAction,
    filter: Filter,
    pattern: Regex,
    /// Text, and the capture group behind it.
    target: Vec<(Template, Option<usize>)>,
}

/// Why something is no rule.
#[derive(Debug)]
pub enum RewriteError {
    /// The line does not have its four fields.
    Fields,
    /// The filter is none.
    Filter,
    /// The regular expression is none, or too large.
    Pattern(regex::Error),
    /// The template names something that there is not.
    Template(TemplateError),
    /// The template names a capture group that the regular expression does not have.
    Group(usize),
}

/// The rule that applies gives no valid topic or filter for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unusable;

impl Rewrite {
    /// `pattern` takes at most 1 MiB when it is compiled. `target` may have `$1` to `$99` for what the groups of `pattern` matched, and placeholders of the client.
    pub fn new(
        action: RewriteAction,
        filter: &str,
        pattern: &str,
        target: &str,
    ) -> Result<Self, RewriteError> {
        TopicFilter::parse(filter).map_err(|_| RewriteError::Filter)?;
        let filter = parse_filter(filter).map_err(|_| RewriteError::Filter)?;
        let pattern = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(RewriteError::Pattern)?;
        let target = pieces(target).map_err(RewriteError::Template)?;
        let missing =
            target.iter().filter_map(|(_, group)| *group).find(|group| *group >= pattern.captures_len());
        match missing {
            Some(group) => Err(RewriteError::Group(group)),
            None => Ok(Self { action, filter, pattern, target }),
        }
    }

    /// The new name, if the rule applies.
    fn apply(&self, text: &str, who: &Who<'_>) -> Option<Result<String, Unusable>> {
        if !self.filter.matches(&subject_of(text)) {
            return None;
        }
        let groups = self.pattern.captures(text)?;
        let mut name = String::new();
        for (template, group) in &self.target {
            let Some(piece) = template.fill(who) else { return Some(Err(Unusable)) };
            name.push_str(&piece);
            let matched = group.and_then(|group| groups.get(group));
            name.push_str(matched.map_or("", |matched| matched.as_str()));
        }
        Some(Ok(name))
    }
}

/// As settings write it: action, filter, regular expression and target, with blanks between them.
impl FromStr for Rewrite {
    type Err = RewriteError;

    fn from_str(line: &str) -> Result<Self, RewriteError> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [action, filter, pattern, target] = fields[..] else { return Err(RewriteError::Fields) };
        let action = match action {
            "publish" => RewriteAction::Publish,
            "subscribe" => RewriteAction::Subscribe,
            "all" => RewriteAction::All,
            _ => return Err(RewriteError::Fields),
        };
        Self::new(action, filter, pattern, target)
    }
}

/// The topic that a PUBLISH to `topic` goes to.
pub(crate) fn topic<'a>(rules: &[Rewrite], topic: &'a str, who: &Who<'_>) -> Result<Cow<'a, str>, Unusable> {
    let mut rules = rules.iter().filter(|rule| rule.action != RewriteAction::Subscribe);
    match rules.find_map(|rule| rule.apply(topic, who)) {
        None => Ok(Cow::Borrowed(topic)),
        Some(renamed) => {
            let renamed = renamed?;
            check_topic(&renamed).map_err(|_| Unusable)?;
            Ok(Cow::Owned(renamed))
        }
    }
}

/// The filter that a SUBSCRIBE to `text` means.
pub(crate) fn filter<'a>(rules: &[Rewrite], text: &'a str, who: &Who<'_>) -> Result<Cow<'a, str>, Unusable> {
    let (prefix, filter) = split_prefix(text);
    let mut rules = rules.iter().filter(|rule| rule.action != RewriteAction::Publish);
    match rules.find_map(|rule| rule.apply(filter, who)) {
        None => Ok(Cow::Borrowed(text)),
        Some(renamed) => {
            let renamed = [prefix, &renamed?].concat();
            TopicFilter::parse(&renamed).map_err(|_| Unusable)?;
            Ok(Cow::Owned(renamed))
        }
    }
}

/// Takes a target apart at its groups.
fn pieces(target: &str) -> Result<Vec<(Template, Option<usize>)>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut text, mut rest) = (String::new(), target);
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
        match after[..digits].parse() {
            Ok(group) => pieces.push((Template::parse(&std::mem::take(&mut text))?, Some(group))),
            Err(_) => text.push('$'),
        }
        rest = &after[digits..];
    }
    text.push_str(rest);
    pieces.push((Template::parse(&text)?, None));
    Ok(pieces)
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields => {
                f.write_str("a rule has four fields: publish, subscribe or all; filter; pattern; topic")
            }
            Self::Filter => f.write_str("its filter is not valid"),
            Self::Pattern(error) => write!(f, "its regular expression is not valid: {error}"),
            Self::Template(error) => error.fmt(f),
            Self::Group(group) => write!(f, "its regular expression has no group ${group}"),
        }
    }
}

impl std::error::Error for RewriteError {}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who<'static> =
        Who { client: "c1", user: None, host: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

    fn rule(action: RewriteAction, filter: &str, pattern: &str, target: &str) -> Rewrite {
        Rewrite::new(action, filter, pattern, target).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_is_applied() {
        let rules = [
            rule(RewriteAction::All, "y/+/z/#", "^y/(.+)/z/(.+)$", "y/z/$2"),
            rule(RewriteAction::All, "x/#", "^x/y/(.+)$", "z/y/x/$1"),
            rule(RewriteAction::All, "x/#", "^x/(y)/(\\d+)$", "never/$1"),
            rule(RewriteAction::Publish, "p/#", "^p/(.*)$", "${clientid}/$1$$"),
            rule(RewriteAction::Subscribe, "p/#", "^p/(.*)$", "s/$1"),
        ];
        for (before, published, subscribed) in [
            ("y/a/z/b", "y/z/b", "y/z/b"),
            ("x/y/2", "z/y/x/2", "z/y/x/2"),
            ("x/1/2", "x/1/2", "x/1/2"),
            ("p/a", "c1/a$$", "s/a"),
            ("q", "q", "q"),
        ] {
            assert_eq!(topic(&rules, before, &WHO).as_deref(), Ok(published));
            assert_eq!(filter(&rules, before, &WHO).as_deref(), Ok(subscribed));
        }
        assert_eq!(filter(&rules, "p/+/#", &WHO).as_deref(), Ok("s/+/#"));
        assert_eq!(filter(&rules, "$share/g/p/a", &WHO).as_deref(), Ok("$share/g/s/a"));
        assert_eq!(filter(&rules, "$exclusive/p/a", &WHO).as_deref(), Ok("$exclusive/s/a"));
    }

    #[test]
    fn what_gives_no_valid_name_is_refused() {
        let rules = [
            rule(RewriteAction::All, "a", "", "x/#"),
            rule(RewriteAction::All, "b", "", "x/#/y"),
            rule(RewriteAction::All, "c", "", ""),
            rule(RewriteAction::All, "d", "", "${username}"),
        ];
        assert_eq!(filter(&rules, "a", &WHO).as_deref(), Ok("x/#"));
        for text in ["a", "b", "c", "d"] {
            assert_eq!(topic(&rules, text, &WHO), Err(Unusable), "{text}");
            assert_eq!(filter(&rules, text, &WHO).is_err(), text != "a", "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_told() {
        let new = |filter, pattern, target| Rewrite::new(RewriteAction::All, filter, pattern, target);
        assert!(matches!(new("a#", "", "b"), Err(RewriteError::Filter)));
        assert!(matches!(new("a", "(", "b"), Err(RewriteError::Pattern(_))));
        assert!(matches!(new("a", "\\w{500}", "b"), Err(RewriteError::Pattern(_))), "it is too large");
        assert!(matches!(new("a", "(.)", "$2"), Err(RewriteError::Group(2))));
        assert!(matches!(new("a", "(.)", "${x}"), Err(RewriteError::Template(_))));
        for line in ["", "all a b", "all a b c d", "both a b c"] {
            assert!(matches!(line.parse::<Rewrite>(), Err(RewriteError::Fields)), "{line}");
        }
        let rule: Rewrite = "all  x/#  ^x/(.+)$  y/$1".parse().unwrap();
        assert_eq!(topic(&[rule], "x/1", &WHO).as_deref(), Ok("y/1"));
    }
}
