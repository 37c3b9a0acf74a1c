//! Canonical names: what a record is published to, and what a topic is called.
//!
//! A name is a path of levels joined by `/`. Each protocol spells it by a bijection between canonical names and the
//! names that its own standard permits; there is a file below for each spelling. Filters and wildcards are not names:
//! they belong to routing.

mod escape;
mod kafka;
mod mqtt;
mod nats;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::Split;
use std::sync::Arc;

use thiserror::Error;

/// The longest canonical name, in bytes: what MQTT's length field can say.
pub const NAME_LEN_MAX: usize = 65_535;

/// Why a text is not a name, or a name has no spelling in a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name has at least one byte")]
    Empty,
    /// Longer than the protocol, or we, allow.
    #[error("the name has {len} bytes, at most {len_max} are allowed")]
    TooLong {
        /// The name's length as spelled, in bytes; a lower bound where that is certain to be too much.
        len: usize,
        /// The bound.
        len_max: usize,
    },
    /// A character that this spelling does not permit.
    #[error("{0:?} is not allowed in a name")]
    Forbidden(char),
    /// `.` or `..` alone, which Kafka refuses.
    #[error("a name cannot be '.' or '..'")]
    Dots,
    /// Two dots in a row, or one at an end, where NATS wants a token.
    #[error("a name cannot have an empty token")]
    EmptyToken,
    /// A token that is a wildcard and therefore part of a filter, not of a name.
    #[error("a name cannot have a wildcard as a token")]
    Wildcard,
}

/// Declares a checked canonical name.
macro_rules! canonical_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Levels joined by `/` (which may be empty), 1 to [`NAME_LEN_MAX`] bytes of UTF-8 without U+0000. Cheap to clone; equal,
        /// ordered and hashed as its text, so that a map can be asked with a `&str`.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps a canonical name.
            ///
            /// # Errors
            /// If the text is empty, too long or holds U+0000.
            pub fn new(name: &str) -> Result<$name, NameError> {
                check(name)?;
                Ok($name(name.into()))
            }

            /// The canonical text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The levels, first to last.
            pub fn levels(&self) -> Split<'_, char> {
                self.0.split('/')
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

canonical_name! {
    /// What a topic is called.
    TopicName
}

canonical_name! {
    /// What a record is published to.
    Subject
}

impl TopicName {
    /// Reads Kafka's spelling. Every name that Kafka permits is some topic's.
    ///
    /// # Errors
    /// If Kafka does not permit the name.
    pub fn from_kafka(name: &str) -> Result<TopicName, NameError> {
        Ok(TopicName(kafka::decode(name)?.into()))
    }

    /// Kafka's spelling.
    ///
    /// # Errors
    /// [`NameError::TooLong`] or [`NameError::Dots`]: Kafka clients reach this topic through a capture only.
    pub fn to_kafka(&self) -> Result<String, NameError> {
        kafka::encode(&self.0)
    }
}

impl Subject {
    /// Reads an MQTT topic name, which is the canonical name but where another protocol needs what MQTT reserves.
    ///
    /// # Errors
    /// If MQTT does not permit the name; a topic filter with wildcards is not a name.
    pub fn from_mqtt(name: &str) -> Result<Subject, NameError> {
        Ok(Subject(mqtt::decode(name)?.into()))
    }

    /// The MQTT topic name; borrowed wherever it is the canonical name, which is nearly always.
    ///
    /// # Errors
    /// [`NameError::TooLong`].
    pub fn to_mqtt(&self) -> Result<Cow<'_, str>, NameError> {
        mqtt::encode(&self.0)
    }

    /// Reads a NATS subject.
    ///
    /// # Errors
    /// If NATS does not permit the subject for publishing.
    pub fn from_nats(subject: &str) -> Result<Subject, NameError> {
        Ok(Subject(nats::decode(subject)?.into()))
    }

    /// The NATS subject. NATS itself sets no bound to its length; a server's limit on a protocol line may.
    pub fn to_nats(&self) -> String {
        nats::encode(&self.0)
    }
}

