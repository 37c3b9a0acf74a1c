//! What settings, stored rules and other clients make of topics and filters: rewriting, subscriptions without asking, exclusive
//! ones.

use mqtt::{
    AutoSubscribe, AutoSubscription, CountedTopic, MqttConfig, Rewrite, RewriteAction, RewriteRule,
    SendRetained, Template,
};
use testkit::on_core;
use wire::mqtt::{
    AckKind, Delivery, Properties, PropertiesBuf, Property, Qos, ReasonCode, RetainHandling,
    SubscribeOptions, Version, Will,
};

use crate::link::{Broker, Client, Hello, Kept, PATIENCE, id};

const QOS1: SubscribeOptions = SubscribeOptions::new(Qos::AtLeastOnce);
const TAKEN: [ReasonCode; 1] = [ReasonCode::QuotaExceeded];
const GRANTED: [ReasonCode; 1] = [ReasonCode::GrantedQos1];

async fn hello(broker: &Broker, hello: &Hello<'_>, is_present: bool) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(hello).await;
    assert_eq!(client.connack().await, (is_present, ReasonCode::Success));
    client
}

fn rules() -> MqttConfig {
    let rule = |action, filter, pattern, target| Rewrite::new(action, filter, pattern, target).unwrap();
    MqttConfig {
        rewrites: vec![
            rule(RewriteAction::Publish, "old/#", "^old/(.+)$", "new/$1"),
            rule(RewriteAction::Subscribe, "mine", "", "of/${clientid}"),
            rule(RewriteAction::All, "bad", "", "x/#/y"),
        ],
        ..MqttConfig::default()
    }
}

#[test]
fn topics_and_filters_are_rewritten() {
    on_core(async {
        let broker = Broker::with(rules()).await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("new/+", Qos::AtLeastOnce).await;
        reader.subscribe("mine", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V311, "writer").await;
        for (said, heard) in [("old/1", "new/1"), ("of/reader", "of/reader"), ("new/2", "new/2")] {
            writer.publish(said, b"0", Delivery::AtMostOnce).await;
            assert_eq!(reader.message().await.topic, heard);
            writer.publish_durably(said, b"1").await;
            assert_eq!(reader.message().await.topic, heard);
        }
        // A topic with an alias, and a will.
        let mut modern = broker.client(Version::V5, "modern").await;
        modern.send(b"\x30\x0c\x00\x05old/3\x03\x23\x00\x01A\x30\x07\x00\x00\x03\x23\x00\x01B").await;
        for payload in ["A", "B"] {
            let message = reader.message().await;
            assert_eq!((&message.topic[..], &message.payload[..]), ("new/3", payload.as_bytes()));
        }
        let will = Will {
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
            topic: "old/will",
            payload: b"gone",
        };
        hello(&broker, &Hello { id: "w", will: Some(will), ..Hello::default() }, false).await.vanish().await;
        assert_eq!(reader.message().await.topic, "new/will");
        // It is given up under the name that it was asked for.
        assert_eq!(reader.unsubscribe("mine").await, [ReasonCode::Success]);
        assert_eq!(reader.unsubscribe("of/reader").await, [ReasonCode::NoSubscriptionExisted]);
        reader.subscribe("of/reader", Qos::AtMostOnce).await;
        assert_eq!(reader.unsubscribe("mine").await, [ReasonCode::Success]);
    });
}

#[test]
fn a_rule_that_gives_no_topic_refuses() {
    on_core(async {
        let broker = Broker::with(rules()).await;
        let mut client = broker.client(Version::V5, "c").await;
        client.publish("bad", b"x", Delivery::AtMostOnce).await;
        client.publish("bad", b"x", Delivery::AtLeastOnce { id: id(3), dup: false }).await;
        assert_eq!(client.ack().await, (AckKind::Puback, 3, ReasonCode::TopicNameInvalid));
        client.publish("bad", b"x", Delivery::ExactlyOnce { id: id(4), dup: false }).await;
        assert_eq!(client.ack().await, (AckKind::Pubrec, 4, ReasonCode::TopicNameInvalid));
        assert_eq!(client.subscribe_with("bad", QOS1, None).await, [ReasonCode::TopicFilterInvalid]);
        assert_eq!(client.unsubscribe("bad").await, [ReasonCode::TopicFilterInvalid]);
        assert_eq!(broker.counted("mqtt_dropped_total", "refused"), 1);
        client.nothing().await;
    });
}

