//! What the codec alone makes of bytes, for the sake of whoever decodes without our broker, also of a client: one row for each, and
//! the same bytes cut anywhere. What the broker then says to its clients stands in the transcripts of `crates/mqtt`.

use wire::mqtt::{Decoded, Decoder, Expect, ReasonCode, Version};

use Expect::{Connect, FromClient, FromServer};
use ReasonCode as R;
use Version::{V5, V31, V311};

const C5: Expect = FromClient(V5);
const C4: Expect = FromClient(V311);
const S5: Expect = FromServer(V5);

/// What a row wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// A packet that takes all bytes.
    Good,
    /// A packet that takes so many bytes.
    Takes(usize),
    /// So many more bytes.
    More(usize),
    /// Malformed, with this reason.
    Bad(ReasonCode),
    /// Malformed CONNECT, with this reason, answered by a CONNACK of this version.
    Refused(ReasonCode, Version),
}
use Want::{Bad, Good, More, Refused, Takes};

type Row = (&'static str, Expect, &'static str, Want);

/// Bytes from hexadecimal digits and `'text'`.
fn bytes(row: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in row.split_whitespace() {
        match word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')) {
            Some(text) => bytes.extend_from_slice(text.as_bytes()),
            None => bytes.push(u8::from_str_radix(word, 16).expect("two hexadecimal digits")),
        }
    }
    bytes
}

fn answer(expect: Expect, input: &[u8], packet_size_max: u32) -> Want {
    match (Decoder { expect, packet_size_max }).decode(input) {
        Decoded::NeedMore(more) => More(more),
        Decoded::Packet(_, len) if len == input.len() => Good,
        Decoded::Packet(_, len) => Takes(len),
        Decoded::Malformed(bad) => match bad.connack {
            Some(version) => Refused(bad.reason, version),
            None => Bad(bad.reason),
        },
    }
}

fn check(rows: &[Row]) {
    for &(clause, expect, row, want) in rows {
        let input = bytes(row);
        assert_eq!(answer(expect, &input, 1 << 20), want, "{clause}: {row}");
        // Cut anywhere, a packet asks for more until it is there; a refusal may come early but never changes.
        let complete = input.len() + if let More(more) = want { more } else { 0 };
        for cut in 0..input.len() {
            match answer(expect, &input[..cut], 1 << 20) {
                More(more) => {
                    assert!(more > 0 && cut + more <= complete.max(2), "{clause}: {row} at {cut}")
                }
                early @ (Bad(_) | Refused(..)) => assert_eq!(early, want, "{clause}: {row} at {cut}"),
                Good => assert_eq!(want, Takes(cut), "{clause}: {row} at {cut}"),
                Takes(len) => assert_eq!(want, Takes(len), "{clause}: {row} at {cut}"),
            }
        }
    }
}

