//! Frames as bytes: PUBLISH frames encoded once and patched before each send, and a scanner that looks at no more
//! of what comes than it needs. Hot path.
//!
//! ```text
//!   payload:  | time due, ns: 8 | sequence: 4 | publisher: 2 | run: 2 | filler ... |    little endian
//! ```

use bytes::BytesMut;
use wire::mqtt::{
    Connect, Delivery, Disconnect, EncodeError, Exchange, Peer, Properties, Publish, Qos, ReasonCode,
    SubscribeOptions, Version,
};

/// Bytes that every payload begins with.
pub(crate) const PAYLOAD_MIN: usize = 16;

/// Bound: bytes that a publisher hands to the kernel in one call (one frame, if that is larger).
const BATCH_BYTES: usize = 64 * 1024;

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When the message was due, on this machine's monotonic clock.
    pub(crate) due: u64,
    /// Counts the messages of one publisher.
    pub(crate) sequence: u32,
    /// Number among the publishers of the topic.
    pub(crate) publisher: u16,
    /// Tells this run from what an earlier one left in the broker.
    pub(crate) run: u16,
}

impl Stamp {
    #[inline]
    fn to_bytes(self) -> [u8; PAYLOAD_MIN] {
        let mut bytes = [0; PAYLOAD_MIN];
        bytes[..8].copy_from_slice(&self.due.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.publisher.to_le_bytes());
        bytes[14..].copy_from_slice(&self.run.to_le_bytes());
        bytes
    }

    /// Reads the front of a payload; `None` if it is too short to be ours.
    #[inline]
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; PAYLOAD_MIN] = payload.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, d6, d7, s0, s1, s2, s3, p0, p1, r0, r1] = *bytes;
        Some(Self {
            due: u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
            sequence: u32::from_le_bytes([s0, s1, s2, s3]),
            publisher: u16::from_le_bytes([p0, p1]),
            run: u16::from_le_bytes([r0, r1]),
        })
    }
}

/// Copies of one PUBLISH, one behind the other.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    frame_len: usize,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl Batch {
    /// As many copies as fit into a send; at least one.
    pub(crate) fn new(topic: &str, size: usize, qos: Qos, version: Version) -> Result<Self, EncodeError> {
        let payload: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce { id: FIRST_ID, dup: false },
            Qos::ExactlyOnce => Delivery::ExactlyOnce { id: FIRST_ID, dup: false },
        };
        let message =
            Publish { delivery, retain: false, topic, properties: Properties::EMPTY, payload: &payload };
        let mut frame = BytesMut::new();
        message.encode(&mut frame, &Peer::new(version))?;
        let stamp_at = frame.len() - size;
        let properties_len = usize::from(version == Version::V5);
        let copies = (BATCH_BYTES / frame.len()).max(1);
        Ok(Self {
            bytes: frame.repeat(copies),
            frame_len: frame.len(),
            packet_id_at: (qos != Qos::AtMostOnce).then(|| stamp_at - properties_len - 2),
            stamp_at,
        })
    }

    /// Frames that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len() / self.frame_len
    }

    /// Makes frame number `index` the next message.
    #[inline]
    pub(crate) fn patch(&mut self, index: usize, stamp: Stamp, packet_id: u16) {
        let frame = &mut self.bytes[index * self.frame_len..][..self.frame_len];
        frame[self.stamp_at..][..PAYLOAD_MIN].copy_from_slice(&stamp.to_bytes());
        if let Some(at) = self.packet_id_at {
            frame[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }

    /// The first `count` frames.
    #[inline]
    pub(crate) fn frames(&self, count: usize) -> &[u8] {
        &self.bytes[..count * self.frame_len]
    }
}

const FIRST_ID: std::num::NonZeroU16 = std::num::NonZeroU16::MIN;

/// Packet types, as in the high half of the first byte.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// A frame that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Type and flags.
    pub(crate) first: u8,
    /// What follows the fixed header.
    pub(crate) body: &'a [u8],
    /// Bytes of all of it.
    pub(crate) len: usize,
}

/// What the front of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// The beginning of one.
    NeedMore,
    /// No frame.
    Malformed,
}

/// Finds the frame at the front of `input`.
#[inline]
pub(crate) fn scan(input: &[u8]) -> Scan<'_> {
    let mut remaining = 0;
    for at in 0..4 {
        let Some(&byte) = input.get(1 + at) else {
            return Scan::NeedMore;
        };
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let header = 2 + at;
            return match input.get(header..header + remaining) {
                Some(body) => Scan::Frame(Frame { first: input[0], body, len: header + remaining }),
                None => Scan::NeedMore,
            };
        }
    }
    Scan::Malformed
}

