//! MQTT clients alone: each publishes and subscribes, in both versions and at every QoS, with retained messages, wills
//! and sessions that persist.

use std::process::{Command, ExitStatus};

use e2e::{Broker, Message, Process, Program, missing};

/// 3.1.1 and 5.0, as our programs name them.
const VERSIONS: [&str; 2] = ["version=4", "version=5"];

fn exchange(publisher: Program, subscriber: Program) {
    if missing(&[publisher, subscriber]) {
        return;
    }
    let broker = Broker::start();
    for version in VERSIONS {
        let mut reader = subscriber.subscribe(broker.mqtt(), "house/+/temp", &["qos=2", version]);
        let sent: Vec<_> =
            (0..30).map(|n| Message::new("house/attic/temp", vec![n, 0, 255], n % 3)).collect();
        publisher.publish(broker.mqtt(), &sent, &[version]);
        let mut received = reader.take(sent.len());
        // Order holds per QoS.
        received.sort_by_key(|message| message.payload[0]);
        assert_eq!(received, sent);
        reader.finish();
    }
}

#[test]
fn paho_to_paho() {
    exchange(Program::Paho, Program::Paho);
}

#[test]
fn mqtt_js_to_mqtt_js() {
    exchange(Program::MqttJs, Program::MqttJs);
}

#[test]
fn properties_of_5_arrive_unaltered() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let broker = Broker::start();
    let sent = Message {
        content_type: Some("application/octet-stream".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation: Some(vec![0, 1, 255]),
        expiry: Some(1000),
        payload_format: Some(0),
        ..Message::new("p/q", [0, 255], 1).with_user("b", "1").with_user("a", "2").with_user("b", "3")
    };
    let mut paho = Program::Paho.subscribe(broker.mqtt(), "p/#", &["qos=1"]);
    let mut mqtt_js = Program::MqttJs.subscribe(broker.mqtt(), "p/#", &["qos=1"]);
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&sent), &[]);
    let received = paho.next_message();
    assert!((990..=1000).contains(&received.expiry.expect("an expiry interval")), "{received:?}");
    assert_eq!(Message { expiry: sent.expiry, ..received }, sent);
    // MQTT.js tells user properties by name.
    let received = mqtt_js.next_message();
    let by_name =
        [("b", "1"), ("b", "3"), ("a", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(received.user, by_name);
    assert_eq!((received.content_type, received.correlation), (sent.content_type, sent.correlation));
}

#[test]
fn retained_messages_come_first_and_can_be_removed() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let mut broker = Broker::start();
    let retained = Message::new("status/door", "open", 1).retained();
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&retained), &[]);
    for (program, version) in
        [(Program::Paho, "version=5"), (Program::MqttJs, "version=4"), (Program::MqttJs, "version=5")]
    {
        let mut reader = program.subscribe(broker.mqtt(), "status/#", &["qos=1", version]);
        assert_eq!(reader.next_message(), retained, "{program:?} {version}");
    }
    broker.kill_9();
    broker.restart();
    let mut reader = Program::Paho.subscribe(broker.mqtt(), "status/#", &["qos=1"]);
    assert_eq!(reader.next_message(), retained, "after a crash");
    Program::MqttJs.publish(broker.mqtt(), &[Message::new("status/door", "", 1).retained()], &[]);
    assert_eq!(reader.next_message().payload, b"", "the removal is delivered");
    let mut late = Program::Paho.subscribe(broker.mqtt(), "status/#", &["qos=1"]);
    let marker = Message::new("status/window", "shut", 1);
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&marker), &[]);
    assert_eq!(late.next_message(), marker, "nothing is retained any more");
}

