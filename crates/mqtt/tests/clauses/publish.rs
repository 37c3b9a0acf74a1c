//! PUBLISH both ways, QoS 1 and 2, flow control (statements 35 to 66).

use std::num::NonZeroU16;

use mqtt::MqttConfig;
use testkit::on_core;
use wire::mqtt::{AckKind, Delivery, PropertiesBuf, Property, Qos, ReasonCode, SubscribeOptions, Version};

use crate::link::{Broker, Hello, id};

fn qos1(number: u16) -> Delivery {
    Delivery::AtLeastOnce { id: id(number), dup: false }
}

fn qos2(number: u16, dup: bool) -> Delivery {
    Delivery::ExactlyOnce { id: id(number), dup }
}

#[test]
fn mqtt_3_8_4_8_a_delivery_has_the_lower_qos() {
    on_core(async {
        let broker = Broker::start().await;
        for version in [Version::V31, Version::V311, Version::V5] {
            for granted in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut reader = broker.client(version, "reader").await;
                reader.subscribe("t", granted).await;
                let mut writer = broker.client(version, "writer").await;
                writer.publish("t", b"0", Delivery::AtMostOnce).await;
                let message = reader.message().await;
                assert_eq!((message.qos, &message.payload[..]), (Qos::AtMostOnce, &b"0"[..]));
                writer.publish("t", b"1", qos1(7)).await;
                assert_eq!(writer.ack().await, (AckKind::Puback, 7, ReasonCode::Success));
                let message = reader.message().await;
                assert_eq!((message.qos, &message.payload[..]), (Qos::AtLeastOnce.min(granted), &b"1"[..]));
                writer.publish("t", b"2", qos2(8, false)).await;
                assert_eq!(writer.ack().await, (AckKind::Pubrec, 8, ReasonCode::Success));
                writer.acknowledge(AckKind::Pubrel, 8).await;
                assert_eq!(writer.ack().await, (AckKind::Pubcomp, 8, ReasonCode::Success));
                let message = reader.message().await;
                assert_eq!((message.qos, &message.payload[..]), (Qos::ExactlyOnce.min(granted), &b"2"[..]));
                reader.leave().await;
                writer.leave().await;
            }
        }
    });
}

#[test]
fn mqtt_3_3_2_4_properties_are_forwarded_as_they_are() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::AtLeastOnce).await;
        let mut old = broker.client(Version::V311, "old").await;
        old.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        let mut properties = PropertiesBuf::new();
        for property in [
            Property::ContentType("text/plain"),
            Property::ResponseTopic("a/b"),
            Property::CorrelationData(b"\x00\xff"),
            Property::MessageExpiryInterval(100),
            Property::PayloadFormatIndicator(true),
            Property::UserProperty("content-type", "mine"),
            Property::UserProperty("k", "1"),
            Property::UserProperty("k", "2"),
        ] {
            properties.push(property).unwrap();
        }
        for delivery in [Delivery::AtMostOnce, qos1(1)] {
            writer.publish_with("t", b"x", delivery, (false, properties.view())).await;
            let message = reader.message().await;
            assert_eq!(message.properties, format!("{:?}", properties.view()));
            assert_eq!(old.message().await.payload, b"x");
        }
        // What has expired is not sent [MQTT-3.3.2-5].
        properties.clear();
        properties.push(Property::MessageExpiryInterval(0)).unwrap();
        writer.publish_with("t", b"late", qos1(2), (false, properties.view())).await;
        writer.publish("t", b"next", qos1(3)).await;
        assert_eq!(reader.message().await.payload, b"next");
    });
}

#[test]
fn mqtt_4_3_3_10_a_qos_2_publish_that_comes_again_is_not_stored_again() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::AtLeastOnce).await;
        for hello in [Hello::lasting("writer"), Hello { id: "clean", ..Hello::default() }] {
            let mut writer = broker.socket(Version::V5).await;
            writer.connect(&hello).await;
            writer.connack().await;
            // Also while the first is still on its way.
            writer.publish("t", b"first", qos2(5, false)).await;
            writer.publish("t", b"first", qos2(5, true)).await;
            assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
            writer.publish("t", b"first", qos2(5, true)).await;
            assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
            if hello.expiry.is_some() {
                // Over a connection, too.
                drop(writer);
                writer = broker.socket(Version::V5).await;
                writer.connect(&hello).await;
                assert_eq!(writer.connack().await, (true, ReasonCode::Success));
                writer.publish("t", b"first", qos2(5, true)).await;
                assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
            }
            for _ in 0..2 {
                // PUBREL again finds nothing [MQTT-4.3.3-11].
                writer.acknowledge(AckKind::Pubrel, 5).await;
                assert_eq!((writer.ack().await.0, 0), (AckKind::Pubcomp, 0));
            }
            // After PUBCOMP the identifier names a new message [MQTT-4.3.3-12].
            writer.publish("t", b"second", qos2(5, false)).await;
            assert_eq!(writer.ack().await, (AckKind::Pubrec, 5, ReasonCode::Success));
            assert_eq!(reader.payloads(2).await, ["first", "second"]);
        }
    });
}

