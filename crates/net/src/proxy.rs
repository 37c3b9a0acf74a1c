//! The PROXY protocol, versions 1 and 2: the header in which a load balancer says for whom it connects.
//!
//! Spec: "The PROXY protocol", HAProxy Technologies, 2020. It comes before everything else, also before TLS:
//!
//! ```text
//!   v1   PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\n                        at most 107 bytes
//!   v2   | 0D0A0D0A000D0A515549540A | 2:cmd | family:proto | length (2) | addresses, TLVs |
//! ```
//!
//! The type-length-values of version 2 are passed over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::io::{Io, read_some};

/// Spec: the longest line of version 1, with its end [2.1].
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER_BYTES: usize = 16;
/// Bound: addresses and what proxies add to them; a longer header is refused from its length.
const V2_BYTES_MAX: usize = 4096;

/// Which versions a listener takes. It takes nothing else: who connects without a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Any,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length: what follows belongs to the connection.
    pub len: usize,
    /// Whom the proxy speaks for; none if it speaks for itself, as in health checks, or does not know.
    pub source: Option<SocketAddr>,
}

/// Why what came first is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// It does not begin as a version that the listener takes.
    #[error("no PROXY header of a version that this listener takes")]
    Absent,
    /// It began well and went wrong.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// It is longer than any that is needed.
    #[error("the PROXY header is too long")]
    TooLong,
}

impl ProxyHeader {
    /// Reads the header at the front of `bytes`; none if it is not complete.
    ///
    /// # Errors
    /// [`ProxyError`], as soon as no further byte could make it a header.
    pub fn parse(bytes: &[u8], accepted: ProxyProtocol) -> Result<Option<ProxyHeader>, ProxyError> {
        let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected);
        match accepted {
            ProxyProtocol::V1 | ProxyProtocol::Any if begins(b"PROXY ") => parse_v1(bytes),
            ProxyProtocol::V2 | ProxyProtocol::Any if begins(V2_SIGNATURE) => parse_v2(bytes),
            ProxyProtocol::V1 | ProxyProtocol::V2 | ProxyProtocol::Any => Err(ProxyError::Absent),
        }
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let seen = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() == V1_BYTES_MAX { Err(ProxyError::TooLong) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&seen[..end]).map_err(|_| ProxyError::Malformed("not text"))?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(ProxyError::Malformed("words are missing"));
    let source = match word()? {
        "UNKNOWN" => None,
        "TCP4" => Some(v1_source::<Ipv4Addr>(&mut words)?),
        "TCP6" => Some(v1_source::<Ipv6Addr>(&mut words)?),
        _ => return Err(ProxyError::Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    Ok(Some(ProxyHeader { len: end + 2, source }))
}

fn v1_source<'a, A: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, ProxyError> {
    let mut word = || words.next().ok_or(ProxyError::Malformed("words are missing"));
    let address = |word: &str| word.parse::<A>().map_err(|_| ProxyError::Malformed("not an address"));
    let port = |word: &str| word.parse::<u16>().map_err(|_| ProxyError::Malformed("not a port"));
    let (source, _destination) = (address(word()?)?, address(word()?)?);
    let (source_port, _destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("words are left over"));
    }
    Ok(SocketAddr::new(source.into(), source_port))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let Some(header) = bytes.first_chunk::<V2_HEADER_BYTES>() else { return Ok(None) };
    let (version_command, family) = (header[12], header[13]);
    let len = V2_HEADER_BYTES + usize::from(u16::from_be_bytes([header[14], header[15]]));
    if version_command >> 4 != 2 {
        return Err(ProxyError::Malformed("not version 2"));
    }
    if version_command & 0x0F > 1 {
        return Err(ProxyError::Malformed("neither LOCAL nor PROXY"));
    }
    if len > V2_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(body) = bytes.get(V2_HEADER_BYTES..len) else { return Ok(None) };
    let source = if version_command & 0x0F == 0 { None } else { v2_source(family, body)? };
    Ok(Some(ProxyHeader { len, source }))
}

/// Both addresses come first, then both ports [2.2].
fn v2_source(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    const SHORT: ProxyError = ProxyError::Malformed("addresses are missing");
    match family >> 4 {
        1 => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body else { return Err(SHORT) };
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)))
        }
        2 => {
            let address = body.first_chunk::<16>().ok_or(SHORT)?;
            let ports = body.get(32..36).ok_or(SHORT)?;
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port)))
        }
        // Unspecified, or a unix socket of the proxy's machine.
        0 | 3 => Ok(None),
        _ => Err(ProxyError::Malformed("an unknown family of addresses")),
    }
}