#[test]
fn clients_have_subscriptions_without_asking() {
    on_core(async {
        let auto =
            |filter: &str, options| AutoSubscribe { filter: Template::parse(filter).unwrap(), options };
        let config = MqttConfig {
            auto_subscribe: vec![
                auto("to/${clientid}", QOS1),
                auto("user/${username}", QOS1),
                auto("all", SubscribeOptions { retain_handling: RetainHandling::SendIfNew, ..QOS1 }),
            ],
            ..MqttConfig::default()
        };
        let broker = Broker::with(config).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        writer.publish_retained("all", b"kept", Delivery::AtMostOnce).await;
        assert_eq!(writer.message().await.payload, b"kept");
        let mut client = hello(&broker, &Hello::lasting("c"), false).await;
        assert_eq!(client.message().await.payload, b"kept");
        writer.publish_durably("to/c", b"1").await;
        assert_eq!(client.payloads(1).await, ["1"]);
        // A subscription of the session as any other: messages wait in it, and a retained message comes once.
        client.leave().await;
        writer.publish_durably("to/c", b"2").await;
        let mut client = hello(&broker, &Hello::lasting("c"), true).await;
        assert_eq!(client.payloads(1).await, ["2"]);
        client.nothing().await;
        assert_eq!(client.unsubscribe("user/").await, [ReasonCode::NoSubscriptionExisted]);
        assert_eq!(client.unsubscribe("to/c").await, [ReasonCode::Success]);
        // A client does not choose its own wildcards.
        let mut sly = broker.client(Version::V5, "#").await;
        assert_eq!(sly.message().await.payload, b"kept");
        writer.publish_durably("to/c", b"3").await;
        sly.nothing().await;
        client.nothing().await;
    });
}

fn stored_rule(name: &str, action: RewriteAction, (filter, topic): (&str, &str)) -> RewriteRule {
    let [tenant, name, filter, topic] = ["default", name, filter, topic].map(str::to_owned);
    RewriteRule { tenant, name, order: 0, action, filter, pattern: String::new(), topic }
}

fn stored_auto(name: &str, filter: &str) -> AutoSubscription {
    AutoSubscription {
        tenant: "default".to_owned(),
        name: name.to_owned(),
        filter: filter.to_owned(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain: SendRetained::New,
    }
}

#[test]
fn a_stored_rule_holds_from_the_next_packet_on() {
    on_core(async {
        let broker = Broker::with(rules()).await;
        let mut reader = broker.client(Version::V5, "reader").await;
        reader.subscribe("#", Qos::AtLeastOnce).await;
        let mut writer = broker.client(Version::V5, "writer").await;
        // Topic and alias; from then on the alias alone, for which what holds now counts.
        writer.send(b"\x30\x0a\x00\x03now\x03\x23\x00\x01A").await;
        assert_eq!(reader.message().await.topic, "now");
        let first = stored_rule("b", RewriteAction::Publish, ("now", "by/b/${clientid}"));
        broker.store(&first).await;
        writer.send(b"\x30\x07\x00\x00\x03\x23\x00\x01B").await;
        assert_eq!(reader.message().await.topic, "by/b/writer");
        // The name decides between rules of one order, the order before it, and settings before both.
        broker.store(&stored_rule("a", RewriteAction::Publish, ("now", "by/a"))).await;
        writer.publish_durably("now", b"x").await;
        assert_eq!(reader.message().await.topic, "by/a");
        broker
            .store(&RewriteRule { order: 1, ..stored_rule("a", RewriteAction::Publish, ("now", "by/a")) })
            .await;
        broker.store(&stored_rule("c", RewriteAction::All, ("old/#", "stored"))).await;
        writer.publish_durably("now", b"y").await;
        writer.publish_durably("old/1", b"z").await;
        assert_eq!(reader.message().await.topic, "by/b/writer");
        assert_eq!(reader.message().await.topic, "new/1");
        // Filters, in both directions, and nothing when it is gone.
        let renames = stored_rule("d", RewriteAction::Subscribe, ("mine/+", "of/${clientid}"));
        broker.store(&renames).await;
        let mut other = broker.client(Version::V5, "other").await;
        other.subscribe("mine/+", Qos::AtLeastOnce).await;
        writer.publish_durably("of/other", b"1").await;
        assert_eq!(other.payloads(1).await, ["1"]);
        broker.remove(&renames).await;
        assert_eq!(other.unsubscribe("mine/+").await, [ReasonCode::NoSubscriptionExisted]);
        assert_eq!(other.unsubscribe("of/other").await, [ReasonCode::Success]);
    });
}

#[test]
fn a_stored_auto_subscription_is_for_clients_that_connect_later() {
    on_core(async {
        let broker = Broker::start().await;
        let mut before = broker.client(Version::V5, "before").await;
        broker.store(&stored_auto("a", "to/${clientid}")).await;
        let mut client = broker.client(Version::V311, "c").await;
        let mut writer = broker.client(Version::V5, "writer").await;
        writer.publish_durably("to/c", b"1").await;
        writer.publish_durably("to/before", b"2").await;
        assert_eq!(client.payloads(1).await, ["1"]);
        before.nothing().await;
        // Whoever has it keeps it when the rule goes.
        broker.remove(&stored_auto("a", "to/${clientid}")).await;
        let mut after = broker.client(Version::V5, "after").await;
        writer.publish_durably("to/c", b"3").await;
        writer.publish_durably("to/after", b"4").await;
        assert_eq!(client.payloads(1).await, ["3"]);
        after.nothing().await;
    });
}

#[test]
fn stored_rules_hold_again_after_a_restart() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        broker.store(&stored_rule("r", RewriteAction::Publish, ("t", "renamed"))).await;
        broker.store(&stored_auto("a", "renamed")).await;
        broker.store(&CountedTopic::new("renamed")).await;
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut client = broker.client(Version::V5, "c").await;
        client.publish("t", b"x", Delivery::AtMostOnce).await;
        assert_eq!(client.message().await.topic, "renamed");
        let seen = broker.observatory().topic_readings();
        assert_eq!((&*seen[0].filter, seen[0].messages_in), ("renamed", [1, 0, 0]));
    });
}