#[test]
fn mqtt_4_3_3_11_unknown_identifiers_do_no_harm() {
    on_core(async {
        let broker = Broker::start().await;
        for (version, reason) in
            [(Version::V5, ReasonCode::PacketIdentifierNotFound), (Version::V311, ReasonCode::Success)]
        {
            let mut client = broker.client(version, "c").await;
            client.subscribe("t", Qos::AtLeastOnce).await;
            client.publish("t", b"x", qos1(1)).await;
            let mut kinds = Vec::new();
            for _ in 0..2 {
                kinds.push(
                    client.read(|packet| format!("{packet:?}").split('(').next().unwrap().to_owned()).await,
                );
            }
            kinds.sort();
            assert_eq!(kinds, ["Puback", "Publish"]);
            client.acknowledge(AckKind::Puback, 4711).await;
            client.acknowledge(AckKind::Pubcomp, 4711).await;
            client.acknowledge(AckKind::Pubrel, 4711).await;
            assert_eq!(client.ack().await, (AckKind::Pubcomp, 4711, reason));
            client.acknowledge(AckKind::Pubrec, 4711).await;
            assert_eq!(client.ack().await, (AckKind::Pubrel, 4711, reason));
            client.nothing().await;
            client.leave().await;
        }
    });
}

#[test]
fn mqtt_2_2_1_5_an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for (granted, wrong) in [
            (Qos::ExactlyOnce, AckKind::Puback),
            (Qos::AtLeastOnce, AckKind::Pubrec),
            (Qos::AtLeastOnce, AckKind::Pubcomp),
        ] {
            let mut reader = broker.client(Version::V5, "reader").await;
            reader.subscribe("t", granted).await;
            writer.publish("t", b"x", qos2(1, false)).await;
            writer.ack().await;
            writer.acknowledge(AckKind::Pubrel, 1).await;
            writer.ack().await;
            let number = reader.message().await.id.unwrap();
            reader.acknowledge(wrong, number).await;
            assert_eq!(reader.disconnected().await, ReasonCode::ProtocolError);
        }
    });
}

#[test]
fn mqtt_4_9_0_2_the_receive_maximum_of_the_client_is_kept() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&Hello { id: "reader", receive_maximum: Some(2), ..Hello::default() }).await;
        reader.connack().await;
        reader.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for number in 1..=6u16 {
            let delivery = if number % 2 == 0 { qos1(number) } else { qos2(number, false) };
            writer.publish("t", number.to_string().as_bytes(), delivery).await;
            writer.ack().await;
        }
        let first = reader.message().await;
        let second = reader.message().await;
        assert_eq!((&first.payload[..], &second.payload[..]), (&b"1"[..], &b"2"[..]));
        // The quota is used up; QoS 0 flows on [MQTT-3.3.4-9].
        writer.publish("t", b"zero", Delivery::AtMostOnce).await;
        assert_eq!(reader.message().await.payload, b"zero");
        reader.nothing().await;
        reader.acknowledge(AckKind::Puback, second.id.unwrap()).await;
        let third = reader.message().await;
        assert_eq!(third.payload, b"3");
        // PUBREC alone gives nothing back, unless it is a refusal [MQTT-4.9.0-2].
        reader.acknowledge(AckKind::Pubrec, first.id.unwrap()).await;
        assert_eq!(reader.ack().await, (AckKind::Pubrel, first.id.unwrap(), ReasonCode::Success));
        reader.nothing().await;
        reader.acknowledge(AckKind::Pubcomp, first.id.unwrap()).await;
        assert_eq!(reader.message().await.payload, b"4");
        reader.acknowledge_with(AckKind::Pubrec, third.id.unwrap(), ReasonCode::UnspecifiedError).await;
        assert_eq!(reader.message().await.payload, b"5");
    });
}

#[test]
fn mqtt_3_3_4_7_our_receive_maximum_is_held_against_the_client() {
    on_core(async {
        let config = MqttConfig { receive_maximum: NonZeroU16::new(2).unwrap(), ..MqttConfig::default() };
        let broker = Broker::with(config).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for number in 1..=2 {
            writer.publish("t", b"x", qos2(number, false)).await;
            writer.ack().await;
        }
        writer.publish("t", b"x", qos2(3, false)).await;
        assert_eq!(writer.disconnected().await, ReasonCode::ReceiveMaximumExceeded);
    });
}

