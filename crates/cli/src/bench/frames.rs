//! Frames as bytes: PUBLISH frames encoded once and patched before each send, and a scanner that looks at no more
//! of what comes than it needs. Hot path.
//!
//! ```text
//!   payload:  | time due, ns: 8 | sequence: 4 | publisher: 2 | run: 2 | filler ... |    little endian
//! ```

use bytes::BytesMut;
use wire::mqtt::{
    Connect, Delivery, Disconnect, EncodeError, Exchange, Peer, Properties, PropertiesBuf, Property, Publish,
    Qos, ReasonCode, SubscribeOptions, Version,
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

/// What a publication is like.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) topic: &'a str,
    /// Payload bytes.
    pub(crate) size: usize,
    pub(crate) qos: Qos,
    pub(crate) version: Version,
    /// Whether it has each property that a publisher can give, and two of the user's. Only in 5.0.
    pub(crate) properties: bool,
}

/// One PUBLISH, whose stamp and packet identifier are still to be filled in.
pub(crate) struct Template {
    frame: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl Template {
    /// Encodes it once.
    pub(crate) fn new(sample: Sample<'_>) -> Result<Self, EncodeError> {
        let Sample { topic, size, qos, version, .. } = sample;
        let payload: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce { id: FIRST_ID, dup: false },
            Qos::ExactlyOnce => Delivery::ExactlyOnce { id: FIRST_ID, dup: false },
        };
        let mut properties = PropertiesBuf::new();
        if sample.properties {
            for property in PROPERTIES {
                properties.push(property)?;
            }
        }
        let properties = properties.view();
        let message = Publish { delivery, retain: false, topic, properties, payload: &payload };
        let mut frame = BytesMut::new();
        message.encode(&mut frame, &Peer::new(version))?;
        let stamp_at = frame.len() - size;
        let fixed_header = 1 + frame[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        let packet_id_at = (qos != Qos::AtMostOnce).then_some(fixed_header + 2 + topic.len());
        Ok(Self { frame: frame.into(), packet_id_at, stamp_at })
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Adds it to `out` as a message of its own.
    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>, stamp: Stamp, packet_id: u16) {
        let at = out.len();
        out.extend_from_slice(&self.frame);
        self.patch(&mut out[at..], stamp, packet_id);
    }

    #[inline]
    fn patch(&self, frame: &mut [u8], stamp: Stamp, packet_id: u16) {
        frame[self.stamp_at..][..PAYLOAD_MIN].copy_from_slice(&stamp.to_bytes());
        if let Some(at) = self.packet_id_at {
            frame[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }
}

/// What `properties` of a [`Sample`] means.
const PROPERTIES: [Property<'static>; 7] = [
    Property::PayloadFormatIndicator(false),
    Property::MessageExpiryInterval(3600),
    Property::ContentType("application/octet-stream"),
    Property::ResponseTopic("bench/answers"),
    Property::CorrelationData(b"0123456789abcdef"),
    Property::UserProperty("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
    Property::UserProperty("unit", "celsius"),
];

/// Copies of one PUBLISH, one behind the other.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    template: Template,
}

impl Batch {
    /// As many copies as fit into a send; at least one.
    pub(crate) fn new(sample: Sample<'_>) -> Result<Self, EncodeError> {
        let template = Template::new(sample)?;
        let copies = (BATCH_BYTES / template.len()).max(1);
        Ok(Self { bytes: template.frame.repeat(copies), template })
    }

    /// Frames that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len() / self.template.len()
    }

    /// Makes frame number `index` the next message.
    #[inline]
    pub(crate) fn patch(&mut self, index: usize, stamp: Stamp, packet_id: u16) {
        let len = self.template.len();
        self.template.patch(&mut self.bytes[index * len..][..len], stamp, packet_id);
    }

    /// The first `count` frames.
    #[inline]
    pub(crate) fn frames(&self, count: usize) -> &[u8] {
        &self.bytes[..count * self.template.len()]
    }
}

const FIRST_ID: std::num::NonZeroU16 = std::num::NonZeroU16::MIN;

/// Packet types, as in the high half of the first byte.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
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

    /// Of a SUBACK: whether every filter was granted.
    pub(crate) fn grants(&self, filters: usize) -> bool {
        let codes = self.body.len().checked_sub(filters).and_then(|at| self.body.get(at..));
        self.kind() == kind::SUBACK && codes.is_some_and(|codes| codes.iter().all(|&code| code < 0x80))
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

/// Four bytes that answer a message or go on with its exchange, of one of the kinds from PUBACK to PUBCOMP.
#[inline]
pub(crate) fn answer(kind: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    // PUBREL alone has flags.
    [kind << 4 | if kind == kind::PUBREL { 2 } else { 0 }, 2, high, low]
}

/// What a session is to outlive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Nothing, and what was is forgotten.
    Clean,
    /// The connection, for an hour.
    Kept,
}

/// A CONNECT.
pub(crate) fn connect(
    client_id: &str,
    version: Version,
    keep_alive: u16,
    session: Session,
) -> Result<Vec<u8>, EncodeError> {
    let mut properties = PropertiesBuf::new();
    if session == Session::Kept && version == Version::V5 {
        properties.push(Property::SessionExpiryInterval(3600))?;
    }
    let connect = Connect {
        version,
        clean_start: session == Session::Clean,
        keep_alive,
        properties: properties.view(),
        client_id,
        will: None,
        user_name: None,
        password: None,
    };
    let mut out = BytesMut::new();
    connect.encode(&mut out, &Peer::new(version))?;
    Ok(out.into())
}

/// A SUBSCRIBE.
pub(crate) fn subscribe(filters: &[String], qos: Qos, version: Version) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    let exchange = Exchange { packet_id: FIRST_ID, properties: Properties::EMPTY };
    let filters: Vec<_> = filters.iter().map(|filter| (&**filter, SubscribeOptions::new(qos))).collect();
    exchange.encode_subscribe(&filters, &mut out, &Peer::new(version))?;
    Ok(out.into())
}

/// A SUBACK.
pub(crate) fn suback(packet_id: [u8; 2], v5: bool, codes: &[u8]) -> Vec<u8> {
    let mut body = packet_id.to_vec();
    body.extend(v5.then_some(0));
    body.extend_from_slice(codes);
    let mut frame = vec![kind::SUBACK << 4];
    let mut rest = body.len();
    while rest > 0x7f {
        frame.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    frame.push(rest as u8);
    frame.extend(body);
    frame
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

    fn of_size(size: usize, qos: Qos) -> Sample<'static> {
        Sample { topic: "t", size, qos, version: Version::V311, properties: false }
    }

    fn batch_answers(version: Version, qos: Qos) {
        let properties = version == Version::V5;
        let sample = Sample { topic: "bench/line/3", size: 200, qos, version, properties };
        let mut batch = Batch::new(sample).unwrap();
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
            batch_answers(version, Qos::ExactlyOnce);
        }
    }

    #[test]
    fn every_cut_of_a_frame_needs_more() {
        let batch = Batch::new(of_size(300, Qos::AtLeastOnce)).unwrap();
        let frame = batch.frames(1);
        for cut in 0..frame.len() {
            assert_eq!(scan(&frame[..cut]), Scan::NeedMore, "cut at {cut}");
        }
        assert_eq!(scan(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Scan::Malformed);
    }

    #[test]
    fn a_batch_holds_at_least_one_frame_and_no_more_than_a_send() {
        let count = |size| Batch::new(of_size(size, Qos::AtMostOnce)).unwrap().capacity();
        assert_eq!(count(1 << 20), 1);
        assert_eq!(count(PAYLOAD_MIN), BATCH_BYTES / (PAYLOAD_MIN + 5));
    }
}
