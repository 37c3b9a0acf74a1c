//! Messages that wait: operators see them and take them back over the API, also when the broker is killed right after.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use e2e::{Broker, Incoming, Opening, Settings, Socket, ask, wait_until};
use serde_json::Value;
use wire::mqtt::{Delivery, Qos};

/// An answer of `/api/v1`: its status and what it says.
fn api(http: SocketAddr, method: &str, path: &str) -> (u16, Value) {
    let (status, text) = ask(http, (method, &format!("/api/v1{path}")), "", "");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Publishes durably.
fn publish(socket: &mut Socket, topic: &str) {
    socket.put_publish(topic, b"payload", Delivery::AtLeastOnce { id: NonZeroU16::MIN, dup: false });
    socket.flush().expect("it is taken");
    let answer = socket.read().expect("it is answered");
    assert!(matches!(answer, Incoming::Ack(..)), "{answer:?}");
}

/// The topic of the next message.
fn next_topic(socket: &mut Socket) -> String {
    match socket.read().expect("a message comes") {
        Incoming::Publish { topic, .. } => topic,
        other => panic!("a message, not {other:?}"),
    }
}

#[test]
fn what_was_taken_back_does_not_come_also_after_a_kill() {
    let mut broker = Broker::start_with(Settings::new().with("node.cores", "2"));
    let mut reader = Socket::open(broker.mqtt(), &Opening::persistent("reader")).expect("it is let in");
    reader.subscribe("soon/#", Qos::AtLeastOnce).expect("subscribed");
    let mut socket = Socket::open(broker.mqtt(), &Opening::clean("publisher")).expect("it is let in");
    for topic in ["$delayed/3600/far/1", "$delayed/5/soon/1", "$delayed/5.2/soon/2", "$delayed/7200/far/2"] {
        publish(&mut socket, topic);
    }
    let listed = |broker: &Broker| {
        let (status, body) = api(broker.listeners().http, "GET", "/delayed");
        assert_eq!((status, &body["next"]), (200, &Value::Null));
        body["delayed"].as_array().cloned().expect("a list")
    };
    let topics = |all: &[Value]| {
        let subjects = all.iter().map(|one| one["subject"].as_str().expect("a subject").to_owned());
        subjects.collect::<Vec<_>>()
    };
    let all = listed(&broker);
    assert_eq!(topics(&all), ["soon/1", "soon/2", "far/1", "far/2"]);
    assert_eq!(all[0]["bytes"], 7);
    for taken_back in [&all[0], &all[2]] {
        let path = format!("/delayed/{}", taken_back["id"].as_str().expect("an id"));
        assert_eq!(api(broker.listeners().http, "DELETE", &path).0, 204);
    }
    broker.kill_9();
    broker.restart();
    let path = format!("/delayed/{}", all[0]["id"].as_str().expect("an id"));
    assert_eq!(api(broker.listeners().http, "DELETE", &path).0, 404);
    // The first one would have come before.
    let mut reader = Socket::open(broker.mqtt(), &Opening::persistent("reader")).expect("it is let in");
    assert_eq!(next_topic(&mut reader), "soon/2");
    let mut socket = Socket::open(broker.mqtt(), &Opening::clean("publisher")).expect("it is let in");
    publish(&mut socket, "$delayed/0.5/soon/3");
    assert_eq!(next_topic(&mut reader), "soon/3");
    wait_until("only the far one waits", || (topics(&listed(&broker)) == ["far/2"]).then_some(()));
}
