//! PUBLISH -> record -> PUBLISH gives the same message, and records of other views are shown as the page says.

use bytes::BytesMut;
use model::batch::{BatchBuilder, Records};
use proptest::prelude::*;
use wire::mqtt::{
    Decoded, Decoder, Delivery, Expect, Packet, Peer, Properties, PropertiesBuf, Property, Publish, Qos,
    Version,
};

use super::*;

const NOW: i64 = 1_700_000_000_000;
const LIMIT: usize = 1 << 24;

/// A property of a PUBLISH, owned.
#[derive(Debug, Clone)]
enum Owned {
    Format(bool),
    Expiry(u32),
    ContentType(String),
    ResponseTopic(String),
    Correlation(Vec<u8>),
    User(String, String),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.-]{0,12}",
        "[^\0]{0,20}",
        proptest::sample::select(vec![
            "content-type",
            "reply-to",
            "correlation-id",
            "expires-at",
            "subject",
            "mqtt.qos",
            "mqtt.retain",
            "mqtt.publisher",
            "mqtt.user.content-type",
            "mqtt.user.colour",
            "mqtt.base64.x",
            "mqtt.",
            "message-id",
        ])
        .prop_map(str::to_owned),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/%25BE]{1,20}", "[^\0+#]{1,20}"]
}

fn properties() -> impl Strategy<Value = Vec<Owned>> {
    let single = (
        proptest::option::of(any::<bool>().prop_map(Owned::Format)),
        proptest::option::of((1..=u32::MAX).prop_map(Owned::Expiry)),
        proptest::option::of(text().prop_map(Owned::ContentType)),
        proptest::option::of(topic().prop_map(Owned::ResponseTopic)),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Owned::Correlation)),
    );
    let users =
        proptest::collection::vec((text(), text()).prop_map(|(name, value)| Owned::User(name, value)), 0..14);
    (single, users)
        .prop_map(|((a, b, c, d, e), users)| [c, d, e, b, a].into_iter().flatten().chain(users).collect())
}

fn write(properties: &[Owned]) -> PropertiesBuf {
    let mut block = PropertiesBuf::new();
    for property in properties {
        let property = match property {
            Owned::Format(format) => Property::PayloadFormatIndicator(*format),
            Owned::Expiry(seconds) => Property::MessageExpiryInterval(*seconds),
            Owned::ContentType(text) => Property::ContentType(text),
            Owned::ResponseTopic(text) => Property::ResponseTopic(text),
            Owned::Correlation(data) => Property::CorrelationData(data),
            Owned::User(name, value) => Property::UserProperty(name, value),
        };
        block.push(property).unwrap();
    }
    block
}

/// The record that a publication becomes.
fn record_of(inbound: &Inbound<'_>) -> Records {
    let mut builder = BatchBuilder::with_capacity(1024);
    inbound.with_message(
        || NOW,
        |message| {
            builder.push(NOW, message.key, message.value, message.headers.iter().copied()).unwrap();
        },
    );
    Records::decode(&builder.finish(), LIMIT).unwrap()
}

fn record_with(headers: &[(&str, Option<&[u8]>)]) -> Records {
    let mut builder = BatchBuilder::with_capacity(1024);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
    builder.push(NOW, None, None, headers.iter().copied()).unwrap();
    Records::decode(&builder.finish(), LIMIT).unwrap()
}

proptest! {
    #[test]
    fn mqtt_3_3_2_properties_survive_the_log(
        topic in topic(),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        properties in properties(),
        (qos, retain, own) in (0u8..3, any::<bool>(), any::<bool>()),
    ) {
        let block = write(&properties);
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
        let publish = Publish {
            delivery: Delivery::AtMostOnce, retain, topic: &topic, properties: block.view(), payload: &payload,
        };
        let subject = crate::subscription::subject_of(&topic);
        let publisher = own.then_some("me");
        let inbound = Inbound { publish: &publish, subject: &subject, qos, publisher, rows: &[] };
        let records = record_of(&inbound);
        let record = records.get(0).unwrap();

        let mut shown = PropertiesBuf::new();
        let reading = Reading::of(&record, false, || NOW, Some(&mut shown)).unwrap();
        prop_assert_eq!(topic_of(&subject).unwrap(), &topic[..]);
        prop_assert_eq!(record.value().unwrap(), &payload[..]);
        prop_assert_eq!(reading.retain, retain);
        prop_assert_eq!(reading.publisher, publisher.map(str::as_bytes));
        prop_assert_eq!(reading.left_out, 0);
        if qos != Qos::AtMostOnce || retain {
            prop_assert_eq!(reading.qos, qos);
        }
        prop_assert_eq!(shown.view(), block.view());

        // What is shown is a packet that a client can read.
        let sent = Publish { properties: shown.view(), ..publish };
        let mut bytes = BytesMut::new();
        sent.encode(&mut bytes, &Peer::new(Version::V5)).unwrap();
        let decoder = Decoder { expect: Expect::FromServer(Version::V5), packet_size_max: u32::MAX };
        prop_assert!(matches!(decoder.decode(&bytes), Decoded::Packet(Packet::Publish(read), _) if read == sent));

        // 3.x clients see the same facts without properties.
        prop_assert_eq!(Reading::of(&record, false, || NOW, None).unwrap().qos, reading.qos);
    }

    #[test]
    fn any_record_of_another_view_can_be_shown(
        headers in proptest::collection::vec(
            (prop_oneof![text().prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..8)],
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..24))), 0..12),
        captured in any::<bool>(),
    ) {
        let mut builder = BatchBuilder::with_capacity(1024);
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        builder.push(NOW, None, None, pairs.iter().copied()).unwrap();
        let records = Records::decode(&builder.finish(), LIMIT).unwrap();
        let mut shown = PropertiesBuf::new();
        let reading = Reading::of(&records.get(0).unwrap(), captured, || NOW, Some(&mut shown));
        if reading.is_ok() {
            let publish = Publish {
                delivery: Delivery::AtMostOnce, retain: false, topic: "t", properties: shown.view(), payload: b"",
            };
            let mut bytes = BytesMut::new();
            publish.encode(&mut bytes, &Peer::new(Version::V5)).unwrap();
            let decoder = Decoder { expect: Expect::FromServer(Version::V5), packet_size_max: u32::MAX };
            prop_assert!(matches!(decoder.decode(&bytes), Decoded::Packet(Packet::Publish(_), _)));
        }
    }
}

