//! Kafka clients alone: each produces and consumes, with keys, headers, every codec, groups and idempotence.

use std::collections::BTreeSet;
use std::process::Command;

use e2e::{Broker, Fetched, KafkaRecord, Process, Program, missing};

/// One of each kind of record that differs for a client.
fn records() -> Vec<KafkaRecord> {
    let dated = KafkaRecord { timestamp: Some(1_700_000_000_000), ..KafkaRecord::of([0, 255, 10]) };
    vec![
        dated.with_key([1, 0]).with_header("h", "a").with_header("g", [0, 255]).with_header("h", "b"),
        KafkaRecord::of("no key"),
        KafkaRecord::of("").with_key("empty value"),
        KafkaRecord { value: None, ..KafkaRecord::default() }.with_key("tombstone"),
        KafkaRecord::of("empty key").with_key(""),
        KafkaRecord::of(vec![b'x'; 1_000_000]),
    ]
}

/// The records as they were sent: a client sets the timestamp where we named none.
fn contents(fetched: Vec<Fetched>, sent: &[KafkaRecord]) -> Vec<KafkaRecord> {
    for (offset, one) in (0..).zip(&fetched) {
        assert_eq!(one.offset, offset, "offsets are dense from 0");
    }
    let undated = |(fetched, sent): (Fetched, &KafkaRecord)| match sent.timestamp {
        Some(_) => fetched.record,
        None => KafkaRecord { timestamp: None, ..fetched.record },
    };
    fetched.into_iter().zip(sent).map(undated).collect()
}

fn round_trip(program: Program, codecs: &[&str]) {
    if missing(&[program]) {
        return;
    }
    let broker = Broker::start();
    let sent = records();
    for (number, codec) in codecs.iter().enumerate() {
        let topic = format!("round.trip.{codec}");
        let more = [format!("compression={codec}"), format!("idempotent={}", number % 2 == 0)];
        let answers = program.produce(broker.kafka(), &topic, &sent, &more.each_ref().map(String::as_str));
        let offsets: Vec<_> = answers.iter().map(|answer| answer.offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4, 5], "{codec}");
        let mut reader = program.consume(broker.kafka(), &topic, &[]);
        assert_eq!(contents(reader.take(sent.len()), &sent), sent, "{codec}");
        reader.finish();
    }
}

#[test]
fn confluent_with_every_codec() {
    round_trip(Program::Confluent, &["none", "gzip", "snappy", "lz4", "zstd"]);
}

#[test]
fn aiokafka() {
    round_trip(Program::Aiokafka, &["none", "gzip"]);
}

#[test]
fn kafka_python() {
    round_trip(Program::KafkaPython, &["none", "gzip"]);
}

#[test]
fn java_with_every_codec() {
    round_trip(Program::Java, &["none", "gzip", "snappy", "lz4", "zstd"]);
}

#[test]
fn what_one_client_compressed_another_reads() {
    if missing(&[Program::Confluent, Program::Java]) {
        return;
    }
    let broker = Broker::start();
    let sent = records();
    for codec in ["snappy", "lz4", "zstd"] {
        let more = [&*format!("compression={codec}")];
        Program::Java.produce(broker.kafka(), codec, &sent, &more);
        let mut reader = Program::Confluent.consume(broker.kafka(), codec, &[]);
        assert_eq!(contents(reader.take(sent.len()), &sent), sent, "{codec}");
    }
}

#[test]
fn acks_1_and_acks_0() {
    if missing(&[Program::Confluent]) {
        return;
    }
    let broker = Broker::start();
    let sent: Vec<_> = (0..100).map(|n| KafkaRecord::of(n.to_string())).collect();
    for acks in ["acks=1", "acks=0"] {
        Program::Confluent.produce(broker.kafka(), acks.replace('=', "-").as_str(), &sent, &[acks]);
        let mut reader = Program::Confluent.consume(broker.kafka(), &acks.replace('=', "-"), &[]);
        assert_eq!(contents(reader.take(sent.len()), &sent), sent, "{acks}");
    }
}

#[test]
fn a_reader_at_the_end_is_woken() {
    if missing(&[Program::Confluent, Program::Aiokafka, Program::Java]) {
        return;
    }
    let broker = Broker::start();
    create(&broker, &["topic=live", "partitions=1"]);
    let readers = [Program::Confluent, Program::Aiokafka, Program::Java]
        .map(|program| program.consume(broker.kafka(), "live", &[]));
    Program::Confluent.produce(broker.kafka(), "live", &[KafkaRecord::of("now")], &[]);
    for mut reader in readers {
        assert_eq!(reader.next_record().record.value.as_deref(), Some(&b"now"[..]));
    }
}

fn create(broker: &Broker, options: &[&str]) {
    verb(broker, "create", options);
}

fn verb(broker: &Broker, verb: &str, options: &[&str]) {
    let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
    Program::Confluent.start(verb, broker.kafka(), &options).finish();
}

