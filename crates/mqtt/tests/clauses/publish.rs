//! PUBLISH both ways: what is too large, order, who does not read (statements 51, 64, 98).

use mqtt::MqttConfig;
use testkit::on_core;
use wire::mqtt::{AckKind, Delivery, PropertiesBuf, Property, Publish, Qos, ReasonCode, Version, Will};

use crate::link::{Broker, Hello, id};

fn qos1(number: u16) -> Delivery {
    Delivery::AtLeastOnce { id: id(number), dup: false }
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

/// What a message may have is counted with its user properties, whichever way it is published.
#[test]
fn a_message_is_as_large_as_payload_and_properties_together() {
    on_core(async {
        let config = MqttConfig { packet_bytes_max: 16 << 20, ..MqttConfig::default() };
        let broker = Broker::with(config).await;
        let mut properties = PropertiesBuf::new();
        let value = "v".repeat(60_000);
        for _ in 0..model::MAX_MESSAGE_BYTES / value.len() + 1 {
            properties.push(Property::UserProperty("k", &value)).unwrap();
        }
        let mut writer = broker.client(Version::V5, "writer").await;
        for (number, topic) in [(1, "t"), (2, "$delayed/1/t")] {
            let publish = Publish {
                delivery: qos1(number),
                retain: false,
                topic,
                properties: properties.view(),
                payload: b"x",
            };
            writer.encode(|out, peer| publish.encode(out, peer).unwrap()).await;
            assert_eq!(writer.ack().await, (AckKind::Puback, number, ReasonCode::QuotaExceeded), "{topic}");
        }
        let will = Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: properties.view(),
            topic: "t",
            payload: b"x",
        };
        let mut leaver = broker.socket(Version::V5).await;
        leaver.connect(&Hello { id: "leaver", will: Some(will), ..Hello::default() }).await;
        assert_eq!(leaver.connack().await.1, ReasonCode::QuotaExceeded);
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
