//! What operators look at: `$SYS` with an unmodified mosquitto_sub, what the fronts count in `/metrics`, and what the API tells of
//! clients.
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::process::Command;

use e2e::{Broker, Opening, Process, Program, Settings, Socket, ask, get, missing, wait_until};
use serde_json::{Value, json};
use wire::mqtt::{Delivery, Qos, Version};

fn mosquitto_sub(broker: SocketAddr, arguments: &[&str]) -> Process {
    // Through a pipe it would keep its lines to itself.
    let mut command = Command::new("stdbuf");
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    command.args(["-oL", "mosquitto_sub", "-h", &host, "-p", &port]).args(arguments);
    Process::start(command)
}

#[test]
fn mosquitto_sub_reads_sys() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start_with(Settings::new().with("mqtt.sys_interval", "1s").with("node.cores", "2"));
    let mut all = mosquitto_sub(broker.mqtt(), &["-t", "$SYS/#", "-F", "%r %t %p"]);
    let mut seen = Vec::new();
    // Each value once as retained, then one anew.
    let anew = loop {
        let line = all.next_line();
        if line.starts_with('0') {
            break line;
        }
        seen.push(line);
    };
    assert!(anew.starts_with("0 $SYS/broker/version robustmq version "), "{anew}");
    for name in ["broker/uptime", "broker/bytes/sent", "broker/load/bytes/sent/15min", "brokers"] {
        let wanted = format!("1 $SYS/{name} ");
        assert_eq!(seen.iter().filter(|line| line.starts_with(&wanted)).count(), 1, "{name} in {seen:?}");
    }
    // On whichever core they are, all clients are counted.
    let more: Vec<_> = (0..4).map(|_| mosquitto_sub(broker.mqtt(), &["-t", "x"])).collect();
    while all.next_line() != "0 $SYS/broker/clients/connected 5" {}
    drop(more);
    while all.next_line() != "0 $SYS/broker/clients/connected 1" {}
}

#[test]
fn events_reach_mosquitto_sub_from_every_core() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let settings = Settings::new().with("node.cores", "2").with("mqtt.sys_interval", "0s");
    let broker = Broker::start_with(settings);
    let mut watcher = mosquitto_sub(
        broker.mqtt(),
        &[
            "-i",
            "watcher",
            "-t",
            "$SYS/brokers/+/clients/+/connected",
            "-t",
            "$SYS/broker/version",
            "-F",
            "%t",
        ],
    );
    // It is subscribed when the value is there.
    assert_eq!(watcher.next_line(), "$SYS/broker/version");
    for number in 0..4 {
        let name = format!("c{number}");
        let client = mosquitto_sub(broker.mqtt(), &["-i", &name, "-t", "x"]);
        let told = watcher.next_line();
        assert!(told.ends_with(&format!("/clients/{name}/connected")), "{told}");
        drop(client);
    }
}

#[test]
fn metrics_show_what_the_fronts_count() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    let mut reader = mosquitto_sub(broker.mqtt(), &["-t", "t", "-t", "$SYS/broker/version", "-F", "%t"]);
    assert_eq!(reader.next_line(), "$SYS/broker/version");
    let mut publish = Command::new("mosquitto_pub");
    let (host, port) = (broker.mqtt().ip().to_string(), broker.mqtt().port().to_string());
    publish.args(["-h", &host, "-p", &port, "-q", "1", "-t", "t", "-m", "hello"]);
    assert!(publish.status().expect("mosquitto_pub runs").success());
    assert_eq!(reader.next_line(), "t");
    let http = broker.listeners().http;
    let metrics = || get(http, "/metrics").1;
    let has = |line: &str| metrics().lines().any(|known| known == line);
    wait_until("the publisher has left", || has("robustmq_mqtt_connections 1").then_some(()));
    for line in [
        "# TYPE robustmq_mqtt_connections gauge",
        "# TYPE robustmq_mqtt_publishes_in counter",
        "robustmq_mqtt_publishes_in_total{qos=\"1\"} 1",
        "robustmq_mqtt_subscriptions 2",
        "robustmq_mqtt_packets_sent_total{packet=\"puback\"} 1",
        "robustmq_kafka_connections 0",
        "robustmq_kafka_requests_total 0",
        "# EOF",
    ] {
        assert!(has(line), "{line} in {}", metrics());
    }
    assert!(!has("robustmq_mqtt_sent_bytes_total 0"));
}

