//! `[topics]`: what a topic is like when nobody said otherwise.

use super::section::{Faults, section};
use super::values::{ByteSize, TimeSpan};

section! {
    /// What a topic is like when nobody said otherwise.
    pub struct Topics ["topics"] {
        /// Shards (Kafka: partitions) of a topic that is created without a number.
        pub default_shards: u16,
        /// How long a topic that was created by its first use keeps its records.
        pub retention: Option<TimeSpan>,
        /// How much each shard of a topic that was created by its first use keeps.
        pub retention_bytes: Option<ByteSize>,
        /// How long a topic that a Kafka client created keeps its records, unless the client says.
        pub kafka_retention: Option<TimeSpan>,
        /// How much each shard of a topic that a Kafka client created keeps, unless the client says.
        pub kafka_retention_bytes: Option<ByteSize>,
    }
}

impl Default for Topics {
    fn default() -> Topics {
        Topics {
            default_shards: 1,
            retention: Some(TimeSpan::hours(24)),
            retention_bytes: Some(ByteSize::mib(1024)),
            kafka_retention: Some(TimeSpan::hours(7 * 24)),
            kafka_retention_bytes: None,
        }
    }
}

impl Topics {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.default_shards == 0 {
            faults.add("topics", "default_shards", "must be at least 1".to_owned());
        }
    }
}
