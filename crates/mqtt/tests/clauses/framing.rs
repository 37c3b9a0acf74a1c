//! Bytes on their way in: what is no MQTT leaves nothing behind, frames of a WebSocket, the longest topic (statements 8, 14, 96, 100).

use testkit::on_core;
use wire::mqtt::{Delivery, Qos, ReasonCode, Version};

use crate::link::{Broker, id};

#[test]
fn mqtt_3_1_0_1_nothing_is_left_of_what_is_no_connect() {
    on_core(async {
        let broker = Broker::start().await;
        for bytes in
            [&b"\xc0\x00"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x10\x0d\x00\x04MQTA\x04\x02\x00\x00\x00\x01c"]
        {
            let mut client = broker.socket(Version::V5).await;
            client.send(bytes).await;
            client.closed().await;
        }
        assert_eq!(broker.counted("mqtt_connections", ""), 0);
    });
}

/// A frame of a client that hides nothing behind its mask.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// Packets that are cut anywhere, by segments and by frames.
#[test]
fn mqtt_6_0_0_2_frames_of_a_websocket_may_cut_packets_anywhere() {
    on_core(async {
        let broker = Broker::start().await;
        let all = [
            &b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c"[..],
            b"\x82\x07\x00\x01\x00\x00\x01a\x00",
            b"\xc0\x00",
        ]
        .concat();
        let answers = [
            &b"\x20\x0e\x00\x00\x0b\x21\x04\x00\x27\x00\x90\x00\x00\x22\x00\x20"[..],
            b"\x90\x04\x00\x01\x00\x00",
            b"\xd0\x00",
        ]
        .concat();
        for size in [1, 2, 7, all.len()] {
            let mut plain = broker.socket(Version::V5).await;
            for piece in all.chunks(size) {
                plain.send(piece).await;
                tokio::task::yield_now().await;
            }
            plain.hears(&answers, "TCP").await;
            plain.leave().await;
            let mut framed = broker.websocket().await;
            for piece in all.chunks(size) {
                framed.send(&frame(piece)).await;
                tokio::task::yield_now().await;
            }
            let mut payload = Vec::new();
            while payload.len() < answers.len() {
                let header = framed.take(2).await;
                assert_eq!(header[0], 0x82, "{size}");
                payload.extend(framed.take(usize::from(header[1])).await);
            }
            assert_eq!(payload, answers, "{size}");
        }
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
