//! Properties of the MQTT codec: what is encoded is decoded, however it is cut; what arrives never panics.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use wire::mqtt::{
    Ack, AckKind, Auth, Connack, Connect, Decoded, Decoder, Delivery, Disconnect, EncodeError, Exchange,
    Expect, Packet, Peer, Properties, PropertiesBuf, Property, Publish, PublishFanout, Qos, ReasonCode,
    RetainHandling, SubscribeOptions, Version, Will, encode_pingreq, encode_pingresp,
};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(&VERSIONS[..])
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äß温\u{feff}\u{1f600}]{0,20}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-z$/ 温]{1,40}"
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][..])
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        Just(Delivery::AtMostOnce),
        (id(), any::<bool>()).prop_map(|(id, dup)| Delivery::AtLeastOnce { id, dup }),
        (id(), any::<bool>()).prop_map(|(id, dup)| Delivery::ExactlyOnce { id, dup }),
    ]
}

fn users() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn build(properties: &[Option<Property<'_>>], users: &[(String, String)]) -> PropertiesBuf {
    let mut built = PropertiesBuf::new();
    for property in properties.iter().flatten() {
        built.push(*property).expect("short");
    }
    for (name, value) in users {
        built.push(Property::UserProperty(name, value)).expect("short");
    }
    built
}

prop_compose! {
    fn message_properties()(
        format in option::of(any::<bool>()),
        expiry in option::of(any::<u32>()),
        content in option::of(text()),
        reply in option::of(topic()),
        correlation in option::of(data()),
        users in users(),
    ) -> PropertiesBuf {
        build(&[
            format.map(Property::PayloadFormatIndicator),
            expiry.map(Property::MessageExpiryInterval),
            content.as_deref().map(Property::ContentType),
            reply.as_deref().map(Property::ResponseTopic),
            correlation.as_deref().map(Property::CorrelationData),
        ], &users)
    }
}

prop_compose! {
    fn reason_properties()(reason in option::of(text()), users in users()) -> PropertiesBuf {
        build(&[reason.as_deref().map(Property::ReasonString)], &users)
    }
}

prop_compose! {
    fn handshake_properties()(
        expiry in option::of(any::<u32>()),
        receive in option::of(any::<NonZeroU16>()),
        size in option::of(any::<NonZeroU32>()),
        aliases in option::of(any::<u16>()),
        method in option::of((text(), data())),
        users in users(),
    ) -> PropertiesBuf {
        let (name, data) = method.unzip();
        build(&[
            expiry.map(Property::SessionExpiryInterval),
            receive.map(Property::ReceiveMaximum),
            size.map(Property::MaximumPacketSize),
            aliases.map(Property::TopicAliasMaximum),
            name.as_deref().map(Property::AuthenticationMethod),
            data.as_deref().map(Property::AuthenticationData),
        ], &users)
    }
}

/// What a version carries of some properties.
fn carried<'a>(version: Version, properties: &'a PropertiesBuf) -> Properties<'a> {
    if version == Version::V5 { properties.view() } else { Properties::EMPTY }
}

fn decoder(expect: Expect) -> Decoder {
    Decoder { expect, packet_size_max: u32::MAX }
}

/// The packet that these bytes are, all of them.
fn decoded(expect: Expect, bytes: &[u8]) -> Packet<'_> {
    match decoder(expect).decode(bytes) {
        Decoded::Packet(packet, len) if len == bytes.len() => packet,
        other => panic!("{other:?} of {bytes:x?}"),
    }
}

