//! What can be seen of the broker: values under `$SYS`, events of clients.

use std::time::Duration;

use mqtt::{CountedTopic, ObserveConfig, SlowConfig};
use serde_json::Value;
use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, Packet, Properties, Qos, ReasonCode, RetainHandling, SubscribeOptions, Version, Will,
};

use crate::link::{Broker, Client, Hello, Message, id};

const EVERY: Duration = Duration::from_millis(20);

fn often() -> ObserveConfig {
    ObserveConfig { sys_interval: Some(EVERY), ..ObserveConfig::default() }
}

fn once() -> ObserveConfig {
    ObserveConfig { sys_interval: None, ..ObserveConfig::default() }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

/// Messages that are there already, by topic.
async fn waiting(client: &mut Client) -> Vec<(String, String)> {
    client.publish("$SYS/end", b"", Delivery::AtLeastOnce { id: id(9), dup: false }).await;
    let mut all = Vec::new();
    while let Some(message) = client.message_or_ack().await {
        all.push((message.topic.clone(), text(&message).to_owned()));
    }
    all
}

#[test]
fn who_subscribes_to_sys_gets_the_present_values_as_retained_messages() {
    on_core(async {
        let broker = Broker::observed(once()).await;
        let mut other = broker.client(Version::V5, "other").await;
        other.publish("t", b"12345", Delivery::AtMostOnce).await;
        other.nothing().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("$SYS/broker/clients/connected", Qos::ExactlyOnce).await;
        let message = client.message().await;
        assert_eq!((message.retain, message.qos, text(&message)), (true, Qos::AtMostOnce, "2"));
        client.nothing().await;
        client.subscribe("$SYS/#", Qos::AtLeastOnce).await;
        let all = waiting(&mut client).await;
        let value = |name: &str| {
            let found: Vec<_> = all.iter().filter(|(topic, _)| topic == name).collect();
            assert_eq!(found.len(), 1, "{name} in {all:?}");
            found[0].1.as_str()
        };
        assert!(value("$SYS/broker/version").starts_with("robustmq version "));
        assert!(value("$SYS/broker/uptime").ends_with(" seconds"));
        let node = value("$SYS/brokers").to_owned();
        assert!(value(&format!("$SYS/brokers/{node}/datetime")).ends_with('Z'));
        for (name, wanted) in [
            ("$SYS/broker/clients/maximum", "2"),
            ("$SYS/broker/subscriptions/count", "2"),
            ("$SYS/broker/publish/messages/received", "1"),
            ("$SYS/broker/publish/messages/sent", "1"),
            // PUBLISH: two bytes, topic and its length, no properties, payload.
            ("$SYS/broker/publish/bytes/received", "11"),
            // Two CONNECT, PUBLISH, two PINGREQ, SUBSCRIBE: the second one is not done yet.
            ("$SYS/broker/messages/received", "6"),
            // Two CONNACK, two PINGRESP, two SUBACK, the first value.
            ("$SYS/broker/messages/sent", "7"),
            ("$SYS/broker/load/connections/15min", "0.00"),
        ] {
            assert_eq!(value(name), wanted, "{name}");
        }
        for (name, wanted) in [
            ("stats/connections/count", "2"),
            ("metrics/packets/connect/received", "2"),
            ("metrics/packets/pingresp/sent", "2"),
            ("metrics/messages/qos0/received", "1"),
            ("metrics/client/disconnected", "0"),
        ] {
            assert_eq!(value(&format!("$SYS/brokers/{node}/{name}")), wanted, "{name}");
        }
    });
}

#[test]
fn values_come_again_as_long_as_somebody_subscribes() {
    on_core(async {
        let broker = Broker::observed(often()).await;
        let mut client = broker.client(Version::V5, "c").await;
        let options = SubscribeOptions {
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..SubscribeOptions::new(Qos::AtMostOnce)
        };
        client.subscribe_with("$SYS/broker/clients/connected", options, None).await;
        let first = client.message().await;
        assert_eq!((first.retain, text(&first)), (true, "1"));
        let mut second = broker.client(Version::V311, "d").await;
        second.subscribe("$SYS/+/clients/connected", Qos::AtMostOnce).await;
        assert!(second.message().await.retain, "what there is when it subscribes");
        assert!(!second.message().await.retain, "what comes later");
        while text(&client.message().await) != "2" {}
        let before = broker.counted("mqtt_subscriptions", "");
        client.send_unsubscribe("$SYS/broker/clients/connected").await;
        while client.read(|packet| matches!(packet, Packet::Publish(_))).await {}
        assert_eq!((before, broker.counted("mqtt_subscriptions", "")), (2, 1));
        second.leave_with_rest().await;
        assert_eq!(broker.counted("mqtt_subscriptions", ""), 0);
        client.nothing().await;
        // And it begins again.
        client.subscribe_with("$share/g/$SYS/broker/uptime", options, None).await;
        assert_eq!(client.message().await.topic, "$SYS/broker/uptime");
    });
}

#[test]
fn mqtt_4_7_2_1_wildcards_at_the_beginning_do_not_reach_sys() {
    on_core(async {
        let broker = Broker::observed(often()).await;
        let mut client = broker.client(Version::V5, "c").await;
        for filter in ["#", "+/broker/uptime", "+/#"] {
            client.subscribe(filter, Qos::AtMostOnce).await;
        }
        let mut watcher = broker.client(Version::V5, "w").await;
        watcher.subscribe("$SYS/broker/uptime", Qos::AtMostOnce).await;
        watcher.message().await;
        watcher.message().await;
        client.nothing().await;
    });
}

#[test]
fn clients_do_not_publish_to_sys() {
    on_core(async {
        let broker = Broker::observed(once()).await;
        let mut client = broker.client(Version::V5, "c").await;
        for topic in ["$SYS/broker/uptime", "$SYS", "$delayed/1/$SYS/a"] {
            let refused = |kind| (kind, 3, ReasonCode::NotAuthorized);
            client.publish(topic, b"x", Delivery::AtLeastOnce { id: id(3), dup: false }).await;
            assert_eq!(client.ack().await, refused(AckKind::Puback), "{topic}");
            client.publish(topic, b"x", Delivery::ExactlyOnce { id: id(3), dup: false }).await;
            assert_eq!(client.ack().await, refused(AckKind::Pubrec), "{topic}");
            client.publish(topic, b"x", Delivery::AtMostOnce).await;
        }
        client.nothing().await;
        assert_eq!(broker.counted("mqtt_dropped_total", "denied"), 3);
        client.publish_durably("$SYSTEM/a", b"x").await;
        let mut old = broker.client(Version::V311, "old").await;
        old.publish("$SYS/a", b"x", Delivery::AtLeastOnce { id: id(3), dup: false }).await;
        // It cannot be told.
        assert_eq!(old.ack().await, (AckKind::Puback, 3, ReasonCode::Success));
        let mut heir = broker.socket(Version::V5).await;
        let will = Will {
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
            topic: "$SYS/a",
            payload: b"x",
        };
        heir.connect(&Hello { will: Some(will), ..Hello::default() }).await;
        assert_eq!(heir.connack().await, (false, ReasonCode::NotAuthorized));
        heir.closed().await;
    });
}

#[test]
fn whoever_asks_is_told_what_becomes_of_clients() {
    on_core(async {
        let broker = Broker::observed(once()).await;
        let mut watcher = broker.client(Version::V5, "watcher").await;
        watcher.subscribe("$SYS/brokers/+/clients/#", Qos::AtMostOnce).await;
        let mut client = broker.client(Version::V311, "c").await;
        client.subscribe("a/+", Qos::AtLeastOnce).await;
        client.unsubscribe("a/+").await;
        client.leave().await;
        broker.client(Version::V5, "d").await.vanish().await;
        let mut told = Vec::new();
        while told.len() < 6 {
            let message = watcher.message().await;
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            let (whose, what) = message.topic.rsplit_once('/').unwrap();
            assert_eq!(whose.rsplit_once('/').unwrap().1, event["clientid"], "{}", message.topic);
            assert!(!message.retain && event["ts"].as_i64() > Some(1_600_000_000_000));
            told.push((what.to_owned(), event));
        }
        let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["connected", "subscribed", "unsubscribed", "disconnected", "connected", "disconnected"]
        );
        let connected = &told[0].1;
        for (field, wanted) in [
            ("username", Value::Null),
            ("ipaddress", "127.0.0.1".into()),
            ("proto_name", "MQTT".into()),
            ("proto_ver", 4.into()),
            ("keepalive", 0.into()),
            ("clean_start", true.into()),
            ("expiry_interval", 0.into()),
        ] {
            assert_eq!(connected[field], wanted, "{field}");
        }
        assert_eq!((&told[1].1["topic"], &told[1].1["subopts"]["qos"]), (&"a/+".into(), &1.into()));
        assert_eq!(told[2].1["topic"], "a/+");
        assert_eq!(told[3].1["reason"], "normal");
        assert_eq!(told[3].1["connected_at"], connected["connected_at"]);
        assert_eq!(told[5].1["reason"], "tcp_closed");
        watcher.nothing().await;
        assert_eq!(broker.counted("mqtt_disconnects_total", "client"), 2);
    });
}

