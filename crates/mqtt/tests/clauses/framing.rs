//! Text, flags and packets in every field and of every kind (statements 3, 4, 5, 9, 10, 30, 100).

use testkit::on_core;
use wire::mqtt::{Delivery, Qos, ReasonCode, Version};

use crate::hand::{connect_5, field, packet};
use crate::link::{Broker, id};

/// What no UTF-8 string of MQTT may be, and why.
const BAD_TEXTS: [(&str, &[u8]); 4] = [
    ("MQTT-1.5.4-1 not UTF-8", b"a\xff"),
    ("MQTT-1.5.4-1 overlong", b"\xc0\x80"),
    ("MQTT-1.5.4-1 surrogate", b"\xed\xa0\x80"),
    ("MQTT-1.5.4-2 U+0000", b"a\x00"),
];

/// Properties with their length in front.
fn properties(block: &[u8]) -> Vec<u8> {
    [&[block.len() as u8], block].concat()
}

/// CONNECT with one field that is wrong.
fn connects(bad: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let connect = |flags: u8, own: &[u8], rest: &[&[u8]]| {
        let head = [b"\x00\x04MQTT\x05", &[flags, 0, 0][..], &properties(own)].concat();
        packet(0x10, &[head, rest.concat()].concat())
    };
    let (id, bad_field) = (field(b"c"), field(bad));
    let will = |block: &[u8], topic: &[u8]| [properties(block), field(topic), field(b"x")].concat();
    vec![
        ("client identifier", connect(0x02, b"", &[&bad_field])),
        ("user name", connect(0x82, b"", &[&id, &bad_field])),
        ("will topic", connect(0x06, b"", &[&id, &will(b"", bad)])),
        ("will content type", connect(0x06, b"", &[&id, &will(&[b"\x03", &bad_field[..]].concat(), b"w")])),
        ("will response topic", connect(0x06, b"", &[&id, &will(&[b"\x08", &bad_field[..]].concat(), b"w")])),
        ("user property", connect(0x02, &[b"\x26", &bad_field[..], &field(b"v")].concat(), &[&id])),
    ]
}

/// A packet behind CONNECT with one field that is wrong.
fn later_packets(bad: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let bad_field = field(bad);
    let publish = |block: &[u8]| packet(0x30, &[field(b"t"), properties(block)].concat());
    vec![
        ("topic", packet(0x30, &[&bad_field[..], b"\x00"].concat())),
        ("response topic", publish(&[b"\x08", &bad_field[..]].concat())),
        ("content type", publish(&[b"\x03", &bad_field[..]].concat())),
        ("name of a user property", publish(&[b"\x26", &bad_field[..], &field(b"v")].concat())),
        ("value of a user property", publish(&[b"\x26", &field(b"k")[..], &bad_field].concat())),
        ("filter", packet(0x82, &[b"\x00\x01\x00", &bad_field[..], b"\x00"].concat())),
        ("filter to unsubscribe", packet(0xa2, &[b"\x00\x01\x00", &bad_field[..]].concat())),
        (
            "reason string",
            packet(0xe0, &[b"\x00", &properties(&[b"\x1f", &bad_field[..]].concat())[..]].concat()),
        ),
    ]
}

#[test]
fn mqtt_1_5_4_1_text_that_is_no_text_is_refused_in_every_field() {
    on_core(async {
        let broker = Broker::start().await;
        for (clause, bad) in BAD_TEXTS {
            for (place, bytes) in connects(bad) {
                let mut client = broker.hand();
                client.send(&bytes);
                client.hears(b"\x20\x03\x00\x81\x00", &format!("{clause}: {place}")).await;
                assert!(client.is_closing(), "{clause}: {place}");
            }
            for (place, bytes) in later_packets(bad) {
                let mut client = broker.hand();
                client.connect("c", 0, b"\x00").await;
                client.send(&bytes);
                assert_eq!(client.disconnected().await, 0x81, "{clause}: {place}");
            }
        }
    });
}

#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_data() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("\u{feff}a", Qos::AtMostOnce).await;
        for topic in ["a", "\u{feff}a"] {
            client.publish(topic, topic.as_bytes(), Delivery::AtMostOnce).await;
        }
        assert_eq!(client.message().await.topic, "\u{feff}a");
        client.nothing().await;
    });
}

