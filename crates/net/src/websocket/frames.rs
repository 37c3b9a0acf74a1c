//! [`Frames`]: takes the payload out of the frames that a WebSocket client sends. Hot path of WebSocket listeners.
//!
//! ```text
//!    0               1               2               3                          RFC 6455, 5.2
//!   +-+-+-+-+-------+-+-------------+-------------------------------+
//!   |F|R|R|R| opcode|M| len (7)     | len (16, if 126; 64, if 127)  |
//!   +-+-+-+-+-------+-+-------------+-------------------------------+
//!   | mask (4): every frame of a client has one   | payload ...     |
//!   +---------------------------------------------+-----------------+
//! ```
//!
//! It streams: payload is moved down over the headers in the buffer that it was read into, as it comes. Between two
//! calls only the beginning of a header and of a control frame is kept, 139 bytes at most. A message that is spread
//! over frames needs no room; what MQTT makes of it is the session's business [MQTT-6.0.0-2].

use bytes::BytesMut;

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Spec: a control frame holds at most this much [5.5].
const CONTROL_BYTES_MAX: u64 = 125;
/// Bound: answers that may wait for a peer that does not read. A ping beyond it is not answered [5.5.3].
const REPLIES_BYTES_MAX: usize = 1024;

/// Why a WebSocket connection is closed, as its close frame says [7.4.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// Done.
    Normal,
    /// The peer broke the rules of framing.
    ProtocolError,
    /// Text, where only binary frames are allowed [MQTT-6.0.0-1].
    Unsupported,
    /// A frame is larger than the largest packet.
    TooBig,
}

impl CloseCode {
    const fn number(self) -> u16 {
        match self {
            CloseCode::Normal => 1000,
            CloseCode::ProtocolError => 1002,
            CloseCode::Unsupported => 1003,
            CloseCode::TooBig => 1009,
        }
    }
}

/// How far one call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// So many bytes at the front of the buffer are payload now; the rest of it means nothing any more.
    pub payload: usize,
    /// The connection is over: by the peer's close frame (`Normal`) or by our verdict. The close frame is in the
    /// replies already.
    pub ended: Option<CloseCode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct Frames {
    frame_bytes_max: u64,
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is being read.
    kind: Kind,
    finishes_message: bool,
    /// Payload of it that has not come yet.
    remaining: u64,
    mask: [u8; 4],
    /// Bytes of the mask used so far, modulo 4.
    mask_at: usize,
    /// Between the first and the last frame of a message.
    in_message: bool,
    /// Payload of a control frame.
    control: Vec<u8>,
}

impl Frames {
    /// Refuses frames that hold more than `frame_bytes_max`.
    pub fn new(frame_bytes_max: u64) -> Self {
        Self {
            frame_bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            kind: Kind::Data,
            finishes_message: true,
            remaining: 0,
            mask: [0; 4],
            mask_at: 0,
            in_message: false,
            control: Vec::new(),
        }
    }

    /// Takes all of `raw`, which continues what earlier calls took, and leaves the payload at its front. What is to
    /// be answered (pong, close) is appended to `replies`.
    pub fn decode(&mut self, raw: &mut [u8], replies: &mut BytesMut) -> Decoded {
        let (mut read, mut payload) = (0, 0);
        let mut step = || -> Result<(), CloseCode> {
            while read < raw.len() {
                if self.remaining == 0 {
                    self.header[usize::from(self.header_len)] = raw[read];
                    self.header_len += 1;
                    read += 1;
                    if self.open_frame()? && self.remaining == 0 {
                        self.end_frame(replies)?;
                    }
                    continue;
                }
                let here = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(raw.len() - read);
                if self.kind == Kind::Data {
                    raw.copy_within(read..read + here, payload);
                    self.unmask(&mut raw[payload..payload + here]);
                    payload += here;
                } else {
                    self.unmask(&mut raw[read..read + here]);
                    self.control.extend_from_slice(&raw[read..read + here]);
                }
                read += here;
                self.remaining -= here as u64;
                if self.remaining == 0 {
                    self.end_frame(replies)?;
                }
            }
            Ok(())
        };
        let ended = step().err();
        if let Some(code) = ended.filter(|code| *code != CloseCode::Normal) {
            put_close(code, replies);
        }
        Decoded { payload, ended }
    }

