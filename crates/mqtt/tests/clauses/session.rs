//! Sessions that outlive their connection, and a broker that is stopped (statements 51, 54, 59, 62, 91, 92, 94).

use std::cell::Cell;
use std::num::NonZeroU16;
use std::sync::Arc;

use broker::{Broker as _, Place};
use bytes::{Bytes, BytesMut};
use model::{TenantId, TopicName};
use testkit::{SteppedClock, on_core};
use wire::mqtt::{AckKind, Delivery, Packet, Peer, Properties, Publish, Qos, ReasonCode, Version};

use crate::link::{Broker, Client, Hello, Kept, PATIENCE, id};

async fn back(broker: &Broker, hello: &Hello<'_>, is_present: bool) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(hello).await;
    assert_eq!(client.connack().await, (is_present, ReasonCode::Success));
    client
}

#[test]
fn mqtt_3_1_2_5_a_session_comes_back_with_what_it_missed() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        for version in [Version::V311, Version::V5] {
            let mut client = broker.socket(version).await;
            client.connect(&Hello::lasting("c")).await;
            assert_eq!(client.connack().await, (version == Version::V5, ReasonCode::Success));
            client.subscribe("t/#", Qos::AtLeastOnce).await;
            writer.publish_durably("t/1", b"live").await;
            assert_eq!(client.payloads(1).await, ["live"]);
            client.leave().await;
            for number in 0..300 {
                writer.publish_durably("t/2", number.to_string().as_bytes()).await;
            }
            let mut client = broker.socket(version).await;
            client.connect(&Hello::lasting("c")).await;
            assert_eq!(client.connack().await, (true, ReasonCode::Success));
            let expected: Vec<_> = (0..300).map(|number| number.to_string()).collect();
            assert_eq!(client.payloads(300).await, expected);
            // And is live again.
            writer.publish_durably("t/3", b"live").await;
            assert_eq!(client.payloads(1).await, ["live"]);
            client.leave().await;
        }
        // Clean Start ends it [MQTT-3.1.2-4].
        let clean = Hello { clean_start: true, ..Hello::lasting("c") };
        let mut client = back(&broker, &clean, false).await;
        writer.publish_durably("t/4", b"x").await;
        client.nothing().await;
        client.leave().await;
        back(&broker, &Hello::lasting("c"), true).await.nothing().await;
    });
}

/// What is sent again: the payload of a PUBLISH, or `pubrel`; and its packet identifier.
async fn again(client: &mut Client) -> (String, Option<NonZeroU16>) {
    client
        .read(|packet| match packet {
            Packet::Publish(publish) => {
                assert!(matches!(
                    publish.delivery,
                    Delivery::AtLeastOnce { dup: true, .. } | Delivery::ExactlyOnce { dup: true, .. }
                ));
                (String::from_utf8(publish.payload.to_vec()).unwrap(), publish.delivery.packet_id())
            }
            Packet::Pubrel(ack) => ("pubrel".to_owned(), Some(ack.packet_id)),
            other => panic!("{other:?}"),
        })
        .await
}

