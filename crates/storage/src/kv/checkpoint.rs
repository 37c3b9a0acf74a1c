//! The checkpoint format: all rows of a group and its applied index, for replicas that are too far behind.
//!
//! ```text
//! "RMQK" | version u16 | applied u64 | rows | 0 | crc32c u32 of everything before
//! row: 1 | key length u32 | key | value length u32 | value
//! ```

use std::io::{Read, Write};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::{KvError, Row};

const MAGIC: &[u8; 4] = b"RMQK";
const VERSION: u16 = 1;
/// Bound: a key or a value of a checkpoint.
const PART_BYTES_MAX: u32 = 256 << 20;

pub(super) struct Writer<'a> {
    sink: &'a mut dyn Write,
    digest: Digest,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(sink: &'a mut dyn Write, applied: u64) -> Result<Self, KvError> {
        let mut writer = Self { sink, digest: Digest::new(CrcAlgorithm::Crc32Iscsi) };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_be_bytes())?;
        writer.put(&applied.to_be_bytes())?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.put(&[1])?;
        for part in [key, value] {
            self.put(&(part.len() as u32).to_be_bytes())?;
            self.put(part)?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> Result<(), KvError> {
        self.put(&[0])?;
        let crc = self.digest.finalize() as u32;
        self.sink.write_all(&crc.to_be_bytes()).map_err(|error| KvError::io("write a checkpoint", error))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), KvError> {
        self.digest.update(bytes);
        self.sink.write_all(bytes).map_err(|error| KvError::io("write a checkpoint", error))
    }
}

pub(super) struct Reader<'a> {
    source: &'a mut dyn Read,
    digest: Digest,
    applied: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn begin(source: &'a mut dyn Read) -> Result<Self, KvError> {
        let mut reader = Self { source, digest: Digest::new(CrcAlgorithm::Crc32Iscsi), applied: 0 };
        if reader.take::<4>()? != *MAGIC || u16::from_be_bytes(reader.take()?) != VERSION {
            return Err(DAMAGED);
        }
        reader.applied = u64::from_be_bytes(reader.take()?);
        Ok(reader)
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// The next row; `None` after the last one, once the checksum was found right.
    pub(super) fn row(&mut self) -> Result<Option<Row>, KvError> {
        match self.take::<1>()? {
            [1] => Ok(Some(Row { key: self.part()?, value: self.part()? })),
            [0] => {
                let expected = self.digest.finalize() as u32;
                let mut stored = [0; 4];
                self.source.read_exact(&mut stored).map_err(|_| DAMAGED)?;
                if u32::from_be_bytes(stored) == expected { Ok(None) } else { Err(DAMAGED) }
            }
            _ => Err(DAMAGED),
        }
    }

    fn part(&mut self) -> Result<Bytes, KvError> {
        let length = u32::from_be_bytes(self.take()?);
        if length > PART_BYTES_MAX {
            return Err(DAMAGED);
        }
        // Grows with what is really there: a damaged length reserves nothing.
        let mut part = Vec::new();
        let read = self.source.take(u64::from(length)).read_to_end(&mut part);
        if read.map_err(|error| KvError::io("read a checkpoint", error))? != length as usize {
            return Err(DAMAGED);
        }
        self.digest.update(&part);
        Ok(part.into())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], KvError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|_| DAMAGED)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

const DAMAGED: KvError = KvError::Damaged { what: "a checkpoint" };
