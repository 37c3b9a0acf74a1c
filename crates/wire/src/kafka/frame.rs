//! Cuts frames out of a stream of bytes.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::api::ApiKey;

/// Length of the length.
const PREFIX_LEN: usize = 4;

/// Bounds on what a peer may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest Produce request and longest response, in bytes after the length field.
    pub data_frame_max: usize,
    /// Longest request of any other API. Decoding one takes up to 100 times its bytes, so this is small.
    pub control_frame_max: usize,
    /// Most elements of one array; in ApiVersions, Produce and Fetch, of all arrays of a message together.
    pub elements_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { data_frame_max: 100 << 20, control_frame_max: 2 << 20, elements_max: 65_536 }
    }
}

/// What a buffer holds so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One frame without its length, cut from the front of the buffer. It shares the buffer's memory.
    Frame(Bytes),
    /// The next frame is not whole: the buffer must grow to at least this many bytes. Reserve that much only
    /// if the peer is trusted with it; otherwise read on and ask again.
    Incomplete(usize),
}

/// A length that no frame may have. The connection is closed. Spec: C1.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a frame of {len} bytes, when at most {max} are allowed")]
pub struct FrameError {
    /// The length as sent.
    pub len: i32,
    /// What is allowed there.
    pub max: usize,
}

/// Cuts one frame of at most `len_max` bytes. Allocates nothing.
pub fn split_frame(input: &mut BytesMut, len_max: usize) -> Result<Framing, FrameError> {
    let Some(prefix) = input.first_chunk::<PREFIX_LEN>() else {
        return Ok(Framing::Incomplete(PREFIX_LEN));
    };
    let len = checked_len(i32::from_be_bytes(*prefix), len_max)?;
    if input.len() < PREFIX_LEN + len {
        return Ok(Framing::Incomplete(PREFIX_LEN + len));
    }
    input.advance(PREFIX_LEN);
    Ok(Framing::Frame(input.split_to(len).freeze()))
}

/// Cuts one request, whose first two bytes decide how long it may be. Allocates nothing.
pub fn split_request_frame(input: &mut BytesMut, limits: &Limits) -> Result<Framing, FrameError> {
    let Some(prefix) = input.first_chunk::<PREFIX_LEN>() else {
        return Ok(Framing::Incomplete(PREFIX_LEN));
    };
    let len = i32::from_be_bytes(*prefix);
    let is_data = match input.get(PREFIX_LEN..PREFIX_LEN + 2) {
        Some(key) => key == ApiKey::Produce.to_wire().to_be_bytes(),
        None => true,
    };
    let len_max = if is_data { limits.data_frame_max } else { limits.control_frame_max };
    checked_len(len, len_max)?;
    split_frame(input, len_max)
}

fn checked_len(len: i32, max: usize) -> Result<usize, FrameError> {
    match usize::try_from(len) {
        Ok(checked) if checked <= max => Ok(checked),
        _ => Err(FrameError { len, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { data_frame_max: 100, control_frame_max: 10, elements_max: 10 };

    #[test]
    fn frames_come_out_at_any_chunking() {
        let stream =
            [&3i32.to_be_bytes()[..], b"abc", &0i32.to_be_bytes(), &2i32.to_be_bytes(), b"de"].concat();
        for chunk_len in 1..=stream.len() {
            let mut input = BytesMut::new();
            let mut frames = Vec::new();
            for chunk in stream.chunks(chunk_len) {
                input.extend_from_slice(chunk);
                while let Framing::Frame(frame) = split_frame(&mut input, 100).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&b"abc"[..], b"", b"de"]);
        }
    }

    #[test]
    fn a_bad_length_is_told_before_the_bytes_arrive() {
        for len in [-1, i32::MIN, 101, i32::MAX] {
            let mut input = BytesMut::from(&len.to_be_bytes()[..]);
            assert_eq!(split_request_frame(&mut input, &LIMITS), Err(FrameError { len, max: 100 }));
        }
    }

    #[test]
    fn only_produce_may_be_long() {
        let mut input = BytesMut::from(&[0, 0, 0, 11, 0, 1][..]);
        assert_eq!(split_request_frame(&mut input, &LIMITS), Err(FrameError { len: 11, max: 10 }));
        let mut input = BytesMut::from(&[0, 0, 0, 11, 0, 0][..]);
        assert_eq!(split_request_frame(&mut input, &LIMITS), Ok(Framing::Incomplete(15)));
    }
}