/// An answer of `/api/v1`: its status and what it says.
fn api(http: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, text) = ask(http, (method, &format!("/api/v1{path}")), "", body);
    (status, serde_json::from_str(&text).unwrap_or_default())
}

#[test]
fn the_api_tells_why_a_client_left() {
    let broker = Broker::start_with(Settings::new().with("node.cores", "2"));
    let http = broker.listeners().http;
    assert_eq!(api(http, "GET", "/clients/dev%2F1/history", "").0, 404);
    let first = Socket::open(broker.mqtt(), &Opening::clean("dev/1")).expect("it is let in");
    let second = Socket::open(broker.mqtt(), &Opening::clean("dev/1")).expect("it is let in");
    drop(second);
    let events = wait_until("both have left", || {
        let (status, body) = api(http, "GET", "/clients/dev%2F1/history", "");
        assert_eq!((status, &body["client"]), (200, &json!("dev/1")));
        let events = body["events"].as_array().cloned().unwrap_or_default();
        let went = events.iter().filter(|event| event["event"] == "disconnected").count();
        (went == 2).then_some(events)
    });
    drop(first);
    let why: Vec<_> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert_eq!(why, ["takenover", "tcp_closed"]);
    assert!(events[0]["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{events:?}");
}

#[test]
fn the_api_ranks_slow_subscriptions_and_counts_topics() {
    let slow = Settings::new().with("mqtt.slow_subscriptions", "true").with("mqtt.slow_threshold", "1ms");
    let broker = Broker::start_with(slow.with("node.cores", "2"));
    let http = broker.listeners().http;
    for (filter, status) in [("a/+", 201), ("a/+", 200), ("a/#/b", 400)] {
        assert_eq!(api(http, "POST", "/topic-metrics", &json!({ "filter": filter }).to_string()).0, status);
    }
    // What waits for a session that is away is late when it is back.
    let mut reader = Socket::open(broker.mqtt(), &Opening::persistent("reader")).expect("it is let in");
    reader.subscribe_all(&["a/+"], Qos::AtLeastOnce).expect("subscribed");
    drop(reader);
    let (status, _) = api(http, "GET", "/clients/reader/history", "");
    assert_eq!(status, 200);
    let mut writer = Socket::open(broker.mqtt(), &Opening::clean("writer")).expect("it is let in");
    writer.put_publish("a/b", b"12345", Delivery::AtLeastOnce { id: NonZeroU16::MIN, dup: false });
    writer.flush().expect("it is taken");
    writer.read().expect("it is acknowledged");
    let reader = Socket::open(broker.mqtt(), &Opening::persistent("reader")).expect("it is let in");
    let ranking = wait_until("the late message was sent", || {
        let (_, body) = api(http, "GET", "/slow-subscriptions", "");
        let ranking = body["slow_subscriptions"].as_array().cloned().unwrap_or_default();
        (!ranking.is_empty()).then_some(ranking)
    });
    assert_eq!((&ranking[0]["client"], &ranking[0]["topic"]), (&json!("reader"), &json!("a/b")));
    drop(reader);
    assert_eq!(api(http, "DELETE", "/slow-subscriptions", "").0, 204);
    let counted = &api(http, "GET", "/topic-metrics", "").1["topic_metrics"][0];
    let (messages, bytes) = (&counted["messages_in"], &counted["bytes_in"]);
    assert_eq!((messages, bytes), (&json!([0, 1, 0]), &json!(5)));
    assert_eq!(api(http, "DELETE", "/topic-metrics/a%2F%2B", "").0, 204);
    assert_eq!(api(http, "DELETE", "/topic-metrics/a%2F%2B", "").0, 404);
    let broker = Broker::start();
    assert_eq!(
        api(broker.listeners().http, "GET", "/slow-subscriptions", "").0,
        404,
        "nobody looks for them"
    );
}

#[test]
fn the_history_says_that_a_session_expired() {
    let broker = Broker::start_with(Settings::new().with("mqtt.max_session_expiry", "1s"));
    let http = broker.listeners().http;
    let opening = Opening { version: Version::V311, ..Opening::persistent("away") };
    drop(Socket::open(broker.mqtt(), &opening).expect("it is let in"));
    wait_until("its session is over", || {
        let (_, body) = api(http, "GET", "/clients/away/history", "");
        let events = body["events"].as_array().cloned().unwrap_or_default();
        let last = events.last()?;
        (last["event"] == "session_expired" && last["at_ms"].as_i64() > Some(0)).then_some(())
    });
}
