//! Access control at each place where a client could get around it.

use auth::scram::{Mechanism, StoredKeys};
use auth::{Ban, Banned, Effect, PasswordHash, Permission, Right, User, Who};
use broker::Broker as _;
use model::{TenantId, TopicName};
use mqtt::MqttConfig;
use rt::SystemRng;
use testkit::{ScramClient, on_core};
use wire::mqtt::{
    AckKind, Auth, Connect, Delivery, Properties, PropertiesBuf, Property, Qos, ReasonCode, SubscribeOptions,
    Version, Will,
};

use crate::link::{Broker, Client, Hello, id};

fn user(name: &str, password: &str) -> User {
    let user = User::new(TenantId::default(), name);
    User {
        scram_sha_256: Some(StoredKeys::derive(Mechanism::Sha256, password.as_bytes(), &SystemRng)),
        ..user.with_password(&PasswordHash::argon2id(password.as_bytes(), &SystemRng))
    }
}

fn rule(id: &str, who: Who, effect: Effect, rights: &[Right], pattern: &str) -> Permission {
    let tenant = TenantId::default();
    Permission { rights: rights.to_vec(), ..Permission::new(tenant, id, who, effect, pattern) }
}

fn allow(id: &str, who: &str, pattern: &str) -> Permission {
    rule(id, Who::User(who.to_owned()), Effect::Allow, &[], pattern)
}

/// A listener that others than this machine reach, as far as access control knows.
fn wide() -> MqttConfig {
    let mut config = MqttConfig::default();
    config.listener.loopback = false;
    config
}

async fn login(broker: &Broker, version: Version, name: &str, password: &str) -> (Client, ReasonCode) {
    let mut client = broker.socket(version).await;
    let hello = Hello { id: name, user: Some((name, password)), ..Hello::lasting(name) };
    client.connect(&hello).await;
    let (_, reason) = client.connack().await;
    (client, reason)
}

async fn let_in(broker: &Broker, name: &str) -> Client {
    let_in_as(broker, name, name).await
}

async fn let_in_as(broker: &Broker, name: &str, id: &str) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(&Hello { user: Some((name, "secret")), ..Hello::lasting(id) }).await;
    assert_eq!(client.connack().await.1, ReasonCode::Success);
    client
}

#[test]
fn a_listener_that_is_not_on_loopback_refuses_everybody_until_a_user_exists() {
    on_core(async {
        let broker = Broker::with(wide()).await;
        for version in [Version::V311, Version::V5] {
            let mut client = broker.socket(version).await;
            client.connect(&Hello::default()).await;
            assert_eq!(client.connack().await, (false, ReasonCode::NotAuthorized));
            client.closed().await;
            assert_eq!(login(&broker, version, "guest", "guest").await.1, ReasonCode::NotAuthorized);
        }
        broker.node().put(&user("alice", "secret")).await;
        for version in [Version::V311, Version::V5] {
            assert_eq!(login(&broker, version, "alice", "secret").await.1, ReasonCode::Success);
            for (name, password) in [("alice", "Secret"), ("bob", "secret"), ("alice", "")] {
                let refused = login(&broker, version, name, password).await.1;
                assert_eq!(refused, ReasonCode::BadUserNameOrPassword, "{name} {password}");
            }
        }
        let mut anonymous = broker.socket(Version::V5).await;
        anonymous.connect(&Hello::default()).await;
        assert_eq!(anonymous.connack().await, (false, ReasonCode::NotAuthorized));
    });
}

#[test]
fn anonymous_clients_on_loopback_lose_their_rights_with_the_first_user() {
    on_core(async {
        let broker = Broker::start().await;
        let mut early = broker.client(Version::V5, "early").await;
        early.subscribe("#", Qos::AtMostOnce).await;
        early.publish("a", b"1", Delivery::AtMostOnce).await;
        assert_eq!(early.message().await.payload, b"1");
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&allow("alice", "alice", "a/#")).await;
        let mut alice = let_in(&broker, "alice").await;
        alice.publish_durably("a/b", b"2").await;
        early.publish("a", b"3", Delivery::AtLeastOnce { id: id(3), dup: false }).await;
        // Neither what alice wrote nor what it wants to write itself.
        assert_eq!(early.ack().await, (AckKind::Puback, 3, ReasonCode::NotAuthorized));
        early.nothing().await;
        assert_eq!(broker.counted("mqtt_dropped_total", "denied"), 1);
    });
}

