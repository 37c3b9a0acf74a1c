//! CONNECT, CONNACK, framing, keep alive, take-over (statements 1 to 34).

use std::time::Duration;

use mqtt::MqttConfig;
use testkit::on_core;
use wire::mqtt::{Delivery, Packet, Qos, ReasonCode, Version};

use crate::link::{Broker, Hello, id};

const CONNECT_5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Bytes that are sent behind an accepted 5.0 CONNECT, and what the broker says before it closes.
#[test]
fn mqtt_4_13_1_1_malformed_packets_are_told_and_the_connection_closes() {
    on_core(async {
        let broker = Broker::start().await;
        for (name, bytes, reason) in [
            ("1 remaining length of five bytes", &b"\x30\xff\xff\xff\xff\x01"[..], 0x81),
            ("2 property length that is longer than need be", b"\x30\x07\x00\x01t\x80\x00xx", 0x81),
            ("3 topic with a surrogate", b"\x30\x06\x00\x03\xed\xa0\x80\x00", 0x81),
            ("4 topic with U+0000", b"\x30\x06\x00\x03a\x00b\x00", 0x81),
            ("6 property length beyond the packet", b"\x30\x05\x00\x01t\x7fx", 0x81),
            ("7 property of another packet", b"\x30\x09\x00\x01t\x05\x11\x00\x00\x00\x01", 0x81),
            ("7 property twice", b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00", 0x82),
            ("9 PINGREQ with a body", b"\xc0\x01\x00", 0x81),
            ("10 flags of SUBSCRIBE", b"\x80\x07\x00\x01\x00\x00\x01a\x00", 0x81),
            ("11 QoS 3", b"\x36\x06\x00\x01t\x00\x01\x00", 0x81),
            ("12 packet identifier 0", b"\x32\x06\x00\x01t\x00\x00\x00", 0x82),
            ("13 larger than we accept", b"\x30\xff\xff\xff\x7f", 0x95),
            ("15 CONNECT again", CONNECT_5, 0x82),
            ("33 AUTH without a method", b"\xf0\x00", 0x82),
            ("35 wildcard in a topic", b"\x30\x04\x00\x01+\x00", 0x90),
            ("35 no topic", b"\x30\x03\x00\x00\x00", 0x82),
            ("36 topic alias 0", b"\x30\x07\x00\x01t\x03\x23\x00\x00", 0x94),
            ("36 topic alias above the maximum", b"\x30\x07\x00\x01t\x03\x23\x00\x21", 0x94),
            ("36 topic alias without a topic", b"\x30\x06\x00\x00\x03\x23\x00\x01", 0x82),
            ("40 subscription identifier from a client", b"\x30\x06\x00\x01t\x02\x0b\x01", 0x82),
            ("41 response topic with a wildcard", b"\x30\x08\x00\x01t\x04\x08\x00\x01+", 0x82),
            ("67 SUBSCRIBE without filters", b"\x82\x03\x00\x01\x00", 0x82),
            ("69 reserved options", b"\x82\x07\x00\x01\x00\x00\x01a\x40", 0x81),
            ("75 subscription identifier 0", b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", 0x82),
            ("90 flags of DISCONNECT", b"\xe1\x00", 0x81),
        ] {
            let mut client = broker.socket(Version::V5).await;
            client.send(&joined(&[CONNECT_5, bytes])).await;
            assert_eq!(client.connack().await, (false, ReasonCode::Success), "{name}");
            assert_eq!(client.disconnected().await as u8, reason, "{name}");
        }
    });
}

/// A first packet, and what the broker says before it closes.
#[test]
fn mqtt_3_1_0_1_what_is_no_good_connect_is_refused() {
    on_core(async {
        let broker = Broker::start().await;
        for (name, bytes, answer) in [
            ("14 PINGREQ first", &b"\xc0\x00"[..], &b""[..]),
            ("14 rubbish first", b"GET / HTTP/1.1\r\n\r\n", b""),
            ("16 level 6", b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01c", b"\x20\x03\x00\x84\x00"),
            ("16 level 2", b"\x10\x0d\x00\x04MQTT\x02\x02\x00\x00\x00\x01c", b"\x20\x02\x00\x01"),
            ("16 another protocol", b"\x10\x0d\x00\x04MQTA\x04\x02\x00\x00\x00\x01c", b""),
            (
                "17 reserved flag",
                b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01c",
                b"\x20\x03\x00\x81\x00",
            ),
            (
                "18 will QoS without a will",
                b"\x10\x0e\x00\x04MQTT\x05\x0a\x00\x00\x00\x00\x01c",
                b"\x20\x03\x00\x81\x00",
            ),
            ("19 password alone in 3.1.1", b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01c\x00\x01p", b""),
            (
                "20 no identifier for a session that lasts",
                b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00",
                b"\x20\x02\x00\x02",
            ),
            (
                "20 no identifier in 3.1",
                b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00",
                b"\x20\x02\x00\x02",
            ),
            (
                "26 receive maximum 0",
                b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01c",
                b"\x20\x03\x00\x82\x00",
            ),
            (
                "33 unknown method",
                b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x15\x00\x01x\x00\x01c",
                b"\x20\x31\x00\x8c\x2e\x1f\x00\x2bThe authentication method is not supported.",
            ),
        ] {
            let mut client = broker.socket(Version::V5).await;
            client.send(bytes).await;
            client.closed_after(answer, name).await;
        }
        assert_eq!(broker.counted("mqtt_connections", ""), 0);
    });
}

#[test]
fn mqtt_4_2_1_packets_may_come_in_any_pieces() {
    on_core(async {
        let broker = Broker::start().await;
        let all = joined(&[
            CONNECT_5,
            b"\x82\x07\x00\x01\x00\x00\x01a\x00",
            b"\x30\x05\x00\x01a\x00x",
            b"\xc0\x00",
        ]);
        for size in [1, 2, 7, all.len()] {
            let mut client = broker.socket(Version::V5).await;
            for piece in all.chunks(size) {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(client.connack().await, (false, ReasonCode::Success));
            client.read(|packet| assert!(matches!(packet, Packet::Suback(_)))).await;
            // PINGRESP does not wait for the message.
            let mut seen = Vec::new();
            for _ in 0..2 {
                seen.push(client.read(|packet| matches!(packet, Packet::Publish(_))).await);
            }
            seen.sort_unstable();
            assert_eq!(seen, [false, true]);
        }
    });
}

#[test]
fn mqtt_3_2_2_values_of_the_server_are_told() {
    on_core(async {
        let config = MqttConfig {
            keep_alive_max: std::num::NonZeroU16::new(60),
            session_expiry_max: Some(100),
            ..MqttConfig::default()
        };
        let broker = Broker::with(config).await;
        let mut client = broker.socket(Version::V5).await;
        client.connect(&Hello { id: "", expiry: Some(u32::MAX), ..Hello::default() }).await;
        let assigned = client
            .read(|packet| {
                let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
                let properties = connack.properties;
                assert_eq!(properties.session_expiry_interval(), Some(100));
                assert_eq!(properties.server_keep_alive(), Some(60));
                assert_eq!(properties.receive_maximum(), Some(id(1024)));
                assert_eq!(properties.maximum_packet_size().map(u32::from), Some(9 << 20));
                assert_eq!(properties.shared_subscription_available(), None, "which means yes");
                assert_eq!(properties.topic_alias_maximum(), Some(32));
                properties.assigned_client_identifier().map(str::to_owned)
            })
            .await;
        assert!(assigned.is_some_and(|id| !id.is_empty()));
        let mut old = broker.socket(Version::V311).await;
        old.connect(&Hello { id: "", ..Hello::default() }).await;
        assert_eq!(old.connack().await, (false, ReasonCode::Success));
        let mut oldest = broker.socket(Version::V31).await;
        oldest.connect(&Hello { id: "an identifier of more than 23 characters", ..Hello::default() }).await;
        assert_eq!(oldest.connack().await, (false, ReasonCode::Success));
        oldest.nothing().await;
    });
}

#[test]
fn mqtt_3_1_2_22_silence_closes_and_any_packet_breaks_it() {
    on_core(async {
        let broker = Broker::start().await;
        let mut silent = broker.socket(Version::V5).await;
        let begun = std::time::Instant::now();
        silent.connect(&Hello { id: "silent", keep_alive: 1, ..Hello::default() }).await;
        assert_eq!(silent.connack().await.1, ReasonCode::Success);
        let mut endless = broker.client(Version::V5, "endless").await;
        assert_eq!(silent.disconnected().await, ReasonCode::KeepAliveTimeout);
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(1400) && passed < Duration::from_secs(4), "{passed:?}");
        endless.nothing().await;
    });
}

#[test]
fn a_connection_without_connect_is_closed_in_time() {
    on_core(async {
        let config = MqttConfig { connect_timeout: Duration::from_millis(50), ..MqttConfig::default() };
        let broker = Broker::with(config).await;
        let mut mute = broker.socket(Version::V5).await;
        let mut slow = broker.socket(Version::V5).await;
        slow.send(&CONNECT_5[..9]).await;
        mute.closed().await;
        slow.closed().await;
    });
}

#[test]
fn mqtt_3_1_4_3_a_second_connection_takes_the_session_over() {
    on_core(async {
        let broker = Broker::start().await;
        let mut first = broker.socket(Version::V5).await;
        first.connect(&Hello::lasting("c")).await;
        assert_eq!(first.connack().await, (false, ReasonCode::Success));
        first.subscribe("t", Qos::ExactlyOnce).await;
        let mut second = broker.socket(Version::V311).await;
        second.connect(&Hello::lasting("c")).await;
        assert_eq!(first.disconnected().await, ReasonCode::SessionTakenOver);
        assert_eq!(second.connack().await, (true, ReasonCode::Success));
        // An older client is only closed.
        let mut third = broker.socket(Version::V5).await;
        third.connect(&Hello::lasting("c")).await;
        second.closed().await;
        assert_eq!(third.connack().await, (true, ReasonCode::Success));
        let mut publisher = broker.client(Version::V5, "p").await;
        publisher.publish_durably("t", b"x").await;
        assert_eq!(third.message().await.payload, b"x");
        assert_eq!(broker.counted("mqtt_connections", ""), 2);
    });
}

/// A claim that came while another one was on its way was not served.
#[test]
fn mqtt_3_1_4_3_claims_at_once_are_served_one_after_the_other() {
    on_core(async {
        let broker = Broker::start().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = broker.socket(Version::V5).await;
            client.connect(&Hello::lasting("c")).await;
            clients.push(client);
        }
        let served = async {
            while broker.counted("mqtt_connects_total", "accepted") < 8
                || broker.counted("mqtt_connections", "") != 1
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("all are served");
        let mut late = broker.socket(Version::V5).await;
        late.connect(&Hello::lasting("c")).await;
        assert_eq!(late.connack().await, (true, ReasonCode::Success));
    });
}

#[test]
fn mqtt_3_14_4_1_nothing_is_processed_after_disconnect() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::AtMostOnce).await;
        let mut client = broker.client(Version::V5, "c").await;
        client.publish("t", b"before", Delivery::AtMostOnce).await;
        client.send(b"\xe0\x00\x30\x09\x00\x01t\x00after").await;
        client.closed().await;
        assert_eq!(reader.message().await.payload, b"before");
        reader.nothing().await;
        // From 0 to more (section 3.14.2.2.2).
        let mut client = broker.client(Version::V5, "d").await;
        client.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09").await;
        assert_eq!(client.disconnected().await, ReasonCode::ProtocolError);
    });
}