/// Reads the header at the beginning of a connection. Answers what it says and what came behind it.
pub(crate) async fn read_header(
    io: &mut impl Io,
    accepted: ProxyProtocol,
) -> io::Result<(ProxyHeader, Bytes)> {
    let mut bytes = BytesMut::with_capacity(V1_BYTES_MAX * 2);
    loop {
        if read_some(io, &mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed = ProxyHeader::parse(&bytes, accepted);
        if let Some(header) = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            let rest = bytes.split_off(header.len).freeze();
            return Ok((header, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> Option<SocketAddr> {
        let header = ProxyHeader::parse(bytes, ProxyProtocol::Any).expect("well-formed").expect("complete");
        assert_eq!(header.len, bytes.len());
        header.source
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &len, body].concat()
    }

    #[test]
    fn both_versions_say_who_connects() {
        let four = "192.0.2.7:50000".parse().ok();
        let six = "[2001:db8::7]:50000".parse().ok();
        assert_eq!(source(b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\n"), four);
        assert_eq!(source(b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 1883\r\n"), six);
        assert_eq!(source(b"PROXY UNKNOWN ffff:: whatever\r\n"), None);
        let body = [192, 0, 2, 7, 192, 0, 2, 1, 0xC3, 0x50, 7, 91];
        assert_eq!(source(&v2(0x21, 0x11, &body)), four);
        assert_eq!(source(&v2(0x21, 0x11, &[&body[..], b"\x03\0\x04crc!"].concat())), four, "a TLV follows");
        assert_eq!(source(&v2(0x20, 0x00, b"")), None, "a health check");
        assert_eq!(source(&v2(0x21, 0x00, b"")), None);
        let mut body = [0; 36];
        body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        body[15] = 7;
        body[32..34].copy_from_slice(&[0xC3, 0x50]);
        assert_eq!(source(&v2(0x21, 0x21, &body)), six);
    }

    #[test]
    fn every_beginning_of_a_header_needs_more() {
        let whole = v2(0x21, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0xC3, 0x50, 7, 91]);
        for header in [&b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\n"[..], &whole] {
            for len in 0..header.len() {
                assert_eq!(ProxyHeader::parse(&header[..len], ProxyProtocol::Any), Ok(None), "{len}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        use ProxyProtocol::{Any, V1, V2};
        let long = [b"PROXY TCP6 ".as_slice(), &[b'1'; 200]].concat();
        let huge = [&V2_SIGNATURE[..], &[0x21, 0x11, 0xFF, 0xFF]].concat();
        let cases: [(&[u8], ProxyProtocol, ProxyError); 14] = [
            (b"\x10\x0c\0\x04MQTT", Any, ProxyError::Absent),
            (b"GET / HTTP/1.1", Any, ProxyError::Absent),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", V2, ProxyError::Absent),
            (V2_SIGNATURE, V1, ProxyError::Absent),
            (&long, Any, ProxyError::TooLong),
            (&huge, Any, ProxyError::TooLong),
            (b"PROXY \r\n", Any, ProxyError::Malformed("neither TCP4, TCP6 nor UNKNOWN")),
            (b"PROXY TCP4 1.1.1.1\r\n", Any, ProxyError::Malformed("words are missing")),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", Any, ProxyError::Malformed("not an address")),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 70000\r\n", Any, ProxyError::Malformed("not a port")),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 x\r\n", Any, ProxyError::Malformed("words are left over")),
            (&v2(0x31, 0x11, b""), Any, ProxyError::Malformed("not version 2")),
            (&v2(0x22, 0x11, b""), Any, ProxyError::Malformed("neither LOCAL nor PROXY")),
            (&v2(0x21, 0x11, b"short"), Any, ProxyError::Malformed("addresses are missing")),
        ];
        for (bytes, accepted, expected) in cases {
            assert_eq!(ProxyHeader::parse(bytes, accepted), Err(expected), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, body: Vec<u8>, command: u8, family: u8) {
            let _ = ProxyHeader::parse(&bytes, ProxyProtocol::Any);
            let _ = ProxyHeader::parse(&[b"PROXY ", &bytes[..]].concat(), ProxyProtocol::Any);
            let _ = ProxyHeader::parse(&v2(command, family, &body), ProxyProtocol::Any);
        }
    }
}