#[test]
fn mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_in_order() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = back(&broker, &Hello::lasting("c"), false).await;
        client.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        for number in 1..=6u16 {
            let delivery = match number % 2 {
                0 => Delivery::ExactlyOnce { id: id(number), dup: false },
                _ => Delivery::AtLeastOnce { id: id(number), dup: false },
            };
            writer.publish("t", number.to_string().as_bytes(), delivery).await;
        }
        let mut first = Vec::new();
        for _ in 0..6 {
            first.push(client.message().await);
        }
        // QoS 2 waits for its identifier to be durable; each QoS keeps its own order.
        let of = |qos| first.iter().filter(|m| m.qos == qos).map(|m| m.payload.clone()).collect::<Vec<_>>();
        assert_eq!(of(Qos::AtLeastOnce), [b"1", b"3", b"5"]);
        assert_eq!(of(Qos::ExactlyOnce), [b"2", b"4", b"6"]);
        let number_of =
            |payload: &[u8]| first.iter().find(|m| m.payload == payload).and_then(|m| m.id).unwrap();
        client.acknowledge(AckKind::Puback, number_of(b"3")).await;
        client.acknowledge(AckKind::Pubrec, number_of(b"4")).await;
        assert_eq!(client.ack().await, (AckKind::Pubrel, number_of(b"4"), ReasonCode::Success));
        client.vanish().await;

        let hello = Hello { receive_maximum: Some(3), ..Hello::lasting("c") };
        let mut client = back(&broker, &hello, true).await;
        for payload in ["1", "2"] {
            let message = client.message().await;
            assert_eq!((message.dup, message.id), (true, Some(number_of(payload.as_bytes()))));
            assert_eq!(message.payload, payload.as_bytes());
            match message.qos {
                Qos::AtLeastOnce => client.acknowledge(AckKind::Puback, message.id.unwrap()).await,
                _ => {
                    client.acknowledge(AckKind::Pubrec, message.id.unwrap()).await;
                }
            }
        }
        // PUBREL of 4 in its place, then 5 and 6; the PUBREL of 2 when it is durable.
        let mut rest = Vec::new();
        while rest.len() < 4 {
            let seen = again(&mut client).await;
            if seen.0 == "pubrel" {
                client.acknowledge(AckKind::Pubcomp, seen.1.unwrap().get()).await;
            } else if seen.0 == "5" {
                client.acknowledge(AckKind::Puback, seen.1.unwrap().get()).await;
            }
            rest.push(seen);
        }
        let at = |name: &str| rest.iter().position(|(seen, _)| seen == name).unwrap();
        assert!(at("5") < at("6"), "{rest:?}");
        let released: Vec<_> =
            rest.iter().filter(|(seen, _)| seen == "pubrel").map(|(_, id)| id.unwrap().get()).collect();
        assert!(released.contains(&number_of(b"4")) && released.contains(&number_of(b"2")), "{rest:?}");
    });
}

#[test]
fn mqtt_4_5_0_1_sessions_and_retained_messages_survive_a_restart() {
    let (kept, first_id) = (Kept::default(), Cell::new(None));
    on_core(async {
        let broker = Broker::start().await;
        let mut client = back(&broker, &Hello::lasting("c"), false).await;
        client.subscribe("t", Qos::ExactlyOnce).await;
        let mut writer = back(&broker, &Hello::lasting("w"), false).await;
        writer.publish("t", b"1", Delivery::ExactlyOnce { id: id(9), dup: false }).await;
        assert_eq!(writer.ack().await, (AckKind::Pubrec, 9, ReasonCode::Success));
        let first = client.message().await;
        assert_eq!((&first.payload[..], first.qos), (&b"1"[..], Qos::ExactlyOnce));
        writer.publish_retained("t", b"2", Delivery::AtLeastOnce { id: id(1), dup: false }).await;
        assert_eq!(writer.ack().await, (AckKind::Puback, 1, ReasonCode::Success));
        client.message().await;
        first_id.set(first.id);
        drop((client, writer));
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut client = back(&broker, &Hello::lasting("c"), true).await;
        let again = client.message().await;
        assert_eq!((&again.payload[..], again.id, again.dup), (&b"1"[..], first_id.get(), true));
        let second = client.message().await;
        assert_eq!(second.payload, b"2");
        // The identifier of the QoS 2 publication is known: it is not stored again.
        let mut writer = back(&broker, &Hello::lasting("w"), true).await;
        writer.publish("t", b"1", Delivery::ExactlyOnce { id: id(9), dup: true }).await;
        assert_eq!(writer.ack().await, (AckKind::Pubrec, 9, ReasonCode::Success));
        writer.acknowledge(AckKind::Pubrel, 9).await;
        assert_eq!(writer.ack().await, (AckKind::Pubcomp, 9, ReasonCode::Success));
        writer.publish_durably("t", b"3").await;
        assert_eq!(client.message().await.payload, b"3");
        let mut late = broker.client(Version::V311, "late").await;
        late.subscribe("#", Qos::AtMostOnce).await;
        assert_eq!(late.message().await.payload, b"2");
    });
}

