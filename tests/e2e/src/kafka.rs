//! What Kafka clients are told to produce, and what they say they consumed.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::process::Process;
use crate::programs::Program;

/// A record as a Kafka client sees it. `None` is null, which is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; null is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch. `None`: the client's own clock.
    pub timestamp: Option<i64>,
    /// In order, duplicates kept.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its partition.
    pub partition: i64,
    /// Its offset.
    pub offset: i64,
    /// Its content; the timestamp is there.
    pub record: KafkaRecord,
}

/// What a producer was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Which of its records, from 0.
    pub index: usize,
    /// Where it went.
    pub partition: i64,
    /// Its offset.
    pub offset: i64,
}

impl KafkaRecord {
    /// With a value and nothing else.
    pub fn of(value: impl Into<Vec<u8>>) -> KafkaRecord {
        KafkaRecord { value: Some(value.into()), ..KafkaRecord::default() }
    }

    /// With a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> KafkaRecord {
        self.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> KafkaRecord {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// As the client programs read it: key, value, timestamp, headers, with a tab between; `-` is null.
    fn line(&self) -> String {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".to_owned(), hex);
        let timestamp = self.timestamp.map_or("-".to_owned(), |ms| ms.to_string());
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| format!("{name}={}", bytes(value))).collect();
        format!("{}\t{}\t{timestamp}\t{}", bytes(&self.key), bytes(&self.value), headers.join(","))
    }
}

impl Program {
    /// Produces records to a topic and returns the answers in the order of the records. More options are the
    /// program's own, as `acks=all`.
    pub fn produce(
        self,
        kafka: SocketAddr,
        topic: &str,
        records: &[KafkaRecord],
        more: &[&str],
    ) -> Vec<Produced> {
        let mut process = self.start("produce", kafka, &options(topic, more));
        records.iter().for_each(|record| process.write_line(&record.line()));
        process.close_input();
        let mut answers: Vec<_> = records.iter().map(|_| produced(&process.next_event(&["acked"]))).collect();
        process.finish();
        answers.sort_by_key(|answer| answer.index);
        answers
    }

    /// Starts to consume a topic from its beginning and returns once partitions are assigned.
    pub fn consume(self, kafka: SocketAddr, topic: &str, more: &[&str]) -> Consumer {
        let mut process = self.start("consume", kafka, &options(topic, more));
        process.next_event(&["ready"]);
        Consumer { process }
    }
}

/// A consumer that runs.
pub struct Consumer {
    process: Process,
}

impl Consumer {
    /// The next record. Panics if none comes in time.
    pub fn next_record(&mut self) -> Fetched {
        fetched(&self.process.next_event(&["record"]))
    }

    /// The next `count` records.
    pub fn take(&mut self, count: usize) -> Vec<Fetched> {
        (0..count).map(|_| self.next_record()).collect()
    }

    /// Everything up to the end of a topic with one partition (confluent-kafka only, which tells ends).
    pub fn to_end(&mut self) -> Vec<Fetched> {
        let mut records = Vec::new();
        loop {
            let event = self.process.next_event(&["record", "end"]);
            if event["event"] == "end" {
                return records;
            }
            records.push(fetched(&event));
        }
    }

    /// The next assignment of partitions.
    pub fn next_assignment(&mut self) -> Vec<i64> {
        let event = self.process.next_event(&["ready"]);
        let parts = event["partitions"].as_array().expect("partitions").iter();
        parts.map(|part| part.as_i64().expect("a number")).collect()
    }

    /// Leaves in good order.
    pub fn finish(self) {
        self.process.finish();
    }

    /// Is killed and leaves no word.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

fn options(topic: &str, more: &[&str]) -> Vec<String> {
    let topic = format!("topic={topic}");
    [topic].into_iter().chain(more.iter().map(|&option| option.to_owned())).collect()
}

pub(crate) fn produced(event: &Value) -> Produced {
    let number = |name: &str| event[name].as_i64().unwrap_or_else(|| panic!("{event} has {name}"));
    Produced {
        index: usize::try_from(number("index")).expect("not negative"),
        partition: number("partition"),
        offset: number("offset"),
    }
}

fn fetched(event: &Value) -> Fetched {
    let headers = event["headers"].as_array().expect("headers").iter();
    let record = KafkaRecord {
        key: unhex(&event["key"]),
        value: unhex(&event["value"]),
        timestamp: event["timestamp"].as_i64(),
        headers: headers
            .map(|pair| (pair[0].as_str().expect("a header has a name").to_owned(), unhex(&pair[1])))
            .collect(),
    };
    let number = |name: &str| event[name].as_i64().expect("a place has numbers");
    Fetched { partition: number("partition"), offset: number("offset"), record }
}

/// Bytes as client programs are given them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    // Writing to a string does not fail.
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes as client programs print them; null is `None`.
pub(crate) fn unhex(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    Some((0..text.len()).step_by(2).map(digit).collect())
}
