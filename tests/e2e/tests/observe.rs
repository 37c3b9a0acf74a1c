//! What operators look at: `$SYS` with an unmodified mosquitto_sub, and what the fronts count in `/metrics`.
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::process::Command;

use e2e::{Broker, Process, Program, Settings, get, missing, wait_until};

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
