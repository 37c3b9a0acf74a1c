//! What a client is told beside codes: Reason Strings, Response Information, Server Keep Alive (statements 28, 65, 66).

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use mqtt::{MqttConfig, Template};
use testkit::on_core;
use wire::mqtt::{Packet, Properties, Qos, ReasonCode, SubscribeOptions, Version};

use crate::link::{Broker, Client, Hello};

const QOS0: SubscribeOptions = SubscribeOptions::new(Qos::AtMostOnce);

async fn hello(broker: &Broker, hello: &Hello<'_>) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(hello).await;
    assert_eq!(client.connack().await, (false, ReasonCode::Success));
    client
}

fn reason(properties: &Properties<'_>) -> Option<String> {
    properties.reason_string().map(str::to_owned)
}

/// The Reason Strings of a SUBACK, an UNSUBACK and a DISCONNECT.
async fn reasons(client: &mut Client) -> [Option<String>; 3] {
    client.send_subscribe("a#", QOS0).await;
    let suback = client.read(|packet| match packet {
        Packet::Suback(ack) => reason(&ack.properties),
        other => panic!("{other:?}"),
    });
    let suback = suback.await;
    client.send_unsubscribe("a#").await;
    let unsuback = client.read(|packet| match packet {
        Packet::Unsuback(ack) => reason(&ack.properties),
        other => panic!("{other:?}"),
    });
    let unsuback = unsuback.await;
    client.send(b"\x30\x07\x00\x00\x03\x23\x00\x01A").await;
    let disconnect = client.read(|packet| match packet {
        Packet::Disconnect(disconnect) => reason(&disconnect.properties),
        other => panic!("{other:?}"),
    });
    [suback, unsuback, disconnect.await]
}

#[test]
fn mqtt_3_1_2_29_reasons_are_told_in_words_where_they_are_wanted() {
    on_core(async {
        let broker = Broker::start().await;
        let filter = Some("The topic filter is not valid or not accepted.".to_owned());
        let alias = Some("this topic alias has no topic yet".to_owned());
        for (wanted, acknowledgement) in [(None, &filter), (Some(true), &filter), (Some(false), &None)] {
            let mut client = hello(&broker, &Hello { problem_information: wanted, ..Hello::default() }).await;
            // CONNACK and DISCONNECT may say it to everybody.
            let expected = [acknowledgement.clone(), acknowledgement.clone(), alias.clone()];
            assert_eq!(reasons(&mut client).await, expected, "{wanted:?}");
        }
    });
}

/// Maximum Packet Size counts the whole packet: one byte too few, and the words are left out.
#[test]
fn mqtt_3_9_2_1_reasons_that_do_not_fit_are_left_out() {
    on_core(async {
        let broker = Broker::start().await;
        let whole = 2 + 2 + 1 + 3 + "The topic filter is not valid or not accepted.".len() as u32 + 1;
        for (most, fits) in [(whole, true), (whole - 1, false), (20, false)] {
            let mut client = hello(&broker, &Hello { packet_size_max: Some(most), ..Hello::default() }).await;
            let [suback, unsuback, disconnect] = reasons(&mut client).await;
            assert_eq!((suback.is_some(), unsuback.is_some()), (fits, fits), "{most}");
            assert_eq!(disconnect.is_some(), most > 20);
        }
    });
}

/// A refusal whose words the client has no room for (the exact bytes).
#[test]
fn mqtt_3_2_2_19_a_refused_connect_keeps_to_the_maximum_packet_size() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.socket(Version::V5).await;
        client
            .send(b"\x10\x17\x00\x04MQTT\x05\x02\x00\x00\x09\x27\x00\x00\x00\x08\x15\x00\x01x\x00\x01c")
            .await;
        client.closed_after(b"\x20\x03\x00\x8c\x00", "only the code").await;
    });
}

#[test]
fn mqtt_3_1_2_28_response_information_is_told_when_it_is_asked_for() {
    on_core(async {
        let template = Template::parse("answers/${clientid}/").unwrap();
        let config = MqttConfig { response_information: Some(template), ..MqttConfig::default() };
        for (config, asked, told) in [
            (config.clone(), Some(true), Some("answers/c/")),
            (config.clone(), Some(false), None),
            (config, None, None),
            (MqttConfig::default(), Some(true), None),
        ] {
            let broker = Broker::with(config).await;
            let mut client = broker.socket(Version::V5).await;
            client.connect(&Hello { response_information: asked, ..Hello::default() }).await;
            client
                .read(|packet| {
                    let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
                    assert_eq!(connack.properties.response_information(), told);
                })
                .await;
        }
    });
}

#[test]
fn mqtt_3_2_2_22_the_keep_alive_of_the_server_is_told_and_held_against_the_client() {
    on_core(async {
        let config = MqttConfig { server_keep_alive: NonZeroU16::new(1), ..MqttConfig::default() };
        let broker = Broker::with(config).await;
        let mut client = broker.socket(Version::V5).await;
        let begun = Instant::now();
        client.connect(&Hello { keep_alive: 600, ..Hello::default() }).await;
        client
            .read(|packet| {
                let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
                assert_eq!(connack.properties.server_keep_alive(), Some(1));
            })
            .await;
        let mut old = broker.socket(Version::V311).await;
        old.connect(&Hello { id: "old", ..Hello::default() }).await;
        assert_eq!(old.connack().await, (false, ReasonCode::Success));
        assert_eq!(client.disconnected().await, ReasonCode::KeepAliveTimeout);
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(1400) && passed < Duration::from_secs(4), "{passed:?}");
        // An older client cannot be told: its own keep alive holds, here none.
        old.nothing().await;
    });
}
