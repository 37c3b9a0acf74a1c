//! A thousand persistent sessions and a paho client over a broker that dies at every place that has a name and at random
//! moments: nothing that was acknowledged is lost, QoS 2 is stored once and delivered once, and each publisher's order holds.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use e2e::{Broker, Fleet, FleetSize, Program, Settings, missing};
use serde_json::Value;

/// Lanes of 20 sessions each, unless the environment says otherwise.
const LANES: usize = 50;
const LANES_VARIABLE: &str = "ROBUSTMQ_LANES";
/// How often all places and moments are gone through.
const ROUNDS: u64 = 1;
const ROUNDS_VARIABLE: &str = "ROBUSTMQ_ROUNDS";
/// How long the broker is up before it is killed from outside: while sessions come back, and while they are busy.
const UP_MS: [u64; 4] = [60, 300, 700, 1500];
/// Messages of each publisher at a time.
const BURST: u64 = 3;

fn number<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Which pass of a place is the last one: another one in each round, and neither always early nor always late.
fn pass(place: usize, round: u64) -> u64 {
    let mixed =
        (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.wrapping_mul(0xff51_afd7_ed55_8ccd);
    1 + (mixed >> 33) % 150
}

#[test]
fn a_thousand_sessions_survive_every_death() {
    if missing(&[Program::Paho, Program::Confluent]) {
        return;
    }
    let mut broker = Broker::start_with(
        Settings::new()
            .with_failpoints()
            .with_fixed_ports()
            .with("limits.max_message_bytes", "64KiB")
            .with("storage.segment_bytes", "256KiB"),
    );
    let size = FleetSize { lanes: number(LANES_VARIABLE, LANES), subscribers: 9 };
    let fleet = Fleet::start(broker.mqtt(), size);
    let options = ["topic=fleet/paho", "qos=2", "id=paho", "clean=false", "window=20", "flood=true"];
    let mut paho = Program::Paho.start("publish", broker.mqtt(), &options.map(str::to_owned));
    let begun = Instant::now();
    let (mut deaths, places) = (0, Broker::failpoints());
    for round in 0..number(ROUNDS_VARIABLE, ROUNDS) {
        for (number, place) in places.iter().enumerate() {
            let nth = match place.split('.').next() {
                // Seldom: the test of the places has messages of its own for that.
                Some("recycle") => continue,
                Some("segment" | "footer") => 1 + round % 3,
                _ => pass(number, round),
            };
            broker.kill_9();
            broker.restart_to_die(place, nth);
            fleet.publish_until(&format!("{place}:{nth}"), || broker.has_died());
            broker.restart();
            deaths += 1;
            println!("{:?} {place}:{nth}", begun.elapsed());
        }
        for up in UP_MS {
            fleet.publish(BURST);
            broker.live(Duration::from_millis(up));
            broker.kill_9();
            broker.restart();
            deaths += 1;
        }
    }
    fleet.settle();
    let by_paho = finish(&mut paho);
    let (sent, reconnects) = fleet.finish();
    println!(
        "{} sessions, {deaths} deaths: each publisher sent {sent}, sessions came back {reconnects} times, paho sent {by_paho}",
        size.sessions()
    );
    for lane in [0, size.lanes / 2] {
        assert_eq!(
            stored(&broker, &format!("fleet.2.{lane}")),
            (0..sent).collect::<Vec<_>>(),
            "stored once, in order"
        );
    }
    let mut stored = stored(&broker, "fleet.paho");
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len() as u64, by_paho, "paho's messages are all there");
}

/// Stops a client that floods, and answers how many messages it got through: all that it sent.
fn finish(process: &mut e2e::Process) -> u64 {
    process.close_input();
    loop {
        let event = process.next_event(&["acked", "done"]);
        if event["event"] == "done" {
            return event.get("sent").and_then(Value::as_u64).expect("a number");
        }
    }
}

/// What a topic holds, over the Kafka protocol.
fn stored(broker: &Broker, topic: &str) -> Vec<u64> {
    let mut reader = Program::Confluent.consume(broker.kafka(), topic, &[]);
    let value =
        |fetched: e2e::Fetched| String::from_utf8(fetched.record.value.expect("a value")).expect("text");
    reader.to_end().into_iter().map(|fetched| value(fetched).parse().expect("a number")).collect()
}
