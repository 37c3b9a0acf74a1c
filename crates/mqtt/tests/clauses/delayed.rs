//! `$delayed/{seconds}/{topic}`: publications that come later.

use testkit::on_core;
use wire::mqtt::{AckKind, Delivery, PropertiesBuf, Property, Qos, ReasonCode, Version};

use crate::link::{Broker, id};

fn qos1(number: u16) -> Delivery {
    Delivery::AtLeastOnce { id: id(number), dup: false }
}

#[test]
fn a_delayed_message_comes_when_it_is_due_as_it_would_have_come() {
    on_core(async {
        let broker = Broker::start().await;
        let mut client = broker.client(Version::V5, "c").await;
        client.subscribe("#", Qos::ExactlyOnce).await;
        let mut writer = broker.client(Version::V5, "w").await;
        let mut properties = PropertiesBuf::new();
        properties.push(Property::MessageExpiryInterval(1)).unwrap();
        properties.push(Property::UserProperty("a", "b")).unwrap();
        // Its expiry counts from when it is due.
        let delivery = Delivery::ExactlyOnce { id: id(7), dup: false };
        writer.publish_with("$delayed/1.2/t/late", b"late", delivery, (true, properties.view())).await;
        assert_eq!(writer.ack().await, (AckKind::Pubrec, 7, ReasonCode::Success));
        writer.acknowledge(AckKind::Pubrel, 7).await;
        assert_eq!(writer.ack().await, (AckKind::Pubcomp, 7, ReasonCode::Success));
        writer.publish("$delayed/0.1/t/soon", b"soon", Delivery::AtMostOnce).await;
        writer.publish_durably("$delayed/0/t/now", b"now").await;
        for (topic, qos) in
            [("t/now", Qos::AtLeastOnce), ("t/soon", Qos::AtMostOnce), ("t/late", Qos::ExactlyOnce)]
        {
            let message = client.message().await;
            assert_eq!((message.topic.as_str(), message.qos), (topic, qos));
            let is_late = topic == "t/late";
            assert_eq!(
                message.properties.contains("UserProperty(\"a\", \"b\")"),
                is_late,
                "{}",
                message.properties
            );
        }
        // It became the retained message.
        let mut reader = broker.client(Version::V5, "r").await;
        reader.subscribe("t/late", Qos::AtMostOnce).await;
        assert_eq!(reader.message().await.payload, b"late");
    });
}

#[test]
fn what_is_no_delay_and_topic_is_refused() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        let wrong = [
            "$delayed/1",
            "$delayed//t",
            "$delayed/-1/t",
            "$delayed/x/t",
            "$delayed/1/",
            "$delayed/1/$delayed/1/t",
        ];
        for topic in wrong {
            writer.publish(topic, b"x", qos1(3)).await;
            assert_eq!(writer.ack().await, (AckKind::Puback, 3, ReasonCode::TopicNameInvalid), "{topic}");
        }
        writer.publish("$delayed/x/t", b"x", Delivery::AtMostOnce).await;
        writer.nothing().await;
        assert_eq!(broker.counted("mqtt_dropped_total", "refused"), 1);
        let mut old = broker.client(Version::V311, "old").await;
        old.publish("$delayed/x/t", b"x", qos1(3)).await;
        old.closed().await;
    });
}

#[test]
fn acknowledgements_keep_the_order_of_the_publications() {
    on_core(async {
        let broker = Broker::start().await;
        let mut writer = broker.client(Version::V5, "w").await;
        for number in 1..=20 {
            let topic = if number % 2 == 0 { "$delayed/3600/t" } else { "t" };
            writer.publish(topic, b"x", qos1(number)).await;
        }
        for number in 1..=20 {
            assert_eq!(writer.ack().await, (AckKind::Puback, number, ReasonCode::Success));
        }
    });
}
