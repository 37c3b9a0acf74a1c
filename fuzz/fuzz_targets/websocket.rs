//! WebSocket: any request is answered or waited for, any frames give the same payload however they are cut, and what is
//! kept of them is bounded.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use net::{DecodedFrames, Frames, Handshake, WebSocketRules, handshake};

const FRAME_BYTES_MAX: u64 = 4096;

fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
    let (mut frames, mut replies, mut payload) = (Frames::new(FRAME_BYTES_MAX), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let DecodedFrames { payload: len, ended } = frames.decode(&mut piece, &mut replies);
        payload.extend_from_slice(&piece[..len]);
        if ended.is_some() {
            return (payload, replies.to_vec(), true);
        }
    }
    (payload, replies.to_vec(), false)
}

fuzz_target!(|bytes: &[u8]| {
    let rules = WebSocketRules {
        path: "/mqtt".to_owned(),
        require_sub_protocol: false,
        frame_bytes_max: FRAME_BYTES_MAX,
    };
    if let Handshake::Accepted { len, .. } = handshake(bytes, &rules) {
        assert!(len <= bytes.len());
    }
    let piece = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    let whole = decode(bytes, usize::MAX);
    assert_eq!(whole, decode(bytes, piece));
    assert!(whole.0.len() <= bytes.len() && whole.1.len() < 2048);
});