/// A window that is full when the connection ends in the middle of a batch: the rest of the batch comes later, once.
#[test]
fn mqtt_4_6_0_5_a_batch_that_was_taken_in_part_goes_on_where_it_stopped() {
    on_core(async {
        let broker = Broker::start().await;
        let hello = Hello { receive_maximum: Some(3), ..Hello::lasting("c") };
        let mut client = back(&broker, &hello, false).await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V311, "w").await;
        let mut all = bytes::BytesMut::new();
        for number in 1..=20u8 {
            // One write: most likely one batch.
            all.extend_from_slice(&[0x32, 7, 0, 1, b't', 0, number, b'a' + number, b'.']);
        }
        writer.send(&all).await;
        for _ in 0..20 {
            writer.ack().await;
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let message = client.message().await;
            seen.push(message.payload[0]);
            client.acknowledge(AckKind::Puback, message.id.unwrap()).await;
        }
        // Three more are in flight when it goes.
        for _ in 0..3 {
            client.message().await;
        }
        client.vanish().await;
        let mut client = back(&broker, &hello, true).await;
        for _ in 0..17 {
            let message = client.message().await;
            seen.push(message.payload[0]);
            client.acknowledge(AckKind::Puback, message.id.unwrap()).await;
        }
        assert_eq!(seen, (1..=20).map(|number| b'a' + number).collect::<Vec<_>>());
        client.nothing().await;
    });
}

/// Topics that have their first message, in the order of the groups that store them: one of each group.
async fn topic_of_each_group(broker: &Broker, writer: &mut Client) -> Vec<String> {
    let core = &broker.node().core;
    let mut found = Vec::new();
    for group in core.rows().groups() {
        for number in 0..64 {
            let name = format!("x{number}");
            writer.publish_durably(&name, b"first").await;
            let topic = core.find_topic(&TenantId::default(), &TopicName::new(&name).unwrap()).await.unwrap();
            if topic.unwrap().shards[0].home() == group {
                found.push(name);
                break;
            }
        }
    }
    found
}

/// Ten messages of QoS 2, in one write: they come to be one batch.
async fn publish_ten(writer: &mut Client, topic: &str, letter: char) {
    let mut all = BytesMut::new();
    for number in 0..10 {
        let delivery = Delivery::ExactlyOnce { id: id(number + 1), dup: false };
        let payload = format!("{letter}{number}");
        let publish = Publish {
            delivery,
            retain: false,
            topic,
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        };
        publish.encode(&mut all, &Peer::new(Version::V5)).unwrap();
    }
    writer.send(&all).await;
    for number in 1..=10 {
        assert_eq!(writer.ack().await, (AckKind::Pubrec, number, ReasonCode::Success));
    }
    for number in 1..=10 {
        writer.acknowledge(AckKind::Pubrel, number).await;
        assert_eq!(writer.ack().await, (AckKind::Pubcomp, number, ReasonCode::Success));
    }
}

/// So many messages of QoS 2, each to the end of its exchange. Answers what was sent for the first time.
async fn complete(client: &mut Client, count: usize) -> Vec<String> {
    let (mut fresh, mut done) = (Vec::new(), 0);
    while done < count {
        let (kind, number) = client
            .read(|packet| match packet {
                Packet::Publish(Publish { delivery: Delivery::ExactlyOnce { id, dup }, payload, .. }) => {
                    if !dup {
                        fresh.push(String::from_utf8(payload.to_vec()).unwrap());
                    }
                    (AckKind::Pubrec, id.get())
                }
                Packet::Pubrel(ack) => (AckKind::Pubcomp, ack.packet_id.get()),
                other => panic!("{other:?}"),
            })
            .await;
        client.acknowledge(kind, number).await;
        done += usize::from(kind == AckKind::Pubcomp);
    }
    fresh
}

