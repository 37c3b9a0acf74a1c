//! Subscriptions: how a filter is spelled in MQTT, and how the options of a subscription travel as its tag.

use std::borrow::Cow;
use std::num::NonZeroU32;

use broker::routing::{Dialect, Filter, FilterError, Level};
use model::Subject;
use wire::mqtt::{Qos, SubscribeOptions};

/// What stands before the filter of a subscription that is more than its filter.
const SHARE: &str = "$share/";
/// The same, for one that nobody else may have.
pub(crate) const EXCLUSIVE: &str = "$exclusive/";

/// Takes `$share/{name}/` or `$exclusive/` off a filter.
pub(crate) fn split_prefix(text: &str) -> (&str, &str) {
    if let Some(shared) = text.strip_prefix(SHARE)
        && let Some(name) = shared.find('/')
    {
        return text.split_at(SHARE.len() + name + 1);
    }
    match text.starts_with(EXCLUSIVE) {
        true => text.split_at(EXCLUSIVE.len()),
        false => ("", text),
    }
}

/// A filter without `$exclusive/`.
pub(crate) fn bare(text: &str) -> &str {
    text.strip_prefix(EXCLUSIVE).unwrap_or(text)
}

/// The filter over canonical subjects, whether or not the subscription is exclusive. A level may spell what MQTT reserves (`%2B`), as names do.
pub(crate) fn parse_filter(text: &str) -> Result<Filter, FilterError> {
    let text = bare(text);
    if !text.contains('%') {
        return Filter::parse(text, &Dialect::CANONICAL);
    }
    let levels: Vec<Cow<'_, str>> = text
        .split('/')
        .map(|level| match level {
            "" | "+" | "#" => Cow::Borrowed(level),
            _ => Subject::from_mqtt(level)
                .map_or(Cow::Borrowed(level), |level| Cow::Owned(level.as_str().to_owned())),
        })
        .collect();
    let levels = text.split('/').zip(&levels).map(|(spelled, level)| match spelled {
        "+" => Level::One,
        "#" => Level::Many,
        _ => Level::Literal(level),
    });
    Filter::from_levels(levels, true)
}

/// The canonical subject of an MQTT topic name; borrowed wherever the two are the same, which is nearly always. The
/// name was checked by the decoder.
pub(crate) fn subject_of(topic: &str) -> Cow<'_, str> {
    if !topic.contains('%') {
        return Cow::Borrowed(topic);
    }
    Subject::from_mqtt(topic).map_or(Cow::Borrowed(topic), |subject| Cow::Owned(subject.as_str().to_owned()))
}

/// One subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// As the client wrote it: UNSUBSCRIBE compares byte by byte [MQTT-3.10.4-1].
    pub(crate) text: Box<str>,
    pub(crate) tag: Tag,
}

/// The options of a subscription as the tag that the broker carries to each delivery: no table to look up.
///
/// ```text
///   31                      4 | 3                   | 2        | 1 0
///   subscription identifier   | retain as published | no local | QoS
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u32);

impl Tag {
    const NO_LOCAL: u32 = 1 << 2;
    const RETAIN_AS_PUBLISHED: u32 = 1 << 3;
    const IDENTIFIER_SHIFT: u32 = 4;

    /// A subscription identifier has at most 28 bits (section 3.8.2.1.2).
    pub(crate) fn new(options: &SubscribeOptions, identifier: Option<NonZeroU32>) -> Self {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        Self(
            options.qos as u32
                | bit(options.no_local, Self::NO_LOCAL)
                | bit(options.retain_as_published, Self::RETAIN_AS_PUBLISHED)
                | identifier.map_or(0, NonZeroU32::get) << Self::IDENTIFIER_SHIFT,
        )
    }

    pub(crate) fn qos(self) -> Qos {
        match self.0 & 0b11 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        }
    }

    pub(crate) fn is_no_local(self) -> bool {
        self.0 & Self::NO_LOCAL != 0
    }

    pub(crate) fn is_retain_as_published(self) -> bool {
        self.0 & Self::RETAIN_AS_PUBLISHED != 0
    }

    pub(crate) fn identifier(self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0 >> Self::IDENTIFIER_SHIFT)
    }
}

/// What the matching subscriptions of one client together ask for: one copy with the highest QoS and all identifiers
/// [MQTT-3.3.4-2, 3.3.4-4].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    tags: &'a [u32],
    /// No Local subscriptions do not count: the record is the client's own.
    own: bool,
}

impl<'a> Grant<'a> {
    pub(crate) fn new(tags: &'a [u32]) -> Self {
        Self { tags, own: false }
    }

    /// The same, for a record that the client itself published [MQTT-3.8.3-3]. None if nothing is left.
    pub(crate) fn of_own(self) -> Option<Self> {
        let grant = Self { own: true, ..self };
        grant.tags().next().is_some().then_some(grant)
    }

    fn tags(self) -> impl Iterator<Item = Tag> + use<'a> {
        self.tags.iter().map(|tag| Tag(*tag)).filter(move |tag| !(self.own && tag.is_no_local()))
    }

    pub(crate) fn qos(self) -> Qos {
        self.tags().map(Tag::qos).max().unwrap_or(Qos::AtMostOnce)
    }

    pub(crate) fn retain_as_published(self) -> bool {
        self.tags().any(Tag::is_retain_as_published)
    }

    pub(crate) fn has_no_local(self) -> bool {
        self.tags().any(Tag::is_no_local)
    }

    pub(crate) fn identifiers(self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        self.tags().filter_map(Tag::identifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::mqtt::RetainHandling;

    #[test]
    fn mqtt_4_7_filters_match_as_the_standard_says() {
        for (filter, subject, matches) in [
            ("#", "$SYS/x", false),
            ("+/x", "$anything/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/#", "a", true),
            ("+/a", "/a", true),
            ("a//b", "a//b", true),
            ("A", "a", false),
            ("a/%2B", "a/+", true),
            ("a/%2B", "a/x", false),
            ("%/+", "%/x", true),
        ] {
            let parsed = parse_filter(filter).unwrap();
            assert_eq!(parsed.matches(subject), matches, "{filter} {subject}");
        }
    }

    #[test]
    fn a_tag_carries_all_options() {
        for identifier in [None, NonZeroU32::new(1), NonZeroU32::new(268_435_455)] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                for bits in 0..4 {
                    let options = SubscribeOptions {
                        qos,
                        no_local: bits & 1 != 0,
                        retain_as_published: bits & 2 != 0,
                        retain_handling: RetainHandling::Send,
                    };
                    let tag = Tag::new(&options, identifier);
                    assert_eq!(tag.qos(), qos);
                    assert_eq!(tag.is_no_local(), options.no_local);
                    assert_eq!(tag.is_retain_as_published(), options.retain_as_published);
                    assert_eq!(tag.identifier(), identifier);
                }
            }
        }
    }

    #[test]
    fn mqtt_3_8_3_3_no_local_subscriptions_do_not_count_for_own_records() {
        let tag =
            |qos, no_local| Tag::new(&SubscribeOptions { no_local, ..SubscribeOptions::new(qos) }, None).0;
        let tags = [tag(Qos::ExactlyOnce, true), tag(Qos::AtLeastOnce, false)];
        assert_eq!(Grant::new(&tags).qos(), Qos::ExactlyOnce);
        assert_eq!(Grant::new(&tags).of_own().map(Grant::qos), Some(Qos::AtLeastOnce));
        assert!(Grant::new(&tags[..1]).of_own().is_none());
    }
}
