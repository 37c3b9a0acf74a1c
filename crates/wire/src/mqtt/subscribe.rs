//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (sections 3.8 to 3.11).
//!
//! ```text
//!   +-----------+------------+---------------------------------------------------------------+
//!   | packet id | properties | SUBSCRIBE: (filter, options)..   UNSUBSCRIBE: filter..        |
//!   | 2         | 5.0        | SUBACK, UNSUBACK: one code each (no codes in a 3.x UNSUBACK)  |
//!   +-----------+------------+---------------------------------------------------------------+
//!   options: reserved (2) | retain handling (2) | retain as published | no local | QoS (2)
//! ```
//!
//! A filter is checked here for what it is made of; whether it is valid is [`super::TopicFilter`]'s business,
//! because each filter has its own answer.

use std::num::NonZeroU16;

use bytes::BytesMut;

use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin, field_len, put_field};
use super::frame::kind;
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};
use super::topic::is_shared;
use super::{Qos, Version};

const NO_FILTERS: Malformed = Malformed::protocol("MQTT-3.8.3-2");
const NOTHING_TO_UNSUBSCRIBE: Malformed = Malformed::protocol("MQTT-3.10.3-2");
const RESERVED_OPTIONS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.8.3-5");
const OPTION_VALUE: Malformed = Malformed::protocol("section 3.8.3.1");
const NO_LOCAL_SHARED: Malformed = Malformed::protocol("MQTT-3.8.3-4");
const NO_CODES: Malformed = Malformed::new(ReasonCode::MalformedPacket, "section 3.9.3");

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u8 = 4;
/// The failure of SUBACK before 5.0.
const FAILURE_V3: u8 = 0x80;

/// How one filter is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The most that a delivery may have.
    pub qos: Qos,
    /// Not what the same client publishes. False before 5.0.
    pub no_local: bool,
    /// RETAIN as it was published, else cleared. False before 5.0.
    pub retain_as_published: bool,
    /// [`RetainHandling::Send`] before 5.0.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// A QoS and nothing else: all that 3.1 and 3.1.1 can say.
    pub const fn new(qos: Qos) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send }
    }

    fn read(byte: u8, version: Version) -> Result<Self, Malformed> {
        let options_mask = if version == Version::V5 { 0b0011_1111 } else { 0b0000_0011 };
        if byte & !options_mask != 0 {
            return Err(RESERVED_OPTIONS);
        }
        let retain_handling = match byte >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(OPTION_VALUE),
        };
        Ok(Self {
            qos: Qos::from_bits(byte).ok_or(OPTION_VALUE)?,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    fn byte(self, version: Version) -> u8 {
        if version != Version::V5 {
            return self.qos as u8;
        }
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.qos as u8
            | bit(self.no_local, NO_LOCAL)
            | bit(self.retain_as_published, RETAIN_AS_PUBLISHED)
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }
}

/// What happens to retained messages at SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// They are sent.
    Send = 0,
    /// They are sent if the subscription is new.
    SendIfNew = 1,
    /// They are not sent.
    DoNotSend = 2,
}

/// A SUBSCRIBE with one filter or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The exchange, until SUBACK.
    pub packet_id: NonZeroU16,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
    version: Version,
    filters: &'a [u8],
}

impl<'a> Subscribe<'a> {
    pub(super) fn read(mut cursor: Cursor<'a>, version: Version) -> Result<Self, Malformed> {
        let (packet_id, properties) = read_head(&mut cursor, version, Place::Subscribe)?;
        let filters = cursor.rest();
        if filters.is_empty() {
            return Err(NO_FILTERS);
        }
        while !cursor.is_empty() {
            let (filter, options) = read_subscription(&mut cursor, version)?;
            if options.no_local && is_shared(filter) {
                return Err(NO_LOCAL_SHARED);
            }
        }
        Ok(Self { packet_id, properties, version, filters })
    }

    /// The filters with their options, in the order in which SUBACK answers them.
    pub fn filters(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + use<'a> {
        let mut cursor = Cursor::new(self.filters);
        let version = self.version;
        std::iter::from_fn(move || read_subscription(&mut cursor, version).ok())
    }
}

fn read_subscription<'a>(
    cursor: &mut Cursor<'a>,
    version: Version,
) -> Result<(&'a str, SubscribeOptions), Malformed> {
    let filter = cursor.text()?;
    Ok((filter, SubscribeOptions::read(cursor.byte()?, version)?))
}

