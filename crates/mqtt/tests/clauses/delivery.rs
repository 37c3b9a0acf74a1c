//! What becomes of a message on its way: expiry, what is retained, subscriptions that change (statements 45, 47, 72).

use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, Packet, PropertiesBuf, Property, Qos, ReasonCode, SubscribeOptions, Version,
};

use crate::link::{Broker, Client, Hello, Kept, PATIENCE, id};

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

/// Waits until the retained message of `watch` has expired.
async fn expired(broker: &Broker) {
    loop {
        let mut late = broker.client(Version::V5, "late").await;
        late.subscribe("watch", Qos::AtMostOnce).await;
        late.publish("watch", b"mark", Delivery::AtMostOnce).await;
        let mut is_kept = false;
        while late.message().await.payload != b"mark" {
            is_kept = true;
        }
        // A retained message may come even after the mark.
        is_kept |= late.leave_with_rest().await.windows(5).any(|bytes| bytes == b"short");
        if !is_kept {
            return;
        }
    }
}

/// What had been sent once was not sent again after it had expired: its identifier could name another message while the client
/// still waited for PUBREL.
#[test]
fn mqtt_4_3_3_7_a_delivery_that_began_goes_on_when_its_message_expires() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = hello(&broker, &Hello::lasting("reader"), false).await;
        reader.subscribe("t/+", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        let delivery = Delivery::ExactlyOnce { id: id(2), dup: false };
        writer.publish_with("t/1", b"1", qos1(1), (false, expiry(1).view())).await;
        writer.ack().await;
        let one = reader.message().await;
        writer.publish_with("t/2", b"2", delivery, (false, expiry(1).view())).await;
        writer.ack().await;
        let two = reader.message().await;
        writer.publish_with("watch", b"short", qos1(3), (true, expiry(1).view())).await;
        writer.ack().await;
        tokio::time::timeout(PATIENCE, expired(&broker)).await.expect("it expires in time");
        reader.vanish().await;
        let mut reader = hello(&broker, &Hello::lasting("reader"), true).await;
        for first in [one, two] {
            let again = reader.message().await;
            assert_eq!((&again.topic, again.id, again.dup), (&first.topic, first.id, true));
            match again.qos {
                Qos::AtLeastOnce => reader.acknowledge(AckKind::Puback, again.id.unwrap()).await,
                _ => reader.acknowledge(AckKind::Pubrec, again.id.unwrap()).await,
            }
        }
        let (kind, number, _) = reader.ack().await;
        assert_eq!(kind, AckKind::Pubrel);
        reader.acknowledge(AckKind::Pubcomp, number).await;
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
