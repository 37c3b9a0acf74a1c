//! Bytes that no honest peer sends: they give an error, never a panic, and never take much memory. Spec: C2.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use wire::kafka::{
    APIS, ApiKey, ApiSpec, Limits, Output, decode_request, decode_response, encode_request,
    split_request_frame,
};

/// Counts what the current thread holds, so that tests beside this one do not disturb the figure.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// Safety: every call is passed on to the system's allocator with its arguments unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while the content moves.
        count(size as isize);
        count(-(layout.size() as isize));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that the current thread held at once during `work`, beyond what it held before.
fn peak_of<R>(work: impl FnOnce() -> R) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    drop(work());
    (PEAK.get() - before) as usize
}

const FRAME_LEN: usize = 1000;
const PEAK_MAX: usize = 1 << 20;

fn request(spec: &ApiSpec, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(spec.key.to_wire());
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_i16(-1);
    if version >= spec.flexible_from {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

fn response(spec: &ApiSpec, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(7);
    if spec.key.has_response_tags(version) {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

/// Decodes the body as a request and as a response of each API and version.
fn decode_everywhere(body: &[u8]) {
    let limits = Limits::default();
    for spec in &APIS {
        for version in spec.version_min..=spec.version_max {
            let frame = request(spec, version, body);
            let peak = peak_of(|| decode_request(&frame, &limits));
            assert!(peak <= PEAK_MAX, "{:?} {version}: request takes {peak} bytes", spec.key);
            assert_comes_back(&frame, &limits);
            let frame = response(spec, version, body);
            let peak = peak_of(|| decode_response(&frame, spec.key, version, &limits));
            assert!(peak <= PEAK_MAX, "{:?} {version}: response takes {peak} bytes", spec.key);
        }
    }
}

/// What was understood can be said again, and means the same.
fn assert_comes_back(frame: &Bytes, limits: &Limits) {
    let Ok(decoded) = decode_request(frame, limits) else { return };
    let mut output = Output::new();
    encode_request(&decoded.0, &decoded.1, &mut output).unwrap();
    assert_eq!(decode_request(&output.take_bytes().slice(4..), limits), Ok(decoded));
}

#[test]
fn promised_counts_take_no_memory() {
    let counts: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x00, 0x00, 0xff, 0xff],
        &[0x80, 0x80, 0x04],
    ];
    for filler in [0u8, 1, 2, 3, 0x7f, 0x80, 0xff] {
        for count in counts {
            for lead in 0..24 {
                let mut body = vec![filler; FRAME_LEN - 20];
                body[lead..lead + count.len()].copy_from_slice(count);
                decode_everywhere(&body);
            }
        }
    }
}

/// Bytes that look like small counts and lengths reach much deeper than evenly spread ones.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => 0u8..4, 2 => Just(0x80u8), 1 => Just(0xffu8), 1 => any::<u8>()];
    prop_oneof![vec(byte, 0..FRAME_LEN - 20), vec(any::<u8>(), 0..FRAME_LEN - 20)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bodies_never_panic(body in bodies()) {
        decode_everywhere(&body);
    }

    #[test]
    fn arbitrary_streams_never_panic(stream in vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let mut input = BytesMut::from(&stream[..]);
        let limits = Limits { data_frame_max: cut, control_frame_max: cut, elements_max: cut };
        let peak = peak_of(|| {
            let framing = split_request_frame(&mut input, &limits);
            let _ = decode_request(&Bytes::copy_from_slice(&stream), &limits);
            framing
        });
        assert!(peak <= PEAK_MAX);
    }
}

/// Known to make another codec ask for 154 GB: Metadata 0 with an array of 2^31 - 1 topics.
#[test]
fn the_frame_that_aborts_other_brokers_is_refused() {
    let spec = ApiKey::Metadata.spec();
    let frame = request(spec, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let peak = peak_of(|| assert!(decode_request(&frame, &Limits::default()).is_err()));
    assert!(peak < 1024, "takes {peak} bytes");
}

/// The bound on which the limit for control requests rests: how many bytes of memory a byte of request can take.
#[test]
fn a_request_takes_a_bounded_multiple_of_its_bytes() {
    const LEN: usize = 60_000;
    const MULTIPLE_MAX: usize = 100;
    let limits = Limits::default();
    for spec in &APIS {
        for version in spec.version_min..=spec.version_max {
            for filler in [0u8, 1, 2] {
                for lead in 0..12 {
                    // A compact count of 20,000 elements, or a plain one.
                    for count in [&[0xa0, 0x9c, 0x01][..], &[0, 0, 0x4e, 0x20]] {
                        let mut body = vec![filler; LEN];
                        body[lead..lead + count.len()].copy_from_slice(count);
                        let frame = request(spec, version, &body);
                        let peak = peak_of(|| decode_request(&frame, &limits));
                        assert!(peak <= MULTIPLE_MAX * LEN, "{:?} {version}: {peak} bytes", spec.key);
                    }
                }
            }
        }
    }
}