/// While another group filled the window, it was forgotten how much of a batch had been taken: its first records came again as
/// new messages.
#[test]
fn mqtt_4_3_3_batches_of_two_groups_that_were_taken_in_part_go_on_where_they_stopped() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let topics = topic_of_each_group(&broker, &mut writer).await;
        let [first, .., last] = &topics[..] else { panic!("{topics:?}") };
        let hello = Hello { receive_maximum: Some(2), ..Hello::lasting("c") };
        let mut client = back(&broker, &hello, false).await;
        for topic in [first, last] {
            client.subscribe(topic, Qos::ExactlyOnce).await;
        }
        publish_ten(&mut writer, last, 'b').await;
        let mut fresh = complete(&mut client, 2).await;
        // Two more are in flight when it goes.
        for _ in 0..2 {
            fresh.push(String::from_utf8(client.message().await.payload).unwrap());
        }
        client.vanish().await;
        publish_ten(&mut writer, first, 'a').await;
        let mut client = back(&broker, &hello, true).await;
        assert!(complete(&mut client, 2).await.is_empty());
        // The first group is read first.
        for _ in 0..2 {
            fresh.push(String::from_utf8(client.message().await.payload).unwrap());
        }
        client.vanish().await;
        let mut client = back(&broker, &hello, true).await;
        fresh.extend(complete(&mut client, 16).await);
        client.nothing().await;
        fresh.sort_unstable();
        let expected: Vec<_> = ['a', 'b']
            .iter()
            .flat_map(|letter| (0..10).map(move |number| format!("{letter}{number}")))
            .collect();
        assert_eq!(fresh, expected);
    });
}

/// One that has a message in hand, and another waiting, when it subscribes to a topic that has had one.
async fn subscribed_late(broker: &Broker, id: &str) -> Client {
    let mut writer = broker.client(Version::V5, "w").await;
    let hello = Hello { receive_maximum: Some(1), ..Hello::lasting(id) };
    let mut client = back(broker, &hello, false).await;
    client.subscribe("early", Qos::AtLeastOnce).await;
    for payload in [b"1", b"2"] {
        writer.publish_durably("early", payload).await;
    }
    assert_eq!(client.message().await.payload, b"1");
    writer.publish_durably("late", b"before").await;
    client.subscribe("late", Qos::AtLeastOnce).await;
    writer.publish_durably("late", b"after").await;
    client
}

async fn hears_what_came_after(broker: &Broker, id: &str) {
    let mut client = back(broker, &Hello::lasting(id), true).await;
    let mut payloads = client.payloads(3).await;
    payloads.sort_unstable();
    assert_eq!(payloads, ["1", "2", "after"]);
    client.nothing().await;
}

/// A session that came back knew its subscriptions, but not since when: it got what had been published before.
#[test]
fn mqtt_3_8_4_a_session_that_comes_back_gets_nothing_from_before_it_subscribed() {
    on_core(async {
        let broker = Broker::start().await;
        // It has all that it wanted.
        let mut client = back(&broker, &Hello::lasting("live"), false).await;
        client.subscribe("other", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        writer.publish_durably("late", b"before").await;
        client.subscribe("late", Qos::AtLeastOnce).await;
        client.leave().await;
        let mut client = back(&broker, &Hello::lasting("live"), true).await;
        client.nothing().await;
        writer.publish_durably("late", b"after").await;
        assert_eq!(client.payloads(1).await, ["after"]);
        // Twice, since what was brought back is written again.
        subscribed_late(&broker, "slow").await.vanish().await;
        let hello = Hello { receive_maximum: Some(1), ..Hello::lasting("slow") };
        let mut client = back(&broker, &hello, true).await;
        assert_eq!(client.message().await.payload, b"1");
        client.vanish().await;
        hears_what_came_after(&broker, "slow").await;
    });
}

/// The same, when the broker dies after SUBACK.
#[test]
fn mqtt_3_8_4_a_session_gets_nothing_from_before_it_subscribed_after_a_crash() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        let _connected = subscribed_late(&broker, "slow").await;
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        hears_what_came_after(&broker, "slow").await;
    });
}

/// Whether the store knows of the session of this client.
async fn is_stored(broker: &Broker, client: &str) -> bool {
    let rows = broker.node().core.rows();
    for group in rows.groups() {
        let sessions = rows.scan(&Place::Group(group), Bytes::from_static(b"s"), Bytes::new(), 1024).await;
        if sessions.unwrap().iter().any(|row| row.key.ends_with(client.as_bytes())) {
            return true;
        }
    }
    false
}