#[test]
fn framing() {
    check(&[
        ("nothing yet", C5, "", More(2)),
        ("no length yet", C5, "30", More(1)),
        ("half a length", C5, "30 80", More(1)),
        ("half a body", C5, "30 05 00 01 'a'", More(2)),
        ("4.2-1 several packets", C5, "c0 00 c0 00", Takes(2)),
        ("1.5.5-1 a fifth length byte", C5, "30 ff ff ff ff", Bad(R::MalformedPacket)),
        ("1.5.5-1 a fifth length byte, 3.1.1", C4, "30 80 80 80 80", Bad(R::MalformedPacket)),
        ("a padded Remaining Length is accepted", C5, "c0 80 80 00", Good),
        ("a length within the limit", C5, "30 fc ff 3f", More(1_048_572)),
        ("3.2.2-15 larger than the limit, from the header", C5, "30 80 80 40", Bad(R::PacketTooLarge)),
        ("3.2.2-15 the same in 3.1.1", C4, "30 ff ff ff 7f", Bad(R::PacketTooLarge)),
        ("2.1.2 type 0", C5, "00 00", Bad(R::MalformedPacket)),
        ("2.1.2 type 15 in 3.1.1", C4, "f0 00", Bad(R::MalformedPacket)),
        ("2.1.2 a client sends SUBACK", C5, "90 00", Bad(R::ProtocolError)),
        ("2.1.2 a server sends SUBSCRIBE", S5, "82 00", Bad(R::ProtocolError)),
        ("2.1.2 a 3.1.1 server sends DISCONNECT", FromServer(V311), "e0 00", Bad(R::ProtocolError)),
        ("2.1.3-1 PINGREQ flags", C5, "c1 00", Bad(R::MalformedPacket)),
        ("3.6.1-1 PUBREL flags", C5, "60 02 00 01", Bad(R::MalformedPacket)),
        ("3.8.1-1 SUBSCRIBE flags", C5, "80 07 00 01 00 00 01 'a' 00", Bad(R::MalformedPacket)),
        ("3.10.1-1 UNSUBSCRIBE flags", C4, "a3 05 00 01 00 01 'a'", Bad(R::MalformedPacket)),
        ("3.14.1-1 DISCONNECT flags", C5, "e2 00", Bad(R::MalformedPacket)),
        ("3.15.1-1 AUTH flags", C5, "f1 00", Bad(R::MalformedPacket)),
        ("4.13.1-1 PINGREQ with a body", C5, "c0 01 00", Bad(R::MalformedPacket)),
        ("4.13.1-1 3.1.1 DISCONNECT with a body", C4, "e0 01 00", Bad(R::MalformedPacket)),
        ("4.13.1-1 3.1.1 PUBACK with more", C4, "40 03 00 01 00", Bad(R::MalformedPacket)),
        ("3.1 may set DUP on PUBREL", FromClient(V31), "6a 02 00 01", Good),
    ]);
}

#[test]
fn a_limit_counts_the_whole_packet() {
    let packet = bytes("30 05 00 01 'a' 00 'x'");
    assert_eq!(answer(C5, &packet, 7), Good);
    assert_eq!(answer(C5, &packet[..2], 6), Bad(R::PacketTooLarge));
}

#[test]
fn connect_versions() {
    check(&[
        ("5.0", Connect, "10 0f 00 04 'MQTT' 05 02 00 3c 00 00 02 'id'", Good),
        ("3.1.1", Connect, "10 0e 00 04 'MQTT' 04 02 00 3c 00 02 'id'", Good),
        ("3.1", Connect, "10 10 00 06 'MQIsdp' 03 02 00 3c 00 02 'id'", Good),
        ("3.1.2-22 keep alive 0", Connect, "10 0e 00 04 'MQTT' 04 02 00 00 00 02 'id'", Good),
        ("3.1.0-1 first is not CONNECT", Connect, "30 03 00 01 'a'", Bad(R::ProtocolError)),
        ("3.1.0-2 second CONNECT", C5, "10 0f 00 04 'MQTT' 05 02 00 3c 00 00 02 'id'", Bad(R::ProtocolError)),
        (
            "3.1.2-1 another name",
            Connect,
            "10 0f 00 04 'HTTP' 05 02 00 3c 00 00 02 'id'",
            Bad(R::UnsupportedProtocolVersion),
        ),
        (
            "3.1.2-2 level 6",
            Connect,
            "10 0f 00 04 'MQTT' 06 02 00 3c 00 00 02 'id'",
            Refused(R::UnsupportedProtocolVersion, V5),
        ),
        (
            "3.1.2-2 level 3 under the new name",
            Connect,
            "10 0e 00 04 'MQTT' 03 02 00 3c 00 02 'id'",
            Refused(R::UnsupportedProtocolVersion, V311),
        ),
        (
            "3.1.2-2 level 4 under the old name",
            Connect,
            "10 10 00 06 'MQIsdp' 04 02 00 3c 00 02 'id'",
            Refused(R::UnsupportedProtocolVersion, V311),
        ),
    ]);
}

