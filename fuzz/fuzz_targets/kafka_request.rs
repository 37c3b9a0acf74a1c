//! Any bytes as Kafka requests: never a panic, and what was understood can be said again and means the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use wire::kafka::{Framing, Limits, Output, decode_request, encode_request, split_request_frame};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    check(&Bytes::copy_from_slice(data), &limits);
    let mut stream = BytesMut::from(data);
    while let Ok(Framing::Frame(frame)) = split_request_frame(&mut stream, &limits) {
        check(&frame, &limits);
    }
});

fn check(frame: &Bytes, limits: &Limits) {
    let Ok(decoded) = decode_request(frame, limits) else { return };
    let mut output = Output::new();
    encode_request(&decoded.0, &decoded.1, &mut output).expect("what was decoded can be encoded");
    let again = decode_request(&output.take_bytes().slice(4..), limits);
    assert_eq!(again, Ok(decoded));
}
