//! Any bytes as a stored rule of the MQTT front: no panic, and what is read is written alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Resource;
use mqtt::{AutoSubscription, CountedTopic, RewriteRule};

fn resource<R: Resource + PartialEq + std::fmt::Debug>(input: &[u8]) {
    if let Ok(read) = R::decode(input) {
        let _ = read.validate();
        assert_eq!(R::decode(&read.encode()).as_ref(), Ok(&read));
    }
}

fuzz_target!(|input: &[u8]| {
    resource::<RewriteRule>(input);
    resource::<AutoSubscription>(input);
    resource::<CountedTopic>(input);
});
