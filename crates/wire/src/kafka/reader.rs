//! Checked cursor over one frame. On the hot path: every Produce and Fetch goes through it.
//!
//! Every read names what is missing instead of panicking; every count is checked against the bytes that are
//! left before it may reserve memory.

use bytes::Bytes;
use thiserror::Error;

use super::messages::{StrBytes, Uuid};

/// Longest string, also where the length is compact.
pub(super) const STRING_LEN_MAX: usize = i16::MAX as usize;

/// Bytes that are not what the protocol says. The connection that sent them is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{fault} at byte {at}")]
pub struct Malformed {
    /// Byte of the frame, or of the body for messages other than ApiVersions, Produce and Fetch.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with malformed bytes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The frame ends inside a field, or a count promises more than the frame holds.
    #[error("the frame ends too early")]
    Truncated,
    /// A length below -1, or -1 where null is not allowed.
    #[error("a length is negative")]
    NegativeLength,
    /// Null where the schema wants a value.
    #[error("null is not allowed")]
    Null,
    /// A length or count above our limits.
    #[error("a length is above the limit")]
    OverLimit,
    /// A variable-length integer of more than 32 bits.
    #[error("a variable-length integer does not end")]
    Varint,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A boolean other than 0 and 1.
    #[error("a boolean is neither 0 nor 1")]
    Boolean,
    /// Tagged fields out of order, or one whose size contradicts its content.
    #[error("tagged fields are inconsistent")]
    Tags,
    /// Bytes after the end of the message.
    #[error("bytes follow the message")]
    Trailing,
    /// Anything else that the decoder of a control message refuses.
    #[error("the message is refused")]
    Refused,
}

/// Cursor over one frame.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    flexible: bool,
    elements_left: usize,
}

impl<'a> Reader<'a> {
    /// Bound: all arrays of the frame together hold at most `elements_max` elements.
    pub(super) fn new(frame: &'a Bytes, elements_max: usize) -> Self {
        Self { frame, at: 0, flexible: false, elements_left: elements_max }
    }

    /// From here on, lengths are compact and structures end in tagged fields.
    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn malformed(&self, fault: Fault) -> Malformed {
        Malformed { at: self.at, fault }
    }

    fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.frame[self.at..].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.malformed(Fault::Truncated)),
        }
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.fixed().map(Uuid::from_bytes)
    }

    /// An unsigned variable-length integer of at most 32 bits, least significant group first.
    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            let group = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(self.malformed(Fault::Varint));
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed(Fault::Varint))
    }

    fn slice(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.remaining() {
            return Err(self.malformed(Fault::Truncated));
        }
        let bytes = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    /// A signed length in which -1 means null.
    fn signed_len(&self, len: i32) -> Result<Option<usize>, Malformed> {
        match usize::try_from(len) {
            Ok(len) => Ok(Some(len)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(self.malformed(Fault::NegativeLength)),
        }
    }

    /// A compact length: one more than the length, 0 for null.
    fn compact_len(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.uvarint()?.checked_sub(1).map(|len| len as usize))
    }

    fn string_of(&mut self, len: Option<usize>) -> Result<Option<StrBytes>, Malformed> {
        let Some(len) = len else { return Ok(None) };
        if len > STRING_LEN_MAX {
            return Err(self.malformed(Fault::OverLimit));
        }
        let bytes = self.slice(len)?;
        StrBytes::try_from(bytes).map(Some).map_err(|_| self.malformed(Fault::Utf8))
    }

    /// A string with a 16-bit length even in flexible versions: the client id of the header.
    pub(super) fn plain_nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let len = i32::from(self.i16()?);
        let len = self.signed_len(len)?;
        self.string_of(len)
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        if !self.flexible {
            return self.plain_nullable_string();
        }
        let len = self.compact_len()?;
        self.string_of(len)
    }

    pub(super) fn string(&mut self) -> Result<StrBytes, Malformed> {
        let string = self.nullable_string()?;
        string.ok_or(self.malformed(Fault::Null))
    }

    /// Bytes without a copy: a slice of the frame.
    pub(super) fn nullable_bytes(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.len32()? {
            Some(len) => self.slice(len).map(Some),
            None => Ok(None),
        }
    }

    fn len32(&mut self) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return self.compact_len();
        }
        let len = self.i32()?;
        self.signed_len(len)
    }

    /// An array, or `None` for null. `element_len_min` is the least number of bytes of an element (at least 1): a count
    /// that the rest of the frame cannot hold is refused before anything is reserved.
    pub(super) fn nullable_array<T>(
        &mut self,
        element_len_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = self.len32()? else { return Ok(None) };
        if count > self.remaining() / element_len_min {
            return Err(self.malformed(Fault::Truncated));
        }
        self.elements_left = match self.elements_left.checked_sub(count) {
            Some(left) => left,
            None => return Err(self.malformed(Fault::OverLimit)),
        };
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// As [`Self::nullable_array`], but null is refused.
    pub(super) fn array<T>(
        &mut self,
        element_len_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let elements = self.nullable_array(element_len_min, element)?;
        elements.ok_or(self.malformed(Fault::Null))
    }

    /// Passes over the tagged fields at the end of a structure. None of those of our messages matters to us.
    pub(super) fn skip_tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let _tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            if len > self.remaining() {
                return Err(self.malformed(Fault::Truncated));
            }
            self.at += len;
        }
        Ok(())
    }

    /// The message ends here: anything left is malformed.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.remaining() > 0 { Err(self.malformed(Fault::Trailing)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(frame: &Bytes) -> Reader<'_> {
        Reader::new(frame, 100)
    }

    #[test]
    fn varints_of_more_than_32_bits_are_refused() {
        for (bytes, expected) in [
            (&[0x00][..], Ok(0)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f][..], Ok(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f][..], Err(Fault::Varint)),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..], Err(Fault::Varint)),
            (&[0x80][..], Err(Fault::Truncated)),
        ] {
            let frame = Bytes::copy_from_slice(bytes);
            assert_eq!(reader(&frame).uvarint().map_err(|malformed| malformed.fault), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn a_count_that_the_frame_cannot_hold_reserves_nothing() {
        let frame = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0]);
        let result = reader(&frame).array(1, Reader::i8);
        assert_eq!(result, Err(Malformed { at: 4, fault: Fault::Truncated }));
    }

    #[test]
    fn nested_arrays_share_one_allowance() {
        let mut bytes = vec![0, 0, 0, 20];
        for _ in 0..20 {
            bytes.extend_from_slice(&[0, 0, 0, 5, 1, 2, 3, 4, 5]);
        }
        let frame = Bytes::from(bytes);
        let mut reader = Reader::new(&frame, 119);
        let result = reader.array(4, |reader| reader.array(1, Reader::i8));
        assert_eq!(result.map_err(|malformed| malformed.fault), Err(Fault::OverLimit));
        let mut reader = Reader::new(&frame, 120);
        let result = reader.array(4, |reader| reader.array(1, Reader::i8)).unwrap();
        assert_eq!(result, vec![vec![1, 2, 3, 4, 5]; 20]);
    }

    #[test]
    fn strings_are_utf8_and_null_only_where_allowed() {
        let frame = Bytes::from_static(&[0, 1, 0xff]);
        assert_eq!(reader(&frame).string().map_err(|malformed| malformed.fault), Err(Fault::Utf8));
        let frame = Bytes::from_static(&[0xff, 0xff]);
        assert_eq!(reader(&frame).string().map_err(|malformed| malformed.fault), Err(Fault::Null));
        assert_eq!(reader(&frame).nullable_string(), Ok(None));
        let frame = Bytes::from_static(&[0xff, 0xfe]);
        let result = reader(&frame).nullable_string().map_err(|malformed| malformed.fault);
        assert_eq!(result, Err(Fault::NegativeLength));
    }
}
