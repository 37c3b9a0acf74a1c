//! The subject of a certificate: any bytes give a name without control characters, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::certificate_name;

fuzz_target!(|bytes: &[u8]| {
    if let Some(name) = certificate_name(bytes) {
        assert!(!name.subject.chars().any(char::is_control));
        assert!(!name.common_name.is_some_and(|name| name.chars().any(char::is_control)));
    }
});