/// Waits until a session is over, without a visit to it.
async fn over(broker: &Broker, client: &str) {
    let over = async {
        while is_stored(broker, client).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.expect("the session ends in time");
}

#[test]
fn mqtt_4_1_0_2_a_session_ends_when_its_time_is_over_and_without_a_visit() {
    on_core(async {
        let broker = Broker::start().await;
        let short = Hello { expiry: Some(1), ..Hello::lasting("short") };
        let forever = Hello { expiry: Some(u32::MAX), ..Hello::lasting("forever") };
        for hello in [&short, &forever] {
            let mut client = back(&broker, hello, false).await;
            client.subscribe("t", Qos::AtLeastOnce).await;
            client.leave().await;
            assert!(is_stored(&broker, hello.id).await);
        }
        broker.client(Version::V5, "w").await.publish_durably("t", b"missed").await;
        over(&broker, "short").await;
        assert!(is_stored(&broker, "forever").await);
        // Its subscription and its queue are gone with it.
        let mut client = back(&broker, &short, false).await;
        broker.client(Version::V5, "w").await.publish_durably("t", b"more").await;
        client.nothing().await;
    });
}

/// Its expiry is far shorter than its connection.
#[test]
fn mqtt_4_1_0_1_a_session_does_not_end_while_it_is_connected() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = back(&broker, &Hello { expiry: Some(1), ..Hello::lasting("c") }, false).await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        // Another one that began later, and later, ends meanwhile.
        for name in ["first", "second"] {
            back(&broker, &Hello { expiry: Some(1), ..Hello::lasting(name) }, false).await.leave().await;
            over(&broker, name).await;
        }
        client.vanish().await;
        back(&broker, &Hello::lasting("c"), true).await.nothing().await;
    });
}

/// That the session is to last for ever from now on was stored only when its client left: a crash before that ended it, as if it had
/// been away since the last time, for the time that was said then.
#[test]
fn mqtt_3_1_2_23_a_session_that_is_to_last_for_ever_does_so_from_connack_on() {
    let kept = Kept::default();
    let for_ever = Hello { expiry: Some(u32::MAX), ..Hello::lasting("c") };
    on_core(async {
        let clock = Arc::new(SteppedClock::new());
        // An hour before the next start.
        clock.step(-3_600_000);
        let broker = Broker::with_clock(clock).await;
        let mut client = back(&broker, &Hello { expiry: Some(100), ..for_ever }, false).await;
        client.subscribe("t", Qos::AtLeastOnce).await;
        client.leave().await;
        let client = back(&broker, &for_ever, true).await;
        kept.put(broker.stop().await);
        drop(client);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut client = back(&broker, &for_ever, true).await;
        broker.client(Version::V5, "w").await.publish_durably("t", b"x").await;
        assert_eq!(client.payloads(1).await, ["x"]);
    });
}

/// Rows of QoS 2 identifiers that are stored.
async fn identifiers(broker: &Broker) -> usize {
    let (rows, mut count) = (broker.node().core.rows(), 0);
    for group in rows.groups() {
        let found = rows.scan(&Place::Group(group), Bytes::from_static(b"mq"), Bytes::new(), 1024).await;
        count += found.unwrap().len();
    }
    count
}

/// Publishes with these packet identifiers, and never sends PUBREL.
async fn leave_open(client: &mut Client, ids: std::ops::Range<u16>) {
    for number in ids {
        client.publish("t", b"x", Delivery::ExactlyOnce { id: id(number), dup: false }).await;
        assert_eq!(client.ack().await, (AckKind::Pubrec, number, ReasonCode::Success));
    }
}

/// They stayed for ever: nobody can name them any more.
#[test]
fn mqtt_4_1_0_2_packet_identifiers_end_with_their_session() {
    on_core(async {
        let broker = Broker::start().await;
        // It expires.
        let mut client = back(&broker, &Hello { expiry: Some(1), ..Hello::lasting("short") }, false).await;
        leave_open(&mut client, 1..40).await;
        client.vanish().await;
        assert_eq!(identifiers(&broker).await, 39);
        over(&broker, "short").await;
        assert_eq!(identifiers(&broker).await, 0);
        // Its client wants it back one last time.
        let mut client = back(&broker, &Hello::lasting("c"), false).await;
        leave_open(&mut client, 1..10).await;
        client.vanish().await;
        let mut client = back(&broker, &Hello { expiry: Some(0), ..Hello::lasting("c") }, true).await;
        leave_open(&mut client, 10..12).await;
        assert_eq!(identifiers(&broker).await, 9, "what is received now ends with the connection");
        client.leave().await;
        let gone = async {
            while identifiers(&broker).await != 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("they are removed in time");
        assert!(!is_stored(&broker, "c").await);
    });
}
