//! Batches that another implementation built: ours reads them, and builds the very same bytes.

use bytes::Bytes;
use model::batch::{BatchBuilder, Codec, Records, validate};
use model::{Header, Record};

const FIXTURES: &str = include_str!("fixtures/kafka_batches.txt");
const LIMIT: usize = 1 << 20;

#[test]
fn batches_of_every_codec_are_read() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 4);
    for (codec, batch) in fixtures {
        let header = validate(&batch).expect("the fixture is a sound batch");
        assert_eq!(header.codec(), Ok(codec));
        assert_eq!(header.check_from_producer(), Ok(()));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1_700_000_000_123, 1_700_000_009_999));
        let records = Records::decode(&batch, LIMIT).expect("the fixture decodes");
        let read: Vec<Record> = records.iter().map(|record| record.to_record()).collect();
        assert_eq!(read, expected(), "{codec}");
    }
}

#[test]
fn the_builder_writes_the_same_bytes() {
    let mut builder = BatchBuilder::default().with_producer(77, 3, 9);
    for record in expected() {
        let headers = record.headers.iter().map(|header| (&header.name[..], header.value.as_deref()));
        let appended =
            builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), headers);
        assert!(appended.is_ok());
    }
    assert_eq!(builder.finish(), fixtures()[0].1);
}

fn expected() -> Vec<Record> {
    let value = Bytes::from(b"v1".repeat(20));
    vec![
        Record {
            key: Some(Bytes::from_static(b"k1")),
            value: Some(value.clone()),
            headers: vec![
                Header::new("h", "x"),
                Header::new("h", ""),
                Header { name: Bytes::from_static(b"n"), value: None },
            ],
            timestamp: 1_700_000_000_123,
        },
        Record { key: None, value: Some(value), headers: vec![], timestamp: 1_700_000_000_100 },
        Record { key: Some(Bytes::new()), value: None, headers: vec![], timestamp: 1_700_000_009_999 },
    ]
}

fn fixtures() -> Vec<(Codec, Bytes)> {
    let lines = FIXTURES.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (number, hex) = line.split_once(' ').expect("number, space, batch");
            let codec = number.parse().ok().and_then(Codec::from_number).expect("a codec number");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
            (codec, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}
