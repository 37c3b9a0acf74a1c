//! MQTT 3.1, 3.1.1 and 5.0: bytes to packets and back, for both sides of a connection. Hot path.
//!
//! [`Decoder::decode`] answers one of three: a packet, need more, malformed (with the reason code and the clause
//! that is broken). Packets are views into the caller's bytes; nothing is copied or allocated, and every length
//! is checked before it is used. Encoders compute the size first and append to a given buffer.
//!
//! Invariant: no I/O, no clock, no state between packets. What depends on a session (aliases, quotas, which
//! identifiers are in flight) is the front's business; `docs/protocols/mqtt.md` is the map between the two.

mod ack;
mod connack;
mod connect;
mod control;
mod cursor;
mod encode;
mod frame;
mod place;
mod property;
mod publish;
mod reason;
mod subscribe;
mod text;
mod topic;

pub use ack::{Ack, AckKind, encode_ack};
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use control::{Auth, Disconnect, encode_pingreq, encode_pingresp};
pub use encode::{EncodeError, Peer, PropertiesBuf, PropertiesMark};
pub use frame::{Decoded, Decoder};
pub use property::{Properties, Property};
pub use publish::{Delivery, Publish, PublishFanout, PublishRanges};
pub use reason::{Malformed, ReasonCode};
pub use subscribe::{Exchange, FilterAck, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
pub use topic::{TopicFilter, check_topic};

/// The version of a connection, as its CONNECT names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.1: `MQIsdp`, level 3.
    V31,
    /// 3.1.1: `MQTT`, level 4.
    V311,
    /// 5.0: `MQTT`, level 5.
    V5,
}

/// Who sends the bytes that a [`Decoder`] reads, and what they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// A new client: CONNECT and nothing else. It names the version for everything that follows.
    Connect,
    /// A client after its CONNECT.
    FromClient(Version),
    /// A server.
    FromServer(Version),
}

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// 0.
    AtMostOnce = 0,
    /// 1.
    AtLeastOnce = 1,
    /// 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the low two bits.
    #[inline]
    fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// From a client, first and once.
    Connect(Connect<'a>),
    /// From a server.
    Connack(Connack<'a>),
    /// Either way.
    Publish(Publish<'a>),
    /// Either way.
    Puback(Ack<'a>),
    /// Either way.
    Pubrec(Ack<'a>),
    /// Either way.
    Pubrel(Ack<'a>),
    /// Either way.
    Pubcomp(Ack<'a>),
    /// From a client.
    Subscribe(Subscribe<'a>),
    /// From a server.
    Suback(FilterAck<'a>),
    /// From a client.
    Unsubscribe(Unsubscribe<'a>),
    /// From a server.
    Unsuback(FilterAck<'a>),
    /// From a client.
    Pingreq,
    /// From a server.
    Pingresp,
    /// From a client; in 5.0 also from a server.
    Disconnect(Disconnect<'a>),
    /// Either way, 5.0.
    Auth(Auth<'a>),
}
