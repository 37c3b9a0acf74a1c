//! Any bytes as a password file, a hash, a pattern, a network and a stored resource: no panic, and what is read is written alike.

#![no_main]

use auth::{Ban, Network, PasswordHash, Pattern, Permission, User};
use libfuzzer_sys::fuzz_target;
use model::{Resource, TenantId};

fn resource<R: Resource + PartialEq + std::fmt::Debug>(input: &[u8]) {
    if let Ok(read) = R::decode(input) {
        let _ = read.validate();
        assert_eq!(R::decode(&read.encode()).as_ref(), Ok(&read));
    }
}

fuzz_target!(|input: &[u8]| {
    for (_, user) in auth::read_mosquitto(&TenantId::default(), input).unwrap_or_default() {
        user.validate().expect("it was imported");
    }
    resource::<User>(input);
    resource::<Permission>(input);
    resource::<Ban>(input);
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Ok(hash) = text.parse::<PasswordHash>() {
        assert_eq!(hash.to_text().parse(), Ok(hash));
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(pattern.as_str(), text);
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(String::from(network).parse(), Ok(network));
    }
});