impl From<Subject> for TopicName {
    /// The topic of the subject's own name, where its records are stored if nothing captures it.
    fn from(subject: Subject) -> TopicName {
        TopicName(subject.0)
    }
}

impl From<TopicName> for Subject {
    /// The subject that a record has which was published to the topic itself.
    fn from(topic: TopicName) -> Subject {
        Subject(topic.0)
    }
}

fn check(name: &str) -> Result<(), NameError> {
    check_len(name.len(), NAME_LEN_MAX)?;
    if name.as_bytes().contains(&0) { Err(NameError::Forbidden('\0')) } else { Ok(()) }
}

fn check_len(len: usize, len_max: usize) -> Result<(), NameError> {
    match len {
        0 => Err(NameError::Empty),
        _ if len > len_max => Err(NameError::TooLong { len, len_max }),
        _ => Ok(()),
    }
}

/// Pieces that touch every rule of every spelling when they meet, for the property tests below this module.
#[cfg(test)]
mod testing {
    use proptest::prelude::*;

    const PIECES: [&str; 36] = [
        "/", "/", "//", ".", "_", "_", "-", "%", "%", "*", ">", "+", "#", " ", "a", "Z9", "é", "😀", "\u{1}",
        "\u{7f}", "_-5F", "-5F", "5F", "-2E", "-C3", "_-A9", "-2F", "_-00", "25", "%25", "2F", "2A", "3E",
        "20", "2B", "%23",
    ];

    /// Any canonical name.
    pub(super) fn canonical() -> impl Strategy<Value = String> {
        let pieces = proptest::collection::vec(proptest::sample::select(&PIECES[..]), 1..14);
        prop_oneof![pieces.prop_map(|pieces| pieces.concat()), "[^\0]{1,40}"]
    }

    /// Any text made of the pieces that only consist of characters that `legal` lets through.
    pub(super) fn spelled(legal: fn(char) -> bool) -> impl Strategy<Value = String> {
        let pieces = proptest::collection::vec(proptest::sample::select(&PIECES[..]), 1..14);
        pieces.prop_map(move |pieces| pieces.concat().chars().filter(|&found| legal(found)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_of_names() {
        let table = [
            ("orders", "orders", "orders", "orders"),
            ("sensor/12/temp", "sensor/12/temp", "sensor.12.temp", "sensor.12.temp"),
            ("v1.0/state", "v1.0/state", "v1/0.state", "v1_-2E0.state"),
        ];
        for (canonical, mqtt, nats, kafka) in table {
            let subject = Subject::new(canonical).unwrap();
            let topic = TopicName::from(subject.clone());
            assert_eq!(subject.to_mqtt().as_deref(), Ok(mqtt));
            assert_eq!(subject.to_nats(), nats);
            assert_eq!(topic.to_kafka().as_deref(), Ok(kafka));
            assert_eq!(Subject::from_mqtt(mqtt).as_ref(), Ok(&subject));
            assert_eq!(Subject::from_nats(nats).as_ref(), Ok(&subject));
            assert_eq!(TopicName::from_kafka(kafka), Ok(topic));
        }
    }

    #[test]
    fn canonical_names_have_bounds() {
        assert_eq!(Subject::new(""), Err(NameError::Empty));
        assert_eq!(Subject::new("a\0b"), Err(NameError::Forbidden('\0')));
        let long = "x".repeat(NAME_LEN_MAX);
        assert!(Subject::new(&long).is_ok());
        let too_long = NameError::TooLong { len: NAME_LEN_MAX + 1, len_max: NAME_LEN_MAX };
        assert_eq!(Subject::new(&format!("{long}x")), Err(too_long));
    }

    #[test]
    fn levels_may_be_empty() {
        let subject = Subject::new("/a//b/").unwrap();
        assert_eq!(subject.levels().collect::<Vec<_>>(), ["", "a", "", "b", ""]);
    }
}