#[test]
fn an_exclusive_subscription_has_one_client() {
    on_core(async {
        let broker = Broker::start().await;
        let mut first = broker.client(Version::V5, "first").await;
        let mut second = broker.client(Version::V5, "second").await;
        let mut old = broker.client(Version::V311, "old").await;
        assert_eq!(first.subscribe_with("$exclusive/t/+", QOS1, None).await, GRANTED);
        assert_eq!(first.subscribe_with("$exclusive/t/+", QOS1, None).await, GRANTED);
        assert_eq!(second.subscribe_with("$exclusive/t/+", QOS1, None).await, TAKEN);
        assert_eq!(old.subscribe_with("$exclusive/t/+", QOS1, None).await, [ReasonCode::UnspecifiedError]);
        // Only the exclusive one is.
        assert_eq!(second.subscribe_with("t/+", QOS1, None).await, GRANTED);
        assert_eq!(second.subscribe_with("$exclusive/t/#", QOS1, None).await, GRANTED);
        old.publish("t/1", b"x", Delivery::AtMostOnce).await;
        assert_eq!(first.message().await.topic, "t/1");
        assert_eq!(second.message().await.topic, "t/1");
        for (filter, code) in [
            ("$exclusive/", 0x8f),
            ("$exclusive/a#", 0x8f),
            ("$exclusive/$share/g/t", 0x8f),
            ("$exclusive", 0x01),
        ] {
            let codes = first.subscribe_with(filter, QOS1, None).await;
            assert_eq!(codes.iter().map(|code| *code as u8).collect::<Vec<_>>(), [code], "{filter}");
        }
        // It is given up, and asked for and given up in one go.
        assert_eq!(first.unsubscribe("t/+").await, [ReasonCode::NoSubscriptionExisted]);
        assert_eq!(first.unsubscribe("$exclusive/t/+").await, [ReasonCode::Success]);
        assert_eq!(second.subscribe_with("$exclusive/t/+", QOS1, None).await, GRANTED);
        first.send_subscribe("$exclusive/u", QOS1).await;
        assert_eq!(first.unsubscribe("$exclusive/u").await, GRANTED);
        first.read(|packet| assert!(matches!(packet, wire::mqtt::Packet::Unsuback(_)))).await;
        assert_eq!(second.subscribe_with("$exclusive/u", QOS1, None).await, GRANTED);
        // A session ends with its connection, however that ends.
        second.vanish().await;
        for filter in ["$exclusive/t/+", "$exclusive/u", "$exclusive/t/#"] {
            assert_eq!(first.subscribe_with(filter, QOS1, None).await, GRANTED, "{filter}");
        }
    });
}

