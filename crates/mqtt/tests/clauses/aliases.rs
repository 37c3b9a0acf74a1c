//! Topic aliases, both ways (statements 36 to 39).

use mqtt::MqttConfig;
use testkit::on_core;
use wire::mqtt::{AckKind, Delivery, PropertiesBuf, Property, Qos, ReasonCode, Version};

use crate::link::{Broker, Client, Hello, id};

fn qos1(number: u16) -> Delivery {
    Delivery::AtLeastOnce { id: id(number), dup: false }
}

async fn with_aliases(broker: &Broker, name: &str, most: u16, packet_size_max: Option<u32>) -> Client {
    let mut client = broker.socket(Version::V5).await;
    let hello = Hello { topic_alias_maximum: Some(most), packet_size_max, ..Hello::lasting(name) };
    client.connect(&hello).await;
    assert_eq!(client.connack().await.1, ReasonCode::Success);
    client
}

/// Topic and alias of the next message, which is acknowledged.
async fn next(client: &mut Client) -> (String, String) {
    let message = client.message().await;
    if let (Qos::AtLeastOnce, Some(number)) = (message.qos, message.id) {
        client.acknowledge(AckKind::Puback, number).await;
    }
    (message.topic, message.properties)
}

fn said(topic: &str, alias: u16) -> (String, String) {
    (topic.to_owned(), format!("[TopicAlias({alias})]"))
}

/// An alias names the topic that it was last sent with; it is not passed on (the exact bytes of the subscriber).
#[test]
fn mqtt_3_3_2_7_an_alias_may_be_given_another_topic() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("#", Qos::AtMostOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for (bytes, heard) in [
            (&b"\x30\x08\x00\x01a\x03\x23\x00\x01A"[..], &b"\x30\x05\x00\x01a\x00A"[..]),
            (b"\x30\x07\x00\x00\x03\x23\x00\x01B", b"\x30\x05\x00\x01a\x00B"),
            // With QoS 1, and the greatest alias that there is.
            (b"\x32\x0a\x00\x01c\x00\x07\x03\x23\x00\x20C", b"\x30\x05\x00\x01c\x00C"),
            (b"\x30\x08\x00\x01b\x03\x23\x00\x01D", b"\x30\x05\x00\x01b\x00D"),
            (b"\x30\x07\x00\x00\x03\x23\x00\x01E", b"\x30\x05\x00\x01b\x00E"),
            (b"\x30\x07\x00\x00\x03\x23\x00\x20F", b"\x30\x05\x00\x01c\x00F"),
        ] {
            writer.send(bytes).await;
            reader.hears(heard, "an alias").await;
        }
    });
}

#[test]
fn mqtt_3_3_2_7_aliases_end_with_the_connection() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = with_aliases(&broker, "writer", 0, None).await;
        writer.send(b"\x30\x08\x00\x01a\x03\x23\x00\x01A").await;
        writer.leave().await;
        let mut writer = broker.socket(Version::V5).await;
        writer.connect(&Hello::lasting("writer")).await;
        assert_eq!(writer.connack().await, (true, ReasonCode::Success));
        writer.send(b"\x30\x07\x00\x00\x03\x23\x00\x01B").await;
        assert_eq!(writer.disconnected().await, ReasonCode::ProtocolError);
    });
}

#[test]
fn mqtt_3_3_2_9_the_maximum_is_a_setting() {
    on_core(async {
        let broker = Broker::with(MqttConfig { topic_alias_max: 0, ..MqttConfig::default() }).await;
        let mut client = with_aliases(&broker, "c", 10, None).await;
        client.subscribe("topic", Qos::AtMostOnce).await;
        client.publish("topic", b"1", Delivery::AtMostOnce).await;
        assert_eq!(next(&mut client).await, ("topic".to_owned(), "[]".to_owned()));
        client.send(b"\x30\x08\x00\x01a\x03\x23\x00\x01A").await;
        assert_eq!(client.disconnected().await, ReasonCode::TopicAliasInvalid);
    });
}

/// The first use says both, later ones the alias alone; no alias is above the client's maximum; a client that permits none
/// gets none.
#[test]
fn mqtt_3_1_2_26_aliases_towards_the_client() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = with_aliases(&broker, "reader", 2, None).await;
        let mut plain = with_aliases(&broker, "plain", 0, None).await;
        for client in [&mut reader, &mut plain] {
            client.subscribe("+/0", Qos::AtMostOnce).await;
            client.subscribe("+/1", Qos::AtLeastOnce).await;
        }
        let mut writer = broker.client(Version::V5, "writer").await;
        let known = ("".to_owned(), "[TopicAlias(1)]".to_owned());
        for (topic, delivery, heard) in [
            ("first/0", Delivery::AtMostOnce, said("first/0", 1)),
            ("first/0", Delivery::AtMostOnce, known.clone()),
            ("second/1", qos1(1), said("second/1", 2)),
            ("second/1", qos1(2), said("", 2)),
            // Both aliases are in use: the first topic beyond them goes without.
            ("third/1", qos1(3), ("third/1".to_owned(), "[]".to_owned())),
            ("first/0", Delivery::AtMostOnce, known),
        ] {
            writer.publish(topic, b"x", delivery).await;
            if delivery.packet_id().is_some() {
                writer.ack().await;
            }
            assert_eq!(next(&mut reader).await, heard);
            assert_eq!(next(&mut plain).await, (topic.to_owned(), "[]".to_owned()));
        }
        // A session that comes back begins without aliases.
        reader.leave().await;
        let mut reader = with_aliases(&broker, "reader", 2, None).await;
        writer.publish("first/0", b"x", Delivery::AtMostOnce).await;
        assert_eq!(next(&mut reader).await, said("first/0", 1));
    });
}

/// What the client never got has given nothing a number.
#[test]
fn mqtt_3_1_2_25_a_discarded_publish_sets_no_alias() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = with_aliases(&broker, "reader", 9, Some(60)).await;
        reader.subscribe("#", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for delivery in [Delivery::AtMostOnce, qos1(1)] {
            let topic = format!("topic/{}", delivery.qos() as u8);
            let number = 1 + delivery.qos() as u16;
            writer.publish(&topic, &[b'x'; 100], delivery).await;
            writer.publish(&topic, b"small", delivery).await;
            writer.publish(&topic, b"small", delivery).await;
            assert_eq!(next(&mut reader).await, said(&topic, number));
            assert_eq!(next(&mut reader).await, said("", number));
        }
        // With its alias it is too large for the client by three bytes: it goes without.
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ContentType(&"x".repeat(29))).unwrap();
        let long = "a-topic-of-many-lettrs";
        writer.ack().await;
        writer.ack().await;
        writer.ack().await;
        writer.publish_with(long, b"", Delivery::AtMostOnce, (false, properties.view())).await;
        let (topic, properties) = next(&mut reader).await;
        assert_eq!(topic, long);
        assert!(!properties.contains("TopicAlias"), "{properties}");
        writer.publish(long, b"", Delivery::AtMostOnce).await;
        assert_eq!(next(&mut reader).await, said(long, 3));
    });
}
