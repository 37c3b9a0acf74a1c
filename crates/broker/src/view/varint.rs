//! The few encodings that facts and rows are made of, and a cursor that checks what it reads.

/// Why stored bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version.
    #[error("unknown format version {found}")]
    UnknownVersion {
        /// The version found.
        found: u8,
    },
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// A field has a value that is never written.
    #[error("impossible value of {field}")]
    Impossible {
        /// Which field.
        field: &'static str,
    },
    /// The row with the floor is not among the rows.
    #[error("the head row is missing")]
    HeadMissing,
}

/// Unsigned LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Impossible { field: "varint" })
    }

    /// A count of things of at least `bytes_min` bytes each, which must still be there: so it bounds an allocation.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        if count > (self.0.len() / bytes_min) as u64 {
            Err(DecodeError::Truncated)
        } else {
            Ok(count as usize)
        }
    }

    pub(super) fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        match self.byte()? {
            found if found == known => Ok(()),
            found => Err(DecodeError::UnknownVersion { found }),
        }
    }

    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Impossible { field: "length" }) }
    }
}
