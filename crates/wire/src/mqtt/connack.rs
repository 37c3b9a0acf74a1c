//! CONNACK (section 3.2).

use bytes::BytesMut;

use super::Version;
use super::cursor::Cursor;
use super::encode::{Block, EncodeError, Peer, begin};
use super::frame::kind;
use super::place::Place;
use super::property::Properties;
use super::reason::{Malformed, ReasonCode};

const FLAGS: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-3.2.2-1");
const PRESENT_ON_ERROR: Malformed = Malformed::protocol("MQTT-3.2.2-6");
const RETURN_CODE: Malformed = Malformed::protocol("section 3.2.2.3 (3.1.1)");

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    /// The server has a session of this client. False in every error [MQTT-3.2.2-6], and in 3.1.
    pub session_present: bool,
    /// In 3.1 and 3.1.1 the return code that corresponds.
    pub reason: ReasonCode,
    /// Empty before 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Connack<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, version: Version) -> Result<Self, Malformed> {
        let flags = cursor.byte()?;
        let code = cursor.byte()?;
        if flags > 1 {
            return Err(FLAGS);
        }
        let (reason, properties) = match version {
            Version::V5 => {
                (ReasonCode::read(code, Place::Connack)?, Properties::read(cursor, Place::Connack)?)
            }
            Version::V31 | Version::V311 => {
                (ReasonCode::from_connack_return_code(code).ok_or(RETURN_CODE)?, Properties::EMPTY)
            }
        };
        if flags == 1 && reason != ReasonCode::Success {
            return Err(PRESENT_ON_ERROR);
        }
        Ok(Self { session_present: flags == 1, reason, properties })
    }

    /// Appends the packet. Before 5.0 a reason without a return code is [`EncodeError::NotInVersion`]: close
    /// without an answer. A Reason String and User Properties that do not fit are left out.
    pub fn encode(&self, out: &mut BytesMut, peer: &Peer) -> Result<(), EncodeError> {
        let code = match peer.version {
            Version::V5 => self.reason as u8,
            Version::V31 | Version::V311 => {
                self.reason.connack_return_code().ok_or(EncodeError::NotInVersion)?
            }
        };
        let present = self.session_present && code == 0 && peer.version != Version::V31;
        let block = Block::fitting(peer, self.properties, 2, false);
        begin(out, kind::CONNACK << 4, 2 + block.encoded_len(), peer)?;
        out.extend_from_slice(&[u8::from(present), code]);
        block.put(out);
        Ok(())
    }
}
