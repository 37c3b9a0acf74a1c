//! Shared subscriptions of several members (statements 79, 83, 85).

use testkit::on_core;
use wire::mqtt::{Qos, ReasonCode, SubscribeOptions, Version};

use crate::link::{Broker, Client, Hello, Kept};

const QOS1: SubscribeOptions = SubscribeOptions::new(Qos::AtLeastOnce);

async fn lasting(broker: &Broker, name: &str) -> Client {
    let mut client = broker.socket(Version::V5).await;
    client.connect(&Hello::lasting(name)).await;
    client.connack().await;
    client
}

async fn publish_all(writer: &mut Client, texts: std::ops::Range<u32>) {
    for number in texts {
        writer.publish_durably("jobs/1", number.to_string().as_bytes()).await;
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn mqtt_4_8_2_1_one_member_gets_each_message() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut first = broker.client(Version::V5, "a").await;
        let mut second = broker.client(Version::V311, "b").await;
        first.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        second.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        // Of its own besides, and another share of the same name.
        first.subscribe("jobs/+", Qos::AtMostOnce).await;
        second.subscribe("$share/crew/jobs/1", Qos::AtLeastOnce).await;
        publish_all(&mut writer, 0..10).await;
        let mut by_first = first.payloads(15).await;
        let mut by_second = second.payloads(15).await;
        first.nothing().await;
        second.nothing().await;
        by_first.append(&mut by_second);
        by_first.sort_by_key(|text| text.parse::<u32>().unwrap());
        let each_thrice: Vec<_> =
            numbers(0..10).into_iter().flat_map(|text| [text.clone(), text.clone(), text]).collect();
        assert_eq!(by_first, each_thrice);
    });
}

#[test]
fn mqtt_4_8_2_3_each_member_has_its_own_quality_and_identifier() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut zero = broker.client(Version::V5, "zero").await;
        let mut one = broker.client(Version::V5, "one").await;
        zero.subscribe_with("$share/crew/jobs/#", SubscribeOptions::new(Qos::AtMostOnce), Some(7)).await;
        one.subscribe_with("$share/crew/jobs/#", QOS1, None).await;
        publish_all(&mut writer, 0..4).await;
        for _ in 0..2 {
            let message = zero.message().await;
            assert_eq!(message.qos, Qos::AtMostOnce);
            assert!(message.properties.contains("SubscriptionIdentifier(7)"), "{}", message.properties);
            assert_eq!(one.message().await.qos, Qos::AtLeastOnce);
        }
    });
}

#[test]
fn mqtt_4_8_2_with_no_member_there_messages_wait_for_one_whose_session_lasts() {
    let kept = Kept::default();
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut member = lasting(&broker, "member").await;
        member.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        member.leave().await;
        publish_all(&mut writer, 0..5).await;
        let mut member = lasting(&broker, "member").await;
        assert_eq!(member.payloads(5).await, numbers(0..5));
        member.nothing().await;
        member.leave().await;
        publish_all(&mut writer, 5..9).await;
        writer.leave().await;
        kept.put(broker.stop().await);
    });
    // Over a restart, too.
    on_core(async {
        let broker = Broker::start_on(kept.take()).await;
        let mut member = lasting(&broker, "member").await;
        let got = member.payloads(4).await;
        assert_eq!(got, numbers(5..9));
        // Nobody waits once it has unsubscribed.
        assert_eq!(member.unsubscribe("$share/crew/jobs/#").await, [ReasonCode::Success]);
        let mut writer = broker.client(Version::V5, "w").await;
        publish_all(&mut writer, 9..10).await;
        member.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        publish_all(&mut writer, 10..11).await;
        assert_eq!(member.payloads(1).await, ["10"]);
    });
}

#[test]
fn a_member_with_a_small_window_does_not_slow_the_others() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut stuck = broker.socket(Version::V5).await;
        stuck.connect(&Hello { id: "stuck", receive_maximum: Some(1), ..Hello::default() }).await;
        stuck.connack().await;
        stuck.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        let mut quick = broker.client(Version::V5, "quick").await;
        quick.subscribe("$share/crew/jobs/#", Qos::AtLeastOnce).await;
        publish_all(&mut writer, 0..200).await;
        // What the stuck one was given, 16 at most, waits for it; everything else went on.
        assert!(quick.payloads(184).await.len() == 184);
        stuck.message().await;
        stuck.vanish().await;
        assert_eq!(quick.payloads(16).await.len(), 16);
        quick.nothing().await;
    });
}