impl<'a> Frame<'a> {
    /// Its packet type.
    #[inline]
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The two bytes at the front of an acknowledgement.
    #[inline]
    pub(crate) fn packet_id(&self) -> Option<u16> {
        self.body.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
    }

    /// Of a PUBLISH: its topic and what follows it.
    #[inline]
    pub(crate) fn topic(&self) -> Option<(&'a [u8], &'a [u8])> {
        let len = usize::from(self.packet_id()?);
        self.body.get(2..)?.split_at_checked(len)
    }

    /// Of a PUBLISH: its packet identifier (QoS above 0) and its payload.
    #[inline]
    pub(crate) fn delivery(&self, version: Version) -> Option<(Option<u16>, &'a [u8])> {
        let (_, mut rest) = self.topic()?;
        let mut packet_id = None;
        if self.first & 0b0110 != 0 {
            let (&id, tail) = rest.split_first_chunk()?;
            packet_id = Some(u16::from_be_bytes(id));
            rest = tail;
        }
        if version == Version::V5 {
            rest = skip_properties(rest)?;
        }
        Some((packet_id, rest))
    }
}

fn skip_properties(input: &[u8]) -> Option<&[u8]> {
    let mut len = 0;
    for at in 0..4 {
        let byte = *input.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return input.get(1 + at + len..);
        }
    }
    None
}

/// A CONNECT for a clean session without keep alive.
pub(crate) fn connect(client_id: &str, version: Version) -> Result<Vec<u8>, EncodeError> {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        properties: Properties::EMPTY,
        client_id,
        will: None,
        user_name: None,
        password: None,
    };
    let mut out = BytesMut::new();
    connect.encode(&mut out, &Peer::new(version))?;
    Ok(out.into())
}

/// A SUBSCRIBE with one filter.
pub(crate) fn subscribe(filter: &str, qos: Qos, version: Version) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    let exchange = Exchange { packet_id: FIRST_ID, properties: Properties::EMPTY };
    exchange.encode_subscribe(&[(filter, SubscribeOptions::new(qos))], &mut out, &Peer::new(version))?;
    Ok(out.into())
}

/// A friendly DISCONNECT.
pub(crate) fn disconnect(version: Version) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    let disconnect = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
    disconnect.encode(&mut out, &Peer::new(version))?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_answers(version: Version, qos: Qos) {
        let mut batch = Batch::new("bench/line/3", 200, qos, version).unwrap();
        let stamp = Stamp { due: 1 << 40, sequence: 9, publisher: 4, run: 77 };
        batch.patch(1, stamp, 513);
        let second = batch.frames(2).len() / 2;
        let Scan::Frame(frame) = scan(&batch.frames(2)[second..]) else {
            panic!("a whole frame");
        };
        assert_eq!(frame.len, second);
        assert_eq!(frame.topic().unwrap().0, b"bench/line/3");
        let (packet_id, payload) = frame.delivery(version).unwrap();
        assert_eq!(packet_id, (qos != Qos::AtMostOnce).then_some(513));
        assert_eq!(payload.len(), 200);
        assert_eq!(Stamp::read(payload), Some(stamp));
    }

    #[test]
    fn a_patched_frame_reads_back() {
        for version in [Version::V311, Version::V5] {
            batch_answers(version, Qos::AtMostOnce);
            batch_answers(version, Qos::AtLeastOnce);
        }
    }

    #[test]
    fn every_cut_of_a_frame_needs_more() {
        let batch = Batch::new("t", 300, Qos::AtLeastOnce, Version::V311).unwrap();
        let frame = batch.frames(1);
        for cut in 0..frame.len() {
            assert_eq!(scan(&frame[..cut]), Scan::NeedMore, "cut at {cut}");
        }
        assert_eq!(scan(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Scan::Malformed);
    }

    #[test]
    fn a_batch_holds_at_least_one_frame_and_no_more_than_a_send() {
        let count = |size| Batch::new("t", size, Qos::AtMostOnce, Version::V311).unwrap().capacity();
        assert_eq!(count(1 << 20), 1);
        assert_eq!(count(PAYLOAD_MIN), BATCH_BYTES / (PAYLOAD_MIN + 5));
    }
}
