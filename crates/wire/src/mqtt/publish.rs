//! PUBLISH: decoding, encoding, and encoding for many receivers (section 3.3). Hot path.
//!
//! ```text
//!   +------------------+-------------+-------+-----------------+------------+---------+
//!   | fixed header 2-5 | length 2    | topic | packet id 2     | properties | payload |
//!   | 0011 DUP QoS RET | of topic    |       | QoS 1 and 2     | 5.0        |         |
//!   +------------------+-------------+-------+-----------------+------------+---------+
//! ```

use std::num::NonZeroU16;
use std::ops::Range;

use bytes::BytesMut;

use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin, field_len, put_field};
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};
use super::{Qos, Version, text};

const QOS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.3.1-4");
const DUP: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.3.1-2");
const EMPTY_TOPIC: Malformed = Malformed::protocol("MQTT-4.7.3-1");

const PUBLISH: u8 = 0x30;
const DUP_BIT: u8 = 0x08;
const RETAIN_BIT: u8 = 0x01;

/// How a message is handed over, with what that needs: QoS 0 has neither a packet identifier nor DUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// Names the exchange until its PUBACK.
        id: NonZeroU16,
        /// It may have been sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// Names the exchange until its PUBCOMP.
        id: NonZeroU16,
        /// It may have been sent before.
        dup: bool,
    },
}

impl Delivery {
    /// The level alone.
    #[inline]
    pub fn qos(&self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce { .. } => Qos::AtLeastOnce,
            Self::ExactlyOnce { .. } => Qos::ExactlyOnce,
        }
    }

    /// The packet identifier of QoS 1 and 2.
    #[inline]
    pub fn packet_id(&self) -> Option<NonZeroU16> {
        match *self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { id, .. } | Self::ExactlyOnce { id, .. } => Some(id),
        }
    }

    #[inline]
    fn first_byte(&self, retain: bool) -> u8 {
        let dup = match *self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        };
        PUBLISH
            | if dup { DUP_BIT } else { 0 }
            | (self.qos() as u8) << 1
            | if retain { RETAIN_BIT } else { 0 }
    }
}

/// A PUBLISH, either way. A view into the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The QoS with its packet identifier and DUP.
    pub delivery: Delivery,
    /// Keep this message for later subscribers; towards a subscriber: it was kept.
    pub retain: bool,
    /// The topic name, without wildcards. Empty only if there is a topic alias.
    pub topic: &'a str,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// Where the parts of a PUBLISH stand in its packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRanges {
    /// The topic name.
    pub topic: Range<usize>,
    /// The properties, without their length.
    pub properties: Range<usize>,
    /// The payload.
    pub payload: Range<usize>,
}

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn read(first: u8, body: &'a [u8], version: Version, place: Place) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let topic = text::topic(cursor.binary()?)?;
        let dup = first & DUP_BIT != 0;
        let delivery = match first & 0b0110 {
            0b0000 if dup => return Err(DUP),
            0b0000 => Delivery::AtMostOnce,
            0b0010 => Delivery::AtLeastOnce { id: cursor.packet_id()?, dup },
            0b0100 => Delivery::ExactlyOnce { id: cursor.packet_id()?, dup },
            _ => return Err(QOS),
        };
        let properties = match version {
            Version::V5 => Properties::read(&mut cursor, place)?,
            Version::V31 | Version::V311 => Properties::none_at(&cursor),
        };
        if topic.is_empty() && properties.topic_alias().is_none() {
            return Err(EMPTY_TOPIC);
        }
        Ok(Self { delivery, retain: first & RETAIN_BIT != 0, topic, properties, payload: cursor.rest() })
    }

    /// Where the parts stand in `packet`, the bytes that this was decoded from: for a caller that takes the
    /// packet out of its buffer as `Bytes` and slices it. A part that is empty, or does not stand there, is 0..0.
    pub fn ranges(&self, packet: &[u8]) -> PublishRanges {
        let range = |part: &[u8]| {
            let start = (part.as_ptr() as usize).wrapping_sub(packet.as_ptr() as usize);
            match start.checked_add(part.len()) {
                Some(end) if end <= packet.len() && !part.is_empty() => start..end,
                _ => 0..0,
            }
        };
        PublishRanges {
            topic: range(self.topic.as_bytes()),
            properties: range(self.properties.as_bytes()),
            payload: range(self.payload),
        }
    }

    /// Appends the packet. Properties are left out before 5.0.
    pub fn encode(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        self.encode_head(out, peer)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }

    /// Appends everything but the payload, which the caller sends behind it: for one that is shared instead of
    /// copied.
    #[inline]
    pub fn encode_head(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let block = Block::whole(peer.version, self.properties);
        let packet_id = self.delivery.packet_id();
        let id_len = if packet_id.is_some() { 2 } else { 0 };
        let remaining = field_len(self.topic.as_bytes())? + id_len + block.encoded_len() + self.payload.len();
        begin(out, self.delivery.first_byte(self.retain), remaining, peer)?;
        put_field(out, self.topic.as_bytes());
        if let Some(id) = packet_id {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        block.put(out);
        Ok(())
    }
}