#[test]
fn connect_flags_and_will() {
    check(&[
        (
            "3.1.2-3 reserved flag",
            Connect,
            "10 0e 00 04 'MQTT' 04 03 00 3c 00 02 'id'",
            Refused(R::MalformedPacket, V311),
        ),
        (
            "3.1 has no rule for the reserved flag",
            Connect,
            "10 10 00 06 'MQIsdp' 03 03 00 3c 00 02 'id'",
            Good,
        ),
        (
            "3.1.2-11 will QoS without will",
            Connect,
            "10 0e 00 04 'MQTT' 04 0a 00 3c 00 02 'id'",
            Refused(R::MalformedPacket, V311),
        ),
        (
            "3.1.2-13 will retain without will",
            Connect,
            "10 0f 00 04 'MQTT' 05 22 00 3c 00 00 02 'id'",
            Refused(R::MalformedPacket, V5),
        ),
        (
            "3.1.2-12 will QoS 3",
            Connect,
            "10 14 00 04 'MQTT' 04 1e 00 3c 00 02 'id' 00 01 'w' 00 01 'p'",
            Refused(R::MalformedPacket, V311),
        ),
        ("a will", Connect, "10 14 00 04 'MQTT' 04 36 00 3c 00 02 'id' 00 01 'w' 00 01 'p'", Good),
        (
            "a will topic with a wildcard",
            Connect,
            "10 14 00 04 'MQTT' 04 06 00 3c 00 02 'id' 00 01 '#' 00 01 'p'",
            Refused(R::TopicNameInvalid, V311),
        ),
        (
            "an empty will topic",
            Connect,
            "10 13 00 04 'MQTT' 04 06 00 3c 00 02 'id' 00 00 00 01 'p'",
            Refused(R::TopicNameInvalid, V311),
        ),
    ]);
}

#[test]
fn connect_identities() {
    check(&[
        (
            "3.1.2-22 (3.1.1) password without user name",
            Connect,
            "10 11 00 04 'MQTT' 04 42 00 3c 00 02 'id' 00 01 'p'",
            Refused(R::MalformedPacket, V311),
        ),
        (
            "password without user name, 5.0",
            Connect,
            "10 12 00 04 'MQTT' 05 42 00 3c 00 00 02 'id' 00 01 'p'",
            Good,
        ),
        ("3.1.3-6 no identifier, 5.0", Connect, "10 0d 00 04 'MQTT' 05 00 00 3c 00 00 00", Good),
        ("3.1.3-6 no identifier, 3.1.1 clean", Connect, "10 0c 00 04 'MQTT' 04 02 00 3c 00 00", Good),
        (
            "3.1.3-8 (3.1.1) no identifier, not clean",
            Connect,
            "10 0c 00 04 'MQTT' 04 00 00 3c 00 00",
            Refused(R::ClientIdentifierNotValid, V311),
        ),
        (
            "no identifier, 3.1",
            Connect,
            "10 0e 00 06 'MQIsdp' 03 02 00 3c 00 00",
            Refused(R::ClientIdentifierNotValid, V31),
        ),
        (
            "1.5.4-2 U+0000 in the identifier",
            Connect,
            "10 0f 00 04 'MQTT' 05 02 00 3c 00 00 02 'i' 00",
            Refused(R::MalformedPacket, V5),
        ),
        (
            "4.13.1-1 bytes behind the body",
            Connect,
            "10 10 00 04 'MQTT' 05 02 00 3c 00 00 02 'id' 00",
            Refused(R::MalformedPacket, V5),
        ),
        (
            "4.13.1-1 the password is cut",
            Connect,
            "10 11 00 04 'MQTT' 05 42 00 3c 00 00 02 'id' 00 01",
            Refused(R::MalformedPacket, V5),
        ),
    ]);
}

/// A CONNECT with these properties (and `length` in front of them).
fn connect_with(properties: &str) -> Vec<u8> {
    let mut body = bytes("00 04 'MQTT' 05 02 00 3c");
    body.extend(bytes(properties));
    body.extend(bytes("00 02 'id'"));
    let mut packet = vec![0x10, body.len() as u8];
    packet.append(&mut body);
    packet
}

