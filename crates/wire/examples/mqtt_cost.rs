//! Prints what one PUBLISH costs: decoding and encoding, QoS 1, a topic of 24 bytes, a payload of 64 bytes.
//!
//! `cargo run --release -p wire --example mqtt_cost`. The best of many rounds is shown, because that is what the
//! code costs on a machine that is otherwise busy.

#![allow(clippy::print_stdout, clippy::expect_used)]

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::Instant;

use bytes::BytesMut;
use wire::mqtt::{
    AckKind, Decoded, Decoder, Delivery, Expect, Packet, Peer, Properties, PropertiesBuf, Property, Publish,
    PublishFanout, Version, encode_ack,
};

const PACKETS: usize = 500;
const REPEATS: usize = 20;
const ROUNDS: usize = 40;

fn main() {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MessageExpiryInterval(60)).expect("fixed size");
    properties.push(Property::UserProperty("colour", "green")).expect("short");
    let plain = message(Properties::EMPTY);
    let rich = message(properties.view());

    println!("{:<44} {:>8}", "QoS 1 PUBLISH, topic 24 B, payload 64 B", "ns");
    for (name, version, message) in [
        ("3.1.1", Version::V311, plain),
        ("5.0, bare", Version::V5, plain),
        ("5.0, expiry + user property", Version::V5, rich),
    ] {
        measure_version(name, version, message);
    }
    let mut out = BytesMut::with_capacity(64 * 1024);
    let id = NonZeroU16::MIN;
    report("PUBACK encode", || {
        out.clear();
        for _ in 0..PACKETS {
            encode_ack(AckKind::Puback, black_box(id), &mut out);
        }
        black_box(&out);
    });
    let decoder = Decoder { expect: Expect::FromClient(Version::V5), packet_size_max: 1 << 20 };
    let acks = out.clone();
    report("PUBACK decode", || decode_all(decoder, &acks));
}

fn message(properties: Properties<'_>) -> Publish<'_> {
    Publish {
        delivery: Delivery::AtLeastOnce { id: NonZeroU16::MIN, dup: false },
        retain: false,
        topic: "site/7/line/12/sensor/42",
        properties,
        payload: &[0xa5; 64],
    }
}

fn measure_version(name: &str, version: Version, message: Publish<'_>) {
    let peer = Peer::new(version);
    let mut out = BytesMut::with_capacity(256 * 1024);
    report(&format!("{name}: encode"), || {
        out.clear();
        for _ in 0..PACKETS {
            black_box(message).encode(&mut out, &peer).expect("small");
        }
        black_box(&out);
    });
    let decoder = Decoder { expect: Expect::FromClient(version), packet_size_max: 1 << 20 };
    let bytes = out.clone();
    report(&format!("{name}: decode"), || decode_all(decoder, &bytes));
    let mut fanout = PublishFanout::new(message, version);
    report(&format!("{name}: encode, fan-out"), || {
        out.clear();
        for _ in 0..PACKETS {
            fanout.encode(&mut out, &peer, black_box(message.delivery), false).expect("small");
        }
        black_box(&out);
    });
}

fn decode_all(decoder: Decoder, mut rest: &[u8]) {
    let decoder = black_box(decoder);
    while !rest.is_empty() {
        let Decoded::Packet(packet, len) = decoder.decode(rest) else {
            panic!("what was encoded is not decoded");
        };
        match packet {
            Packet::Publish(publish) => {
                black_box((publish.topic, publish.payload, publish.properties, publish.delivery));
            }
            Packet::Puback(ack) => {
                black_box(ack);
            }
            other => {
                black_box(other);
            }
        }
        rest = &rest[len..];
    }
}

/// Nanoseconds per packet of `batch`, which handles [`PACKETS`]: the best round.
fn report(name: &str, mut batch: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..REPEATS {
            batch();
        }
        let per_packet = start.elapsed().as_nanos() as f64 / (PACKETS * REPEATS) as f64;
        best = best.min(per_packet);
    }
    println!("{name:<44} {best:>8.1}");
}
