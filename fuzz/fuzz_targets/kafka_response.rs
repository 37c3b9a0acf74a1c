//! Any bytes as Kafka responses. The first two bytes choose the API and the version.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::kafka::{APIS, Limits, Output, ReplyHeader, decode_response, encode_response};

fuzz_target!(|data: &[u8]| {
    let [row, version, frame @ ..] = data else { return };
    let spec = &APIS[usize::from(*row) % APIS.len()];
    let version = spec.version_min + i16::from(*version) % (spec.version_max - spec.version_min + 1);
    let limits = Limits::default();
    let frame = Bytes::copy_from_slice(frame);
    let Ok((correlation_id, response)) = decode_response(&frame, spec.key, version, &limits) else { return };
    let mut output = Output::new();
    encode_response(ReplyHeader { version, correlation_id }, &response, &mut output)
        .expect("what was decoded can be encoded");
    let again = decode_response(&output.take_bytes().slice(4..), spec.key, version, &limits);
    assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>((correlation_id, response))));
});
