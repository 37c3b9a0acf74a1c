//! What all encoders share: sizes first, then bytes, into a given buffer. Hot path.

use bytes::BytesMut;
use thiserror::Error;

use super::property::{Properties, REASON_STRING, USER_PROPERTY};
use super::{Property, Version};

/// Bound: the largest Remaining Length.
pub(super) const REMAINING_MAX: usize = 268_435_455;
const DETAILS: u64 = 1 << REASON_STRING | 1 << USER_PROPERTY;

/// The receiver of what is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The version of its connection.
    pub version: Version,
    /// Its Maximum Packet Size, fixed header included; `u32::MAX` where it named none.
    pub packet_size_max: u32,
    /// Its Request Problem Information. If false, only PUBLISH, CONNACK and DISCONNECT carry a Reason String
    /// or User Properties [MQTT-3.1.2-29].
    pub problem_information: bool,
}

impl Peer {
    /// A peer that sets no limits.
    pub const fn new(version: Version) -> Self {
        Self { version, packet_size_max: u32::MAX, problem_information: true }
    }
}

/// Why something was not encoded. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A string or binary field above 65,535 bytes, or a packet above 256 MiB: it cannot be said in MQTT.
    #[error("a field or the packet is longer than MQTT permits")]
    TooLong,
    /// The packet is above the peer's Maximum Packet Size, also without the parts that may be left out. A
    /// PUBLISH is then dropped as if it had been delivered [MQTT-3.1.2-25].
    #[error("the packet is larger than the peer accepts")]
    OverPeerMaximum,
    /// The peer's version has no such packet or no such code: close instead.
    #[error("the peer's version cannot express this")]
    NotInVersion,
}

/// A variable byte integer: its bytes and how many they are. `value` is at most [`REMAINING_MAX`].
#[inline]
pub(super) fn varint(value: usize) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let mut rest = value;
    let mut len = 0;
    loop {
        let more = rest > 0x7f && len < 3;
        bytes[len] = (rest & 0x7f) as u8 | if more { 0x80 } else { 0 };
        len += 1;
        if !more {
            return (bytes, len);
        }
        rest >>= 7;
    }
}

#[inline]
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Checks the size of a packet, then writes its fixed header and makes room for its body.
#[inline]
pub(super) fn begin(out: &mut BytesMut, first: u8, remaining: usize, peer: &Peer) -> Result<(), EncodeError> {
    if remaining > REMAINING_MAX {
        return Err(EncodeError::TooLong);
    }
    let (length, length_len) = varint(remaining);
    let total = 1 + length_len + remaining;
    if total > peer.packet_size_max as usize {
        return Err(EncodeError::OverPeerMaximum);
    }
    out.reserve(total);
    let head = [first, length[0], length[1], length[2], length[3]];
    out.extend_from_slice(&head[..1 + length_len]);
    Ok(())
}

/// Bytes of a field with its two-byte length.
#[inline]
pub(super) fn field_len(field: &[u8]) -> Result<usize, EncodeError> {
    if field.len() > usize::from(u16::MAX) { Err(EncodeError::TooLong) } else { Ok(2 + field.len()) }
}

/// Writes a field whose length [`field_len`] has checked.
#[inline]
pub(super) fn put_field(out: &mut BytesMut, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u16).to_be_bytes());
    out.extend_from_slice(field);
}

/// The properties as they go to a peer: nothing before 5.0, and without details where those do not fit.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    properties: Properties<'a>,
    details: bool,
    /// Bytes of the properties, without their length.
    len: usize,
    v5: bool,
}

impl<'a> Block<'a> {
    /// All properties, whatever the size.
    #[inline]
    pub(super) fn whole(version: Version, properties: Properties<'a>) -> Self {
        let v5 = version == Version::V5;
        Self { properties, details: true, len: properties.as_bytes().len(), v5 }
    }