#[test]
fn connect_properties() {
    for (clause, properties, want) in [
        ("receive maximum", "03 21 00 01", Good),
        ("3.1.2.11.3 receive maximum 0", "03 21 00 00", Refused(R::ProtocolError, V5)),
        ("maximum packet size", "05 27 00 00 00 01", Good),
        ("3.1.2.11.4 maximum packet size 0", "05 27 00 00 00 00", Refused(R::ProtocolError, V5)),
        ("request problem information 0", "02 17 00", Good),
        ("3.1.2.11.7 request problem information 2", "02 17 02", Refused(R::ProtocolError, V5)),
        ("3.1.2.11.6 request response information 2", "02 19 02", Refused(R::ProtocolError, V5)),
        ("method and data", "08 15 00 01 'm' 16 00 01 'd'", Good),
        ("3.1.2.11.10 data without method", "04 16 00 01 'd'", Refused(R::ProtocolError, V5)),
        ("2.2.2.2 topic alias", "03 23 00 01", Refused(R::MalformedPacket, V5)),
        ("2.2.2.2 an identifier that nobody defined", "02 2b 00", Refused(R::MalformedPacket, V5)),
        ("2.2.2.2 identifier 0", "02 00 00", Refused(R::MalformedPacket, V5)),
        ("2.2.2.2 an identifier of two bytes", "03 91 00 00", Refused(R::MalformedPacket, V5)),
        ("2.2.2.2 twice", "06 21 00 01 21 00 01", Refused(R::ProtocolError, V5)),
        ("user property twice", "0e 26 00 01 'a' 00 01 'b' 26 00 01 'a' 00 01 'b'", Good),
        (
            "1.5.4-1 user property with a surrogate",
            "09 26 00 01 'a' 00 03 ed a0 80",
            Refused(R::MalformedPacket, V5),
        ),
        ("1.5.4-2 user property with U+0000", "07 26 00 01 00 00 01 'b'", Refused(R::MalformedPacket, V5)),
        ("1.5.5-1 a padded property length", "83 00 21 00 01", Refused(R::MalformedPacket, V5)),
        ("1.5.5-1 a property length of five bytes", "80 80 80 80 01", Refused(R::MalformedPacket, V5)),
        ("2.2.2-1 longer than the packet", "7f 21 00 01", Refused(R::MalformedPacket, V5)),
        ("2.2.2-1 a property is cut", "02 21 00", Refused(R::MalformedPacket, V5)),
    ] {
        assert_eq!(answer(Connect, &connect_with(properties), 1 << 20), want, "{clause}: {properties}");
    }
}

#[test]
fn publish() {
    check(&[
        ("QoS 0", C4, "30 04 00 01 'a' 'x'", Good),
        ("an empty payload", C5, "31 04 00 01 'a' 00", Good),
        ("QoS 1", C5, "32 06 00 01 'a' 00 01 00", Good),
        ("QoS 2 again", C5, "3c 06 00 01 'a' 00 01 00", Good),
        ("3.3.1-4 QoS 3", C5, "36 06 00 01 'a' 00 01 00", Bad(R::MalformedPacket)),
        ("3.3.1-2 DUP with QoS 0", C4, "38 03 00 01 'a'", Bad(R::MalformedPacket)),
        ("2.2.1-3 packet identifier 0", C4, "32 05 00 01 'a' 00 00", Bad(R::ProtocolError)),
        ("2.2.1-3 no packet identifier", C4, "32 03 00 01 'a'", Bad(R::MalformedPacket)),
        ("3.3.2-2 wildcard", C5, "30 04 00 01 '#' 00", Bad(R::TopicNameInvalid)),
        ("3.3.2-2 wildcard inside", C4, "30 05 00 03 'a/+'", Bad(R::TopicNameInvalid)),
        ("4.7.3-1 empty topic, 3.1.1", C4, "30 02 00 00", Bad(R::ProtocolError)),
        ("4.7.3-1 empty topic without alias", C5, "30 03 00 00 00", Bad(R::ProtocolError)),
        ("empty topic with alias", C5, "30 06 00 00 03 23 00 01", Good),
        ("3.3.2-8 topic alias 0", C5, "30 07 00 01 'a' 03 23 00 00", Bad(R::TopicAliasInvalid)),
        ("1.5.4-1 overlong", C5, "30 05 00 02 c0 80 00", Bad(R::MalformedPacket)),
        ("1.5.4-1 surrogate", C4, "30 05 00 03 ed a0 80", Bad(R::MalformedPacket)),
        ("1.5.4-2 U+0000", C4, "30 04 00 02 'a' 00", Bad(R::MalformedPacket)),
        ("1.5.4-3 U+FEFF is data", C4, "30 06 00 04 ef bb bf 'a'", Good),
        ("the topic is cut", C4, "30 03 00 02 'a'", Bad(R::MalformedPacket)),
        ("no property length", C5, "30 03 00 01 'a'", Bad(R::MalformedPacket)),
        ("2.2.2-1 properties longer than the packet", C5, "30 05 00 01 'a' 02 01", Bad(R::MalformedPacket)),
        (
            "3.3.4-6 subscription identifier from a client",
            C5,
            "30 06 00 01 'a' 02 0b 01",
            Bad(R::ProtocolError),
        ),
        ("several from a server", S5, "30 08 00 01 'a' 04 0b 01 0b 02", Good),
        ("1.5.5-1 a padded one", S5, "30 07 00 01 'a' 03 0b 81 00", Bad(R::MalformedPacket)),
        ("0 from a server", S5, "30 06 00 01 'a' 02 0b 00", Bad(R::ProtocolError)),
        ("response topic", C5, "30 08 00 01 'a' 04 08 00 01 'r'", Good),
        (
            "3.3.2-14 response topic with a wildcard",
            C5,
            "30 08 00 01 'a' 04 08 00 01 '+'",
            Bad(R::ProtocolError),
        ),
        ("payload format 1", C5, "30 06 00 01 'a' 02 01 01", Good),
        ("payload format 2", C5, "30 06 00 01 'a' 02 01 02", Bad(R::ProtocolError)),
        (
            "2.2.2.2 expiry twice",
            C5,
            "30 0e 00 01 'a' 0a 02 00 00 00 01 02 00 00 00 01",
            Bad(R::ProtocolError),
        ),
        ("2.2.2.2 will delay", C5, "30 09 00 01 'a' 05 18 00 00 00 01", Bad(R::MalformedPacket)),
        ("content type that is no text", C5, "30 08 00 01 'a' 04 03 00 01 ff", Bad(R::MalformedPacket)),
    ]);
}

