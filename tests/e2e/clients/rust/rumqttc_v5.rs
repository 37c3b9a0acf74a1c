//! MQTT 5.0 through rumqttc.

use std::sync::mpsc::Sender;
use std::thread;

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PublishProperties};
use rumqttc::v5::mqttbytes::{QoS, qos};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::{Value, json};

use super::{Happening, Options, REQUESTS_MAX, SESSION_SECONDS, hex, text, unhex, watch};

pub(super) fn connect(options: &Options, sender: Sender<Happening>) -> impl super::Client + use<> {
    let (host, port) = options.host_and_port();
    let mut wanted = MqttOptions::new(options.id(), host, port);
    wanted.set_clean_start(options.is_clean());
    if !options.is_clean() {
        wanted.set_session_expiry_interval(Some(SESSION_SECONDS));
    }
    if let Some((topic, payload)) = options.will() {
        wanted.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None));
    }
    let (client, mut connection) = Client::new(wanted, REQUESTS_MAX);
    thread::spawn(move || watch(connection.iter().map_while(|event| event.ok().map(happening)), &sender));
    Version5(client)
}

struct Version5(Client);

impl super::Client for Version5 {
    fn publish(&self, message: &Value) {
        let topic = text(message, "topic").unwrap();
        let payload = unhex(message["payload"].as_str().unwrap());
        let (qos, retain) = (level(message["qos"].as_u64()), message["retain"] == true);
        self.0.publish_with_properties(topic, qos, retain, payload, properties(message)).unwrap();
    }

    fn subscribe(&self, filter: &str, qos: u8) {
        self.0.subscribe(filter, level(Some(qos.into()))).unwrap();
    }

    fn unsubscribe(&self, filter: &str) {
        self.0.unsubscribe(filter).unwrap();
    }

    fn disconnect(&self) {
        self.0.disconnect().unwrap();
    }
}

fn level(number: Option<u64>) -> QoS {
    number.and_then(|number| qos(u8::try_from(number).ok()?)).unwrap()
}

fn properties(message: &Value) -> PublishProperties {
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    PublishProperties {
        payload_format_indicator: message["payload_format"]
            .as_u64()
            .and_then(|format| format.try_into().ok()),
        message_expiry_interval: message["expiry"].as_u64().and_then(|seconds| seconds.try_into().ok()),
        response_topic: text(message, "response_topic"),
        correlation_data: message["correlation"].as_str().map(|data| Bytes::from(unhex(data))),
        user_properties: message["user"].as_array().into_iter().flatten().filter_map(pair).collect(),
        content_type: text(message, "content_type"),
        ..PublishProperties::default()
    }
}

fn happening(event: Event) -> Happening {
    match event {
        Event::Incoming(Packet::ConnAck(connack)) => Happening::Connected(connack.session_present),
        Event::Incoming(Packet::SubAck(_)) => Happening::Granted,
        Event::Incoming(Packet::UnsubAck(_)) => Happening::Left,
        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Happening::Acknowledged,
        // QoS 0 has no identifier: sent is all that can be said.
        Event::Outgoing(Outgoing::Publish(0)) => Happening::Acknowledged,
        Event::Incoming(Packet::Publish(publish)) => {
            let properties = publish.properties.unwrap_or_default();
            Happening::Message(json!({
                "event": "message",
                "topic": String::from_utf8_lossy(&publish.topic),
                "payload": hex(&publish.payload),
                "qos": publish.qos as u8,
                "retain": publish.retain,
                "user": properties.user_properties,
                "content_type": properties.content_type,
                "response_topic": properties.response_topic,
                "correlation": properties.correlation_data.map(|data| hex(&data)),
                "expiry": properties.message_expiry_interval,
                "payload_format": properties.payload_format_indicator,
            }))
        }
        Event::Incoming(_) | Event::Outgoing(_) => Happening::Other,
    }
}