fn history(broker: &Broker, client: &str) -> Vec<Value> {
    let events = broker.observatory().history_of(client);
    events.iter().map(|event| serde_json::to_value(event).unwrap()).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn what_became_of_a_client_is_known_afterwards() {
    on_core(async {
        let broker = Broker::start().await;
        assert!(history(&broker, "c").is_empty());
        let mut first = broker.socket(Version::V5).await;
        first.connect(&Hello { packet_size_max: Some(100), ..Hello::lasting("c") }).await;
        first.connack().await;
        first.subscribe("t", Qos::AtMostOnce).await;
        first.subscribe("u", Qos::AtMostOnce).await;
        first.publish("t", b"to itself", Delivery::AtMostOnce).await;
        first.message().await;
        first.publish("t", &[b'x'; 50], Delivery::AtMostOnce).await;
        first.message().await;
        let mut other = broker.client(Version::V311, "other").await;
        other.publish("t", &[b'x'; 200], Delivery::AtMostOnce).await;
        other.nothing().await;
        let mut second = broker.socket(Version::V311).await;
        second.connect(&Hello::lasting("c")).await;
        assert!(second.connack().await.0);
        assert_eq!(first.disconnected().await, ReasonCode::SessionTakenOver);
        second.unsubscribe("u").await;
        second.vanish().await;
        let events = history(&broker, "c");
        assert_eq!(
            names(&events),
            ["connected", "subscribed", "disconnected", "connected", "unsubscribed", "disconnected"]
        );
        assert_eq!(
            (&events[0]["protocol"], &events[0]["session_present"]),
            (&"MQTT 5.0".into(), &false.into())
        );
        assert!(events[0]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!((&events[1]["filters"], &events[1]["first"]), (&2.into(), &"t".into()));
        let gone = &events[2];
        assert_eq!((&gone["by"], &gone["reason"]), (&"broker".into(), &"takenover".into()));
        assert_eq!((&gone["messages_received"], &gone["messages_sent"]), (&2.into(), &2.into()));
        assert_eq!(gone["dropped"], serde_json::json!({ "too_large": 1 }));
        assert_eq!(
            (&events[3]["protocol"], &events[3]["session_present"]),
            (&"MQTT 3.1.1".into(), &true.into())
        );
        assert_eq!((&events[5]["by"], &events[5]["reason"]), (&"client".into(), &"tcp_closed".into()));
    });
}

#[test]
fn a_refusal_and_a_fault_have_their_reasons() {
    on_core(async {
        let broker = Broker::start().await;
        let mut refused = broker.socket(Version::V5).await;
        let will = Will {
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
            topic: "$SYS/x",
            payload: b"",
        };
        refused.connect(&Hello { id: "r", will: Some(will), ..Hello::default() }).await;
        assert_eq!(refused.connack().await.1, ReasonCode::NotAuthorized);
        let events = history(&broker, "r");
        assert_eq!((names(&events), &events[0]["reason"]), (vec!["refused"], &"not_authorized".into()));
        let mut rude = broker.client(Version::V5, "rude").await;
        rude.send(b"\xf0\x00").await;
        assert_eq!(rude.disconnected().await, ReasonCode::ProtocolError);
        let mut silent = broker.hand();
        silent.connect("silent", 1, b"\0").await;
        silent.pass(Duration::from_secs(2));
        assert_eq!(silent.disconnected().await, ReasonCode::KeepAliveTimeout as u8);
        for (client, reason) in [("rude", "protocol_error"), ("silent", "keepalive_timeout")] {
            let events = history(&broker, client);
            assert_eq!(names(&events), ["connected", "disconnected"]);
            assert_eq!((&events[1]["by"], &events[1]["reason"]), (&"broker".into(), &reason.into()));
        }
    });
}

#[test]
fn topics_are_counted_while_settings_or_resources_name_them() {
    on_core(async {
        let broker = Broker::observed(ObserveConfig { topics: vec!["a/#".to_owned()], ..once() }).await;
        let observatory = broker.observatory();
        broker.store(&CountedTopic::new("a/b")).await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&Hello { id: "r", packet_size_max: Some(60), ..Hello::default() }).await;
        reader.connack().await;
        reader.subscribe("#", Qos::AtLeastOnce).await;
        let mut plain = broker.client(Version::V311, "p").await;
        plain.subscribe("a/b", Qos::AtMostOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        writer.publish_durably("a/b", b"12345").await;
        reader.payloads(1).await;
        plain.message().await;
        writer.publish("a/c", b"123", Delivery::AtMostOnce).await;
        writer.publish("z", b"1", Delivery::AtMostOnce).await;
        reader.message().await;
        reader.message().await;
        writer.publish_durably("a/c", &[b'x'; 100]).await;
        writer.publish_durably("z", b"end").await;
        assert_eq!(reader.payloads(1).await, ["end"]);
        let seen = observatory.topic_readings();
        let of = |at: usize| (&*seen[at].filter, seen[at].messages_in, seen[at].messages_out);
        assert_eq!(of(0), ("a/#", [1, 2, 0], [2, 1, 0]));
        assert_eq!((seen[0].bytes_in, seen[0].bytes_out, seen[0].dropped), (108, 13, 1));
        assert_eq!(of(1), ("a/b", [0, 1, 0], [1, 1, 0]));
        assert_eq!((seen[1].bytes_in, seen[1].bytes_out, seen[1].dropped), (5, 10, 0));
        broker.remove(&CountedTopic::new("a/b")).await;
        writer.publish_durably("a/b", b"12345").await;
        let seen = observatory.topic_readings();
        assert_eq!((seen.len(), seen[0].messages_in), (1, [1, 3, 0]));
    });
}

#[test]
fn a_subscription_that_waits_for_its_window_is_slow() {
    on_core(async {
        let threshold = Duration::from_millis(1);
        let slow = SlowConfig { threshold, entries: 1, ..SlowConfig::default() };
        let broker = Broker::observed(ObserveConfig { slow: Some(slow), ..once() }).await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&Hello { id: "r", receive_maximum: Some(1), ..Hello::default() }).await;
        reader.connack().await;
        reader.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        writer.publish_durably("t", b"1").await;
        writer.publish_durably("t", b"2").await;
        let first = reader.message().await;
        // While the second one waits, others are stored: that takes its time.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(30) {
            writer.publish_durably("other", b"x").await;
        }
        reader.acknowledge(AckKind::Puback, first.id.unwrap()).await;
        assert_eq!(reader.message().await.payload, b"2");
        let ranking = broker.observatory().slow_subscriptions(0).unwrap();
        assert_eq!((&*ranking[0].client, &*ranking[0].topic, ranking.len()), ("r", "t", 1));
        assert!(ranking[0].latency_ms >= 30, "{ranking:?}");
        broker.observatory().clear_slow_subscriptions();
        assert!(broker.observatory().slow_subscriptions(0).unwrap().is_empty());
    });
}