#[test]
fn mqtt_4_4_0_2_a_denied_publish_is_told_to_5_0_and_acknowledged_before() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&allow("alice", "alice", "mine/#")).await;
        let mut reader = let_in(&broker, "alice").await;
        let mut alice = let_in_as(&broker, "alice", "another").await;
        reader.subscribe("mine/#", Qos::AtMostOnce).await;
        alice.publish("x", b"", Delivery::AtMostOnce).await;
        alice.publish("x", b"", Delivery::AtLeastOnce { id: id(1), dup: false }).await;
        assert_eq!(alice.ack().await, (AckKind::Puback, 1, ReasonCode::NotAuthorized));
        alice.publish("x", b"", Delivery::ExactlyOnce { id: id(2), dup: false }).await;
        assert_eq!(alice.ack().await, (AckKind::Pubrec, 2, ReasonCode::NotAuthorized));
        // The identifier is free at once.
        alice.publish("mine/a", b"2", Delivery::ExactlyOnce { id: id(2), dup: false }).await;
        assert_eq!(alice.ack().await, (AckKind::Pubrec, 2, ReasonCode::Success));
        assert_eq!(reader.message().await.payload, b"2");
        alice.publish("$delayed/0/x", b"", Delivery::AtLeastOnce { id: id(3), dup: false }).await;
        assert_eq!(alice.ack().await, (AckKind::Puback, 3, ReasonCode::NotAuthorized));

        let (mut old, _) = login(&broker, Version::V311, "alice", "secret").await;
        old.publish("x", b"", Delivery::AtLeastOnce { id: id(1), dup: false }).await;
        assert_eq!(old.ack().await, (AckKind::Puback, 1, ReasonCode::Success));
        old.publish("x", b"", Delivery::ExactlyOnce { id: id(2), dup: false }).await;
        assert_eq!(old.ack().await, (AckKind::Pubrec, 2, ReasonCode::Success));
        old.acknowledge(AckKind::Pubrel, 2).await;
        assert_eq!(old.ack().await, (AckKind::Pubcomp, 2, ReasonCode::Success));
        let topic = TopicName::new("x").unwrap();
        assert!(broker.node().core.find_topic(&TenantId::default(), &topic).await.unwrap().is_none());
    });
}

#[test]
fn whoever_publishes_what_it_may_not_is_disconnected_if_settings_say_so() {
    on_core(async {
        let broker = Broker::with(MqttConfig { disconnects_denied: true, ..MqttConfig::default() }).await;
        broker.node().put(&user("alice", "secret")).await;
        for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce { id: id(1), dup: false }] {
            let mut alice = let_in(&broker, "alice").await;
            alice.publish("x", b"", delivery).await;
            assert_eq!(alice.disconnected().await, ReasonCode::NotAuthorized);
            let (mut old, _) = login(&broker, Version::V311, "alice", "secret").await;
            old.publish("x", b"", delivery).await;
            old.closed().await;
        }
    });
}

#[test]
fn subscriptions_retained_and_queued_messages_are_asked_for() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&user("root", "secret")).await;
        broker.node().put(&allow("root", "root", "#")).await;
        broker.node().put(&allow("a", "alice", "a/#")).await;
        broker.node().put(&rule("s", Who::User("alice".into()), Effect::Deny, &[], "a/secret")).await;
        let mut root = let_in(&broker, "root").await;
        for (topic, payload) in [("a/secret", b"r1"), ("a/open", b"r2")] {
            root.publish_retained(topic, payload, Delivery::AtLeastOnce { id: id(1), dup: false }).await;
            assert_eq!(root.ack().await, (AckKind::Puback, 1, ReasonCode::Success));
        }
        let mut alice = let_in(&broker, "alice").await;
        let options = SubscribeOptions::new(Qos::AtLeastOnce);
        for refused in ["#", "b", "+/open", "a/secret", "$share/g/b", "$exclusive/b"] {
            let codes = alice.subscribe_with(refused, options, None).await;
            assert_eq!(codes, [ReasonCode::NotAuthorized], "{refused}");
        }
        // A part of it is denied: the rest comes.
        alice.subscribe("a/#", Qos::AtLeastOnce).await;
        assert_eq!(alice.payloads(1).await, ["r2"]);
        alice.subscribe("$share/g/a/+", Qos::AtLeastOnce).await;
        for (topic, payload) in [("a/secret", "1"), ("a/open", "2")] {
            root.publish_durably(topic, payload.as_bytes()).await;
        }
        assert_eq!(alice.payloads(2).await, ["2", "2"], "of the subscription, and of the share");
        alice.nothing().await;
        drop(alice);
        // Queued while it was away; a right that is gone by then counts.
        root.publish_durably("a/open", b"3").await;
        root.publish_durably("a/later", b"4").await;
        broker.node().put(&rule("o", Who::User("alice".into()), Effect::Deny, &[], "a/open")).await;
        let mut alice = let_in(&broker, "alice").await;
        let mut got = alice.payloads(1).await;
        got.extend(alice.payloads(1).await);
        assert_eq!(got, ["4", "4"]);
        alice.nothing().await;
    });
}

