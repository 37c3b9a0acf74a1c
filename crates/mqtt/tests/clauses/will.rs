//! Wills that wait, and wills over the end of the broker (statements 86, 87, 94).

use testkit::on_core;
use wire::mqtt::{PropertiesBuf, Property, Qos, ReasonCode, Version, Will};

use crate::link::{Broker, Client, Hello, Kept};

async fn with_will(broker: &Broker, id: &str, delay: Option<u32>, expiry: u32) -> Client {
    let mut properties = PropertiesBuf::new();
    if let Some(delay) = delay {
        properties.push(Property::WillDelayInterval(delay)).unwrap();
    }
    properties.push(Property::UserProperty("k", "v")).unwrap();
    let will = Will {
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: properties.view(),
        topic: "will",
        payload: id.as_bytes(),
    };
    let mut client = broker.socket(Version::V5).await;
    let hello = Hello { id, clean_start: false, expiry: Some(expiry), will: Some(will), ..Hello::default() };
    client.connect(&hello).await;
    assert_eq!(client.connack().await.1, ReasonCode::Success);
    client
}

async fn reader(broker: &Broker) -> Client {
    let mut reader = broker.client(Version::V5, "reader").await;
    reader.subscribe("will", Qos::AtLeastOnce).await;
    reader
}

#[test]
fn mqtt_3_1_3_9_a_delayed_will_comes_late_or_not_at_all() {
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = reader(&broker).await;
        // Back in time: no will.
        with_will(&broker, "back", Some(1), 100).await.vanish().await;
        let mut back = with_will(&broker, "back", Some(100), 100).await;
        // Not back: when the delay is over.
        with_will(&broker, "late", Some(1), 100).await.vanish().await;
        // The session ends before the delay does.
        with_will(&broker, "short", Some(100), 0).await.vanish().await;
        with_will(&broker, "sooner", Some(100), 1).await.vanish().await;
        assert_eq!(reader.message().await.payload, b"short");
        let mut later = [reader.message().await.payload, reader.message().await.payload];
        later.sort_unstable();
        assert_eq!(later, [b"late".to_vec(), b"sooner".to_vec()]);
        back.nothing().await;
        // A new session ends the old one, whose will is due then.
        back.vanish().await;
        let mut client = broker.socket(Version::V5).await;
        client.connect(&Hello { id: "back", ..Hello::default() }).await;
        assert_eq!(client.connack().await, (false, ReasonCode::Success));
        assert_eq!(reader.message().await.payload, b"back");
    });
}

#[test]
fn mqtt_4_1_0_2_a_waiting_will_survives_a_restart() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        with_will(&broker, "c", Some(1), 100).await.vanish().await;
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut reader = reader(&broker).await;
        assert_eq!(reader.message().await.payload, b"c");
    });
}

/// The broker died, and wills of connections that were open were never published.
#[test]
fn mqtt_3_1_2_8_our_own_crash_publishes_wills_and_does_so_once() {
    let kept = Kept::default();
    let lasting = Hello::lasting("reader");
    on_core(async {
        let broker = Broker::start().await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&lasting).await;
        reader.connack().await;
        reader.subscribe("will", Qos::AtLeastOnce).await;
        with_will(&broker, "good-bye", None, 100).await.leave().await;
        let open = [
            with_will(&broker, "at once", None, 0).await,
            with_will(&broker, "late", Some(1), 100).await,
            with_will(&broker, "back", Some(100), 100).await,
            with_will(&broker, "anew", Some(100), 100).await,
        ];
        // Heard after the good-bye.
        reader.nothing().await;
        kept.put(broker.stop().await);
        drop(open);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&lasting).await;
        assert!(reader.connack().await.0);
        // The session goes on: no will. A new session: a will.
        let back = with_will(&broker, "back", Some(100), 100).await;
        let mut anew = broker.socket(Version::V5).await;
        anew.connect(&Hello { id: "anew", ..Hello::default() }).await;
        assert_eq!(anew.connack().await, (false, ReasonCode::Success));
        let mut published = reader.payloads(3).await;
        published.sort_unstable();
        assert_eq!(published, ["anew", "at once", "late"]);
        back.leave().await;
        reader.nothing().await;
        // What it acknowledged is durable when it is back.
        reader.leave().await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&lasting).await;
        assert!(reader.connack().await.0);
        kept.put(broker.stop().await);
    });
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut reader = broker.socket(Version::V5).await;
        reader.connect(&lasting).await;
        assert!(reader.connack().await.0);
        reader.nothing().await;
    });
}