#[test]
fn mqtt_2_1_3_1_other_flags_than_the_standards_close() {
    on_core(async {
        let broker = Broker::start().await;
        for kind in [4u8, 5, 6, 7, 8, 10, 12, 14, 15] {
            let right = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
            for flags in (0..16).filter(|flags| *flags != right) {
                let mut client = broker.hand();
                client.connect("c", 0, b"\x00").await;
                client.send(&[kind << 4 | flags, 0]);
                assert_eq!(client.disconnected().await, 0x81, "type {kind}, flags {flags}");
            }
        }
        for flags in 1..16 {
            let mut client = broker.hand();
            let mut connect = connect_5("c", 0, b"\x00");
            connect[0] |= flags;
            client.send(&connect);
            assert!(client.is_closing(), "CONNECT, flags {flags}");
        }
    });
}

#[test]
fn mqtt_4_13_1_1_a_body_that_is_cut_or_goes_on_is_malformed() {
    on_core(async {
        let broker = Broker::start().await;
        for (name, bytes) in [
            ("PINGREQ with a body", &b"\xc0\x01\x00"[..]),
            ("SUBSCRIBE with half a filter", b"\x82\x06\x00\x01\x00\x00\x02a"),
            ("SUBSCRIBE without options", b"\x82\x06\x00\x01\x00\x00\x01a"),
            ("UNSUBSCRIBE with half a filter", b"\xa2\x06\x00\x01\x00\x00\x02a"),
            ("PUBACK with more", b"\x40\x05\x00\x01\x00\x00\x00"),
            ("PUBLISH without its identifier", b"\x32\x03\x00\x01t"),
            ("DISCONNECT with more", b"\xe0\x03\x00\x00\x00"),
        ] {
            let mut client = broker.hand();
            client.connect("c", 0, b"\x00").await;
            client.send(bytes);
            assert_eq!(client.disconnected().await, 0x81, "{name}");
        }
        for (name, bytes) in [
            ("SUBSCRIBE", &b"\x82\x07\x00\x00\x00\x00\x01a\x00"[..]),
            ("UNSUBSCRIBE", b"\xa2\x06\x00\x00\x00\x00\x01a"),
            ("PUBLISH", b"\x34\x06\x00\x01t\x00\x00\x00"),
            ("UNSUBSCRIBE without filters", b"\xa2\x03\x00\x01\x00"),
        ] {
            let mut client = broker.hand();
            client.connect("c", 0, b"\x00").await;
            client.send(bytes);
            assert_eq!(client.disconnected().await, 0x82, "{name} [MQTT-2.2.1-3, 3.10.3-2]");
        }
    });
}

#[test]
fn mqtt_3_1_4_6_what_follows_a_refused_connect_is_ignored() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("#", Qos::AtMostOnce).await;
        let publish = b"\x30\x05\x00\x01t\x00x";
        let mut refused = broker.hand();
        // An authentication method that we do not know, and no room for words.
        let connect = connect_5("c", 0, b"\x09\x27\x00\x00\x00\x08\x15\x00\x01x");
        refused.send(&[&connect[..], publish].concat());
        refused.hears(b"\x20\x03\x00\x8c\x00", "refused").await;
        assert!(refused.is_closing());
        let mut accepted = broker.hand();
        accepted.send(&[&connect_5("d", 0, b"\x00")[..], b"\x30\x05\x00\x01u\x00y"].concat());
        accepted.until(|said| said.first() == Some(&0x20)).await;
        assert_eq!(reader.message().await.topic, "u");
        reader.nothing().await;
    });
}

#[test]
fn mqtt_4_7_3_3_the_longest_topic_and_many_levels_work() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        let longest = "x".repeat(65_535);
        let deep = vec!["l"; 128].join("/");
        client.subscribe("#", Qos::AtMostOnce).await;
        client.subscribe(&format!("{}/+", vec!["+"; 127].join("/")), Qos::AtMostOnce).await;
        for topic in [&longest, &deep] {
            client.publish(topic, b"x", Delivery::AtMostOnce).await;
            assert_eq!(client.message().await.topic, *topic);
            client.nothing().await;
        }
        let delivery = Delivery::AtLeastOnce { id: id(1), dup: false };
        client.publish(&deep, b"y", delivery).await;
        let mut kinds = Vec::new();
        for _ in 0..2 {
            kinds
                .push(client.read(|packet| format!("{packet:?}").split('(').next().map(str::to_owned)).await);
        }
        kinds.sort();
        assert_eq!(kinds, [Some("Puback".to_owned()), Some("Publish".to_owned())]);
        // One filter of the greatest length.
        let codes = client.subscribe_with(&longest, wire::mqtt::SubscribeOptions::new(Qos::AtMostOnce), None);
        assert_eq!(codes.await, [ReasonCode::Success]);
    });
}