    /// Leaves out Reason String and User Properties where the peer's maximum wants it, or (`on_request`) where
    /// it did not ask for them [MQTT-3.2.2-19, 3.4.2-2]. `others` is the rest of the body.
    pub(super) fn fitting(peer: &Peer, properties: Properties<'a>, others: usize, on_request: bool) -> Self {
        let whole = Self::whole(peer.version, properties);
        let remaining = others + whole.encoded_len();
        let fits = 1 + varint_len(remaining) + remaining <= peer.packet_size_max as usize;
        if (fits && (peer.problem_information || !on_request)) || !properties.has_any(DETAILS) {
            return whole;
        }
        let len = essential(properties).map(|(_, piece)| piece.len()).sum();
        Self { details: false, len, ..whole }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes with the length in front. A block beyond the largest length makes the packet too long as well.
    #[inline]
    pub(super) fn encoded_len(&self) -> usize {
        if self.v5 { varint_len(self.len) + self.len } else { 0 }
    }

    #[inline]
    pub(super) fn put(&self, out: &mut BytesMut) {
        if !self.v5 {
            return;
        }
        let (length, length_len) = varint(self.len);
        out.extend_from_slice(&length[..length_len]);
        if self.details {
            out.extend_from_slice(self.properties.as_bytes());
        } else {
            essential(self.properties).for_each(|(_, piece)| out.extend_from_slice(piece));
        }
    }
}

fn essential(properties: Properties<'_>) -> impl Iterator<Item = (u8, &[u8])> {
    properties.pieces().filter(|&(id, _)| DETAILS & (1 << id) == 0)
}

/// Properties under construction.
///
/// The buffer may be used again after [`PropertiesBuf::clear`]. Which property may stand in which packet is the
/// caller's knowledge; what a decoder on the other side would refuse is refused there.
#[derive(Clone, Debug, Default)]
pub struct PropertiesBuf {
    block: BytesMut,
    present: u64,
}

/// A place in a [`PropertiesBuf`].
#[derive(Clone, Copy, Debug)]
pub struct PropertiesMark {
    len: usize,
    present: u64,
}

impl PropertiesBuf {
    /// No properties yet, no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one. Refused ([`EncodeError::TooLong`]) if it has a string or data above 65,535 bytes.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        let id = property.id();
        match property {
            Property::UserProperty(name, value) => {
                field_len(name.as_bytes())?;
                field_len(value.as_bytes())?;
                self.block.extend_from_slice(&[id]);
                put_field(&mut self.block, name.as_bytes());
                put_field(&mut self.block, value.as_bytes());
            }
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => self.push_field(id, text.as_bytes())?,
            Property::CorrelationData(data) | Property::AuthenticationData(data) => {
                self.push_field(id, data)?
            }
            Property::PayloadFormatIndicator(flag)
            | Property::RequestProblemInformation(flag)
            | Property::RequestResponseInformation(flag)
            | Property::MaximumQos(flag)
            | Property::RetainAvailable(flag)
            | Property::WildcardSubscriptionAvailable(flag)
            | Property::SubscriptionIdentifierAvailable(flag)
            | Property::SharedSubscriptionAvailable(flag) => self.push_bytes(id, &[u8::from(flag)]),
            Property::ServerKeepAlive(number) | Property::TopicAliasMaximum(number) => {
                self.push_bytes(id, &number.to_be_bytes());
            }
            Property::ReceiveMaximum(number) | Property::TopicAlias(number) => {
                self.push_bytes(id, &number.get().to_be_bytes());
            }
            Property::MessageExpiryInterval(number)
            | Property::SessionExpiryInterval(number)
            | Property::WillDelayInterval(number) => self.push_bytes(id, &number.to_be_bytes()),
            Property::MaximumPacketSize(number) => self.push_bytes(id, &number.get().to_be_bytes()),
            Property::SubscriptionIdentifier(number) => {
                let number = number.get() as usize;
                if number > REMAINING_MAX {
                    return Err(EncodeError::TooLong);
                }
                let (bytes, len) = varint(number);
                self.push_bytes(id, &bytes[..len]);
            }
        }
        self.present |= 1 << id;
        Ok(())
    }

    /// Where the next property goes, for [`PropertiesBuf::rewind`].
    #[inline]
    pub fn mark(&self) -> PropertiesMark {
        PropertiesMark { len: self.block.len(), present: self.present }
    }

    /// Takes back what was pushed since `mark`. A mark from before the last [`PropertiesBuf::clear`] means nothing.
    pub fn rewind(&mut self, mark: PropertiesMark) {
        self.block.truncate(mark.len);
        self.present = mark.present;
    }

    /// Forgets all of them and keeps the memory.
    pub fn clear(&mut self) {
        self.block.clear();
        self.present = 0;
    }

    /// What was pushed, in that order.
    #[inline]
    pub fn view(&self) -> Properties<'_> {
        Properties::written(&self.block, self.present)
    }

    fn push_field(&mut self, id: u8, field: &[u8]) -> Result<(), EncodeError> {
        field_len(field)?;
        self.block.extend_from_slice(&[id]);
        put_field(&mut self.block, field);
        Ok(())
    }

    fn push_bytes(&mut self, id: u8, bytes: &[u8]) {
        self.block.extend_from_slice(&[id]);
        self.block.extend_from_slice(bytes);
    }
}