fn shown(records: &Records, captured: bool) -> Vec<(String, String)> {
    let mut block = PropertiesBuf::new();
    Reading::of(&records.get(0).unwrap(), captured, || NOW, Some(&mut block)).unwrap();
    block
        .view()
        .iter()
        .map(|property| match property {
            Property::UserProperty(name, value) => (name.to_owned(), value.to_owned()),
            other => ("-".to_owned(), format!("{other:?}")),
        })
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn mqtt_3_3_2_5_expiry_counts_the_time_in_the_broker() {
    let at = (NOW + 9_001).to_string();
    let records = record_with(&[("expires-at", Some(at.as_bytes()))]);
    let record = records.get(0).unwrap();
    let mut block = PropertiesBuf::new();
    for (passed, left) in [(0, 10), (2, 9), (9_000, 1)] {
        Reading::of(&record, false, || NOW + passed, Some(&mut block)).unwrap();
        assert_eq!(block.view().message_expiry_interval(), Some(left), "{passed}");
    }
    for version_properties in [None, Some(&mut block)] {
        assert_eq!(Reading::of(&record, false, || NOW + 9_001, version_properties), Err(Expired));
    }
}

#[test]
fn what_a_property_cannot_hold_is_a_user_property() {
    let records = record_with(&[
        ("content-type", Some(b"text/plain")),
        ("content-type", Some(b"second")),
        ("expires-at", Some(b"soon")),
        ("mqtt.qos", Some(b"7")),
        ("mqtt.payload-format", Some(b"2")),
        ("correlation-id", None),
        ("mqtt.user.colour", Some(b"red")),
        ("mqtt.user.mqtt.qos", Some(b"x")),
        ("subject", Some(b"a/b")),
    ]);
    let expected = pairs(&[
        ("-", "ContentType(\"text/plain\")"),
        ("content-type", "second"),
        ("expires-at", "soon"),
        ("mqtt.qos", "7"),
        ("mqtt.payload-format", "2"),
        ("correlation-id", ""),
        ("mqtt.user.colour", "red"),
        ("mqtt.qos", "x"),
    ]);
    assert_eq!(shown(&records, true), expected);
    let with_subject = [expected, pairs(&[("subject", "a/b")])].concat();
    assert_eq!(shown(&records, false), with_subject);
}

#[test]
fn values_that_are_no_text_are_shown_in_base64_and_such_names_left_out() {
    let mut builder = BatchBuilder::with_capacity(1024);
    let headers: [(&[u8], Option<&[u8]>); 3] =
        [(b"raw", Some(b"\xff\x00")), (b"nul", Some(b"a\0b")), (b"\xff", Some(b"v"))];
    builder.push(NOW, None, None, headers).unwrap();
    let records = Records::decode(&builder.finish(), LIMIT).unwrap();
    assert_eq!(shown(&records, false), pairs(&[("mqtt.base64.raw", "/wA="), ("mqtt.base64.nul", "YQBi")]));
    let mut block = PropertiesBuf::new();
    let reading = Reading::of(&records.get(0).unwrap(), false, || NOW, Some(&mut block)).unwrap();
    assert_eq!(reading.left_out, 1);
}

#[test]
fn a_response_topic_is_respelled() {
    let records = record_with(&[("reply-to", Some(b"a/c++"))]);
    assert_eq!(shown(&records, false), pairs(&[("-", "ResponseTopic(\"a/c%2B%2B\")")]));
    assert_eq!(Properties::EMPTY.response_topic(), None);
}