/// An UNSUBSCRIBE with one filter or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The exchange, until UNSUBACK.
    pub packet_id: NonZeroU16,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
    filters: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn read(mut cursor: Cursor<'a>, version: Version) -> Result<Self, Malformed> {
        let (packet_id, properties) = read_head(&mut cursor, version, Place::Unsubscribe)?;
        let filters = cursor.rest();
        if filters.is_empty() {
            return Err(NOTHING_TO_UNSUBSCRIBE);
        }
        while !cursor.is_empty() {
            cursor.text()?;
        }
        Ok(Self { packet_id, properties, filters })
    }

    /// The filters, in the order in which UNSUBACK answers them.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut cursor = Cursor::new(self.filters);
        std::iter::from_fn(move || cursor.text().ok())
    }
}

/// A SUBACK or an UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterAck<'a> {
    /// The exchange that ends.
    pub packet_id: NonZeroU16,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
    codes: &'a [u8],
}

impl<'a> FilterAck<'a> {
    pub(super) fn read(mut cursor: Cursor<'a>, version: Version, place: Place) -> Result<Self, Malformed> {
        let (packet_id, properties) = read_head(&mut cursor, version, place)?;
        let codes = cursor.rest();
        let has_codes = version == Version::V5 || place == Place::Suback;
        if has_codes == codes.is_empty() {
            return Err(NO_CODES);
        }
        for &code in codes {
            ReasonCode::read(code, place)?;
        }
        Ok(Self { packet_id, properties, codes })
    }

    /// One code for each filter; none in a 3.x UNSUBACK.
    pub fn codes(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        self.codes.iter().filter_map(|&code| ReasonCode::from_u8(code))
    }
}

fn read_head<'a>(
    cursor: &mut Cursor<'a>,
    version: Version,
    place: Place,
) -> Result<(NonZeroU16, Properties<'a>), Malformed> {
    let packet_id = cursor.packet_id()?;
    let properties = match version {
        Version::V5 => Properties::read(cursor, place)?,
        Version::V31 | Version::V311 => Properties::EMPTY,
    };
    Ok((packet_id, properties))
}

/// What the four packets begin with, for an encoder.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Names the exchange.
    pub packet_id: NonZeroU16,
    /// Not sent before 5.0.
    pub properties: Properties<'a>,
}

impl Exchange<'_> {
    /// Appends a SUBSCRIBE. Before 5.0 only the QoS of the options is sent.
    pub fn encode_subscribe(
        &self,
        filters: &[(&str, SubscribeOptions)],
        out: &mut BytesMut,
        peer: &Peer,
    ) -> Result<(), EncodeError> {
        let len =
            filters.iter().try_fold(0, |sum, (filter, _)| Ok(sum + 1 + field_len(filter.as_bytes())?))?;
        self.begin(kind::SUBSCRIBE << 4 | 0b0010, len, out, peer)?;
        for (filter, options) in filters {
            put_field(out, filter.as_bytes());
            out.extend_from_slice(&[options.byte(peer.version)]);
        }
        Ok(())
    }

    /// Appends an UNSUBSCRIBE.
    pub fn encode_unsubscribe(
        &self,
        filters: &[&str],
        out: &mut BytesMut,
        peer: &Peer,
    ) -> Result<(), EncodeError> {
        let len = filters.iter().try_fold(0, |sum, filter| Ok(sum + field_len(filter.as_bytes())?))?;
        self.begin(kind::UNSUBSCRIBE << 4 | 0b0010, len, out, peer)?;
        filters.iter().for_each(|filter| put_field(out, filter.as_bytes()));
        Ok(())
    }

    /// Appends a SUBACK with one code for each filter, in order. Before 5.0 every failure is 0x80.
    pub fn encode_suback(
        &self,
        codes: &[ReasonCode],
        out: &mut BytesMut,
        peer: &Peer,
    ) -> Result<(), EncodeError> {
        self.begin(kind::SUBACK << 4, codes.len(), out, peer)?;
        let v5 = peer.version == Version::V5;
        out.extend(codes.iter().map(|&code| if code.is_failure() && !v5 { FAILURE_V3 } else { code as u8 }));
        Ok(())
    }

    /// Appends an UNSUBACK with one code for each filter, in order. Before 5.0 it has no codes.
    pub fn encode_unsuback(
        &self,
        codes: &[ReasonCode],
        out: &mut BytesMut,
        peer: &Peer,
    ) -> Result<(), EncodeError> {
        let codes = if peer.version == Version::V5 { codes } else { &[] };
        self.begin(kind::UNSUBACK << 4, codes.len(), out, peer)?;
        out.extend(codes.iter().map(|&code| code as u8));
        Ok(())
    }

    /// Everything before the list. `list` is the list's length in bytes.
    fn begin(&self, first: u8, list: usize, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let from_server = matches!(first >> 4, kind::SUBACK | kind::UNSUBACK);
        let block = if from_server {
            Block::fitting(peer, self.properties, 2 + list, true)
        } else {
            Block::whole(peer.version, self.properties)
        };
        begin(out, first, 2 + block.encoded_len() + list, peer)?;
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        block.put(out);
        Ok(())
    }
}
