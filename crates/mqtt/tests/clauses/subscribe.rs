//! SUBSCRIBE and retained messages in great numbers (statements 71, 100).

use testkit::on_core;
use wire::mqtt::{AckKind, Delivery, Qos, ReasonCode, SubscribeOptions, Version};

use crate::link::{Broker, id};

fn qos1() -> Delivery {
    Delivery::AtLeastOnce { id: id(1), dup: false }
}

/// More retained messages than a page and than a window: none is left out (complaints about other brokers).
#[test]
fn all_retained_messages_come_however_many_there_are() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V311, "w").await;
        const COUNT: usize = 1_500;
        for number in 0..COUNT {
            writer.publish_retained(&format!("many/{number:05}"), b"x", qos1()).await;
        }
        for _ in 0..COUNT {
            writer.ack().await;
        }
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("many/+", Qos::AtLeastOnce).await;
        for number in 0..COUNT {
            let message = client.message().await;
            assert_eq!(message.topic, format!("many/{number:05}"));
            client.acknowledge(AckKind::Puback, message.id.unwrap()).await;
        }
        client.nothing().await;
    });
}

/// A packet full of filters must not keep a core busy for long.
#[test]
fn a_session_has_a_bounded_number_of_subscriptions() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        let filters: Vec<_> = (0..100_000).map(|number| format!("t/{number}")).collect();
        let codes = client.subscribe_all(&filters).await;
        let granted = codes.iter().take_while(|code| **code == ReasonCode::Success).count();
        assert_eq!(granted, 4096);
        assert!(codes[granted..].iter().all(|code| *code == ReasonCode::QuotaExceeded));
        // One that is there may be replaced, another one only when there is room.
        let options = SubscribeOptions::new(Qos::AtMostOnce);
        assert_eq!(client.subscribe_with("t/7", options, None).await, [ReasonCode::Success]);
        assert_eq!(client.subscribe_with("new", options, None).await, [ReasonCode::QuotaExceeded]);
        client.unsubscribe("t/7").await;
        assert_eq!(client.subscribe_with("new", options, None).await, [ReasonCode::Success]);
    });
}