#[test]
fn a_will_needs_the_right_when_it_is_left_and_when_it_is_due() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&user("root", "secret")).await;
        broker.node().put(&allow("root", "root", "#")).await;
        broker.node().put(&allow("a", "alice", "a/#")).await;
        let mut root = let_in(&broker, "root").await;
        root.subscribe("#", Qos::AtMostOnce).await;
        let will = |topic: &'static str, properties| Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties,
            topic,
            payload: b"will",
        };
        let connect = async |topic, expiry, properties| {
            let mut alice = broker.socket(Version::V5).await;
            let will = Some(will(topic, properties));
            let hello = Hello { user: Some(("alice", "secret")), expiry, will, ..Hello::default() };
            alice.connect(&hello).await;
            (alice.connack().await.1, alice)
        };
        assert_eq!(connect("b", None, Properties::EMPTY).await.0, ReasonCode::NotAuthorized);
        let (reason, alice) = connect("a/will", None, Properties::EMPTY).await;
        assert_eq!(reason, ReasonCode::Success);
        drop(alice);
        assert_eq!(root.message().await.topic, "a/will");

        // Revoked while it waits for its delay.
        let mut delay = PropertiesBuf::new();
        delay.push(Property::WillDelayInterval(1)).unwrap();
        let (reason, alice) = connect("a/late", Some(60), delay.view()).await;
        assert_eq!(reason, ReasonCode::Success);
        drop(alice);
        broker.node().put(&rule("l", Who::Everyone, Effect::Deny, &[Right::Publish], "a/late")).await;
        root.publish("$delayed/2/after", b"", Delivery::AtMostOnce).await;
        assert_eq!(root.message().await.topic, "after", "the will would have come before");
    });
}

#[test]
fn whoever_is_banned_or_locked_out_goes_at_once() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        let mut alice = let_in(&broker, "alice").await;
        let ban = Ban {
            tenant: None,
            id: "b".into(),
            who: Banned::Client("alice".into()),
            until_ms: None,
            reason: String::new(),
        };
        broker.node().put(&ban).await;
        assert_eq!(alice.disconnected().await, ReasonCode::AdministrativeAction);
        assert_eq!(login(&broker, Version::V5, "alice", "secret").await.1, ReasonCode::Banned);
        assert_eq!(login(&broker, Version::V311, "alice", "secret").await.1, ReasonCode::NotAuthorized);
        broker.node().delete::<Ban>("*/b").await;
        let mut alice = let_in(&broker, "alice").await;
        broker.node().put(&User { disabled: true, ..user("alice", "secret") }).await;
        assert_eq!(alice.disconnected().await, ReasonCode::NotAuthorized);
    });
}

/// CONNECT with a method and a will; the data of the AUTH that answers it.
async fn begin(client: &mut Client, method: &str, data: Option<&[u8]>) -> (ReasonCode, Vec<u8>) {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod(method)).unwrap();
    if let Some(data) = data {
        properties.push(Property::AuthenticationData(data)).unwrap();
    }
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        properties: properties.view(),
        client_id: "c",
        will: Some(Will {
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
            topic: "will",
            payload: b"gone",
        }),
        user_name: None,
        password: None,
    };
    client.say(|out, peer| connect.encode(out, peer).unwrap()).await;
    client.proof().await
}

