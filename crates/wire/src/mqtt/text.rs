//! Text as MQTT permits it: UTF-8 without U+0000, topic names also without wildcards. Hot path.

use super::reason::{Malformed, ReasonCode};

const NOT_UTF8: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-1.5.4-1");
const NUL: Malformed = Malformed::new(ReasonCode::MalformedPacket, "MQTT-1.5.4-2");
const WILDCARD: Malformed = Malformed::new(ReasonCode::TopicNameInvalid, "MQTT-3.3.2-2");

/// Checks a UTF-8 string.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    if is_plain::<false>(bytes) {
        // Safety: `is_plain` is true for ASCII only.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    careful_text(bytes)
}

/// Checks a topic name. An empty one passes: with a topic alias it is permitted.
#[inline]
pub(super) fn topic(bytes: &[u8]) -> Result<&str, Malformed> {
    if is_plain::<true>(bytes) {
        // Safety: `is_plain` is true for ASCII only.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    careful_topic(bytes)
}

#[cold]
fn careful_text(bytes: &[u8]) -> Result<&str, Malformed> {
    // Surrogates and overlong forms are not UTF-8 to Rust either.
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?;
    if bytes.contains(&0) { Err(NUL) } else { Ok(text) }
}

#[cold]
fn careful_topic(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = careful_text(bytes)?;
    if bytes.iter().any(|byte| matches!(byte, b'+' | b'#')) { Err(WILDCARD) } else { Ok(text) }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const PLUS: u64 = LOW * b'+' as u64;
const HASH: u64 = LOW * b'#' as u64;

/// Whether all bytes are ASCII and none is NUL (nor, for a topic, a wildcard), eight at a time. Tells the
/// common case only: false means that somebody has to look properly.
#[inline]
fn is_plain<const TOPIC: bool>(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|&byte| is_plain_byte::<TOPIC>(byte));
    };
    // The last word overlaps the one before it, so that there is no remainder.
    let mut suspicious = suspicion::<TOPIC>(*last);
    for word in bytes.as_chunks::<8>().0 {
        suspicious |= suspicion::<TOPIC>(*word);
    }
    suspicious & HIGH == 0
}

#[inline]
fn is_plain_byte<const TOPIC: bool>(byte: u8) -> bool {
    byte != 0 && byte < 0x80 && !(TOPIC && matches!(byte, b'+' | b'#'))
}

/// A high bit stays set for each byte that is not plain: `x - 1` sets it where `x` was zero, and a byte above
/// 0x7f has it anyway. A borrow can only add suspicion.
#[inline]
fn suspicion<const TOPIC: bool>(word: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(word);
    let mut high = word | word.wrapping_sub(LOW);
    if TOPIC {
        high |= (word ^ PLUS).wrapping_sub(LOW) | (word ^ HASH).wrapping_sub(LOW);
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_byte_is_found_at_every_place() {
        for len in 1..40 {
            for at in 0..len {
                for (byte, text_ok, topic_ok) in [
                    (0, false, false),
                    (0xff, false, false),
                    (b'+', true, false),
                    (b'#', true, false),
                    (0x7f, true, true),
                    (1, true, true),
                ] {
                    let mut bytes = vec![b'/'; len];
                    bytes[at] = byte;
                    assert_eq!(text(&bytes).is_ok(), text_ok, "{byte:#x} at {at} of {len}");
                    assert_eq!(topic(&bytes).is_ok(), topic_ok, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn text_beyond_ascii_is_told_from_bad_utf8() {
        for (bytes, good) in [
            ("größe/température/温度".as_bytes(), true),
            ("\u{feff}a".as_bytes(), true),
            (&b"\xed\xa0\x80"[..], false),
            (&b"\xc0\x80"[..], false),
            (&b"\xe0\x80\xaf"[..], false),
            (&b"abc\xc3"[..], false),
        ] {
            assert_eq!(text(bytes).is_ok(), good, "{bytes:x?}");
            assert_eq!(topic(bytes).is_ok(), good, "{bytes:x?}");
        }
    }
}
