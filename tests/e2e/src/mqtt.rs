//! What MQTT client programs are told to publish, and what they say they received.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::kafka::{hex, unhex};
use crate::process::Process;
use crate::programs::Program;

/// A message as an MQTT client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The RETAIN flag.
    pub retain: bool,
    /// User properties in order, duplicates kept. 5.0 only, as all that follow.
    pub user: Vec<(String, String)>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation: Option<Vec<u8>>,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<u64>,
    /// Payload Format Indicator.
    pub payload_format: Option<u64>,
}

impl Message {
    /// With a QoS and no properties.
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Message {
        Message { topic: topic.to_owned(), payload: payload.into(), qos, ..Message::default() }
    }

    /// With RETAIN.
    #[must_use]
    pub fn retained(mut self) -> Message {
        self.retain = true;
        self
    }

    /// With one more user property.
    #[must_use]
    pub fn with_user(mut self, name: &str, value: &str) -> Message {
        self.user.push((name.to_owned(), value.to_owned()));
        self
    }

    fn line(&self) -> String {
        json!({
            "topic": self.topic,
            "payload": hex(&self.payload),
            "qos": self.qos,
            "retain": self.retain,
            "user": self.user,
            "content_type": self.content_type,
            "response_topic": self.response_topic,
            "correlation": self.correlation.as_deref().map(hex),
            "expiry": self.expiry,
            "payload_format": self.payload_format,
        })
        .to_string()
    }
}

impl Program {
    /// Publishes messages in order and returns when all were acknowledged. More options are the program's own, as
    /// `version=4`.
    pub fn publish(self, mqtt: SocketAddr, messages: &[Message], more: &[&str]) {
        let options: Vec<_> = more.iter().map(|&option| option.to_owned()).collect();
        let mut process = self.start("publish", mqtt, &options);
        messages.iter().for_each(|message| process.write_line(&message.line()));
        process.close_input();
        for _ in messages {
            let event = process.next_event(&["acked"]);
            assert!(event["reason"].as_u64() < Some(0x80), "refused: {event}");
        }
        process.finish();
    }

    /// Subscribes and returns once the subscription is granted.
    pub fn subscribe(self, mqtt: SocketAddr, filter: &str, more: &[&str]) -> Subscriber {
        let filter = format!("filter={filter}");
        let options: Vec<_> =
            [filter].into_iter().chain(more.iter().map(|&option| option.to_owned())).collect();
        let mut process = self.start("subscribe", mqtt, &options);
        process.next_event(&["ready"]);
        Subscriber { process }
    }
}

/// A subscriber that runs.
pub struct Subscriber {
    process: Process,
}

impl Subscriber {
    /// The next message. Panics if none comes in time.
    pub fn next_message(&mut self) -> Message {
        received(&self.process.next_event(&["message"]))
    }

    /// A message that has come already.
    pub fn arrived(&mut self) -> Option<Message> {
        self.process.arrived_event("message").as_ref().map(received)
    }

    /// Unsubscribes, and returns when that is confirmed.
    pub fn leave(&mut self, filter: &str) {
        self.process.write_line(filter);
        self.process.next_event(&["unsubscribed"]);
    }

    /// The next `count` messages.
    pub fn take(&mut self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.next_message()).collect()
    }

    /// Disconnects in good order.
    pub fn finish(self) {
        self.process.finish();
    }

    /// Is killed: the connection breaks without DISCONNECT.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

fn received(event: &Value) -> Message {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let user = event["user"].as_array().expect("user properties").iter();
    Message {
        topic: text(&event["topic"]).expect("a topic"),
        payload: unhex(&event["payload"]).expect("a payload"),
        qos: event["qos"].as_u64().and_then(|qos| qos.try_into().ok()).expect("a QoS"),
        retain: event["retain"].as_bool().unwrap_or(event["retain"] == 1),
        user: user.map(|pair| (text(&pair[0]).expect("a name"), text(&pair[1]).expect("a value"))).collect(),
        content_type: text(&event["content_type"]),
        response_topic: text(&event["response_topic"]),
        correlation: unhex(&event["correlation"]),
        expiry: event["expiry"].as_u64(),
        payload_format: event["payload_format"].as_u64(),
    }
}
