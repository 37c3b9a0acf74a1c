//! Client identifiers and what belongs to them (statements 20 to 24, 70, 88, 92).

use std::collections::BTreeSet;

use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, Packet, PropertiesBuf, Property, Qos, ReasonCode, SubscribeOptions, Version, Will,
};

use crate::link::{Broker, Client, Hello, id};

async fn hello(broker: &Broker, hello: &Hello<'_>, is_present: bool) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(hello).await;
    assert_eq!(client.connack().await, (is_present, ReasonCode::Success), "{}", hello.id);
    client
}

fn qos2(number: u16, dup: bool) -> Delivery {
    Delivery::ExactlyOnce { id: id(number), dup }
}

#[test]
fn mqtt_3_1_3_6_each_client_without_an_identifier_gets_one_of_its_own() {
    on_core(async {
        let broker = Broker::start().await;
        let mut seen = BTreeSet::new();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = broker.socket(Version::V5).await;
            client.connect(&Hello { id: "", ..Hello::default() }).await;
            let assigned = client.read(|packet| match packet {
                Packet::Connack(connack) => {
                    connack.properties.assigned_client_identifier().map(str::to_owned)
                }
                other => panic!("{other:?}"),
            });
            assert!(seen.insert(assigned.await.expect("an identifier")));
            clients.push(client);
        }
        assert_eq!(broker.counted("mqtt_connections", ""), 20);
    });
}

#[test]
fn mqtt_3_1_3_5_identifiers_of_all_kinds_are_accepted() {
    on_core(async {
        let broker = Broker::start().await;
        let long = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".repeat(20);
        for name in ["0", "0123456789abcdefghijklm", "ZYXWVUTSRQPONMLKJIHGFED", "a/b c+#\u{e4}", &long] {
            for version in [Version::V31, Version::V311, Version::V5] {
                let mut client = broker.client(version, name).await;
                client.nothing().await;
                client.leave().await;
            }
        }
    });
}

#[test]
fn mqtt_3_1_2_4_clean_start_forgets_the_state_of_qos_2() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = hello(&broker, &Hello::lasting("w"), false).await;
        writer.subscribe("back", Qos::ExactlyOnce).await;
        writer.publish("t", b"first", qos2(5, false)).await;
        assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
        writer.leave().await;
        let clean = Hello { clean_start: true, ..Hello::lasting("w") };
        let mut writer = hello(&broker, &clean, false).await;
        // The identifier names a new message; the subscription is gone, too.
        writer.publish("t", b"second", qos2(5, false)).await;
        assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
        for payload in [&b"first"[..], b"second"] {
            let message = reader.message().await;
            assert_eq!(message.payload, payload);
        }
        reader.publish("back", b"x", Delivery::AtMostOnce).await;
        reader.nothing().await;
        writer.nothing().await;
    });
}

/// Both directions are in the middle of a QoS 2 exchange when another connection takes the session over.
#[test]
fn mqtt_3_1_4_3_a_take_over_loses_and_repeats_nothing_of_qos_2() {
    on_core(async {
        let broker = Broker::start().await;
        let mut other = broker.client(Version::V5, "other").await;
        other.subscribe("up", Qos::AtMostOnce).await;
        let mut client = hello(&broker, &Hello::lasting("c"), false).await;
        client.subscribe("down", Qos::ExactlyOnce).await;
        other.publish("down", b"1", qos2(1, false)).await;
        other.publish("down", b"2", qos2(2, false)).await;
        let (first, second) = (client.message().await, client.message().await);
        client.acknowledge(AckKind::Pubrec, first.id.unwrap()).await;
        assert_eq!(client.ack().await, (AckKind::Pubrel, first.id.unwrap(), ReasonCode::Success));
        client.publish("up", b"x", qos2(9, false)).await;
        assert_eq!(client.ack().await, (AckKind::Pubrec, 9, ReasonCode::Success));
        let mut next = hello(&broker, &Hello::lasting("c"), true).await;
        assert_eq!(client.disconnected().await, ReasonCode::SessionTakenOver);
        assert_eq!(next.ack().await, (AckKind::Pubrel, first.id.unwrap(), ReasonCode::Success));
        let again = next.message().await;
        assert_eq!((&again.payload[..], again.id, again.dup), (&b"2"[..], second.id, true));
        next.publish("up", b"x", qos2(9, true)).await;
        assert_eq!(next.ack().await, (AckKind::Pubrec, 9, ReasonCode::Success));
        next.acknowledge(AckKind::Pubrel, 9).await;
        assert_eq!(next.ack().await, (AckKind::Pubcomp, 9, ReasonCode::Success));
        assert_eq!(other.ack().await.0, AckKind::Pubrec);
        assert_eq!(other.ack().await.0, AckKind::Pubrec);
        assert_eq!(other.message().await.payload, b"x");
        other.nothing().await;
        next.nothing().await;
    });
}

