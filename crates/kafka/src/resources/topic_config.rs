//! Settings of a topic as Kafka's tools name them.

use broker::{Topic, TopicConfig};
use model::EngineKind;

use crate::error::Refusal;
use wire::kafka::ErrorCode;

/// Where a topic keeps its own bound on batches.
const MESSAGE_BYTES_MAX: &str = "max.message.bytes";

/// Kafka's number for the kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum ValueKind {
    String = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A setting that we know, with the sentence that tools show.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: ValueKind,
    pub(crate) documentation: &'static str,
    accept: fn(&mut TopicConfig, &str) -> Option<()>,
    show: fn(&TopicConfig) -> Option<String>,
}

/// Every setting of a topic, in order of the names. What is accepted with one value only is a promise that we keep anyway.
pub(crate) const SETTINGS: [Setting; 9] = [
    Setting {
        name: "cleanup.policy",
        kind: ValueKind::List,
        documentation: "What becomes of old records: delete.",
        accept: |_, value| (value == "delete").then_some(()),
        show: |_| Some("delete".into()),
    },
    Setting {
        name: "compression.type",
        kind: ValueKind::String,
        documentation: "Batches are kept as the producer compressed them: producer.",
        accept: |_, value| (value == "producer").then_some(()),
        show: |_| Some("producer".into()),
    },
    Setting {
        name: MESSAGE_BYTES_MAX,
        kind: ValueKind::Int,
        documentation: "Largest record batch in bytes.",
        accept: |config, value| {
            let bytes: u32 = value.parse().ok().filter(|bytes| *bytes <= i32::MAX as u32)?;
            config.extra.retain(|(name, _)| name != MESSAGE_BYTES_MAX);
            config.extra.push((MESSAGE_BYTES_MAX.into(), bytes.to_string()));
            Some(())
        },
        show: |config| extra(config, MESSAGE_BYTES_MAX).map(str::to_owned),
    },
    Setting {
        name: "message.timestamp.type",
        kind: ValueKind::String,
        documentation: "Records keep the producer's timestamp: CreateTime.",
        accept: |_, value| (value == "CreateTime").then_some(()),
        show: |_| Some("CreateTime".into()),
    },
    Setting {
        name: "min.insync.replicas",
        kind: ValueKind::Int,
        documentation: "Replicas that must have a record before it is acknowledged: 1 on a single node.",
        accept: |_, value| (value == "1").then_some(()),
        show: |_| Some("1".into()),
    },
    Setting {
        name: "retention.bytes",
        kind: ValueKind::Long,
        documentation: "Bytes of one partition that are kept; -1 for no limit.",
        accept: |config, value| {
            config.retention.bytes = limit(value)?;
            Some(())
        },
        show: |config| Some(show_limit(config.retention.bytes)),
    },
    Setting {
        name: "retention.ms",
        kind: ValueKind::Long,
        documentation: "Milliseconds that records are kept; -1 for no limit.",
        accept: |config, value| {
            config.retention.ms = limit(value)?;
            Some(())
        },
        show: |config| Some(show_limit(config.retention.ms)),
    },
    Setting {
        name: "robustmq.capture",
        kind: ValueKind::List,
        documentation: "Comma separated filters (+ and # as in MQTT): records published to subjects that match are stored here.",
        accept: |config, value| {
            let filters = value.split(',').map(str::trim).filter(|filter| !filter.is_empty());
            config.captures = filters.map(str::to_owned).collect();
            Some(())
        },
        show: |config| Some(config.captures.join(",")),
    },
    Setting {
        name: "robustmq.engine",
        kind: ValueKind::String,
        documentation: "Where records are kept: segment (the journal), memory (lost at a restart) or rocksdb.",
        accept: |config, value| {
            config.engine = EngineKind::from_name(value)?;
            Some(())
        },
        show: |config| Some(config.engine.name().into()),
    },
];

impl Setting {
    /// The value that holds for a topic; `message_bytes_max` is the broker's own bound.
    pub(crate) fn value(&self, config: &TopicConfig, message_bytes_max: usize) -> String {
        (self.show)(config).unwrap_or_else(|| message_bytes_max.to_string())
    }
}

/// Puts settings that a client names into `config`. Spec: T21.
pub(crate) fn apply<'a>(
    config: &mut TopicConfig,
    given: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<(), Refusal> {
    for (name, value) in given {
        let refuse = |message: String| Refusal::new(ErrorCode::InvalidConfig, message);
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| refuse(format!("unknown setting {name}")))?;
        let value = value.ok_or_else(|| refuse(format!("{name} has no value")))?;
        (setting.accept)(config, value).ok_or_else(|| refuse(format!("{name} cannot be {value:?}")))?;
    }
    Ok(())
}

/// The topic's own bound on batches, if it has one.
pub(crate) fn message_bytes_max(topic: &Topic) -> Option<usize> {
    extra(&topic.config, MESSAGE_BYTES_MAX)?.parse().ok()
}

fn extra<'a>(config: &'a TopicConfig, name: &str) -> Option<&'a str> {
    config.extra.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn limit(value: &str) -> Option<Option<u64>> {
    match value.parse::<i64>().ok()? {
        -1 => Some(None),
        number => u64::try_from(number).ok().map(Some),
    }
}

fn show_limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".into(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use broker::Retention;

    use super::*;

    fn config() -> TopicConfig {
        let retention = Retention { ms: Some(7), bytes: None };
        TopicConfig { engine: EngineKind::Segment, retention, captures: Vec::new(), extra: Vec::new() }
    }

    fn applied(given: &[(&str, Option<&str>)]) -> Result<TopicConfig, ErrorCode> {
        let mut config = config();
        apply(&mut config, given.iter().copied()).map_err(|refusal| refusal.code)?;
        Ok(config)
    }

    #[test]
    fn what_is_set_is_what_is_shown() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for (name, value) in [
            ("retention.ms", "-1"),
            ("retention.ms", "1000"),
            ("retention.bytes", "5"),
            ("max.message.bytes", "123"),
            ("cleanup.policy", "delete"),
            ("robustmq.capture", "a/#,b/+"),
            ("robustmq.engine", "memory"),
        ] {
            let config = applied(&[(name, Some(value))]).expect(name);
            let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
            assert_eq!(setting.value(&config, 1), value, "{name}");
        }
    }

    #[test]
    fn unknown_settings_and_bad_values_are_refused() {
        for given in [
            ("segment.ms", Some("1")),
            ("cleanup.policy", Some("compact")),
            ("retention.ms", Some("-2")),
            ("retention.ms", Some("soon")),
            ("retention.ms", None),
            ("max.message.bytes", Some("-1")),
            ("robustmq.engine", Some("tape")),
        ] {
            assert_eq!(applied(&[given]), Err(ErrorCode::InvalidConfig), "{given:?}");
        }
    }
}
