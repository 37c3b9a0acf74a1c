//! MQTT 3.1.1 through rumqttc.

use std::sync::mpsc::Sender;
use std::thread;

use rumqttc::{Client, Event, LastWill, MqttOptions, Outgoing, Packet, QoS, qos};
use serde_json::{Value, json};

use super::{Happening, Options, REQUESTS_MAX, hex, text, unhex, watch};

/// Bound: larger packets would end the connection.
const PACKET_MAX: usize = 1 << 20;

pub(super) fn connect(options: &Options, sender: Sender<Happening>) -> impl super::Client + use<> {
    let (host, port) = options.host_and_port();
    let mut wanted = MqttOptions::new(options.id(), host, port);
    wanted.set_clean_session(options.is_clean()).set_max_packet_size(PACKET_MAX, PACKET_MAX);
    if let Some((topic, payload)) = options.will() {
        wanted.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false));
    }
    let (client, mut connection) = Client::new(wanted, REQUESTS_MAX);
    thread::spawn(move || watch(connection.iter().map_while(|event| event.ok().map(happening)), &sender));
    Version4(client)
}

struct Version4(Client);

impl super::Client for Version4 {
    fn publish(&self, message: &Value) {
        let topic = text(message, "topic").unwrap();
        let payload = unhex(message["payload"].as_str().unwrap());
        self.0.publish(topic, level(message["qos"].as_u64()), message["retain"] == true, payload).unwrap();
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
    number.and_then(|number| qos(u8::try_from(number).ok()?).ok()).unwrap()
}

fn happening(event: Event) -> Happening {
    match event {
        Event::Incoming(Packet::ConnAck(connack)) => Happening::Connected(connack.session_present),
        Event::Incoming(Packet::SubAck(_)) => Happening::Granted,
        Event::Incoming(Packet::UnsubAck(_)) => Happening::Left,
        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Happening::Acknowledged,
        // QoS 0 has no identifier: sent is all that can be said.
        Event::Outgoing(Outgoing::Publish(0)) => Happening::Acknowledged,
        Event::Incoming(Packet::Publish(publish)) => Happening::Message(json!({
            "event": "message",
            "topic": publish.topic,
            "payload": hex(&publish.payload),
            "qos": publish.qos as u8,
            "retain": publish.retain,
            "user": [],
        })),
        Event::Incoming(_) | Event::Outgoing(_) => Happening::Other,
    }
}
