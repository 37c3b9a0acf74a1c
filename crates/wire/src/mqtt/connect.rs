//! CONNECT, in all three versions (section 3.1).
//!
//! ```text
//!   +---------------+-------+-------+------------+------------+-----------+------------------------------+
//!   | protocol name | level | flags | keep alive | properties | client id | will properties, topic,      |
//!   |               | 1     | 1     | 2          | 5.0        |           | payload; user name; password |
//!   +---------------+-------+-------+------------+------------+-----------+------------------------------+
//!   flags: user name | password | will retain | will QoS (2) | will | clean start | reserved
//! ```

use bytes::BytesMut;

use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin, field_len, put_field};
use super::frame::kind;
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};
use super::topic::check_topic;
use super::{Qos, Version};

/// The name of 3.1.1 and 5.0, with its length in front.
const NAME: &[u8] = b"\x00\x04MQTT";
const NAME_V31: &[u8] = b"\x00\x06MQIsdp";

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS_SHIFT: u8 = 3;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

const NOT_MQTT: Malformed = Malformed::new(ReasonCode::UnsupportedProtocolVersion, "MQTT-3.1.2-1");
const LEVEL: Malformed = Malformed::new(ReasonCode::UnsupportedProtocolVersion, "MQTT-3.1.2-2");
const RESERVED_FLAG: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.1.2-3");
const WILL_FLAGS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.1.2-11");
const WILL_QOS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.1.2-12");
const PASSWORD_ALONE: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.1.2-22 (3.1.1)");
const CLIENT_ID: Malformed = Malformed::new(ReasonCode::ClientIdentifierNotValid, "MQTT-3.1.3-8 (3.1.1)");

/// The first packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What the rest of the connection speaks.
    pub version: Version,
    /// Forget the session of this client. Before 5.0 ("clean session") also: keep none.
    pub clean_start: bool,
    /// Seconds; 0 is for ever.
    pub keep_alive: u16,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
    /// Empty where the server has to choose: always permitted in 5.0, in 3.1.1 with `clean_start`.
    pub client_id: &'a str,
    /// What to publish when the connection breaks.
    pub will: Option<Will<'a>>,
    /// Who it is.
    pub user_name: Option<&'a str>,
    /// A secret: never to be logged.
    pub password: Option<&'a [u8]>,
}

/// What the server publishes for a client that went without a good-bye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Of its publication.
    pub qos: Qos,
    /// Of its publication.
    pub retain: bool,
    /// The will delay and the properties of the publication; empty before 5.0.
    pub properties: Properties<'a>,
    /// A valid topic name.
    pub topic: &'a str,
    /// Of its publication.
    pub payload: &'a [u8],
}

impl<'a> Connect<'a> {
    pub(super) fn read(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let version = read_version(&mut cursor)?;
        Self::read_rest(cursor, version).map_err(|malformed| malformed.answered_in(version))
    }

    fn read_rest(mut cursor: Cursor<'a>, version: Version) -> Result<Self, Malformed> {
        let flags = cursor.byte()?;
        check_flags(flags, version)?;
        let keep_alive = cursor.u16()?;
        let properties = read_properties(&mut cursor, version, Place::Connect)?;
        let client_id = cursor.text()?;
        let will = if flags & WILL == 0 { None } else { Some(Will::read(&mut cursor, flags, version)?) };
        let user_name = if flags & USER_NAME == 0 { None } else { Some(cursor.text()?) };
        let password = if flags & PASSWORD == 0 { None } else { Some(cursor.binary()?) };
        cursor.end()?;
        let clean_start = flags & CLEAN_START != 0;
        let nameless = match version {
            Version::V31 => false,
            Version::V311 => clean_start,
            Version::V5 => true,
        };
        if client_id.is_empty() && !nameless {
            return Err(CLIENT_ID);
        }
        Ok(Self { version, clean_start, keep_alive, properties, client_id, will, user_name, password })
    }

    /// Appends the packet in `self.version`; that of `peer` is not used, it is not known yet.
    pub fn encode(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let (name, level): (_, u8) = match self.version {
            Version::V31 => (NAME_V31, 3),
            Version::V311 => (NAME, 4),
            Version::V5 => (NAME, 5),
        };
        let block = Block::whole(self.version, self.properties);
        let optional = |field: Option<&[u8]>| field.map_or(Ok(0), field_len);
        let remaining = name.len()
            + 4
            + block.encoded_len()
            + field_len(self.client_id.as_bytes())?
            + self.will.map_or(Ok(0), |will| will.encoded_len(self.version))?
            + optional(self.user_name.map(str::as_bytes))?
            + optional(self.password)?;
        begin(out, kind::CONNECT << 4, remaining, peer)?;
        out.extend_from_slice(name);
        let [high, low] = self.keep_alive.to_be_bytes();
        out.extend_from_slice(&[level, self.flags(), high, low]);
        block.put(out);
        put_field(out, self.client_id.as_bytes());
        if let Some(will) = self.will {
            will.put(out, self.version);
        }
        for field in [self.user_name.map(str::as_bytes), self.password].into_iter().flatten() {
            put_field(out, field);
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let will = self
            .will
            .map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | bit(will.retain, WILL_RETAIN));
        will | bit(self.user_name.is_some(), USER_NAME)
            | bit(self.password.is_some(), PASSWORD)
            | bit(self.clean_start, CLEAN_START)
    }
}

impl<'a> Will<'a> {
    fn read(cursor: &mut Cursor<'a>, flags: u8, version: Version) -> Result<Self, Malformed> {
        let properties = read_properties(cursor, version, Place::Will)?;
        let topic = cursor.text()?;
        let payload = cursor.binary()?;
        check_topic(topic)?;
        let qos = Qos::from_bits(flags >> WILL_QOS_SHIFT).ok_or(WILL_QOS)?;
        Ok(Self { qos, retain: flags & WILL_RETAIN != 0, properties, topic, payload })
    }

    fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let block = Block::whole(version, self.properties).encoded_len();
        Ok(block + field_len(self.topic.as_bytes())? + field_len(self.payload)?)
    }

    fn put(&self, out: &mut BytesMut, version: Version) {
        Block::whole(version, self.properties).put(out);
        put_field(out, self.topic.as_bytes());
        put_field(out, self.payload);
    }
}

/// The name and the level [MQTT-3.1.2-1, 3.1.2-2].
fn read_version(cursor: &mut Cursor<'_>) -> Result<Version, Malformed> {
    let name = cursor.binary()?;
    let level = cursor.byte()?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 6..) => Err(LEVEL.answered_in(Version::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(LEVEL.answered_in(Version::V311)),
        _ => Err(NOT_MQTT),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), Malformed> {
    // 3.1 did not ask for the reserved flag to be 0.
    if flags & RESERVED != 0 && version != Version::V31 {
        return Err(RESERVED_FLAG);
    }
    if flags & WILL == 0 && flags & (WILL_RETAIN | 0b11 << WILL_QOS_SHIFT) != 0 {
        return Err(WILL_FLAGS);
    }
    if Qos::from_bits(flags >> WILL_QOS_SHIFT).is_none() {
        return Err(WILL_QOS);
    }
    if flags & (USER_NAME | PASSWORD) == PASSWORD && version != Version::V5 {
        return Err(PASSWORD_ALONE);
    }
    Ok(())
}

fn read_properties<'a>(
    cursor: &mut Cursor<'a>,
    version: Version,
    place: Place,
) -> Result<Properties<'a>, Malformed> {
    match version {
        Version::V5 => Properties::read(cursor, place),
        Version::V31 | Version::V311 => Ok(Properties::EMPTY),
    }
}