#[test]
fn an_exclusive_subscription_lasts_as_long_as_its_session() {
    on_core(async {
        let broker = Broker::start().await;
        let mut owner = hello(&broker, &Hello::lasting("owner"), false).await;
        assert_eq!(owner.subscribe_with("$exclusive/t", QOS1, None).await, GRANTED);
        let mut other = broker.client(Version::V5, "other").await;
        // Over a take-over, and while its client is away.
        let mut owner_again = hello(&broker, &Hello::lasting("owner"), true).await;
        assert_eq!(owner.disconnected().await, ReasonCode::SessionTakenOver);
        assert_eq!(other.subscribe_with("$exclusive/t", QOS1, None).await, TAKEN);
        assert_eq!(owner_again.subscribe_with("$exclusive/t", QOS1, None).await, GRANTED);
        owner_again.leave().await;
        assert_eq!(other.subscribe_with("$exclusive/t", QOS1, None).await, TAKEN);
        other.publish_durably("t", b"1").await;
        let mut owner = hello(&broker, &Hello::lasting("owner"), true).await;
        assert_eq!(owner.payloads(1).await, ["1"]);
        assert_eq!(other.subscribe_with("$exclusive/t", QOS1, None).await, TAKEN);
        // A new session of the same client has nothing of the old one.
        owner.leave().await;
        let clean = Hello { clean_start: true, ..Hello::lasting("owner") };
        let mut owner = hello(&broker, &clean, false).await;
        assert_eq!(other.subscribe_with("$exclusive/t", QOS1, None).await, GRANTED);
        assert_eq!(owner.subscribe_with("$exclusive/t", QOS1, None).await, TAKEN);
        // A session that ends while its client is away, without a visit.
        assert_eq!(owner.subscribe_with("$exclusive/u", QOS1, None).await, GRANTED);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(1)).unwrap();
        owner.disconnect(ReasonCode::Success, properties.view()).await;
        owner.closed().await;
        let freed = async { while other.subscribe_with("$exclusive/u", QOS1, None).await != GRANTED {} };
        tokio::time::timeout(PATIENCE, freed).await.expect("it is freed in time");
    });
}

#[test]
fn exclusive_subscriptions_survive_a_restart_with_their_sessions() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        let mut lasting = hello(&broker, &Hello::lasting("lasting"), false).await;
        assert_eq!(lasting.subscribe_with("$exclusive/a", QOS1, None).await, GRANTED);
        let mut away = hello(&broker, &Hello::lasting("away"), false).await;
        assert_eq!(away.subscribe_with("$exclusive/b", QOS1, None).await, GRANTED);
        away.leave().await;
        let mut short = broker.client(Version::V5, "short").await;
        assert_eq!(short.subscribe_with("$exclusive/c", QOS1, None).await, GRANTED);
        drop((lasting, short));
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut other = broker.client(Version::V5, "other").await;
        for (filter, codes) in [("$exclusive/a", TAKEN), ("$exclusive/b", TAKEN), ("$exclusive/c", GRANTED)] {
            assert_eq!(other.subscribe_with(filter, QOS1, None).await, codes, "{filter}");
        }
        let mut lasting = hello(&broker, &Hello::lasting("lasting"), true).await;
        other.publish_durably("a", b"x").await;
        assert_eq!(lasting.payloads(1).await, ["x"]);
    });
}

#[test]
fn exclusive_subscriptions_can_be_turned_off() {
    on_core(async {
        let broker =
            Broker::with(MqttConfig { exclusive_subscriptions: false, ..MqttConfig::default() }).await;
        let mut client = broker.client(Version::V5, "c").await;
        let codes = client.subscribe_with("$exclusive/t", QOS1, None).await;
        assert_eq!(codes, [ReasonCode::TopicFilterInvalid]);
    });
}

/// A client that goes while its rows are being asked for leaves nothing behind.
#[test]
fn a_client_that_does_not_wait_for_its_exclusive_subscription_has_none() {
    on_core(async {
        let broker = Broker::start().await;
        for _ in 0..10 {
            let mut hasty = broker.hand();
            hasty.connect("hasty", 0, b"\x00").await;
            hasty.send(b"\x82\x12\x00\x01\x00\x00\x0c$exclusive/t\x01");
            assert!(!hasty.is_read());
            hasty.vanish();
        }
        let mut client = broker.client(Version::V5, "c").await;
        let granted = async { while client.subscribe_with("$exclusive/t", QOS1, None).await != GRANTED {} };
        tokio::time::timeout(PATIENCE, granted).await.expect("nobody else has it");
    });
}
