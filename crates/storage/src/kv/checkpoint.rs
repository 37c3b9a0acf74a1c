//! The checkpoint format: all rows of a group as one stream, for snapshots. Readable by every implementation of `Kv`.
//!
//! ```text
//! | "RMQK" | version u32 | rows ... | end |
//!    row:  1 u8 | key length u32 | value length u32 | key | value          (ascending by key)
//!    end:  0 u8 | applied index u64 | rows u64 | CRC-32C of everything before u32           little-endian
//! ```

use std::io::{self, Read, Write};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::{KvError, Row};

const MAGIC: [u8; 4] = *b"RMQK";
const VERSION: u32 = 1;
/// Bound: length of a key or a value that is read back.
const LEN_MAX: u32 = 64 << 20;

/// Writes a checkpoint.
pub(super) struct CheckpointWriter<'a> {
    sink: &'a mut dyn Write,
    digest: Digest,
    rows: u64,
}

impl<'a> CheckpointWriter<'a> {
    pub(super) fn begin(sink: &'a mut dyn Write) -> Result<CheckpointWriter<'a>, KvError> {
        let mut writer = CheckpointWriter { sink, digest: Digest::new(CrcAlgorithm::Crc32Iscsi), rows: 0 };
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let len = |bytes: &[u8]| {
            u32::try_from(bytes.len())
                .ok()
                .filter(|len| *len <= LEN_MAX)
                .ok_or(KvError::Damaged { what: "row beyond the length limit" })
        };
        let (key_len, value_len) = (len(key)?, len(value)?);
        self.put(&[1])?;
        self.put(&key_len.to_le_bytes())?;
        self.put(&value_len.to_le_bytes())?;
        self.put(key)?;
        self.put(value)?;
        self.rows += 1;
        Ok(())
    }

    pub(super) fn finish(mut self, applied: u64) -> Result<(), KvError> {
        self.put(&[0])?;
        self.put(&applied.to_le_bytes())?;
        self.put(&self.rows.to_le_bytes())?;
        let crc = self.digest.finalize() as u32;
        self.put(&crc.to_le_bytes())?;
        self.sink.flush().map_err(|err| KvError::io("write checkpoint", err))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), KvError> {
        self.digest.update(bytes);
        self.sink.write_all(bytes).map_err(|err| KvError::io("write checkpoint", err))
    }
}

/// Reads a checkpoint: [`next`](CheckpointReader::next) until `None`, then [`finish`](CheckpointReader::finish). No row is to
/// be trusted before `finish` answered.
pub(super) struct CheckpointReader<'a> {
    source: &'a mut dyn Read,
    digest: Digest,
    rows: u64,
}

impl<'a> CheckpointReader<'a> {
    pub(super) fn begin(source: &'a mut dyn Read) -> Result<CheckpointReader<'a>, KvError> {
        let mut reader = CheckpointReader { source, digest: Digest::new(CrcAlgorithm::Crc32Iscsi), rows: 0 };
        let magic: [u8; 4] = reader.take()?;
        let version = u32::from_le_bytes(reader.take()?);
        if magic != MAGIC || version != VERSION {
            return Err(damaged());
        }
        Ok(reader)
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, KvError> {
        match self.take::<1>()? {
            [0] => return Ok(None),
            [1] => {}
            _ => return Err(damaged()),
        }
        let (key_len, value_len) = (u32::from_le_bytes(self.take()?), u32::from_le_bytes(self.take()?));
        self.rows += 1;
        Ok(Some(Row { key: self.take_bytes(key_len)?, value: self.take_bytes(value_len)? }))
    }

    /// Checks the end and answers the applied index.
    pub(super) fn finish(mut self) -> Result<u64, KvError> {
        let applied = u64::from_le_bytes(self.take()?);
        let rows = u64::from_le_bytes(self.take()?);
        let computed = self.digest.finalize() as u32;
        let crc = u32::from_le_bytes(self.take()?);
        if crc != computed || rows != self.rows { Err(damaged()) } else { Ok(applied) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], KvError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn take_bytes(&mut self, len: u32) -> Result<Bytes, KvError> {
        if len > LEN_MAX {
            return Err(damaged());
        }
        // Grows with what is really there, not with what the length claims.
        let mut bytes = Vec::new();
        let source = &mut *self.source;
        let read = source.take(u64::from(len)).read_to_end(&mut bytes).map_err(read_error)?;
        if read as u64 != u64::from(len) {
            return Err(damaged());
        }
        self.digest.update(&bytes);
        Ok(bytes.into())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), KvError> {
        self.source.read_exact(bytes).map_err(read_error)?;
        self.digest.update(bytes);
        Ok(())
    }
}

fn read_error(err: io::Error) -> KvError {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => damaged(),
        _ => KvError::io("read checkpoint", err),
    }
}

fn damaged() -> KvError {
    KvError::Damaged { what: "checkpoint" }
}
