//! The frame around every index file: what it is, which version, how long, and checksums of both parts.
//!
//! ```text
//!  0        4         6      8              16          20           24
//! +--------+---------+------+--------------+-----------+------------+------------------+
//! | "RMQX" | version | kind | body length  | body crc  | header crc | body ...         |
//! | 4      | u16     | u16  | u64          | CRC-32C   | of 0..20   |                  |     little-endian
//! +--------+---------+------+--------------+-----------+------------+------------------+
//! ```
//!
//! A file is valid only as a whole: index files are written to a temporary name, synced and renamed.

use bytes::Bytes;

use super::varint::Cursor;

const MAGIC: [u8; 4] = *b"RMQX";
/// The format that this build writes. It reads this one and no other: there is no older one yet.
const VERSION: u16 = 1;
/// Bytes in front of the body.
pub(crate) const HEADER_LEN: usize = 24;

/// What a file holds. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// The index of one sealed segment.
    Footer = 1,
    /// What outlives recycled segments: shard ends, producers, dropped shards.
    Tails = 2,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// A later release wrote it. It must not be overwritten.
    #[error("written in format version {0}, which this build does not know")]
    Version(u16),
    /// Missing bytes, a wrong checksum or nonsense within. It can be rebuilt.
    #[error("damaged")]
    Damaged,
}

impl From<super::varint::Malformed> for Unusable {
    fn from(_: super::varint::Malformed) -> Unusable {
        Unusable::Damaged
    }
}

/// Begins a file: room for the header, filled in by [`close`].
pub(crate) fn begin() -> Vec<u8> {
    vec![0; HEADER_LEN]
}

/// Completes a file that [`begin`] began and whose body was appended since.
pub(crate) fn close(mut file: Vec<u8>, kind: FileKind) -> Vec<u8> {
    let (header, body) = file.split_at_mut(HEADER_LEN);
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&(kind as u16).to_le_bytes());
    header[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[16..20].copy_from_slice(&crc_fast::crc32_iscsi(body).to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    file
}

/// The body of a whole and sound file.
pub(crate) fn open(file: &Bytes, kind: FileKind) -> Result<Bytes, Unusable> {
    let mut header = Cursor::new(file);
    let magic = header.take(4)?;
    let versions = header.fixed_u32()?;
    let (version, found) = (versions as u16, (versions >> 16) as u16);
    let (len, body_crc, header_crc) = (header.fixed_u64()?, header.fixed_u32()?, header.fixed_u32()?);
    if magic != MAGIC || crc_fast::crc32_iscsi(&file[..20]) != header_crc {
        return Err(Unusable::Damaged);
    }
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let body = file.slice(HEADER_LEN..);
    if found != kind as u16 || body.len() as u64 != len || crc_fast::crc32_iscsi(&body) != body_crc {
        return Err(Unusable::Damaged);
    }
    Ok(body)
}