/// The exact bytes of a SUBACK and an UNSUBACK with good and bad filters.
#[test]
fn mqtt_3_9_3_1_good_and_bad_filters_in_one_packet() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.socket(Version::V5).await;
        let hello = Hello { problem_information: Some(false), ..Hello::default() };
        client.connect(&hello).await;
        client.connack().await;
        client.send(b"\x82\x13\x00\x07\x00\x00\x01a\x02\x00\x02a#\x00\x00\x00\x01\x00\x01b\x01").await;
        client.hears(b"\x90\x07\x00\x07\x00\x02\x8f\x8f\x01", "SUBACK").await;
        client.send(b"\xa2\x0d\x00\x08\x00\x00\x01a\x00\x01x\x00\x02a#").await;
        client.hears(b"\xb0\x06\x00\x08\x00\x00\x11\x8f", "UNSUBACK").await;
        let mut old = broker.client(Version::V311, "old").await;
        old.send(b"\x82\x0b\x00\x07\x00\x01a\x02\x00\x02a#\x00").await;
        old.hears(b"\x90\x04\x00\x07\x02\x80", "SUBACK of 3.1.1").await;
        old.send(b"\xa2\x05\x00\x08\x00\x01x").await;
        old.hears(b"\xb0\x02\x00\x08", "UNSUBACK of 3.1.1").await;
    });
}

#[test]
fn mqtt_3_1_2_14_a_will_goes_with_its_own_qos_retain_expiry_and_properties() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        let options =
            SubscribeOptions { retain_as_published: true, ..SubscribeOptions::new(Qos::ExactlyOnce) };
        reader.subscribe_with("will", options, None).await;
        let mut properties = PropertiesBuf::new();
        for property in [
            Property::PayloadFormatIndicator(true),
            Property::MessageExpiryInterval(100),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("r"),
            Property::CorrelationData(b"\x01"),
            Property::UserProperty("k", "v"),
        ] {
            properties.push(property).unwrap();
        }
        let will = Will {
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: properties.view(),
            topic: "will",
            payload: b"gone",
        };
        hello(&broker, &Hello { id: "c", will: Some(will), ..Hello::default() }, false).await.vanish().await;
        let message = reader.message().await;
        assert_eq!(
            (message.qos, message.retain, &message.payload[..]),
            (Qos::ExactlyOnce, true, &b"gone"[..])
        );
        for said in
            ["PayloadFormatIndicator(true)", "MessageExpiryInterval(100)", "ContentType(\"text/plain\")"]
        {
            assert!(message.properties.contains(said), "{}", message.properties);
        }
        for said in ["ResponseTopic(\"r\")", "CorrelationData([1])", "UserProperty(\"k\", \"v\")"] {
            assert!(message.properties.contains(said), "{}", message.properties);
        }
        // It is retained as any other message.
        let mut late = broker.client(Version::V311, "late").await;
        late.subscribe("will", Qos::AtMostOnce).await;
        assert_eq!(late.message().await.payload, b"gone");
    });
}

/// Its expiry is far shorter than its connection.
#[test]
fn mqtt_4_1_0_1_a_session_does_not_end_while_it_is_connected() {
    on_core(async {
        let broker = Broker::start().await;
        let short = Hello { expiry: Some(1), ..Hello::lasting("c") };
        let mut client = hello(&broker, &short, false).await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        // Another session with the same expiry passes away meanwhile.
        let gone = Hello { expiry: Some(1), ..Hello::lasting("gone") };
        hello(&broker, &gone, false).await.leave().await;
        let ended = async {
            loop {
                let mut back = broker.socket(Version::V5).await;
                back.connect(&gone).await;
                let (is_present, reason) = back.connack().await;
                assert_eq!(reason, ReasonCode::Success);
                if !is_present {
                    return;
                }
                // Its time counts from here on again.
                let _left_alone = back.vanish().await;
                while broker.counted("mqtt_connections", "") > 1 {
                    tokio::task::yield_now().await;
                }
                let begun = std::time::Instant::now();
                while begun.elapsed() < std::time::Duration::from_millis(1100) {
                    client.nothing().await;
                }
            }
        };
        tokio::time::timeout(crate::link::PATIENCE, ended).await.expect("a session ends in time");
        client.vanish().await;
        hello(&broker, &Hello::lasting("c"), true).await.nothing().await;
    });
}