proptest! {
    #[test]
    fn publish(
        version in version(),
        (delivery, retain) in (delivery(), any::<bool>()),
        topic in topic(),
        properties in message_properties(),
        payload in data(),
    ) {
        let properties = carried(version, &properties);
        let message = Publish { delivery, retain, topic: &topic, properties, payload: &payload };
        let mut out = BytesMut::new();
        message.encode(&mut out, &Peer::new(version)).expect("small");
        for expect in [Expect::FromClient(version), Expect::FromServer(version)] {
            prop_assert_eq!(decoded(expect, &out), Packet::Publish(message));
        }
        let Packet::Publish(seen) = decoded(Expect::FromClient(version), &out) else { unreachable!() };
        prop_assert_eq!(
            seen.properties.iter().collect::<Vec<_>>(),
            properties.iter().collect::<Vec<_>>()
        );
        let ranges = seen.ranges(&out);
        let frame: Bytes = out.clone().freeze();
        prop_assert_eq!(&frame.slice(ranges.topic)[..], topic.as_bytes());
        prop_assert_eq!(&frame.slice(ranges.properties)[..], properties.as_bytes());
        prop_assert_eq!(&frame.slice(ranges.payload)[..], &payload[..]);
    }

    #[test]
    fn a_fan_out_writes_what_single_publications_would(
        version in version(),
        receivers in vec((delivery(), any::<bool>()), 1..6),
        topic in topic(),
        properties in message_properties(),
        payload in data(),
    ) {
        let peer = Peer::new(version);
        let message = Publish {
            delivery: Delivery::AtMostOnce,
            retain: true,
            topic: &topic,
            properties: properties.view(),
            payload: &payload,
        };
        let mut fanout = PublishFanout::new(message, version);
        let (mut out, mut singly) = (BytesMut::new(), BytesMut::new());
        for (delivery, retain) in receivers {
            fanout.encode(&mut out, &peer, delivery, retain).expect("small");
            Publish { delivery, retain, ..message }.encode(&mut singly, &peer).expect("small");
        }
        prop_assert_eq!(out, singly);
    }

    #[test]
    fn connect(
        version in version(),
        (clean_start, keep_alive, client_id) in (any::<bool>(), any::<u16>(), "[a-z]{1,30}"),
        properties in handshake_properties(),
        will in option::of((qos(), any::<bool>(), topic(), data(), message_properties())),
        (user_name, password) in (option::of(text()), option::of(data())),
    ) {
        let will = will.as_ref().map(|(qos, retain, topic, payload, properties)| Will {
            qos: *qos, retain: *retain, topic, payload, properties: carried(version, properties),
        });
        let password = password.filter(|_| user_name.is_some() || version == Version::V5);
        let packet = Connect {
            version, clean_start, keep_alive, client_id: &client_id, will,
            properties: carried(version, &properties),
            user_name: user_name.as_deref(), password: password.as_deref(),
        };
        let mut out = BytesMut::new();
        packet.encode(&mut out, &Peer::new(version)).expect("small");
        prop_assert_eq!(decoded(Expect::Connect, &out), Packet::Connect(packet));
    }

    #[test]
    fn acknowledgements(
        version in version(),
        packet_id in id(),
        kind in prop::sample::select(&[AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp][..]),
        failed in any::<bool>(),
        properties in reason_properties(),
    ) {
        let v5 = version == Version::V5;
        let reason = match kind {
            _ if !(failed && v5) => ReasonCode::Success,
            AckKind::Puback | AckKind::Pubrec => ReasonCode::NotAuthorized,
            AckKind::Pubrel | AckKind::Pubcomp => ReasonCode::PacketIdentifierNotFound,
        };
        let ack = Ack { packet_id, reason, properties: carried(version, &properties) };
        let mut out = BytesMut::new();
        ack.encode(kind, &mut out, &Peer::new(version)).expect("small");
        let wanted = match kind {
            AckKind::Puback => Packet::Puback(ack),
            AckKind::Pubrec => Packet::Pubrec(ack),
            AckKind::Pubrel => Packet::Pubrel(ack),
            AckKind::Pubcomp => Packet::Pubcomp(ack),
        };
        prop_assert_eq!(decoded(Expect::FromServer(version), &out), wanted);
        if reason == ReasonCode::Success && ack.properties.is_empty() {
            prop_assert_eq!(out.len(), 4);
        }
    }

    #[test]
    fn subscriptions(
        version in version(),
        packet_id in id(),
        filters in vec((topic(), qos(), any::<[bool; 2]>(), 0..3u8), 1..6),
        properties in users(),
    ) {
        let v5 = version == Version::V5;
        let properties = build(&[], &properties);
        let filters: Vec<_> = filters.iter().map(|(filter, qos, [no_local, as_published], handling)| {
            let options = SubscribeOptions {
                qos: *qos,
                no_local: *no_local && v5 && !filter.starts_with("$share/"),
                retain_as_published: *as_published && v5,
                retain_handling: match handling {
                    1 if v5 => RetainHandling::SendIfNew,
                    2 if v5 => RetainHandling::DoNotSend,
                    _ => RetainHandling::Send,
                },
            };
            (filter.as_str(), options)
        }).collect();
        let names: Vec<_> = filters.iter().map(|(filter, _)| *filter).collect();
        let exchange = Exchange { packet_id, properties: properties.view() };
        let peer = Peer::new(version);
        let mut out = BytesMut::new();
        exchange.encode_subscribe(&filters, &mut out, &peer).expect("small");
        let Packet::Subscribe(seen) = decoded(Expect::FromClient(version), &out) else { panic!("{out:x?}") };
        prop_assert_eq!((seen.packet_id, seen.properties), (packet_id, carried(version, &properties)));
        prop_assert_eq!(seen.filters().collect::<Vec<_>>(), filters);
        out.clear();
        exchange.encode_unsubscribe(&names, &mut out, &peer).expect("small");
        let Packet::Unsubscribe(seen) = decoded(Expect::FromClient(version), &out) else { panic!("{out:x?}") };
        prop_assert_eq!((seen.packet_id, seen.properties), (packet_id, carried(version, &properties)));
        prop_assert_eq!(seen.filters().collect::<Vec<_>>(), names);
    }

    #[test]
    fn subscription_acknowledgements(
        version in version(),
        packet_id in id(),
        qos in vec(0..4usize, 1..9),
        properties in reason_properties(),
    ) {
        let codes: Vec<_> = qos.iter().map(|&at| [
            ReasonCode::Success, ReasonCode::GrantedQos1, ReasonCode::GrantedQos2, ReasonCode::TopicFilterInvalid,
        ][at]).collect();
        let v5 = version == Version::V5;
        let exchange = Exchange { packet_id, properties: properties.view() };
        let mut out = BytesMut::new();
        exchange.encode_suback(&codes, &mut out, &Peer::new(version)).expect("small");
        let Packet::Suback(seen) = decoded(Expect::FromServer(version), &out) else { panic!("{out:x?}") };
        let seen_codes: Vec<_> = seen.codes().collect();
        let wanted: Vec<_> = codes.iter().map(|&code| {
            if code.is_failure() && !v5 { ReasonCode::UnspecifiedError } else { code }
        }).collect();
        prop_assert_eq!(seen_codes, wanted);
        prop_assert_eq!((seen.packet_id, seen.properties), (packet_id, carried(version, &properties)));

        let codes = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
        out.clear();
        exchange.encode_unsuback(&codes, &mut out, &Peer::new(version)).expect("small");
        let Packet::Unsuback(seen) = decoded(Expect::FromServer(version), &out) else { panic!("{out:x?}") };
        prop_assert_eq!(seen.codes().collect::<Vec<_>>(), if v5 { codes.to_vec() } else { vec![] });
    }

    #[test]
    fn the_rest(
        version in version(),
        session_present in any::<bool>(),
        handshake in handshake_properties(),
        reasons in reason_properties(),
    ) {
        let v5 = version == Version::V5;
        let peer = Peer::new(version);
        let mut out = BytesMut::new();
        let session_present = session_present && version != Version::V31;
        let connack = Connack {
            session_present, reason: ReasonCode::Success, properties: carried(version, &handshake),
        };
        connack.encode(&mut out, &peer).expect("small");
        prop_assert_eq!(decoded(Expect::FromServer(version), &out), Packet::Connack(connack));

        let reason = if v5 { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
        for reason in [reason, ReasonCode::Success] {
            let disconnect = Disconnect { reason, properties: carried(version, &reasons) };
            out.clear();
            disconnect.encode(&mut out, &peer).expect("small");
            prop_assert_eq!(decoded(Expect::FromClient(version), &out), Packet::Disconnect(disconnect));
        }

        let auth = Auth { reason: ReasonCode::Success, properties: reasons.view() };
        out.clear();
        let encoded = auth.encode(&mut out, &peer);
        prop_assert_eq!(encoded, if v5 { Ok(()) } else { Err(EncodeError::NotInVersion) });
        if v5 {
            prop_assert_eq!(decoded(Expect::FromClient(version), &out), Packet::Auth(auth));
        }

        out.clear();
        encode_pingreq(&mut out);
        prop_assert_eq!(decoded(Expect::FromClient(version), &out), Packet::Pingreq);
        out.clear();
        encode_pingresp(&mut out);
        prop_assert_eq!(decoded(Expect::FromServer(version), &out), Packet::Pingresp);
    }

    /// [MQTT-3.2.2-19, 3.4.2-2, 3.9.2-1, 3.14.2-3, 3.1.2-24, 3.1.2-29]
    #[test]
    fn the_peers_limits_hold(
        packet_size_max in 0..200u32,
        problem_information in any::<bool>(),
        reasons in reason_properties(),
    ) {
        let peer = Peer { version: Version::V5, packet_size_max, problem_information };
        let (packet_id, properties) = (NonZeroU16::MAX, reasons.view());
        let reason = ReasonCode::NotAuthorized;
        let publish = Publish {
            delivery: Delivery::AtMostOnce, retain: false, topic: "t", properties: Properties::EMPTY, payload: &[7; 50],
        };
        let exchange = Exchange { packet_id, properties };
        let mut out = BytesMut::new();
        // Each with the bytes that it needs at least, and whether it carries details that nobody asked for.
        let encoded = [
            (Ack { packet_id, reason, properties }.encode(AckKind::Puback, &mut out, &peer), 5, false),
            (Disconnect { reason, properties }.encode(&mut out, &peer), 3, true),
            (Connack { session_present: false, reason, properties }.encode(&mut out, &peer), 5, true),
            (exchange.encode_suback(&[reason], &mut out, &peer), 6, false),
            (publish.encode(&mut out, &peer), 56, true),
        ];
        let mut rest = &out[..];
        for (result, least, unasked) in encoded {
            if least > packet_size_max {
                prop_assert_eq!(result, Err(EncodeError::OverPeerMaximum));
                continue;
            }
            prop_assert_eq!(result, Ok(()));
            let Decoded::Packet(packet, len) = decoder(Expect::FromServer(Version::V5)).decode(rest) else {
                panic!("{rest:x?}");
            };
            prop_assert!(len <= packet_size_max as usize);
            rest = &rest[len..];
            let seen = match packet {
                Packet::Puback(ack) => ack.properties,
                Packet::Disconnect(disconnect) => disconnect.properties,
                Packet::Connack(connack) => connack.properties,
                Packet::Suback(suback) => suback.properties,
                other => { prop_assert_eq!(other, Packet::Publish(publish)); continue; }
            };
            // With what else stands in it a packet is at most 8 bytes longer than its properties.
            let fits = properties.as_bytes().len() + 8 <= packet_size_max as usize;
            if fits && (unasked || problem_information) {
                prop_assert_eq!(seen, properties);
            } else if !problem_information && !unasked {
                prop_assert!(seen.is_empty());
            }
        }
        prop_assert!(rest.is_empty());
    }

    /// [MQTT-4.2-1]: the packets do not depend on how their bytes arrive.
    #[test]
    fn any_chunking(
        version in version(),
        messages in vec((delivery(), topic(), data()), 1..8),
        chunks in vec(1..200usize, 1..20),
    ) {
        let mut stream = BytesMut::new();
        for (delivery, topic, payload) in &messages {
            let message = Publish { delivery: *delivery, retain: false, topic, properties: Properties::EMPTY, payload };
            message.encode(&mut stream, &Peer::new(version)).expect("small");
            encode_pingreq(&mut stream);
        }
        let decoder = decoder(Expect::FromClient(version));
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        let mut rest = &stream[..];
        for chunk in chunks.iter().cycle() {
            let (arrived, later) = rest.split_at((*chunk).min(rest.len()));
            buffer.extend_from_slice(arrived);
            rest = later;
            loop {
                let len = match decoder.decode(&buffer) {
                    Decoded::NeedMore(more) => { prop_assert!(more <= rest.len().max(2)); break; }
                    Decoded::Malformed(bad) => panic!("{bad:?}"),
                    Decoded::Packet(Packet::Publish(publish), len) => {
                        seen.push((publish.delivery, publish.topic.to_owned(), publish.payload.to_vec()));
                        len
                    }
                    Decoded::Packet(other, len) => { prop_assert_eq!(other, Packet::Pingreq); len }
                };
                let _packet = buffer.split_to(len);
            }
            if rest.is_empty() { break; }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(seen, messages);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        first in any::<u8>(),
        body in vec(any::<u8>(), 0..100),
        version in version(),
    ) {
        let mut input = vec![first, body.len() as u8];
        input.extend(&body);
        for expect in [Expect::Connect, Expect::FromClient(version), Expect::FromServer(version)] {
            read_all(expect, &input);
            read_all(expect, &body);
        }
    }

    #[test]
    fn damaged_packets_never_panic(
        properties in message_properties(),
        payload in data(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let peer = Peer::new(Version::V5);
        let will = Will { qos: Qos::AtLeastOnce, retain: true, properties: properties.view(), topic: "w", payload: &payload };
        let connect = Connect {
            version: Version::V5, clean_start: false, keep_alive: 9, properties: Properties::EMPTY,
            client_id: "id", will: Some(will), user_name: Some("name"), password: Some(&payload),
        };
        let mut out = BytesMut::new();
        connect.encode(&mut out, &peer).expect("small");
        let connect_len = out.len();
        let delivery = Delivery::AtLeastOnce { id: NonZeroU16::MIN, dup: false };
        Publish { delivery, retain: false, topic: "a/b", properties: properties.view(), payload: &payload }
            .encode(&mut out, &peer).expect("small");
        for (at, byte) in damage {
            let at = at.index(out.len());
            out[at] = byte;
        }
        read_all(Expect::Connect, &out);
        read_all(Expect::FromClient(Version::V5), &out[connect_len..]);
    }
}

/// Decodes, and reads everything that is lazy.
fn read_all(expect: Expect, input: &[u8]) {
    let decoded = Decoder { expect, packet_size_max: 1000 }.decode(input);
    if let Decoded::Packet(packet, len) = &decoded {
        assert!(*len <= input.len() && *len <= 1000);
        if let Packet::Subscribe(subscribe) = packet {
            assert!(subscribe.filters().count() > 0);
        }
        if let Packet::Unsubscribe(unsubscribe) = packet {
            assert!(unsubscribe.filters().count() > 0);
        }
        if let Packet::Suback(ack) | Packet::Unsuback(ack) = packet {
            assert!(ack.codes().count() < *len);
        }
    }
    assert!(!format!("{decoded:?}").is_empty());
}

#[test]
fn every_property_is_written_and_read() {
    let one = NonZeroU16::MIN;
    let size = NonZeroU32::MAX;
    let largest = NonZeroU32::new(268_435_455).expect("not zero");
    let all = [
        Property::PayloadFormatIndicator(true),
        Property::MessageExpiryInterval(7),
        Property::ContentType("c"),
        Property::ResponseTopic("r"),
        Property::CorrelationData(b"\x00\xff"),
        Property::SubscriptionIdentifier(largest),
        Property::SessionExpiryInterval(u32::MAX),
        Property::AssignedClientIdentifier("i"),
        Property::ServerKeepAlive(8),
        Property::AuthenticationMethod("m"),
        Property::AuthenticationData(b"d"),
        Property::RequestProblemInformation(false),
        Property::WillDelayInterval(9),
        Property::RequestResponseInformation(true),
        Property::ResponseInformation("ri"),
        Property::ServerReference("sr"),
        Property::ReasonString("rs"),
        Property::ReceiveMaximum(one),
        Property::TopicAliasMaximum(10),
        Property::TopicAlias(one),
        Property::MaximumQos(true),
        Property::RetainAvailable(false),
        Property::UserProperty("n", "v"),
        Property::UserProperty("n", "v"),
        Property::MaximumPacketSize(size),
        Property::WildcardSubscriptionAvailable(true),
        Property::SubscriptionIdentifierAvailable(false),
        Property::SharedSubscriptionAvailable(true),
    ];
    let built = build(&all.map(Some), &[]);
    let view = built.view();
    assert_eq!(view.iter().collect::<Vec<_>>(), all);
    assert_eq!(view.subscription_identifier(), Some(largest));
    assert_eq!(view.correlation_data(), Some(&b"\x00\xff"[..]));
    assert_eq!(view.maximum_packet_size(), Some(size));
    assert_eq!(view.retain_available(), Some(false));
    assert_eq!(view.user_properties().collect::<Vec<_>>(), [("n", "v"), ("n", "v")]);
    assert_eq!(Properties::EMPTY.receive_maximum(), None);
}

#[test]
fn what_mqtt_cannot_say_is_not_written() {
    let long = "x".repeat(65_536);
    let mut properties = PropertiesBuf::new();
    assert_eq!(properties.push(Property::ReasonString(&long)), Err(EncodeError::TooLong));
    assert_eq!(properties.push(Property::UserProperty("", &long)), Err(EncodeError::TooLong));
    assert_eq!(properties.push(Property::SubscriptionIdentifier(NonZeroU32::MAX)), Err(EncodeError::TooLong));
    assert!(properties.view().is_empty());

    let mut out = BytesMut::new();
    let peer = Peer::new(Version::V311);
    let delivery = Delivery::AtMostOnce;
    let publish =
        Publish { delivery, retain: false, topic: &long, properties: Properties::EMPTY, payload: b"" };
    assert_eq!(publish.encode(&mut out, &peer), Err(EncodeError::TooLong));
    let reason = ReasonCode::MalformedPacket;
    let connack = Connack { session_present: false, reason, properties: Properties::EMPTY };
    assert_eq!(connack.encode(&mut out, &peer), Err(EncodeError::NotInVersion));
    assert!(out.is_empty());
}

#[test]
fn connack_codes_of_the_older_versions() {
    let peer = Peer::new(Version::V311);
    for (reason, code) in [
        (ReasonCode::Success, 0),
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::Banned, 5),
    ] {
        let mut out = BytesMut::new();
        let connack = Connack { session_present: true, reason, properties: Properties::EMPTY };
        connack.encode(&mut out, &peer).expect("there is a code");
        assert_eq!(&out[..], [0x20, 2, u8::from(code == 0), code]);
    }
}
