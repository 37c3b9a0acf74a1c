//! The fixed header, and the way from bytes to a packet. Hot path.
//!
//! ```text
//!     7   6   5   4   3   2   1   0
//!   +---------------+---------------+
//!   |  packet type  |     flags     |
//!   +---------------+---------------+
//!   |  Remaining Length, 1-4 bytes  |   bytes that follow; seven bits each, low ones first
//!   +-------------------------------+
//!   |  body                         |
//!   +-------------------------------+
//! ```

use super::ack::{Ack, AckKind};
use super::connack::Connack;
use super::connect::Connect;
use super::control::{Auth, Disconnect};
use super::cursor::Cursor;
use super::place::Place;
use super::publish::Publish;
use super::reason::{Malformed, ReasonCode};
use super::subscribe::{FilterAck, Subscribe, Unsubscribe};
use super::{Expect, Packet, Version};

/// Packet types, as they stand in the high half of the first byte.
pub(super) mod kind {
    pub(in crate::mqtt) const CONNECT: u8 = 1;
    pub(in crate::mqtt) const CONNACK: u8 = 2;
    pub(in crate::mqtt) const PUBLISH: u8 = 3;
    pub(in crate::mqtt) const PUBACK: u8 = 4;
    pub(in crate::mqtt) const PUBREC: u8 = 5;
    pub(in crate::mqtt) const PUBREL: u8 = 6;
    pub(in crate::mqtt) const PUBCOMP: u8 = 7;
    pub(in crate::mqtt) const SUBSCRIBE: u8 = 8;
    pub(in crate::mqtt) const SUBACK: u8 = 9;
    pub(in crate::mqtt) const UNSUBSCRIBE: u8 = 10;
    pub(in crate::mqtt) const UNSUBACK: u8 = 11;
    pub(in crate::mqtt) const PINGREQ: u8 = 12;
    pub(in crate::mqtt) const PINGRESP: u8 = 13;
    pub(in crate::mqtt) const DISCONNECT: u8 = 14;
    pub(in crate::mqtt) const AUTH: u8 = 15;
}

/// Types that a client sends after CONNECT; a server's are below. One bit each.
const FROM_CLIENT: u16 = 1 << kind::PUBLISH
    | BOTH
    | 1 << kind::SUBSCRIBE
    | 1 << kind::UNSUBSCRIBE
    | 1 << kind::PINGREQ
    | 1 << kind::DISCONNECT;
const FROM_SERVER: u16 = 1 << kind::CONNACK
    | 1 << kind::PUBLISH
    | BOTH
    | 1 << kind::SUBACK
    | 1 << kind::UNSUBACK
    | 1 << kind::PINGRESP;
const BOTH: u16 = 1 << kind::PUBACK | 1 << kind::PUBREC | 1 << kind::PUBREL | 1 << kind::PUBCOMP;

/// What the front of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The packet is not complete: at least this many more bytes are needed (exactly as many once the Remaining
    /// Length is there).
    NeedMore(usize),
    /// A packet, and how many bytes it takes.
    Packet(Packet<'a>, usize),
    /// No packet. The connection has to be closed.
    Malformed(Malformed),
}

/// Turns bytes into packets. It keeps nothing between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// Who sends, and in which version.
    pub expect: Expect,
    /// Bytes of the largest packet that is accepted, fixed header included. A larger one is refused (0x95) from
    /// its header, so a caller never buffers more than this [MQTT-3.2.2-15].
    pub packet_size_max: u32,
}

const LENGTH: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-1.5.5-1");
const TOO_LARGE: Malformed = Malformed::new(ReasonCode::PacketTooLarge, "MQTT-3.2.2-15");
const FLAGS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-2.1.3-1");
const NOT_CONNECT: Malformed = Malformed::protocol("MQTT-3.1.0-1");
const SECOND_CONNECT: Malformed = Malformed::protocol("MQTT-3.1.0-2");
const WRONG_SENDER: Malformed = Malformed::protocol("section 2.1.2");
const RESERVED_TYPE: Malformed = Malformed::new(ReasonCode::MalformedPacket, "section 2.1.2");

