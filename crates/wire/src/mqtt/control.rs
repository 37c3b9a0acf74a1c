//! PINGREQ, PINGRESP, DISCONNECT and AUTH (sections 3.12 to 3.15).

use bytes::BytesMut;

use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin};
use super::frame::kind;
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};
use super::{Expect, Version};

const NO_METHOD: Malformed = Malformed::protocol("section 3.15.2.2.2");

/// The last packet of a connection. Before 5.0 only a client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// [`ReasonCode::Success`] (normal) before 5.0.
    pub reason: ReasonCode,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, expect: Expect) -> Result<Self, Malformed> {
        let (place, version) = match expect {
            Expect::Connect => (Place::DisconnectFromClient, Version::V5),
            Expect::FromClient(version) => (Place::DisconnectFromClient, version),
            Expect::FromServer(version) => (Place::DisconnectFromServer, version),
        };
        let (reason, properties) = match version {
            Version::V5 => read_reason(cursor, place)?,
            Version::V31 | Version::V311 => (ReasonCode::Success, Properties::EMPTY),
        };
        Ok(Self { reason, properties })
    }

    /// Appends the packet, in its shortest form. A Reason String and User Properties that do not fit are left
    /// out. A server has no DISCONNECT before 5.0 and must not call this for such a peer.
    pub fn encode(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let block = Block::fitting(peer, self.properties, 1, false);
        encode_reason(kind::DISCONNECT << 4, self.reason, block, out, peer)
    }
}

/// A step of enhanced authentication. 5.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or authenticate again.
    pub reason: ReasonCode,
    /// With the method, unless all is empty.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let (reason, properties) = read_reason(cursor, Place::Auth)?;
        if reason != ReasonCode::Success && properties.authentication_method().is_none() {
            return Err(NO_METHOD);
        }
        Ok(Self { reason, properties })
    }

    /// Appends the packet; [`EncodeError::NotInVersion`] before 5.0.
    pub fn encode(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        if peer.version != Version::V5 {
            return Err(EncodeError::NotInVersion);
        }
        let block = Block::fitting(peer, self.properties, 1, true);
        encode_reason(kind::AUTH << 4, self.reason, block, out, peer)
    }
}

/// Appends a PINGREQ.
pub fn encode_pingreq(out: &mut BytesMut) {
    out.extend_from_slice(&[kind::PINGREQ << 4, 0]);
}

/// Appends a PINGRESP.
pub fn encode_pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// A reason code and properties, of which the end may be missing.
fn read_reason<'a>(cursor: &mut Cursor<'a>, place: Place) -> Result<(ReasonCode, Properties<'a>), Malformed> {
    if cursor.is_empty() {
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let reason = ReasonCode::read(cursor.byte()?, place)?;
    let properties = if cursor.is_empty() { Properties::EMPTY } else { Properties::read(cursor, place)? };
    Ok((reason, properties))
}

fn encode_reason(
    first: u8,
    reason: ReasonCode,
    block: Block<'_>,
    out: &mut BytesMut,
    peer: &Peer,
) -> Result<(), EncodeError> {
    let v5 = peer.version == Version::V5;
    if !v5 || (reason == ReasonCode::Success && block.is_empty()) {
        return begin(out, first, 0, peer);
    }
    let block_len = if block.is_empty() { 0 } else { block.encoded_len() };
    begin(out, first, 1 + block_len, peer)?;
    out.extend_from_slice(&[reason as u8]);
    if block_len > 0 {
        block.put(out);
    }
    Ok(())
}
