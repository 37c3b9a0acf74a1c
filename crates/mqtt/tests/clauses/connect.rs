//! CONNECT and CONNACK: take-over, time that really passes, what is told (statements 24, 29, 99).

use std::time::Duration;

use mqtt::{MqttConfig, Template};
use testkit::on_core;
use wire::mqtt::{Packet, ReasonCode, Version};

use crate::link::{Broker, Hello};

const CONNECT_5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";

#[test]
fn mqtt_3_1_2_22_silence_closes_and_any_packet_breaks_it() {
    on_core(async {
        let broker = Broker::start().await;
        let mut silent = broker.socket(Version::V5).await;
        let begun = std::time::Instant::now();
        silent.connect(&Hello { id: "silent", keep_alive: 1, ..Hello::default() }).await;
        assert_eq!(silent.connack().await.1, ReasonCode::Success);
        let mut endless = broker.client(Version::V5, "endless").await;
        assert_eq!(silent.disconnected().await, ReasonCode::KeepAliveTimeout);
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(1400) && passed < Duration::from_secs(4), "{passed:?}");
        endless.nothing().await;
    });
}

#[test]
fn mqtt_3_1_2_22_silence_of_the_broker_itself_is_not_the_clients() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.hand();
        client.connect("c", 2, b"\0").await;
        client.stand_still(Duration::from_secs(60));
        client.send(b"\xc0\x00");
        client.hears(b"\xd0\x00", "PINGRESP").await;
        client.stand_still(Duration::from_secs(60));
        assert!(client.said().is_empty(), "what it said may still be on its way");
        client.stand_still(Duration::from_secs(60));
        assert_eq!(client.disconnected().await, ReasonCode::KeepAliveTimeout as u8);
    });
}

#[test]
fn a_connection_without_connect_is_closed_in_time() {
    on_core(async {
        let config = MqttConfig { connect_timeout: Duration::from_millis(50), ..MqttConfig::default() };
        let broker = Broker::with(config).await;
        let mut mute = broker.socket(Version::V5).await;
        let mut slow = broker.socket(Version::V5).await;
        slow.send(&CONNECT_5[..9]).await;
        mute.closed().await;
        slow.closed().await;
    });
}

/// A claim that came while another one was on its way was not served.
#[test]
fn mqtt_3_1_4_3_claims_at_once_are_served_one_after_the_other() {
    on_core(async {
        let broker = Broker::start().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = broker.socket(Version::V5).await;
            client.connect(&Hello::lasting("c")).await;
            clients.push(client);
        }
        let served = async {
            while broker.counted("mqtt_connects_total", "accepted") < 8
                || broker.counted("mqtt_connections", "") != 1
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), served).await.expect("all are served");
        let mut late = broker.socket(Version::V5).await;
        late.connect(&Hello::lasting("c")).await;
        assert_eq!(late.connack().await, (true, ReasonCode::Success));
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
