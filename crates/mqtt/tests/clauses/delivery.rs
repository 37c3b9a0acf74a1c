//! What becomes of a message on its way: DUP, expiry, limits, subscriptions that change (statements 42 to 47, 61, 64, 72).

use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, Packet, PropertiesBuf, Property, Qos, ReasonCode, SubscribeOptions, Version,
};

use crate::link::{Broker, Client, Hello, Kept, id};

const QOS1: SubscribeOptions = SubscribeOptions::new(Qos::AtLeastOnce);

fn qos1(number: u16) -> Delivery {
    Delivery::AtLeastOnce { id: id(number), dup: false }
}

fn expiry(seconds: u32) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MessageExpiryInterval(seconds)).unwrap();
    properties
}

async fn hello(broker: &Broker, hello: &Hello<'_>, is_present: bool) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(hello).await;
    assert_eq!(client.connack().await, (is_present, ReasonCode::Success));
    client
}

#[test]
fn mqtt_3_3_1_3_dup_is_not_passed_on() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for delivery in
            [Delivery::AtLeastOnce { id: id(1), dup: true }, Delivery::ExactlyOnce { id: id(2), dup: true }]
        {
            writer.publish("t", b"x", delivery).await;
            writer.ack().await;
            let message = reader.message().await;
            assert_eq!((message.qos, message.dup), (delivery.qos(), false));
        }
    });
}

/// Neither from the queue of a client that was away, nor as a retained message, nor as a will.
#[test]
fn mqtt_3_3_2_5_what_has_expired_is_never_sent() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = hello(&broker, &Hello::lasting("reader"), false).await;
        reader.subscribe("t/+", Qos::ExactlyOnce).await;
        reader.leave().await;
        let mut writer = broker.client(Version::V5, "writer").await;
        for (number, delivery) in
            [qos1(1), Delivery::ExactlyOnce { id: id(2), dup: false }].into_iter().enumerate()
        {
            let retained = format!("t/{number}");
            writer.publish_with(&retained, b"late", delivery, (true, expiry(0).view())).await;
            writer.ack().await;
        }
        writer.publish_durably("t/9", b"next").await;
        let mut reader = hello(&broker, &Hello::lasting("reader"), true).await;
        assert_eq!(reader.message().await.payload, b"next");
        reader.nothing().await;
        let mut late = broker.client(Version::V5, "late").await;
        late.subscribe("t/+", Qos::AtMostOnce).await;
        late.nothing().await;
    });
}

#[test]
fn mqtt_4_3_3_13_an_exchange_goes_on_when_its_message_expires() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = hello(&broker, &Hello::lasting("reader"), false).await;
        reader.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        let delivery = Delivery::ExactlyOnce { id: id(1), dup: false };
        // Retained, so that the test can see when it has expired.
        writer.publish_with("t", b"short", delivery, (true, expiry(1).view())).await;
        writer.ack().await;
        let message = reader.message().await;
        let gone = async {
            loop {
                let mut late = broker.client(Version::V5, "late").await;
                late.send_subscribe("t", SubscribeOptions::new(Qos::AtMostOnce)).await;
                late.read(|packet| assert!(matches!(packet, Packet::Suback(_)))).await;
                late.send(b"\xc0\x00").await;
                // PINGRESP may overtake a message that is read from the store: a PUBLISH of its own follows it.
                late.read(|packet| assert!(matches!(packet, Packet::Pingresp | Packet::Publish(_)))).await;
                late.publish("t", b"mark", Delivery::AtMostOnce).await;
                let mut kept = false;
                loop {
                    let payload = late.read(|packet| match packet {
                        Packet::Publish(publish) => publish.payload.to_vec(),
                        _ => Vec::new(),
                    });
                    match &payload.await[..] {
                        b"mark" => break,
                        b"short" => kept = true,
                        _ => {}
                    }
                }
                // A retained message may come even after the mark.
                let rest = late.leave_with_rest().await;
                kept |= rest.windows(5).any(|bytes| bytes == b"short");
                if !kept {
                    return;
                }
            }
        };
        tokio::time::timeout(crate::link::PATIENCE, gone).await.expect("it expires in time");
        reader.acknowledge(AckKind::Pubrec, message.id.unwrap()).await;
        let pubrel = loop {
            let seen = reader.read(|packet| match packet {
                Packet::Pubrel(ack) => Some(ack.packet_id.get()),
                Packet::Publish(publish) => {
                    assert_eq!(publish.payload, b"mark");
                    None
                }
                other => panic!("{other:?}"),
            });
            if let Some(number) = seen.await {
                break number;
            }
        };
        assert_eq!(Some(pubrel), message.id);
        reader.acknowledge(AckKind::Pubcomp, pubrel).await;
        reader.nothing().await;
    });
}

