//! Writes the fields of hand-written messages. On the hot path.

use bytes::{BufMut, Bytes};
use thiserror::Error;

use super::api::ApiKey;
use super::messages::{StrBytes, Uuid};
use super::output::Output;
use super::reader::STRING_LEN_MAX;

/// A message that its protocol version cannot express. Nothing was written.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The codec does not write this version.
    #[error("{api:?} has no version {version}")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// The header of a request names another API than its body.
    #[error("the header says {header:?}, the body is {body:?}")]
    WrongApi {
        /// API in the header.
        header: ApiKey,
        /// API of the body.
        body: ApiKey,
    },
    /// A string, array or frame is longer than its length field can say.
    #[error("a length does not fit its field")]
    TooLong,
    /// A field has a value that this version cannot carry.
    #[error("{field} of {message} cannot be written at version {version}")]
    Unrepresentable {
        /// Structure, as Kafka's schemas name it.
        message: &'static str,
        /// Field, as Kafka's schemas name it.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// Appends fields to the frame that is being written.
pub(super) struct Writer<'a> {
    output: &'a mut Output,
    flexible: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(output: &'a mut Output, flexible: bool) -> Self {
        Self { output, flexible }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.output.tail().put_i8(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.output.tail().put_i16(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.output.tail().put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.output.tail().put_i64(value);
    }

    pub(super) fn uuid(&mut self, value: &Uuid) {
        self.output.tail().put_slice(value.as_bytes());
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.output.tail().put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.output.tail().put_u8(value as u8);
    }

    /// A length of 32 bits, or compact.
    fn len32(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        let len = len.map(i32::try_from).transpose().map_err(|_| EncodeError::TooLong)?;
        match (self.flexible, len) {
            (true, len) => self.uvarint(len.map_or(0, |len| len as u32 + 1)),
            (false, len) => self.i32(len.unwrap_or(-1)),
        }
        Ok(())
    }

    /// A string with a 16-bit length even in flexible versions: the client id of the header.
    pub(super) fn plain_nullable_string(&mut self, value: Option<&StrBytes>) -> Result<(), EncodeError> {
        let len =
            value.map(|value| i16::try_from(value.len())).transpose().map_err(|_| EncodeError::TooLong)?;
        self.i16(len.unwrap_or(-1));
        self.output.tail().put_slice(value.map_or(&[], |value| value.as_bytes()));
        Ok(())
    }

    pub(super) fn nullable_string(&mut self, value: Option<&StrBytes>) -> Result<(), EncodeError> {
        if !self.flexible {
            return self.plain_nullable_string(value);
        }
        if value.is_some_and(|value| value.len() > STRING_LEN_MAX) {
            return Err(EncodeError::TooLong);
        }
        self.len32(value.map(|value| value.len()))?;
        self.output.tail().put_slice(value.map_or(&[], |value| value.as_bytes()));
        Ok(())
    }

    pub(super) fn string(&mut self, value: &StrBytes) -> Result<(), EncodeError> {
        self.nullable_string(Some(value))
    }

    /// One byte string made of parts, which are shared with the output and not copied. `None` is null.
    pub(super) fn nullable_bytes(&mut self, parts: Option<&[Bytes]>) -> Result<(), EncodeError> {
        self.len32(parts.map(|parts| parts.iter().map(Bytes::len).sum()))?;
        parts.unwrap_or_default().iter().for_each(|part| self.output.put_shared(part));
        Ok(())
    }

    pub(super) fn array<T>(
        &mut self,
        elements: &[T],
        element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.nullable_array(Some(elements), element)
    }

    pub(super) fn nullable_array<T>(
        &mut self,
        elements: Option<&[T]>,
        mut element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.len32(elements.map(<[T]>::len))?;
        elements.unwrap_or_default().iter().try_for_each(|value| element(self, value))
    }

    /// Ends a structure: no tagged fields follow.
    pub(super) fn no_tags(&mut self) {
        if self.flexible {
            self.output.tail().put_u8(0);
        }
    }
}
