//! Opens the compressed blob of a batch, never into more than a given number of bytes.
//!
//! The broker itself never compresses: batches stay as their producers made them. Compressing exists for tests alone.

use std::io::Read;

use bytes::Bytes;

use super::{BatchError, Codec};

/// In front of the blocks in the framing of Java's snappy library: 8 bytes of magic, version, lowest compatible version.
const SNAPPY_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const SNAPPY_HEAD_LEN: usize = 16;

/// What a blob is first guessed to grow by; the buffer grows further as bytes really come.
const GROWTH_GUESS: usize = 4;

/// The window that every zstd decoder should grant, as a power of two. Spec: RFC 8878, 3.1.1.1.2.
const ZSTD_WINDOW_LOG_MIN: u32 = 23;
/// The largest window that zstd's own tools grant unasked, as a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The bytes in `blob`; as they are, whatever the limit, if there is no codec.
///
/// # Errors
/// [`BatchError::TooLarge`] beyond `limit` bytes, [`BatchError::Decompress`] if the blob is damaged. Bound: allocates about
/// `limit` at most, and no more than a few times what really came out.
pub(super) fn decompress(codec: Codec, blob: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    let damaged = |_| BatchError::Decompress(codec);
    match codec {
        Codec::None => Ok(blob.clone()),
        Codec::Gzip => read_all(codec, flate2::bufread::MultiGzDecoder::new(&blob[..]), blob.len(), limit),
        Codec::Snappy => snappy(blob, limit),
        Codec::Lz4 => read_all(codec, lz4_flex::frame::FrameDecoder::new(&blob[..]), blob.len(), limit),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&blob[..]).map_err(damaged)?;
            let window_log =
                limit.max(1).ilog2().saturating_add(1).clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX);
            decoder.window_log_max(window_log).map_err(damaged)?;
            read_all(codec, decoder, blob.len(), limit)
        }
    }
}

fn read_all(codec: Codec, decoder: impl Read, blob_len: usize, limit: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::with_capacity(blob_len.saturating_mul(GROWTH_GUESS).min(limit));
    // One byte more than allowed tells "exactly full" from "too much".
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut out);
    if out.len() > limit {
        return Err(BatchError::TooLarge { limit });
    }
    read.map_err(|_| BatchError::Decompress(codec))?;
    Ok(out.into())
}

fn snappy(blob: &[u8], limit: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    if !blob.starts_with(SNAPPY_MAGIC) {
        snappy_block(blob, limit, &mut out)?;
        return Ok(out.into());
    }
    let damaged = BatchError::Decompress(Codec::Snappy);
    let mut rest = blob.get(SNAPPY_HEAD_LEN..).ok_or(damaged)?;
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk::<4>().ok_or(damaged)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, behind) = behind.split_at_checked(len).ok_or(damaged)?;
        snappy_block(block, limit, &mut out)?;
        rest = behind;
    }
    Ok(out.into())
}

fn snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let damaged = |_| BatchError::Decompress(Codec::Snappy);
    let start = out.len();
    let len = snap::raw::decompress_len(block).map_err(damaged)?;
    if len > limit - start {
        return Err(BatchError::TooLarge { limit });
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(damaged)?;
    Ok(())
}

/// The same uncompressed batch with its records compressed, for tests and load generators.
///
/// # Panics
/// If `batch` is not a batch, or the codec's library fails, which it does not on memory.
#[cfg(any(test, feature = "compress"))]
pub fn compress_batch(batch: &[u8], codec: Codec) -> Bytes {
    use super::{Attributes, BatchHeader, HEADER_LEN, LEN_PREFIX, header::field, validate::checksum};
    let mut header = BatchHeader::parse(batch).expect("the caller gives a batch");
    let blob = compress(codec, &batch[HEADER_LEN..]);
    header.attributes = Attributes(header.attributes.0 & !0b111 | codec as u16);
    header.batch_length = (HEADER_LEN - LEN_PREFIX + blob.len()) as i32;
    let mut out = [&header.to_bytes()[..], &blob].concat();
    let crc = checksum(&out).to_be_bytes();
    out[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc);
    out.into()
}

#[cfg(any(test, feature = "compress"))]
fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let works = "writing to memory does not fail";
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).expect(works);
            encoder.finish().expect(works)
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(bytes).expect(works),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).expect(works);
            encoder.finish().expect(works)
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, 3).expect(works),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn a_bomb_is_refused_at_the_limit_and_not_below() {
        let zeros = vec![0; 1 << 20];
        for codec in CODECS {
            let bomb = Bytes::from(compress(codec, &zeros));
            let refused = decompress(codec, &bomb, zeros.len() - 1);
            assert_eq!(refused, Err(BatchError::TooLarge { limit: zeros.len() - 1 }), "{codec}");
            assert_eq!(decompress(codec, &bomb, zeros.len()).as_deref(), Ok(&zeros[..]), "{codec}");
        }
    }

    #[test]
    fn a_blob_cut_short_anywhere_is_refused() {
        let text = b"one two three four five six seven eight nine ten ".repeat(20);
        for codec in CODECS {
            let blob = Bytes::from(compress(codec, &text));
            for len in 1..blob.len() {
                let cut = decompress(codec, &blob.slice(..len), text.len());
                // The lz4 library takes the end of the bytes for the end of the frame: then blocks are missing, which the
                // walk over the records notices.
                let missing = codec == Codec::Lz4 && cut.as_ref().is_ok_and(|out| text.starts_with(out));
                assert!(cut.is_err() || missing, "{codec} cut to {len} of {}", blob.len());
            }
        }
    }

    #[test]
    fn javas_snappy_framing_is_read_block_by_block() {
        let mut framed = [&SNAPPY_MAGIC[..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in ["first ", "second"] {
            let block = compress(Codec::Snappy, part.as_bytes());
            framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            framed.extend_from_slice(&block);
        }
        let framed = Bytes::from(framed);
        assert_eq!(decompress(Codec::Snappy, &framed, 12).as_deref(), Ok(&b"first second"[..]));
        assert_eq!(decompress(Codec::Snappy, &framed, 11), Err(BatchError::TooLarge { limit: 11 }));
        for len in SNAPPY_HEAD_LEN + 1..framed.len() {
            let cut = decompress(Codec::Snappy, &framed.slice(..len), 12);
            assert!(cut.is_err() || cut.as_deref() == Ok(&b"first "[..]), "cut to {len}");
        }
    }

    #[test]
    fn several_gzip_members_are_one_stream() {
        let two = [compress(Codec::Gzip, b"one "), compress(Codec::Gzip, b"two")].concat();
        assert_eq!(decompress(Codec::Gzip, &two.into(), 100).as_deref(), Ok(&b"one two"[..]));
    }
}
