//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape (sections 3.4 to 3.7). Hot path.
//!
//! ```text
//!   +----------------+--------+-----------+-------------+------------+
//!   | fixed header 2 | length | packet id | reason code | properties |   reason code and properties: 5.0 only,
//!   |                | 2..    | 2         | 1           |            |   and only where they say something
//!   +----------------+--------+-----------+-------------+------------+
//! ```

use std::num::NonZeroU16;

use bytes::BytesMut;

use super::Version;
use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin};
use super::frame::kind;
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// Answers a PUBLISH with QoS 1.
    Puback,
    /// Answers a PUBLISH with QoS 2.
    Pubrec,
    /// Answers PUBREC.
    Pubrel,
    /// Answers PUBREL.
    Pubcomp,
}

impl AckKind {
    fn first_byte(self) -> u8 {
        match self {
            Self::Puback => kind::PUBACK << 4,
            Self::Pubrec => kind::PUBREC << 4,
            Self::Pubrel => kind::PUBREL << 4 | 0b0010,
            Self::Pubcomp => kind::PUBCOMP << 4,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Puback => Place::Puback,
            Self::Pubrec => Place::Pubrec,
            Self::Pubrel => Place::Pubrel,
            Self::Pubcomp => Place::Pubcomp,
        }
    }
}

/// One step of a QoS 1 or QoS 2 exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The exchange.
    pub packet_id: NonZeroU16,
    /// Always [`ReasonCode::Success`] before 5.0.
    pub reason: ReasonCode,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    pub(super) fn read(kind: AckKind, body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let packet_id = cursor.packet_id()?;
        let mut ack = Self { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
        if version == Version::V5 && !cursor.is_empty() {
            ack.reason = ReasonCode::read(cursor.byte()?, kind.place())?;
            if !cursor.is_empty() {
                ack.properties = Properties::read(&mut cursor, kind.place())?;
            }
        }
        cursor.end()?;
        Ok(ack)
    }

    /// Appends the packet, in its shortest form. Before 5.0 only the packet identifier is sent. A Reason String
    /// and User Properties that the peer does not want, or that do not fit, are left out.
    pub fn encode(&self, kind: AckKind, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let block = Block::fitting(peer, self.properties, 3, true);
        if peer.version != Version::V5 || (self.reason == ReasonCode::Success && block.is_empty()) {
            encode_ack(kind, self.packet_id, out);
            return Ok(());
        }
        let block_len = if block.is_empty() { 0 } else { block.encoded_len() };
        begin(out, kind.first_byte(), 3 + block_len, peer)?;
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        out.extend_from_slice(&[self.reason as u8]);
        if block_len > 0 {
            block.put(out);
        }
        Ok(())
    }
}

/// Appends a plain success: four bytes, the same in all versions.
#[inline]
pub fn encode_ack(kind: AckKind, packet_id: NonZeroU16, out: &mut BytesMut) {
    let [high, low] = packet_id.get().to_be_bytes();
    out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
}
