//! Any two messages of a client: no panic, and nobody gets in without the password.

#![no_main]

use std::sync::LazyLock;

use auth::scram::{Mechanism, ScramServer, StoredKeys};
use libfuzzer_sys::fuzz_target;
use rt::SeededRng;

static KEYS: LazyLock<[(Mechanism, StoredKeys); 2]> = LazyLock::new(|| {
    [Mechanism::Sha256, Mechanism::Sha512]
        .map(|mechanism| (mechanism, StoredKeys::derive(mechanism, b"a password", &SeededRng::new(1))))
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    let (mechanism, keys) = &KEYS[usize::from(choice & 1)];
    let mut messages = input.splitn(2, |&byte| byte == 0);
    let (first, last) = (messages.next().unwrap_or_default(), messages.next().unwrap_or_default());
    let mut server = ScramServer::new(*mechanism, &SeededRng::new(u64::from(choice)));
    let Ok(user) = server.client_first(first) else {
        return;
    };
    assert!(!user.is_empty());
    let challenge = server.server_first(keys.clone(), choice & 2 == 0).expect("it is the time for it");
    // What the fuzzer cannot guess is given to it: the nonce and the header.
    let nonce = challenge.split(',').next().expect("it begins with the nonce");
    let likely = [format!("c=biws,{nonce},p=").as_bytes(), last].concat();
    assert!(server.client_final(if choice & 4 == 0 { last } else { &likely }).is_err());
});