#[test]
fn mqtt_4_12_a_client_proves_itself_by_scram_and_does_so_again() {
    on_core(async {
        let broker = Broker::with(wide()).await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&allow("alice", "alice", "#")).await;
        let mut client = broker.socket(Version::V5).await;
        let proof = ScramClient::new(Mechanism::Sha256, "alice", "secret");
        let (reason, challenge) = begin(&mut client, "SCRAM-SHA-256", Some(proof.first().as_bytes())).await;
        assert_eq!(reason, ReasonCode::ContinueAuthentication);
        client.auth(ReasonCode::ContinueAuthentication, &proof.answer(&challenge)).await;
        let (reason, verdict) = client.proof().await;
        assert_eq!(reason, ReasonCode::Success);
        assert!(proof.is_broker(&challenge, &verdict));
        // Again, while other packets go on [MQTT-4.12.1].
        let again = ScramClient::new(Mechanism::Sha256, "alice", "secret");
        client.auth(ReasonCode::ReAuthenticate, again.first().as_bytes()).await;
        let (reason, challenge) = client.proof().await;
        assert_eq!(reason, ReasonCode::ContinueAuthentication);
        client.nothing().await;
        client.auth(ReasonCode::ContinueAuthentication, &again.answer(&challenge)).await;
        assert_eq!(client.proof().await.0, ReasonCode::Success);
    });
}

/// A client whose connection is proved by SCRAM-SHA-256, and who leaves a will.
async fn proved(broker: &Broker) -> Client {
    let mut client = broker.socket(Version::V5).await;
    let proof = ScramClient::new(Mechanism::Sha256, "alice", "secret");
    let (_, challenge) = begin(&mut client, "SCRAM-SHA-256", Some(proof.first().as_bytes())).await;
    client.auth(ReasonCode::ContinueAuthentication, &proof.answer(&challenge)).await;
    assert_eq!(client.proof().await.0, ReasonCode::Success);
    client
}

#[test]
fn mqtt_4_12_1_1_another_method_than_that_of_connect_is_a_protocol_error() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&allow("alice", "alice", "#")).await;
        let mut reader = let_in_as(&broker, "alice", "reader").await;
        reader.subscribe("will", Qos::AtMostOnce).await;
        for method in ["SCRAM-SHA-512", "scram-sha-256", "x"] {
            let mut client = proved(&broker).await;
            let mut properties = PropertiesBuf::new();
            properties.push(Property::AuthenticationMethod(method)).unwrap();
            properties.push(Property::AuthenticationData(b"n,,n=alice,r=x")).unwrap();
            let auth = Auth { reason: ReasonCode::ReAuthenticate, properties: properties.view() };
            client.say(|out, peer| auth.encode(out, peer).unwrap()).await;
            assert_eq!(client.disconnected().await, ReasonCode::ProtocolError, "{method}");
            assert_eq!(reader.message().await.payload, b"gone");
        }
    });
}

#[test]
fn mqtt_4_12_1_2_a_proof_that_fails_ends_the_connection_and_publishes_the_will() {
    on_core(async {
        let broker = Broker::start().await;
        broker.node().put(&user("alice", "secret")).await;
        broker.node().put(&user("bob", "secret")).await;
        broker.node().put(&allow("alice", "alice", "#")).await;
        let mut reader = let_in_as(&broker, "alice", "reader").await;
        reader.subscribe("will", Qos::AtMostOnce).await;
        // A wrong password, and another user than before.
        for (name, password) in [("alice", "Secret"), ("bob", "secret")] {
            let mut client = proved(&broker).await;
            let proof = ScramClient::new(Mechanism::Sha256, name, password);
            client.auth(ReasonCode::ReAuthenticate, proof.first().as_bytes()).await;
            let (_, challenge) = client.proof().await;
            client.auth(ReasonCode::ContinueAuthentication, &proof.answer(&challenge)).await;
            assert_eq!(client.disconnected().await, ReasonCode::NotAuthorized, "{name}");
            assert_eq!(reader.message().await.payload, b"gone");
        }
    });
}

#[test]
fn mqtt_4_12_0_1_what_is_no_proof_is_refused() {
    on_core(async {
        let broker = Broker::with(wide()).await;
        broker.node().put(&user("alice", "secret")).await;
        for (name, password) in [("alice", "Secret"), ("nobody", "secret")] {
            let mut client = broker.socket(Version::V5).await;
            let proof = ScramClient::new(Mechanism::Sha256, name, password);
            // The client may let the broker begin, which asks for the first message.
            let (reason, nothing) = begin(&mut client, "SCRAM-SHA-256", None).await;
            assert_eq!((reason, &nothing[..]), (ReasonCode::ContinueAuthentication, &b""[..]));
            client.auth(ReasonCode::ContinueAuthentication, proof.first().as_bytes()).await;
            let (_, challenge) = client.proof().await;
            client.auth(ReasonCode::ContinueAuthentication, &proof.answer(&challenge)).await;
            assert_eq!(client.proof().await.0, ReasonCode::NotAuthorized, "{name}");
            client.closed().await;
        }
    });
}
