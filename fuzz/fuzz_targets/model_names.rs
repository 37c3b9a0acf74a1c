//! Any text as a name in every spelling: what is accepted comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{Subject, TopicName};

fuzz_target!(|text: &str| {
    if let Ok(subject) = Subject::new(text) {
        assert_eq!(Subject::from_nats(&subject.to_nats()).as_ref(), Ok(&subject));
        if let Ok(mqtt) = subject.to_mqtt() {
            assert_eq!(Subject::from_mqtt(&mqtt).as_ref(), Ok(&subject));
        }
        let topic = TopicName::from(subject);
        if let Ok(kafka) = topic.to_kafka() {
            assert_eq!(TopicName::from_kafka(&kafka), Ok(topic));
        }
    }
    if let Ok(topic) = TopicName::from_kafka(text) {
        assert_eq!(topic.to_kafka().as_deref(), Ok(text));
    }
    if let Ok(subject) = Subject::from_nats(text) {
        assert_eq!(subject.to_nats(), text);
    }
    if let Ok(subject) = Subject::from_mqtt(text) {
        assert_eq!(subject.to_mqtt().as_deref(), Ok(text));
    }
});