/// One message for many receivers of one version: what is the same for all of them is encoded once.
///
/// Each receiver has its own QoS, packet identifier, DUP and RETAIN. What differs in the properties (a
/// subscription identifier, a topic alias) needs a fan-out of its own.
#[derive(Debug)]
pub struct PublishFanout<'a> {
    message: Publish<'a>,
    version: Version,
    /// Heads without and with a packet identifier, once somebody needs them.
    heads: [Option<Head>; 2],
}

#[derive(Debug)]
struct Head {
    bytes: BytesMut,
    /// Where the packet identifier stands.
    id_at: usize,
}

impl<'a> PublishFanout<'a> {
    /// `message.delivery` and `message.retain` are not used: each receiver has its own.
    pub fn new(message: Publish<'a>, version: Version) -> Self {
        Self { message, version, heads: [None, None] }
    }

    /// Appends the packet for one receiver. `peer.version` must be the version of this fan-out
    /// ([`EncodeError::NotInVersion`] if not).
    #[inline]
    pub fn encode(
        &mut self,
        out: &mut BytesMut,
        peer: &Peer,
        delivery: Delivery,
        retain: bool,
    ) -> Result<(), EncodeError> {
        let payload = self.message.payload;
        self.encode_head(out, peer, delivery, retain)?;
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Appends everything but the payload, as [`Publish::encode_head`] does.
    #[inline]
    pub fn encode_head(
        &mut self,
        out: &mut BytesMut,
        peer: &Peer,
        delivery: Delivery,
        retain: bool,
    ) -> Result<(), EncodeError> {
        if peer.version != self.version {
            return Err(EncodeError::NotInVersion);
        }
        let payload_len = self.message.payload.len();
        let packet_id = delivery.packet_id();
        let head = match &mut self.heads[usize::from(packet_id.is_some())] {
            Some(head) => head,
            empty => empty.insert(Head::of(Publish { delivery, ..self.message }, self.version)?),
        };
        let total = head.bytes.len() + payload_len;
        if total > peer.packet_size_max as usize {
            return Err(EncodeError::OverPeerMaximum);
        }
        // The head is patched before it is copied: one copy, and no bounds to check in `out`.
        head.bytes[0] = delivery.first_byte(retain);
        if let Some(id) = packet_id {
            head.bytes[head.id_at..head.id_at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
        out.reserve(total);
        out.extend_from_slice(&head.bytes);
        Ok(())
    }
}

impl Head {
    fn of(message: Publish<'_>, version: Version) -> Result<Self, EncodeError> {
        let mut bytes = BytesMut::new();
        message.encode_head(&mut bytes, &Peer::new(version))?;
        // Behind the id stands only the property block, so its place is counted from the end.
        let block = Block::whole(version, message.properties).encoded_len();
        let id_at = (bytes.len() - block).saturating_sub(2);
        Ok(Self { bytes, id_at })
    }
}