fn groups(program: Program) {
    if missing(&[program, Program::Confluent]) {
        return;
    }
    let broker = Broker::start();
    create(&broker, &["topic=shared", "partitions=2"]);
    let options = ["group=g", "commit=true"];
    let mut first = program.consume(broker.kafka(), "shared", &options);
    let mut second = program.consume(broker.kafka(), "shared", &options);
    // The rebalance that the second member causes leaves one partition to each.
    assert_eq!(first.next_assignment().len(), 1);
    for partition in ["partition=0", "partition=1"] {
        Program::Confluent.produce(broker.kafka(), "shared", &[KafkaRecord::of(partition)], &[partition]);
    }
    let seen = BTreeSet::from([first.next_record().partition, second.next_record().partition]);
    assert_eq!(seen, BTreeSet::from([0, 1]));
    second.finish();
    assert_eq!(first.next_assignment(), [0, 1], "the rest is taken over");
    first.finish();
    // Both left what they had consumed committed.
    for partition in ["partition=0", "partition=1"] {
        Program::Confluent.produce(broker.kafka(), "shared", &[KafkaRecord::of("new")], &[partition]);
    }
    let mut third = program.consume(broker.kafka(), "shared", &options);
    assert!(third.take(2).iter().all(|fetched| fetched.offset == 1), "nothing comes twice");
    third.finish();
}

#[test]
fn a_group_of_confluent_shares_and_resumes() {
    groups(Program::Confluent);
}

#[test]
fn a_group_of_aiokafka_shares_and_resumes() {
    groups(Program::Aiokafka);
}

#[test]
fn a_group_of_java_shares_and_resumes() {
    groups(Program::Java);
}

#[test]
fn a_dead_member_is_replaced_and_offsets_survive_a_crash() {
    if missing(&[Program::Confluent]) {
        return;
    }
    let mut broker = Broker::start_with(e2e::Settings::new().with_fixed_ports());
    Program::Confluent.produce(broker.kafka(), "t", &[KafkaRecord::of("0"), KafkaRecord::of("1")], &[]);
    let mut dead = Program::Confluent.consume(broker.kafka(), "t", &["group=g"]);
    assert_eq!(dead.next_record().offset, 0);
    dead.kill();
    // Its session times out after 6 s, and it had committed nothing.
    let mut heir = Program::Confluent.consume(broker.kafka(), "t", &["group=g", "commit=true"]);
    assert_eq!(heir.take(2)[1].offset, 1);
    heir.finish();
    broker.kill_9();
    broker.restart();
    Program::Confluent.produce(broker.kafka(), "t", &[KafkaRecord::of("2")], &[]);
    let mut next = Program::Confluent.consume(broker.kafka(), "t", &["group=g"]);
    assert_eq!(next.next_record().offset, 2);
}

#[test]
fn topics_are_created_inspected_and_deleted() {
    if missing(&[Program::Confluent]) {
        return;
    }
    let broker = Broker::start();
    create(&broker, &["topic=made", "partitions=3", "config.retention.ms=1234567"]);
    let dated = |ms| KafkaRecord { timestamp: Some(ms), ..KafkaRecord::of("x") };
    let partition = "partition=2";
    Program::Confluent.produce(
        broker.kafka(),
        "made",
        &[dated(1000), dated(2000), dated(3000)],
        &[partition],
    );
    let options = ["topic=made", partition, "time=1500"].map(str::to_owned);
    let mut inspection = Program::Confluent.start("inspect", broker.kafka(), &options);
    let found = inspection.next_event(&["inspected"]);
    assert_eq!((&found["low"], &found["high"], &found["by_time"]), (&0.into(), &3.into(), &1.into()));
    assert_eq!(found["topics"][0], "made");
    assert_eq!(found["config"]["retention.ms"], "1234567");
    verb(&broker, "delete", &["topic=made"]);
    create(&broker, &["topic=made", "partitions=1"]);
    let mut reader = Program::Confluent.consume(broker.kafka(), "made", &[]);
    assert_eq!(reader.to_end(), [], "a topic that is made again is empty");
}

fn kcat(broker: &Broker, arguments: &[&str]) -> Process {
    let mut command = Command::new("kcat");
    command.args(["-b", &broker.kafka().to_string()]).args(arguments);
    Process::start(command)
}

#[test]
fn kcat_as_debian_ships_it() {
    if missing(&[Program::Kcat]) {
        return;
    }
    let broker = Broker::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("kcat.{codec}");
        let mut producer =
            kcat(&broker, &["-P", "-t", &topic, "-z", codec, "-K", ":", "-H", "a=1", "-H", "a=2"]);
        for line in ["k1:v1", "k2:v2"] {
            producer.write_line(line);
        }
        producer.finish();
        let mut reader =
            kcat(&broker, &["-C", "-t", &topic, "-o", "beginning", "-e", "-f", "%o %k %s %h\\n"]);
        assert_eq!(reader.next_line(), "0 k1 v1 a=1,a=2", "{codec}");
        assert_eq!(reader.next_line(), "1 k2 v2 a=1,a=2", "{codec}");
        reader.finish();
    }
    let mut list = kcat(&broker, &["-L", "-J"]);
    let found: serde_json::Value = serde_json::from_str(&list.next_line()).expect("JSON");
    assert_eq!(found["topics"].as_array().map(Vec::len), Some(5));
    list.finish();
}