    /// Reads the header, once it is complete; answers whether it is.
    fn open_frame(&mut self) -> Result<bool, CloseCode> {
        let header = &self.header[..usize::from(self.header_len)];
        let [first, second, extended @ ..] = header else { return Ok(false) };
        let extended_len = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // The verdict on what is here does not wait for the rest.
        self.judge(*first, *second)?;
        let Some((length, mask)) = extended.split_at_checked(extended_len) else { return Ok(false) };
        let length = match *length {
            [] => u64::from(second & 0x7F),
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        // Spec: in as few bytes as possible [5.2].
        if matches!((extended_len, length), (2, 0..126) | (8, 0..0x1_0000 | 0x8000_0000_0000_0000..)) {
            return Err(CloseCode::ProtocolError);
        }
        if length > self.frame_bytes_max {
            return Err(CloseCode::TooBig);
        }
        let Ok(mask) = <[u8; 4]>::try_from(mask) else { return Ok(false) };
        (self.kind, self.finishes_message) = (kind(*first), first & 0x80 != 0);
        if self.kind == Kind::Data {
            self.in_message = !self.finishes_message;
        }
        (self.remaining, self.mask, self.mask_at, self.header_len) = (length, mask, 0, 0);
        Ok(true)
    }

    /// Whether a frame may begin so [5.2, 5.4, 5.5].
    fn judge(&self, first: u8, second: u8) -> Result<(), CloseCode> {
        let (finishes, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
        let (masked, length) = (second & 0x80 != 0, u64::from(second & 0x7F));
        let allowed = match opcode {
            0 => self.in_message,
            1 => return Err(CloseCode::Unsupported),
            2 => !self.in_message,
            8..=10 => finishes && length <= CONTROL_BYTES_MAX,
            _ => false,
        };
        if allowed && masked && reserved == 0 { Ok(()) } else { Err(CloseCode::ProtocolError) }
    }

    /// The last byte of a frame has come.
    fn end_frame(&mut self, replies: &mut BytesMut) -> Result<(), CloseCode> {
        let control = std::mem::take(&mut self.control);
        match self.kind {
            Kind::Data | Kind::Pong => Ok(()),
            Kind::Ping => {
                if replies.len() < REPLIES_BYTES_MAX {
                    put_header(0x8A, control.len(), replies);
                    replies.extend_from_slice(&control);
                }
                Ok(())
            }
            Kind::Close if control.len() == 1 => Err(CloseCode::ProtocolError),
            Kind::Close => {
                // Spec: the code is sent back [5.5.1].
                let code = &control[..control.len().min(2)];
                put_header(0x88, code.len(), replies);
                replies.extend_from_slice(code);
                Err(CloseCode::Normal)
            }
        }
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(self.mask_at);
        let wide = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
        let (chunks, rest) = bytes.as_chunks_mut::<8>();
        for chunk in chunks {
            *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.mask_at = (self.mask_at + bytes.len()) % 4;
    }
}

fn kind(first: u8) -> Kind {
    match first & 0x0F {
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        _ => Kind::Data,
    }
}

/// The header of a frame of ours: whole, and never masked.
fn put_header(first: u8, len: usize, out: &mut BytesMut) {
    out.extend_from_slice(&[first]);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..126), _) => out.extend_from_slice(&[len]),
        (_, Ok(len)) => {
            out.extend_from_slice(&[126]);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The header of a binary frame that holds `len` bytes.
pub(crate) fn put_binary_header(len: usize, out: &mut BytesMut) {
    put_header(0x82, len, out);
}

/// A close frame.
pub(crate) fn put_close(code: CloseCode, out: &mut BytesMut) {
    put_header(0x88, 2, out);
    out.extend_from_slice(&code.number().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0xA1, 0x5B, 0xC3, 0x7D];
        let mut out = BytesMut::new();
        put_header(first, payload.len(), &mut out);
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out.to_vec()
    }

    /// Decodes `raw` in pieces of `piece` bytes. Answers payload, replies and how it ended.
    fn decode(raw: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, Option<CloseCode>) {
        let (mut frames, mut replies, mut payload) = (Frames::new(LIMIT), BytesMut::new(), Vec::new());
        for piece in raw.chunks(piece) {
            let mut piece = piece.to_vec();
            let decoded = frames.decode(&mut piece, &mut replies);
            payload.extend_from_slice(&piece[..decoded.payload]);
            if decoded.ended.is_some() {
                return (payload, replies.to_vec(), decoded.ended);
            }
        }
        (payload, replies.to_vec(), None)
    }

    #[test]
    fn mqtt_6_0_0_2_messages_in_one_frame_or_in_many_are_one_stream() {
        let (short, long) = (vec![7; 9], (0..1000).map(|n| n as u8).collect::<Vec<_>>());
        let raw = [
            frame(0x82, &short),
            frame(0x02, &long),
            frame(0x00, b""),
            frame(0x89, b"between fragments"),
            frame(0x8A, b"nobody asked"),
            frame(0x80, b"end"),
            frame(0x82, b""),
        ]
        .concat();
        let expected = [&short[..], &long, b"end"].concat();
        for piece in [1, 2, 3, 7, 13, 1000, usize::MAX] {
            let (payload, replies, ended) = decode(&raw, piece);
            assert!(payload == expected && ended.is_none(), "pieces of {piece}");
            assert_eq!(replies, b"\x8A\x11between fragments", "pieces of {piece}");
        }
    }

    #[test]
    fn mqtt_6_0_0_1_what_is_not_allowed_ends_the_connection_with_its_code() {
        let unmasked = b"\x82\x01x".to_vec();
        let too_big = [&[0x82, 0xFE][..], &1001_u16.to_be_bytes()].concat();
        let far_too_big = [&[0x82, 0xFF][..], &(1_u64 << 40).to_be_bytes()].concat();
        let negative = [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes()].concat();
        let padded = [&[0x82, 0xFE][..], &5_u16.to_be_bytes()].concat();
        let padded_more = [&[0x82, 0xFF][..], &900_u64.to_be_bytes()].concat();
        use CloseCode::{ProtocolError, TooBig, Unsupported};
        for (what, raw, code) in [
            ("text", frame(0x81, b"hello"), Unsupported),
            ("unmasked", unmasked, ProtocolError),
            ("reserved bit", frame(0xC2, b"x"), ProtocolError),
            ("unknown opcode", frame(0x83, b"x"), ProtocolError),
            ("unknown control", frame(0x8B, b""), ProtocolError),
            ("continuation of nothing", frame(0x80, b"x"), ProtocolError),
            ("message in a message", [frame(0x02, b"x"), frame(0x82, b"x")].concat(), ProtocolError),
            ("fragmented ping", frame(0x09, b""), ProtocolError),
            ("long ping", frame(0x89, &[0; 126]), ProtocolError),
            ("close of one byte", frame(0x88, b"x"), ProtocolError),
            ("padded length", padded, ProtocolError),
            ("more padded length", padded_more, ProtocolError),
            ("negative length", negative, ProtocolError),
            ("larger than a packet", too_big, TooBig),
            ("far larger than a packet", far_too_big, TooBig),
        ] {
            let before = frame(0x82, b"before");
            let before = if what.contains("nothing") || what.contains("in a") { vec![] } else { before };
            for piece in [1, usize::MAX] {
                let (payload, replies, ended) = decode(&[before.clone(), raw.clone()].concat(), piece);
                assert_eq!(ended, Some(code), "{what}");
                assert_eq!(replies, [&[0x88, 2][..], &code.number().to_be_bytes()].concat(), "{what}");
                assert!(payload.starts_with(if before.is_empty() { b"" } else { b"before" }), "{what}");
            }
        }
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        let raw = [frame(0x82, b"last"), frame(0x88, b"\x03\xE9going away"), frame(0x82, b"late")].concat();
        assert_eq!(
            decode(&raw, usize::MAX),
            (b"last".to_vec(), b"\x88\x02\x03\xE9".to_vec(), Some(CloseCode::Normal))
        );
        assert_eq!(decode(&frame(0x88, b""), 1), (vec![], b"\x88\x00".to_vec(), Some(CloseCode::Normal)));
    }

    #[test]
    fn pings_of_a_client_that_does_not_read_are_not_collected() {
        let raw = frame(0x89, &[1; 125]).repeat(1000);
        let (_, replies, ended) = decode(&raw, usize::MAX);
        assert!(replies.len() < REPLIES_BYTES_MAX + 200, "{}", replies.len());
        assert_eq!(ended, None);
    }

    #[test]
    fn our_headers_are_as_short_as_may_be() {
        for (len, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 255, 255]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            put_binary_header(len, &mut out);
            assert_eq!(&out[..], expected, "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_chunking_gives_the_same(bytes: Vec<u8>, piece in 1..50_usize) {
            let raw = [frame(0x02, &bytes), bytes.clone()].concat();
            proptest::prop_assert_eq!(decode(&raw, piece), decode(&raw, usize::MAX));
        }
    }
}
