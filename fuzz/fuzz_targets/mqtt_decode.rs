//! Any bytes, from either side and in any version: no panic, and what is decoded survives encoding.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::mqtt::{Decoded, Decoder, Expect, Packet, Peer, TopicFilter, Version};

/// Bound: as a server would set it.
const PACKET_SIZE_MAX: u32 = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(choice % 3)];
    let expect = match choice / 3 % 3 {
        0 => Expect::Connect,
        1 => Expect::FromClient(version),
        _ => Expect::FromServer(version),
    };
    let decoder = Decoder { expect, packet_size_max: PACKET_SIZE_MAX };
    let mut rest = input;
    while let Decoded::Packet(packet, len) = decoder.decode(rest) {
        read(&packet, &rest[..len], version);
        rest = &rest[len..];
    }
});

fn read(packet: &Packet<'_>, bytes: &[u8], version: Version) {
    let mut again = BytesMut::new();
    match packet {
        Packet::Publish(publish) => {
            let ranges = publish.ranges(bytes);
            assert_eq!(&bytes[ranges.topic], publish.topic.as_bytes());
            assert_eq!(&bytes[ranges.payload], publish.payload);
            publish.encode(&mut again, &Peer::new(version)).expect("it was a packet");
            let decoder = Decoder { expect: Expect::FromServer(version), packet_size_max: u32::MAX };
            assert_eq!(decoder.decode(&again), Decoded::Packet(*packet, again.len()));
        }
        Packet::Connect(connect) => {
            connect.encode(&mut again, &Peer::new(version)).expect("it was a packet");
            let decoder = Decoder { expect: Expect::Connect, packet_size_max: u32::MAX };
            assert_eq!(decoder.decode(&again), Decoded::Packet(*packet, again.len()));
        }
        Packet::Subscribe(subscribe) => {
            for (filter, _) in subscribe.filters() {
                let _ = TopicFilter::parse(filter);
            }
        }
        other => assert!(!format!("{other:?}").is_empty()),
    }
}