impl Decoder {
    /// Reads the packet at the front of `input`. The answer depends on the packet's bytes alone, however they
    /// were cut on their way [MQTT-4.2-1]; it borrows from `input` and copies nothing.
    #[inline]
    pub fn decode<'a>(&self, input: &'a [u8]) -> Decoded<'a> {
        let Some(&first) = input.first() else {
            return Decoded::NeedMore(2);
        };
        if let Err(malformed) = self.check_first(first) {
            return Decoded::Malformed(malformed);
        }
        let (header, remaining) = match remaining_length(input) {
            Ok(Some(length)) => length,
            Ok(None) => return Decoded::NeedMore(1),
            Err(malformed) => return Decoded::Malformed(malformed),
        };
        let len = header + remaining;
        if len > self.packet_size_max as usize {
            return Decoded::Malformed(TOO_LARGE);
        }
        let Some(body) = input.get(header..len) else {
            return Decoded::NeedMore(len - input.len());
        };
        if first >> 4 != kind::PUBLISH {
            return self.other(first >> 4, body, len);
        }
        // Built where it is returned: a packet of another type may be several times as large.
        match Publish::read(first, body, self.version(), self.publish_place()) {
            Ok(publish) => Decoded::Packet(Packet::Publish(publish), len),
            Err(malformed) => Decoded::Malformed(malformed),
        }
    }

    /// What the first byte alone can say against a packet.
    #[inline]
    fn check_first(&self, first: u8) -> Result<(), Malformed> {
        let permitted = match self.expect {
            Expect::Connect => 1 << kind::CONNECT,
            Expect::FromClient(Version::V5) => FROM_CLIENT | 1 << kind::AUTH,
            Expect::FromClient(_) => FROM_CLIENT,
            Expect::FromServer(Version::V5) => FROM_SERVER | 1 << kind::DISCONNECT | 1 << kind::AUTH,
            Expect::FromServer(_) => FROM_SERVER,
        };
        let kind = first >> 4;
        if permitted & (1 << kind) == 0 {
            return Err(self.unexpected(kind));
        }
        let flags = match kind {
            kind::PUBLISH => return Ok(()),
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
            _ => 0,
        };
        // 3.1 let a sender set DUP on these.
        let mask = if self.version() == Version::V31 { 0b0111 } else { 0b1111 };
        if first & mask == flags { Ok(()) } else { Err(FLAGS) }
    }

    #[cold]
    fn unexpected(&self, kind: u8) -> Malformed {
        match (self.expect, kind) {
            (Expect::Connect, _) => NOT_CONNECT,
            (Expect::FromClient(_), kind::CONNECT) => SECOND_CONNECT,
            (_, 0) => RESERVED_TYPE,
            (_, kind::AUTH) => RESERVED_TYPE,
            _ => WRONG_SENDER,
        }
    }

    #[inline]
    fn version(&self) -> Version {
        match self.expect {
            Expect::Connect => Version::V5,
            Expect::FromClient(version) | Expect::FromServer(version) => version,
        }
    }

    #[inline]
    fn publish_place(&self) -> Place {
        match self.expect {
            Expect::FromServer(_) => Place::PublishFromServer,
            Expect::FromClient(_) | Expect::Connect => Place::PublishFromClient,
        }
    }

    fn other<'a>(&self, kind: u8, body: &'a [u8], len: usize) -> Decoded<'a> {
        match self.other_body(kind, body) {
            Ok(packet) => Decoded::Packet(packet, len),
            Err(malformed) => Decoded::Malformed(malformed),
        }
    }

    #[inline]
    fn other_body<'a>(&self, kind: u8, body: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let version = self.version();
        let mut cursor = Cursor::new(body);
        let ack = |ack_kind| Ack::read(ack_kind, body, version);
        let packet = match kind {
            kind::CONNECT => return Connect::read(cursor).map(Packet::Connect),
            kind::CONNACK => Packet::Connack(Connack::read(&mut cursor, version)?),
            kind::PUBACK => return ack(AckKind::Puback).map(Packet::Puback),
            kind::PUBREC => return ack(AckKind::Pubrec).map(Packet::Pubrec),
            kind::PUBREL => return ack(AckKind::Pubrel).map(Packet::Pubrel),
            kind::PUBCOMP => return ack(AckKind::Pubcomp).map(Packet::Pubcomp),
            kind::SUBSCRIBE => return Subscribe::read(cursor, version).map(Packet::Subscribe),
            kind::SUBACK => return FilterAck::read(cursor, version, Place::Suback).map(Packet::Suback),
            kind::UNSUBSCRIBE => return Unsubscribe::read(cursor, version).map(Packet::Unsubscribe),
            kind::UNSUBACK => return FilterAck::read(cursor, version, Place::Unsuback).map(Packet::Unsuback),
            kind::PINGREQ => Packet::Pingreq,
            kind::PINGRESP => Packet::Pingresp,
            kind::DISCONNECT => Packet::Disconnect(Disconnect::read(&mut cursor, self.expect)?),
            kind::AUTH => Packet::Auth(Auth::read(&mut cursor)?),
            _ => return Err(RESERVED_TYPE),
        };
        cursor.end()?;
        Ok(packet)
    }
}

/// Bytes of the fixed header, and the Remaining Length; none while it is not complete. More bytes than needed
/// are accepted here, for the sake of small devices that write it with a fixed width.
#[inline]
fn remaining_length(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    match input.get(1) {
        Some(&length) if length < 0x80 => Ok(Some((2, usize::from(length)))),
        Some(_) => long_remaining_length(input),
        None => Ok(None),
    }
}

fn long_remaining_length(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for at in 0..4 {
        let Some(&byte) = input.get(1 + at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok(Some((2 + at, length)));
        }
    }
    Err(LENGTH)
}