#[test]
fn mqtt_3_3_1_5_an_older_retained_message_never_comes_back() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "writer").await;
        writer.publish_retained("t", b"old", qos1(1)).await;
        writer.ack().await;
        writer.publish_retained("t", b"new", Delivery::AtMostOnce).await;
        writer.publish_durably("t", b"not retained").await;
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("t", Qos::AtLeastOnce).await;
        let message = reader.message().await;
        assert_eq!((&message.payload[..], message.retain, message.qos), (&b"new"[..], true, Qos::AtMostOnce));
    });
}

#[test]
fn mqtt_4_9_0_3_answers_flow_on_when_the_quota_is_used_up() {
    on_core(async {
        let broker = Broker::start().await;
        let hello = Hello { receive_maximum: Some(1), ..Hello::default() };
        let mut client = broker.socket(Version::V5).await;
        client.connect(&hello).await;
        client.connack().await;
        client.subscribe("t", Qos::ExactlyOnce).await;
        client.publish("t", b"1", Delivery::ExactlyOnce { id: id(1), dup: false }).await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(
                client.read(|packet| format!("{packet:?}").split('(').next().unwrap().to_owned()).await,
            );
        }
        seen.sort();
        assert_eq!(seen, ["Publish", "Pubrec"]);
        // One exchange is in flight: no other begins.
        client.publish("t", b"2", qos1(2)).await;
        assert_eq!(client.ack().await, (AckKind::Puback, 2, ReasonCode::Success));
        client.acknowledge(AckKind::Pubrel, 1).await;
        assert_eq!(client.ack().await, (AckKind::Pubcomp, 1, ReasonCode::Success));
        assert_eq!(client.subscribe_with("u", QOS1, None).await, [ReasonCode::GrantedQos1]);
        assert_eq!(client.unsubscribe("u").await, [ReasonCode::Success]);
        client.nothing().await;
    });
}

#[test]
fn mqtt_3_1_2_24_what_one_client_cannot_take_others_get() {
    on_core(async {
        let broker = Broker::start().await;
        let mut narrow = broker.socket(Version::V5).await;
        narrow.connect(&Hello { id: "narrow", packet_size_max: Some(64), ..Hello::default() }).await;
        narrow.connack().await;
        let mut wide = broker.client(Version::V5, "wide").await;
        for client in [&mut narrow, &mut wide] {
            client.subscribe("t", Qos::ExactlyOnce).await;
        }
        let mut writer = broker.client(Version::V5, "writer").await;
        let large = [b'x'; 100];
        for delivery in [Delivery::AtMostOnce, qos1(1), Delivery::ExactlyOnce { id: id(2), dup: false }] {
            writer.publish("t", &large, delivery).await;
            writer.publish("t", b"small", Delivery::AtMostOnce).await;
        }
        let mut sizes = Vec::new();
        for _ in 0..6 {
            sizes.push(wide.message().await.payload.len());
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [5, 5, 5, 100, 100, 100]);
        for _ in 0..3 {
            assert_eq!(narrow.message().await.payload, b"small");
        }
        narrow.nothing().await;
    });
}

/// Whoever publishes in the middle of it: each message comes once.
#[test]
fn mqtt_3_8_4_3_subscribing_again_loses_and_repeats_nothing() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V311, "w").await;
        const COUNT: u16 = 300;
        for number in 1..=COUNT {
            writer.publish("t", &number.to_be_bytes(), qos1(number)).await;
            if number % 7 == 0 {
                client.send_subscribe("t", QOS1).await;
            }
        }
        let (mut next, mut answers) = (1, 0);
        while next <= COUNT || answers < COUNT / 7 {
            let seen = client.read(|packet| match packet {
                Packet::Publish(publish) => {
                    publish.delivery.packet_id().map(|id| (id, publish.payload.to_vec()))
                }
                Packet::Suback(_) => None,
                other => panic!("{other:?}"),
            });
            match seen.await {
                Some((id, payload)) => {
                    assert_eq!(payload, next.to_be_bytes());
                    client.acknowledge(AckKind::Puback, id.get()).await;
                    next += 1;
                }
                None => answers += 1,
            }
        }
        client.nothing().await;
    });
}
