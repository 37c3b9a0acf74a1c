//! The record: what one message is once it has left its protocol, and the header names that all fronts agree on.
//!
//! How records are packed into stored bytes is the `batch` module's affair.

use bytes::Bytes;

/// One message in the neutral form that every front converts to and from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Chooses the shard and, in a compacted topic, which earlier records this one replaces.
    pub key: Option<Bytes>,
    /// The payload. `None` is a tombstone, which is not the same as an empty payload.
    pub value: Option<Bytes>,
    /// In the order in which they were sent; a name may occur more than once.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch; -1 where the producer gave none.
    pub timestamp: i64,
}

impl Record {
    /// The first header of that name, if there is one.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers.iter().find(|header| header.name == name.as_bytes())
    }
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by Kafka's rule; kept as the bytes that came, so that what breaks the rule still passes through unharmed.
    pub name: Bytes,
    /// `None` is Kafka's null, which is not the same as an empty value.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Header {
        Header { name: name.into(), value: Some(value.into()) }
    }

    /// The name as text, or `None` where a producer broke Kafka's rule.
    pub fn name_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}

/// Header names that mean the same in every view, and the prefixes under which a front keeps what only it understands.
pub mod header_name {
    /// The media type of the payload, as text.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The encoding of the payload (such as `gzip`), as text.
    pub const CONTENT_ENCODING: &str = "content-encoding";
    /// Binds an answer to its request; opaque bytes.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// Where an answer is expected: a canonical name.
    pub const REPLY_TO: &str = "reply-to";
    /// The publisher's own identity of the message; opaque bytes.
    pub const MESSAGE_ID: &str = "message-id";
    /// When the message is no longer wanted: milliseconds since the Unix epoch, in decimal digits.
    pub const EXPIRES_AT: &str = "expires-at";
    /// The message's priority in decimal digits; higher is sooner.
    pub const PRIORITY: &str = "priority";
    /// The canonical name that the record was published to, where that is not the name of its topic.
    pub const SUBJECT: &str = "subject";
    /// Prefix of what only MQTT understands.
    pub const MQTT_PREFIX: &str = "mqtt.";
    /// Prefix of what only AMQP understands.
    pub const AMQP_PREFIX: &str = "amqp.";
    /// Prefix of what only NATS understands.
    pub const NATS_PREFIX: &str = "nats.";
    /// Prefix of what only mq9 understands.
    pub const MQ9_PREFIX: &str = "mq9.";
}