#[test]
fn acknowledgements() {
    check(&[
        ("short", C5, "40 02 00 01", Good),
        ("with reason", C5, "40 03 00 01 10", Good),
        ("with properties", C5, "50 08 00 01 87 04 1f 00 01 'x'", Good),
        ("an empty property block", C5, "70 04 00 01 00 00", Good),
        ("2.2.1-3 packet identifier 0", C5, "40 02 00 00", Bad(R::ProtocolError)),
        ("4.13.1-1 half an identifier", C4, "40 01 00", Bad(R::MalformedPacket)),
        ("3.5.2-1 a reason of another packet", C5, "50 03 00 01 92", Bad(R::ProtocolError)),
        ("3.6.2-1 PUBREL not found", C5, "62 03 00 01 92", Good),
        ("a reason that nobody defined", C5, "40 03 00 01 7f", Bad(R::ProtocolError)),
        (
            "2.2.2.2 a property of another packet",
            C5,
            "40 09 00 01 00 05 11 00 00 00 01",
            Bad(R::MalformedPacket),
        ),
        ("4.13.1-1 bytes behind the properties", C5, "40 05 00 01 00 00 00", Bad(R::MalformedPacket)),
    ]);
}

#[test]
fn subscriptions() {
    check(&[
        ("5.0", C5, "82 07 00 01 00 00 01 'a' 2e", Good),
        ("3.1.1, two", C4, "82 0a 00 01 00 01 'a' 00 00 01 'b' 02", Good),
        ("an invalid filter has its own answer", C4, "82 07 00 01 00 02 'a#' 00", Good),
        ("3.8.3-2 no filter", C5, "82 03 00 01 00", Bad(R::ProtocolError)),
        ("3.8.3-2 no filter, 3.1.1", C4, "82 02 00 01", Bad(R::ProtocolError)),
        ("3.10.3-2 nothing to unsubscribe", C5, "a2 03 00 01 00", Bad(R::ProtocolError)),
        ("2.2.1-3 packet identifier 0", C5, "82 07 00 00 00 00 01 'a' 00", Bad(R::ProtocolError)),
        ("2.2.1-3 the same, UNSUBSCRIBE", C4, "a2 05 00 00 00 01 'a'", Bad(R::ProtocolError)),
        ("3.8.3-5 reserved option bits", C5, "82 07 00 01 00 00 01 'a' 40", Bad(R::MalformedPacket)),
        ("3.8.3-5 options of 5.0 in 3.1.1", C4, "82 06 00 01 00 01 'a' 04", Bad(R::MalformedPacket)),
        ("3.8.3.1 QoS 3", C5, "82 07 00 01 00 00 01 'a' 03", Bad(R::ProtocolError)),
        ("3.8.3.1 retain handling 3", C5, "82 07 00 01 00 00 01 'a' 30", Bad(R::ProtocolError)),
        ("3.8.3-4 no local and shared", C5, "82 10 00 01 00 00 0a '$share/g/a' 04", Bad(R::ProtocolError)),
        ("shared", C5, "82 10 00 01 00 00 0a '$share/g/a' 01", Good),
        ("4.13.1-1 half a filter", C5, "82 06 00 01 00 00 02 'a'", Bad(R::MalformedPacket)),
        ("4.13.1-1 no options", C5, "82 06 00 01 00 00 01 'a'", Bad(R::MalformedPacket)),
        ("1.5.4-2 U+0000 in a filter", C4, "82 06 00 01 00 01 00 00", Bad(R::MalformedPacket)),
        ("1.5.4-1 not UTF-8", C4, "a2 05 00 01 00 01 ff", Bad(R::MalformedPacket)),
        ("subscription identifier", C5, "82 09 00 01 02 0b 01 00 01 'a' 00", Good),
        (
            "3.8.2.1.2 subscription identifier 0",
            C5,
            "82 09 00 01 02 0b 00 00 01 'a' 00",
            Bad(R::ProtocolError),
        ),
        (
            "3.8.2.1.2 two subscription identifiers",
            C5,
            "82 0b 00 01 04 0b 01 0b 02 00 01 'a' 00",
            Bad(R::ProtocolError),
        ),
        ("SUBACK", S5, "90 05 00 01 00 02 8f", Good),
        ("SUBACK without codes", S5, "90 03 00 01 00", Bad(R::MalformedPacket)),
        ("SUBACK with a code of another packet", S5, "90 04 00 01 00 11", Bad(R::ProtocolError)),
        ("UNSUBACK", S5, "b0 04 00 01 00 11", Good),
        ("3.1.1 UNSUBACK", FromServer(V311), "b0 02 00 01", Good),
        ("3.1.1 UNSUBACK with codes", FromServer(V311), "b0 03 00 01 00", Bad(R::MalformedPacket)),
    ]);
}

