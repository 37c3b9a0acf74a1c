//! Time that the test moves: CONNECT that does not come, a broker that is stopped, limits (statements 93, 97, 99, 101).

use std::time::Duration;

use mqtt::{MqttConfig, RateLimit};
use testkit::on_core;
use wire::mqtt::{Delivery, Qos, Version};

use crate::hand::connect_5;
use crate::link::{Broker, id};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connect_that_does_not_come_is_not_waited_for() {
    on_core(async {
        let broker = Broker::with(MqttConfig { connect_timeout: 10 * SECOND, ..MqttConfig::default() }).await;
        let mut mute = broker.hand();
        let mut slow = broker.hand();
        slow.send(&connect_5("c", 0, b"\x00")[..9]);
        for client in [&mut mute, &mut slow] {
            client.pass(9 * SECOND);
            assert!(!client.is_closing());
            client.pass(SECOND);
            assert!(client.is_closing());
        }
        assert_eq!(broker.counted("mqtt_connections", ""), 0);
    });
}

#[test]
fn mqtt_4_13_a_broker_that_goes_down_says_so_and_publishes_wills() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("will", Qos::AtMostOnce).await;
        let mut client = broker.hand();
        client.send(b"\x10\x1b\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x04will\x00\x04down");
        client.until(|said| said.first() == Some(&0x20)).await;
        let mut old = broker.hand();
        old.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01o");
        old.hears(b"\x20\x02\x00\x00", "CONNACK of 3.1.1").await;
        let said = client.shut_down();
        let words = b"The server is shutting down.";
        let told = [&b"\xe0\x21\x8b\x1f\x1f\x00\x1c"[..], words].concat();
        assert!(said.ends_with(&told), "{said:x?}");
        assert!(old.shut_down().is_empty());
        assert_eq!(reader.message().await.payload, b"down");
    });
}

/// Ten messages per second: what comes faster waits in the socket, is not dropped, and is no silence of the client.
#[test]
fn a_client_above_its_rate_of_messages_is_not_read() {
    on_core(async {
        let rate_limit = RateLimit { messages: std::num::NonZeroU32::new(10), bytes: None };
        let broker = Broker::with(MqttConfig { rate_limit, ..MqttConfig::default() }).await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::AtMostOnce).await;
        let mut client = broker.hand();
        client.connect("c", 1, b"\x00").await;
        let mut all = Vec::new();
        for number in 0..60u8 {
            all.extend_from_slice(&[0x30, 5, 0, 1, b't', 0, number]);
        }
        all.extend_from_slice(b"\xc0\x00");
        client.send(&all);
        // A second's worth at once, and the one that goes beyond.
        assert_eq!((client.unread(), client.is_read()), (49 * 7 + 2, false));
        for left in (0..49).rev() {
            client.pass(Duration::from_millis(100));
            assert_eq!(client.unread(), left * 7 + 2, "{left}");
        }
        client.pass(Duration::from_millis(100));
        assert!(!client.is_closing());
        client.hears(b"\xd0\x00", "PINGRESP").await;
        for number in 0..60 {
            assert_eq!(reader.message().await.payload, [number]);
        }
        assert_eq!(broker.counted("mqtt_dropped_total", "slow"), 0);
        assert!(broker.counted("mqtt_rate_limited_total", "") >= 49);
        // What it saved up meanwhile is a second's worth again.
        client.pass(60 * SECOND / 100);
        client.send(&all[..7 * 6]);
        assert_eq!((client.unread(), client.is_read()), (0, true));
    });
}

#[test]
fn a_client_above_its_rate_of_bytes_is_not_read() {
    on_core(async {
        let rate_limit = RateLimit { messages: None, bytes: std::num::NonZeroU32::new(1_000) };
        let broker = Broker::with(MqttConfig { rate_limit, ..MqttConfig::default() }).await;
        let mut client = broker.hand();
        client.connect("c", 0, b"\x00").await;
        // One packet of five seconds, and a PINGREQ behind it.
        let mut publish = b"\x30\x83\x27\x00\x01t\x00".to_vec();
        publish.resize(4_998, b'x');
        client.send(&[&publish[..], b"\xc0\x00\xc0\x00"].concat());
        assert_eq!((client.unread(), client.is_read()), (4, false));
        client.pass(4 * SECOND - Duration::from_millis(3));
        assert_eq!(client.unread(), 4);
        client.pass(Duration::from_millis(1));
        assert_eq!(client.unread(), 2);
        client.pass(Duration::from_millis(2));
        assert_eq!(client.unread(), 0);
        client.hears(b"\xd0\x00\xd0\x00", "PINGRESP").await;
    });
}

/// Ten thousand clients at once: all are accepted, and nothing of them is left when they are gone.
#[test]
fn many_connects_at_once_are_all_accepted() {
    on_core(async {
        let broker = Broker::start().await;
        const COUNT: usize = 10_000;
        let mut clients: Vec<_> = (0..COUNT).map(|_| broker.hand()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&connect_5(&format!("c{number}"), 0, b"\x00"));
        }
        for client in &mut clients {
            client.hears(b"\x20", "CONNACK").await;
        }
        assert_eq!(broker.counted("mqtt_connections", ""), COUNT as u64);
        clients.into_iter().for_each(|client| client.vanish());
        assert_eq!(broker.counted("mqtt_connections", ""), 0);
    });
}

/// A flood of the smallest messages: another client's PINGREQ is answered long before the flood is over.
#[test]
fn a_flood_does_not_starve_others() {
    on_core(async {
        let broker = Broker::start().await;
        let mut flood = broker.client(Version::V5, "flood").await;
        let mut other = broker.client(Version::V5, "other").await;
        let mut bytes = b"\x30\x08\x00\x01t\x03\x23\x00\x01x".to_vec();
        for _ in 0..100_000 {
            bytes.extend_from_slice(b"\x30\x07\x00\x00\x03\x23\x00\x01x");
        }
        bytes.extend_from_slice(b"\xc0\x00");
        let sending = tokio::task::spawn_local(async move {
            flood.send(&bytes).await;
            flood
        });
        let mut answered = 0;
        while broker.counted("mqtt_publishes_in_total", "0") < 100_001 {
            other.nothing().await;
            answered += 1;
        }
        assert!(answered > 2, "{answered}");
        let mut flood = sending.await.unwrap();
        flood.read(|packet| assert_eq!(packet, wire::mqtt::Packet::Pingresp)).await;
        other.publish("t", b"x", Delivery::AtLeastOnce { id: id(1), dup: false }).await;
        other.ack().await;
    });
}
