//! SUBSCRIBE, UNSUBSCRIBE and retained messages (statements 46 to 48 and 67 to 78).

use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, PropertiesBuf, Property, Qos, ReasonCode, RetainHandling, SubscribeOptions, Version,
};

use crate::link::{Broker, id};

const QOS1: SubscribeOptions = SubscribeOptions::new(Qos::AtLeastOnce);

fn qos1() -> Delivery {
    Delivery::AtLeastOnce { id: id(1), dup: false }
}

#[test]
fn mqtt_3_9_3_1_each_filter_has_its_own_answer() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        for (filter, code) in [
            ("a/#/b", 0x8f),
            ("a#", 0x8f),
            ("+a", 0x8f),
            ("", 0x8f),
            ("$share/g/f", 0x01),
            ("$share//f", 0x8f),
            ("$share/g", 0x8f),
            ("a/+/#", 0x01),
        ] {
            let codes = client.subscribe_with(filter, QOS1, None).await;
            assert_eq!(codes.iter().map(|code| *code as u8).collect::<Vec<_>>(), [code], "{filter}");
        }
        let mut old = broker.client(Version::V311, "old").await;
        assert_eq!(old.subscribe_with("a#", QOS1, None).await, [ReasonCode::UnspecifiedError]);
        assert_eq!(client.unsubscribe("a/+/#").await, [ReasonCode::Success]);
        assert_eq!(client.unsubscribe("a/+/#").await, [ReasonCode::NoSubscriptionExisted]);
        // Byte by byte [MQTT-3.10.4-1].
        client.subscribe("a/%2B", Qos::AtMostOnce).await;
        assert_eq!(client.unsubscribe("a/+").await, [ReasonCode::NoSubscriptionExisted]);
    });
}

#[test]
fn mqtt_3_10_4_4_after_unsuback_nothing_comes() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        writer.publish_durably("t", b"1").await;
        let message = client.message().await;
        assert_eq!(client.unsubscribe("t").await, [ReasonCode::Success]);
        // A running delivery finishes.
        client.acknowledge(AckKind::Puback, message.id.unwrap()).await;
        client.subscribe("u", Qos::AtLeastOnce).await;
        writer.publish_durably("t", b"2").await;
        writer.publish_durably("u", b"3").await;
        assert_eq!(client.message().await.payload, b"3");
    });
}

#[test]
fn mqtt_3_3_4_3_overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe_with("t/#", SubscribeOptions::new(Qos::AtMostOnce), Some(1)).await;
        client.subscribe_with("t/+", QOS1, Some(268_435_455)).await;
        client.subscribe_with("t/x", SubscribeOptions::new(Qos::AtMostOnce), None).await;
        let mut writer = broker.client(Version::V5, "w").await;
        for (delivery, qos) in [(Delivery::AtMostOnce, Qos::AtMostOnce), (qos1(), Qos::AtLeastOnce)] {
            writer.publish("t/x", b"x", delivery).await;
            let message = client.message().await;
            assert_eq!(message.qos, qos);
            assert!(message.properties.contains("SubscriptionIdentifier(1)"), "{}", message.properties);
            assert!(
                message.properties.contains("SubscriptionIdentifier(268435455)"),
                "{}",
                message.properties
            );
        }
        client.nothing().await;
        // The same filter without identifier removes it [MQTT-3.8.4-3].
        client.subscribe_with("t/#", QOS1, None).await;
        client.unsubscribe("t/+").await;
        writer.ack().await;
        writer.publish("t/x", b"y", qos1()).await;
        assert_eq!(client.message().await.properties, "[]");
    });
}

#[test]
fn mqtt_3_3_1_12_retain_is_cleared_unless_it_is_asked_for() {
    on_core(async {
        let broker = Broker::start().await;
        let mut plain = broker.client(Version::V5, "plain").await;
        plain.subscribe("t", Qos::AtLeastOnce).await;
        let mut exact = broker.client(Version::V5, "exact").await;
        let as_published = SubscribeOptions { retain_as_published: true, ..QOS1 };
        exact.subscribe_with("t", as_published, None).await;
        let mut writer = broker.client(Version::V5, "w").await;
        for delivery in [Delivery::AtMostOnce, qos1()] {
            writer.publish("t", b"live", delivery).await;
            writer.publish_retained("t", b"kept", delivery).await;
            for (payload, retain) in [("live", false), ("kept", true)] {
                let message = plain.message().await;
                assert_eq!((&message.payload[..], message.retain), (payload.as_bytes(), false));
                let message = exact.message().await;
                assert_eq!((&message.payload[..], message.retain), (payload.as_bytes(), retain));
            }
        }
    });
}

#[test]
fn mqtt_3_3_1_5_retained_messages_are_replaced_removed_and_sent_at_subscribe() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut properties = PropertiesBuf::new();
        properties.push(Property::UserProperty("k", "v")).unwrap();
        writer.publish_with("r/a", b"old", qos1(), (true, properties.view())).await;
        writer.ack().await;
        writer.publish_with("r/a", b"new", qos1(), (true, properties.view())).await;
        writer.ack().await;
        writer.publish_durably("r/a", b"not kept").await;
        writer.publish_retained("r/b", b"gone", qos1()).await;
        writer.ack().await;
        writer.publish_retained("r/b", b"", qos1()).await;
        writer.ack().await;
        // QoS 0 is kept as QoS 0.
        writer.publish_retained("r/c", b"zero", Delivery::AtMostOnce).await;
        // Nobody is told when that is stored; what follows it in the same shard is stored later.
        writer.publish_durably("r/c", b"not kept").await;
        writer.publish_retained("$hidden", b"x", qos1()).await;
        writer.ack().await;
        for (version, filter) in [(Version::V5, "r/#"), (Version::V311, "#"), (Version::V5, "r/+")] {
            let mut client = broker.client(version, "c").await;
            client.subscribe(filter, Qos::ExactlyOnce).await;
            let first = client.message().await;
            assert_eq!((&first.topic[..], &first.payload[..]), ("r/a", &b"new"[..]));
            assert_eq!((first.qos, first.retain, first.dup), (Qos::AtLeastOnce, true, false));
            assert_eq!(first.properties.contains("UserProperty"), version == Version::V5);
            client.acknowledge(AckKind::Puback, first.id.unwrap()).await;
            let second = client.message().await;
            assert_eq!((&second.topic[..], second.qos, second.retain), ("r/c", Qos::AtMostOnce, true));
            client.nothing().await;
            client.leave().await;
        }
    });
}

#[test]
fn mqtt_3_3_1_10_retain_handling() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        writer.publish_retained("t", b"kept", qos1()).await;
        writer.ack().await;
        let mut client = broker.client(Version::V5, "c").await;
        for (handling, comes) in [
            (RetainHandling::DoNotSend, false),
            (RetainHandling::SendIfNew, false),
            (RetainHandling::Send, true),
            (RetainHandling::Send, true),
        ] {
            let options =
                SubscribeOptions { retain_handling: handling, ..SubscribeOptions::new(Qos::AtMostOnce) };
            client.subscribe_with("t", options, None).await;
            if comes {
                assert_eq!(client.message().await.payload, b"kept");
            }
            // Whatever else there was to send came before this.
            writer.publish("t", b"next", Delivery::AtMostOnce).await;
            assert_eq!(client.message().await.payload, b"next", "{handling:?}");
        }
        client.unsubscribe("t").await;
        let options = SubscribeOptions { retain_handling: RetainHandling::SendIfNew, ..QOS1 };
        client.subscribe_with("t", options, None).await;
        assert_eq!(client.message().await.payload, b"kept");
    });
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