#[test]
fn the_rest() {
    check(&[
        ("CONNACK", S5, "20 03 01 00 00", Good),
        ("CONNACK, 3.1.1", FromServer(V311), "20 02 00 05", Good),
        ("3.2.2-1 reserved flags", S5, "20 03 02 00 00", Bad(R::MalformedPacket)),
        ("3.2.2-6 session present with an error", S5, "20 03 01 87 00", Bad(R::ProtocolError)),
        ("a return code that nobody defined", FromServer(V311), "20 02 00 06", Bad(R::ProtocolError)),
        ("maximum QoS 2 is not said", S5, "20 05 00 00 02 24 02", Bad(R::ProtocolError)),
        ("DISCONNECT", C4, "e0 00", Good),
        ("3.14.4-3 DISCONNECT with will", C5, "e0 01 04", Good),
        ("3.14.2-1 a server's reason from a client", C5, "e0 01 8e", Bad(R::ProtocolError)),
        ("3.14.2-1 a server's reason", S5, "e0 01 8e", Good),
        ("session expiry", C5, "e0 07 00 05 11 00 00 00 00", Good),
        ("3.14.2-2 session expiry from a server", S5, "e0 07 00 05 11 00 00 00 00", Bad(R::ProtocolError)),
        ("server reference from a client", C5, "e0 06 00 04 1c 00 01 's'", Bad(R::MalformedPacket)),
        ("AUTH", C5, "f0 06 18 04 15 00 01 'm'", Good),
        ("AUTH, all empty", C5, "f0 00", Good),
        ("3.15.2.2.2 AUTH without a method", C5, "f0 02 18 00", Bad(R::ProtocolError)),
        ("AUTH with a reason of another packet", C5, "f0 01 87", Bad(R::ProtocolError)),
        ("PINGREQ", C5, "c0 00", Good),
        ("PINGRESP", S5, "d0 00", Good),
    ]);
}
