//! Rules that an operator stores over HTTP: they hold for unmodified clients at once, on every core, and again after the broker
//! was killed.

use std::net::SocketAddr;
use std::process::Command;

use e2e::{Broker, Process, Program, Settings, ask, missing, wait_until};
use serde_json::{Value, json};

/// Publishers that come one after the other, so that all cores have some.
const PUBLISHERS: usize = 6;

/// An answer of `/api/v1`: its status and what it says.
fn api(http: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = ask(http, (method, &format!("/api/v1{path}")), "", &body.to_string());
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// A mosquitto_sub that is subscribed to nothing but `$SYS/broker/version`, for all that it asked for.
fn device(broker: SocketAddr) -> Process {
    // Through a pipe it would keep its lines to itself.
    let mut command = Command::new("stdbuf");
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    command.args(["-oL", "mosquitto_sub", "-h", &host, "-p", &port, "-i", "dev"]);
    command.args(["-t", "$SYS/broker/version", "-F", "%t %q %p"]);
    let mut process = Process::start(command);
    let ready = process.next_line();
    assert!(ready.starts_with("$SYS/broker/version "), "{ready}");
    process
}

fn publish(broker: SocketAddr, topic: &str, payload: &str) {
    let (host, port) = (broker.ip().to_string(), broker.port().to_string());
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &host, "-p", &port, "-q", "1", "-t", topic, "-m", payload]);
    assert!(command.status().expect("mosquitto_pub runs").success());
}

/// What is published to `old/dev` reaches the device, which did not ask for it, and is counted.
fn check_that_rules_hold(broker: &Broker) {
    let mut device = device(broker.mqtt());
    for number in 0..PUBLISHERS {
        publish(broker.mqtt(), "old/dev", &number.to_string());
        assert_eq!(device.next_line(), format!("to/dev 1 {number}"));
    }
    let http = broker.listeners().http;
    let wanted =
        json!({"filter": "to/#", "messages_in": [0, PUBLISHERS, 0], "messages_out": [0, PUBLISHERS, 0]});
    wait_until("all are counted", || {
        let metrics = api(http, "GET", "/topic-metrics", &Value::Null).1;
        let seen = &metrics["topic_metrics"][0];
        wanted.as_object()?.iter().all(|(field, value)| seen[field] == *value).then_some(())
    });
}

#[test]
fn stored_rules_hold_at_once_and_after_a_kill() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let mut broker = Broker::start_with(Settings::new().with("node.cores", "2"));
    let http = broker.listeners().http;
    let rule = json!({"action": "publish", "filter": "old/#", "pattern": "^old/(.+)$", "topic": "to/$1"});
    let auto = json!({"filter": "to/${clientid}", "qos": 1});
    for (method, path, body, wanted) in [
        ("PUT", "/rewrite-rules/r", &rule, 200),
        ("PUT", "/auto-subscriptions/a", &auto, 200),
        ("POST", "/topic-metrics", &json!({"filter": "to/#"}), 201),
        ("POST", "/topic-metrics", &json!({"filter": "to/#/x"}), 400),
    ] {
        let (status, answer) = api(http, method, path, body);
        assert_eq!(status, wanted, "{path}: {answer}");
    }
    let (status, problem) = api(
        http,
        "PUT",
        "/rewrite-rules/s",
        &json!({"action": "all", "filter": "a", "pattern": "(", "topic": "b"}),
    );
    assert_eq!((status, &problem["field"]), (400, &json!("pattern")), "{problem}");
    check_that_rules_hold(&broker);

    broker.kill_9();
    broker.restart();
    check_that_rules_hold(&broker);

    // Without the rule the topic is what it says, for the next packet on.
    let http = broker.listeners().http;
    let mut reader = device(broker.mqtt());
    assert_eq!(api(http, "DELETE", "/rewrite-rules/r", &Value::Null).0, 204);
    publish(broker.mqtt(), "old/dev", "unheard");
    publish(broker.mqtt(), "to/dev", "heard");
    assert_eq!(reader.next_line(), "to/dev 1 heard");
    let (_, rules) = api(http, "GET", "/rewrite-rules", &Value::Null);
    let (_, autos) = api(http, "GET", "/auto-subscriptions", &Value::Null);
    assert_eq!(rules, json!({"rewrite_rules": [], "next": null}));
    assert_eq!((&autos["auto_subscriptions"][0]["name"], &autos["next"]), (&json!("a"), &Value::Null));
}
