//! The broker is killed again and again while publishers run flat out: what was acknowledged is there afterwards.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use e2e::{Broker, Collector, Fetched, Ledger, Process, Program, Publisher, Settings, missing};
use serde_json::Value;
use wire::mqtt::Qos;

/// How often the broker is killed, unless the environment says otherwise.
const KILLS: usize = 20;
const KILLS_VARIABLE: &str = "ROBUSTMQ_KILLS";
/// How long the broker is up each time: never the same part of its work.
const UP_MS: [u64; 5] = [700, 150, 1100, 400, 900];

/// Bound: messages of a publisher that wait for an answer, below the broker's receive maximum of 1024.
const WINDOW: usize = 200;
/// Also delivered at QoS 2, which takes four packets and two writes each, so that it is published more slowly.
const EXACT: &str = "kill/exact";
const WINDOW_OF_EXACT: usize = 5;

fn kills() -> usize {
    std::env::var(KILLS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    if missing(&[Program::Confluent, Program::Paho]) {
        return;
    }
    let mut broker = Broker::start_with(Settings::new().with_fixed_ports());
    let (mqtt, kafka) = (broker.mqtt(), broker.kafka());
    let collector = Collector::start(mqtt, "kill/#", Qos::AtLeastOnce);
    let exact = Collector::start(mqtt, EXACT, Qos::ExactlyOnce);
    let once = Publisher::start(mqtt, "kill/once", Qos::ExactlyOnce, WINDOW);
    let again = Publisher::start(mqtt, "kill/again", Qos::AtLeastOnce, WINDOW);
    let few = Publisher::start(mqtt, EXACT, Qos::ExactlyOnce, WINDOW_OF_EXACT);
    let flood = |program: Program, verb, address, options: &[&str]| {
        let options = options.iter().chain(&["flood=true"]).map(|&option| option.to_owned());
        program.start(verb, address, &options.collect::<Vec<_>>())
    };
    let producer =
        flood(Program::Confluent, "produce", kafka, &["topic=kill.kafka", "idempotent=true", "window=2000"]);
    let paho = flood(
        Program::Paho,
        "publish",
        mqtt,
        &["topic=kill/paho", "qos=1", "id=paho", "clean=false", "window=50"],
    );
    for kill in 0..kills() {
        broker.live(Duration::from_millis(UP_MS[kill % UP_MS.len()]));
        broker.kill_9();
        broker.restart();
    }
    let (once, again, few) = (once.finish(), again.finish(), few.finish());
    let (producer, paho) = (acknowledged(producer), acknowledged(paho));
    println!(
        "acknowledged: {} at QoS 2, {} at QoS 1, {} by paho, {} by Kafka; {} reconnects",
        once.acknowledged.len(),
        again.acknowledged.len(),
        paho.acknowledged.len(),
        producer.acknowledged.len(),
        once.reconnects
    );
    let topics = [
        ("kill/once", &once, true),
        ("kill/again", &again, false),
        (EXACT, &few, true),
        ("kill/paho", &paho, false),
        ("kill/kafka", &producer, true),
    ];
    for (topic, ledger, exactly_once) in topics {
        assert!(!ledger.acknowledged.is_empty(), "{topic} got nothing through");
        let stored = read(&broker, topic);
        check(topic, ledger, &stored, exactly_once);
        collector.wait_for(topic, &stored.iter().map(ToString::to_string).collect());
    }
    let numbers = |stored: &[u64]| stored.iter().map(ToString::to_string).collect::<Vec<_>>();
    let stored = numbers(&read(&broker, EXACT));
    exact.wait_for(EXACT, &stored.iter().cloned().collect());
    assert_eq!(exact.finish().remove(EXACT), Some(stored), "QoS 2 from end to end is once and in order");
    let mut seen = collector.finish();
    for (topic, ledger, _) in topics {
        let received: HashSet<_> = seen.remove(topic).expect("seen").into_iter().collect();
        let lost =
            ledger.acknowledged.iter().filter(|number| !received.contains(&number.to_string())).count();
        assert_eq!(lost, 0, "the session has lost messages of {topic}");
    }
}

/// Stops a client program that floods and returns what it was acknowledged.
fn acknowledged(mut process: Process) -> Ledger {
    process.close_input();
    let mut ledger = Ledger::default();
    loop {
        let event = process.next_event(&["acked", "done"]);
        let number = |name: &str| event.get(name).and_then(Value::as_u64).expect("a number");
        if event["event"] == "done" {
            ledger.sent = number("sent");
            process.finish();
            return ledger;
        }
        ledger.acknowledged.insert(number("index"));
    }
}

/// Reads a whole topic over the Kafka protocol: the numbers, in order.
fn read(broker: &Broker, topic: &str) -> Vec<u64> {
    let mut reader = Program::Confluent.consume(broker.kafka(), &topic.replace('/', "."), &[]);
    let number = |(place, fetched): (i64, Fetched)| {
        assert_eq!(fetched.offset, place, "offsets of {topic} are dense");
        let value = fetched.record.value.expect("a value");
        String::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("a number")
    };
    (0..).zip(reader.to_end()).map(number).collect()
}

fn check(topic: &str, ledger: &Ledger, stored: &[u64], exactly_once: bool) {
    let distinct: BTreeSet<u64> = stored.iter().copied().collect();
    let lost: Vec<_> = ledger.acknowledged.difference(&distinct).take(10).collect();
    assert!(lost.is_empty(), "{topic} lost what it acknowledged: {lost:?}");
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = stored.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert!(first.is_sorted(), "first occurrences of {topic} are in the order in which they were sent");
    assert!(first.last() < Some(&ledger.sent), "{topic} holds what nobody sent");
    if exactly_once {
        let twice = stored.len() - distinct.len();
        assert_eq!(twice, 0, "{topic} holds messages twice");
        assert_eq!(stored.len() as u64, ledger.sent, "all that was sent was answered in the end");
    }
}
