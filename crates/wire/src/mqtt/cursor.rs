//! The checked cursor: the only way in which the decoder reads bytes. Hot path.

use std::num::NonZeroU16;

use super::reason::{Malformed, ReasonCode};
use super::text;

/// What is left to read of one packet's body.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

/// A field reaches past the end of what holds it.
const CUT: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-4.13.1-1");
/// A number that is longer than it may be, or than it need be.
const VARINT: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-1.5.5-1");
const PACKET_ID: Malformed = Malformed::new(ReasonCode::ProtocolError, "MQTT-2.2.1-3");

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet identifier: never 0.
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16, Malformed> {
        NonZeroU16::new(self.u16()?).ok_or(PACKET_ID)
    }

    /// A variable byte integer in as few bytes as it needs, at most four.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        self.varint_rest(first)
    }

    fn varint_rest(&mut self, first: u8) -> Result<u32, Malformed> {
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(VARINT) } else { Ok(value) };
            }
        }
        Err(VARINT)
    }

    /// Bytes behind a two-byte length.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string without U+0000.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        text::text(self.binary()?)
    }

    /// The body is complete: nothing may follow.
    #[inline]
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(CUT) }
    }
}