#[test]
fn mqtt_3_1_2_25_what_is_too_large_for_the_client_is_passed_over() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&Hello { id: "reader", packet_size_max: Some(60), ..Hello::default() }).await;
        reader.connack().await;
        reader.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for delivery in [Delivery::AtMostOnce, qos1(1)] {
            writer.publish("t", &[b'x'; 100], delivery).await;
            writer.publish("t", b"small", delivery).await;
        }
        assert_eq!(reader.payloads(2).await, ["small", "small"]);
        assert_eq!(broker.counted("mqtt_dropped_total", "too_large"), 2);
    });
}

#[test]
fn mqtt_4_6_0_5_large_and_small_messages_keep_their_order() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&Hello { id: "reader", receive_maximum: Some(7), ..Hello::default() }).await;
        reader.connack().await;
        reader.subscribe("t/+", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        let sizes = [10, 5_000, 1, 60_000, 20, 9_000, 3];
        for (number, size) in sizes.iter().cycle().take(21).enumerate() {
            let mut payload = format!("{number:03}").into_bytes();
            payload.resize(3 + size, b'.');
            writer.publish("t/a", &payload, qos1(number as u16 + 1)).await;
        }
        for (number, size) in sizes.iter().cycle().take(21).enumerate() {
            let message = reader.message().await;
            let prefix = String::from_utf8_lossy(&message.payload[..3]);
            assert_eq!((&prefix[..], message.payload.len()), (&format!("{number:03}")[..], 3 + size));
            reader.acknowledge(AckKind::Puback, message.id.unwrap()).await;
        }
        for number in 1..=21 {
            assert_eq!(writer.ack().await, (AckKind::Puback, number, ReasonCode::Success));
        }
    });
}

/// A subscriber that stops reading: QoS 0 is dropped and counted, QoS 1 comes from the log later, the publisher goes on
/// (statement 98).
#[test]
fn a_slow_subscriber_is_bounded_and_loses_nothing_that_was_promised() {
    on_core(async {
        let broker = Broker::start().await;
        let mut slow = broker.client(Version::V5, "slow").await;
        slow.subscribe("acknowledged", Qos::AtLeastOnce).await;
        slow.subscribe("not", Qos::AtMostOnce).await;
        let mut fast = broker.client(Version::V5, "fast").await;
        fast.subscribe("#", Qos::AtMostOnce).await;
        let mut writer = broker.client(Version::V311, "writer").await;
        const COUNT: usize = 3_000;
        let payload = vec![b'x'; 4_000];
        for number in 0..COUNT {
            writer.publish("not", &payload, Delivery::AtMostOnce).await;
            writer.publish("acknowledged", format!("{number}").as_bytes(), qos1(1)).await;
            writer.ack().await;
            fast.message().await;
            fast.message().await;
        }
        assert!(broker.counted("mqtt_dropped_total", "slow") > 0);
        let mut next = 0;
        let mut others = 0;
        while next < COUNT {
            let message = slow.message().await;
            if message.topic == "not" {
                others += 1;
                continue;
            }
            assert_eq!(message.payload, next.to_string().as_bytes());
            slow.acknowledge(AckKind::Puback, message.id.unwrap()).await;
            next += 1;
        }
        assert!(others < COUNT, "nothing was dropped");
    });
}

#[test]
fn mqtt_3_8_3_3_no_local_holds_over_a_reconnect() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.socket(Version::V5).await;
        client.connect(&Hello::lasting("c")).await;
        client.connack().await;
        let no_local = SubscribeOptions { no_local: true, ..SubscribeOptions::new(Qos::AtLeastOnce) };
        client.subscribe_with("t", no_local, None).await;
        let mut other = broker.client(Version::V5, "other").await;
        other.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        client.publish("t", b"zero", Delivery::AtMostOnce).await;
        client.publish_durably("t", b"mine").await;
        assert_eq!(other.payloads(2).await, ["zero", "mine"]);
        // Its own message is still unread in the log when it comes back.
        client.leave().await;
        writer.publish_durably("t", b"theirs").await;
        let mut client = broker.socket(Version::V5).await;
        client.connect(&Hello::lasting("c")).await;
        assert_eq!(client.connack().await, (true, ReasonCode::Success));
        assert_eq!(client.payloads(1).await, ["theirs"]);
        client.nothing().await;
    });
}
