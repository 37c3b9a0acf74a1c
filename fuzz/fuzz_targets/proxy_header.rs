//! The PROXY header: any bytes give a header, a wish for more, or an error; more bytes never take a header back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{ProxyHeader, ProxyProtocol};

fuzz_target!(|bytes: &[u8]| {
    for accepted in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any] {
        let Ok(Some(header)) = ProxyHeader::parse(bytes, accepted) else { continue };
        assert!(header.len <= bytes.len());
        assert_eq!(ProxyHeader::parse(&bytes[..header.len], accepted), Ok(Some(header)));
        assert_eq!(ProxyHeader::parse(&bytes[..header.len - 1], accepted), Ok(None));
    }
});