#[test]
fn a_will_is_published_when_its_client_dies() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let broker = Broker::start();
    let mut reader = Program::Paho.subscribe(broker.mqtt(), "wills/#", &["qos=1"]);
    for (program, version) in [(Program::Paho, "version=4"), (Program::MqttJs, "version=5")] {
        let will = ["will_topic=wills/w", "will_payload=00ff", "id=mortal", version];
        let mortal = program.subscribe(broker.mqtt(), "nothing", &will);
        mortal.kill();
        assert_eq!(reader.next_message(), Message::new("wills/w", [0, 255], 1));
        let polite = program.subscribe(broker.mqtt(), "nothing", &will);
        polite.finish();
    }
    let marker = Message::new("wills/none", "", 1);
    Program::Paho.publish(broker.mqtt(), std::slice::from_ref(&marker), &[]);
    assert_eq!(reader.next_message(), marker, "who leaves in good order has no will");
}

#[test]
fn a_session_keeps_what_came_while_its_client_was_away() {
    if missing(&[Program::Paho, Program::MqttJs]) {
        return;
    }
    let mut broker = Broker::start();
    let away: Vec<_> = (0..20_u8).map(|n| Message::new("mail/x", [n], 1 + n % 2)).collect();
    for (program, version) in [(Program::Paho, "version=4"), (Program::MqttJs, "version=5")] {
        let options = ["qos=2", "clean=false", "id=keeper", version];
        program.subscribe(broker.mqtt(), "mail/#", &options).finish();
        Program::Paho.publish(broker.mqtt(), &away, &["window=1"]);
        broker.kill_9();
        broker.restart();
        let mut reader = program.subscribe(broker.mqtt(), "mail/#", &options);
        let mut received = reader.take(away.len());
        // Order holds per QoS.
        received.sort_by_key(|message| message.payload[0]);
        assert_eq!(received, away, "{program:?} {version}");
        reader.finish();
        // A clean start ends the session, so that the next program begins anew.
        program.subscribe(broker.mqtt(), "mail/#", &["id=keeper", version]).finish();
    }
}

fn mosquitto(program: &str, broker: &Broker, arguments: &[&str]) -> Command {
    // On a pipe its debugging lines would wait until a buffer is full.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program]);
    let (host, port) = (broker.mqtt().ip().to_string(), broker.mqtt().port().to_string());
    command.args(["-h", &host, "-p", &port]).args(arguments);
    command
}

fn run(command: Command) -> ExitStatus {
    let mut process = Process::start(command);
    process.close_input();
    process.wait()
}

#[test]
fn mosquitto_to_mosquitto() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    for version in ["311", "5"] {
        let arguments = ["-V", version, "-d", "-q", "2", "-t", "m/+", "-F", "got %t %q %r %p", "-C", "3"];
        let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &arguments));
        while !reader.next_line().starts_with("Subscribed") {}
        for qos in ["0", "1", "2"] {
            let arguments = ["-V", version, "-q", qos, "-t", "m/x", "-m", "hello world"];
            assert!(run(mosquitto("mosquitto_pub", &broker, &arguments)).success());
            let got = std::iter::repeat_with(|| reader.next_line()).find(|line| line.starts_with("got"));
            assert_eq!(got.as_deref(), Some(format!("got m/x {qos} 0 hello world").as_str()));
        }
        reader.finish();
    }
}

#[test]
fn mosquitto_returns_to_its_session_and_finds_retained_messages() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = Broker::start();
    let session = ["-c", "-i", "mosquitto", "-q", "1", "-t", "s/#"];
    let subscribed = mosquitto("mosquitto_sub", &broker, &[&session[..], &["-E"]].concat());
    assert!(run(subscribed).success());
    let publish = ["-q", "1", "-t", "s/1", "-r", "-m", "kept"];
    assert!(run(mosquitto("mosquitto_pub", &broker, &publish)).success());
    let returned = [&session[..], &["-C", "1", "-F", "%t %r %p"]].concat();
    let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &returned));
    assert_eq!(reader.next_line(), "s/1 0 kept");
    let fresh = ["-C", "1", "-t", "s/#", "-F", "%t %r %p"];
    let mut reader = Process::start(mosquitto("mosquitto_sub", &broker, &fresh));
    assert_eq!(reader.next_line(), "s/1 1 kept");
}
