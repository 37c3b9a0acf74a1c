//! The broker stays up and polite whatever its clients do: rates, bounds on those who arrive, refusals with words, overload.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Broker, Incoming, Message, Opening, Process, Program, Settings, Socket, ask, get, missing, wait_until,
};
use wire::mqtt::{AckKind, Delivery, Version};

fn start(settings: Settings, listeners: &str) -> Broker {
    Broker::start_with(settings.with_file(listeners))
}

fn listener(name: &str, transport: &str, own: &str) -> String {
    format!(
        "[[mqtt.listeners]]\nname = \"{name}\"\ntransport = \"{transport}\"\nbind = \"127.0.0.1:0\"\n{own}\n"
    )
}

/// Why a connection is refused; empty if it is not.
fn refusal(address: SocketAddr, version: Version) -> String {
    match Socket::open(address, &Opening { version, ..Opening::clean("late") }) {
        Ok(_) => String::new(),
        Err(error) => format!("{:?} {error}", error.kind()),
    }
}

/// What `mosquitto_pub` says of a publication, and whether it is content.
fn mosquitto_pub(address: SocketAddr, version: &str) -> (bool, String) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-V", version]);
    command.args(["-q", "1", "-t", "t", "-m", "hello"]);
    let mut process = Process::start(command);
    process.close_input();
    let status = process.wait();
    (status.success(), process.errors())
}

#[test]
fn who_finds_no_room_hears_so_in_answer_to_connect() {
    let own = listener("small", "tcp", "max_connections = 1");
    let mut broker = start(Settings::new().with("limits.max_connections", "3"), &own);
    broker.allow("connection limit reached");
    let small = broker.listener("small");
    let first = Socket::open(small, &Opening::clean("first")).expect("there is room");
    for (version, said) in [(Version::V5, "QuotaExceeded"), (Version::V311, "ServerUnavailable")] {
        assert_eq!(refusal(small, version), format!("ConnectionRefused {said}"));
    }
    // The node has room for two more; then it refuses on every listener.
    let others: Vec<_> = ["second", "third"]
        .map(|id| Socket::open(broker.mqtt(), &Opening::clean(id)).expect("there is room"))
        .into();
    assert_eq!(refusal(broker.mqtt(), Version::V5), "ConnectionRefused QuotaExceeded");
    if !missing(&[Program::Mosquitto]) {
        let (content, said) = mosquitto_pub(broker.mqtt(), "5");
        assert!(!content && said.contains("Quota exceeded"), "{said}");
        let (content, said) = mosquitto_pub(broker.mqtt(), "311");
        assert!(!content && said.contains("roker unavailable"), "{said}");
    }
    drop((first, others));
    wait_until("there is room again", || refusal(small, Version::V5).is_empty().then_some(()));
}

#[test]
fn a_listener_serves_the_versions_that_it_is_for() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = start(
        Settings::new(),
        &[listener("new", "tcp", "versions = \"5\""), listener("old", "tcp", "versions = \"3\"")].concat(),
    );
    for (name, version, served) in
        [("new", "5", true), ("new", "311", false), ("old", "5", false), ("old", "311", true)]
    {
        let (content, said) = mosquitto_pub(broker.listener(name), version);
        assert_eq!(content, served, "{version} on {name}: {said}");
        assert!(served || said.to_lowercase().contains("protocol version"), "{version} on {name}: {said}");
    }
}

#[test]
fn all_clients_of_a_listener_share_its_rate_and_nothing_is_lost() {
    if missing(&[Program::Paho]) {
        return;
    }
    const RATE: usize = 100;
    let own = listener("slow", "tcp", &format!("total_messages_per_second = {RATE}"));
    let broker = start(Settings::new(), &own);
    let mut reader = Program::Paho.subscribe(broker.mqtt(), "rate/#", &[]);
    let slow = broker.listener("slow");
    let began = Instant::now();
    let publishers: Vec<_> = (0..3)
        .map(|number| {
            let publish = move || {
                let messages: Vec<_> =
                    (0..100).map(|n| Message::new(&format!("rate/{number}"), format!("{n}"), 1)).collect();
                Program::Paho.publish(slow, &messages, &[]);
            };
            thread::spawn(publish)
        })
        .collect();
    let mut received: Vec<_> = reader.take(300).into_iter().map(|message| message.topic).collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("it publishes"));
    // What may come at once is one second's worth; the rest takes its time.
    let least = Duration::from_secs((300 / RATE - 1) as u64).mul_f64(0.95);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    received.sort();
    received.dedup();
    assert_eq!(received.len(), 3);
    reader.finish();
}

#[test]
fn connects_above_the_rate_wait_and_none_is_refused() {
    let broker = start(Settings::new().with("mqtt.max_accepts_per_second", "20"), "");
    let began = Instant::now();
    let open: Vec<_> = (0..24)
        .map(|n| Socket::open(broker.mqtt(), &Opening::clean(&format!("c{n}"))).expect("it waits"))
        .collect();
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    drop(open);
}

/// Clients that never say anything, on a listener that has room for fewer of them.
#[test]
fn silent_connections_make_room_for_others() {
    if missing(&[Program::Paho]) {
        return;
    }
    const SILENT: usize = 700;
    const ROOM: usize = 512;
    let own = listener("web", "ws", "handshake_timeout = \"10m\"");
    let broker = start(Settings::new().with("node.cores", "1"), &own);
    let address = broker.listener("web");
    let mut open: Vec<_> = (0..SILENT)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the queue has room");
            stream.set_nonblocking(true).expect("an open socket");
            stream
        })
        .collect();
    let mut reader = Program::Paho.subscribe(address, "web/#", &["transport=websockets"]);
    Program::Paho.publish(address, &[Message::new("web/x", "hello", 1)], &["transport=websockets"]);
    assert_eq!(reader.next_message().payload, b"hello");
    // Those who went were the oldest.
    let is_open = |stream: &mut TcpStream| matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    let gone = open.iter_mut().map(is_open).take_while(|is_open| !is_open).count();
    assert!((SILENT - ROOM..SILENT).contains(&gone), "{gone}");
    assert!(open[gone..].iter_mut().all(is_open));
    reader.finish();
}

#[test]
fn an_overloaded_broker_refuses_newcomers_and_loses_nothing() {
    const MESSAGES_MAX: u16 = 400;
    const MIB: u64 = 1 << 20;
    // Somewhat more than an idle broker needs here.
    let idle = Broker::start().resident_bytes();
    let limit = idle.max(96 * MIB) + 32 * MIB;
    let mut broker = start(Settings::new().with("limits.memory", &format!("{limit}B")), "");
    broker.allow("overloaded; new connections are refused");
    let http = broker.listeners().http;
    assert_eq!(get(http, "/health/ready").0, 200);
    let mut publisher = Socket::open(broker.mqtt(), &Opening::clean("publisher")).expect("there is room");
    // The broker keeps what was published last in memory.
    let payload = vec![7; 1 << 20];
    for number in 1..=MESSAGES_MAX {
        let id = NonZeroU16::new(number).expect("not zero");
        publisher.put_publish("much", &payload, Delivery::AtLeastOnce { id, dup: false });
        publisher.flush().expect("the broker reads");
        let answer = publisher.read().expect("an answer");
        assert!(matches!(answer, Incoming::Ack(AckKind::Puback, ..)), "{answer:?}");
        if get(http, "/health/ready").0 != 200 {
            break;
        }
    }
    for (version, said) in [(Version::V5, "ServerBusy"), (Version::V311, "ServerUnavailable")] {
        assert_eq!(refusal(broker.mqtt(), version), format!("ConnectionRefused {said}"));
    }
    let (status, text) = get(http, "/health/ready");
    assert_eq!((status, text.as_str()), (503, "not ready: the broker's memory is nearly used up\n"));
    let (_, metrics) = get(http, "/metrics");
    let level = metrics.lines().find_map(|line| line.strip_prefix("robustmq_overload_level "));
    assert!(matches!(level, Some("1" | "2")), "{metrics}");
    assert!(metrics.contains("robustmq_overload_refusals_total 2"), "{metrics}");
    let told = broker.said().lines().filter(|line| line.contains("overloaded;")).count();
    assert!(told >= 1, "{told}");
    // Who is connected goes on.
    publisher.put_publish("much", b"last", Delivery::AtLeastOnce { id: NonZeroU16::MIN, dup: false });
    publisher.flush().expect("the broker reads");
    assert!(matches!(publisher.read().expect("an answer"), Incoming::Ack(AckKind::Puback, ..)));
}

/// A client that connects again and again is kept out, by a ban that operators see and may take back; its neighbours at the same
/// address are not.
#[test]
fn a_client_that_flaps_is_banned_for_a_while_and_alone() {
    let broker = start(Settings::new().with("mqtt.flapping_connects", "3"), "");
    let http = broker.listeners().http;
    let mut connects = 0;
    wait_until("the client is banned", || {
        connects += 1;
        Socket::open(broker.mqtt(), &Opening::clean("moth")).err().map(|error| error.to_string())
    });
    assert!(connects > 3, "{connects}");
    drop(Socket::open(broker.mqtt(), &Opening::clean("neighbour")).expect("it did nothing"));
    let (status, text) = get(http, "/api/v1/bans");
    let bans: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &bans["bans"][0]["who"]["client"]), (200, &"moth".into()), "{text}");
    let id = bans["bans"][0]["id"].as_str().expect("an id");
    let (status, text) = ask(http, ("DELETE", &format!("/api/v1/bans/{id}")), "", "");
    assert_eq!(status, 204, "{text}");
    drop(Socket::open(broker.mqtt(), &Opening::clean("moth")).expect("the ban is gone"));
}

/// From the first user on, both the API and MQTT want one.
#[test]
fn a_superuser_made_over_http_closes_the_door_behind_it() {
    let broker = Broker::start();
    let http = broker.listeners().http;
    assert!(refusal(broker.mqtt(), Version::V5).is_empty());
    let root = r#"{"name": "root", "password": "s3cret", "superuser": true}"#;
    assert_eq!(ask(http, ("POST", "/api/v1/users"), "", root).0, 201);
    assert_eq!(get(http, "/api/v1/users").0, 401);
    assert_eq!(get(http, "/health/ready").0, 200);
    // root:s3cret
    let basic = "Authorization: Basic cm9vdDpzM2NyZXQ=\r\n";
    let device = r#"{"name": "device", "password": "d3vice"}"#;
    assert_eq!(ask(http, ("POST", "/api/v1/users"), basic, device).0, 201);
    let rule = r#"{"id": "t", "who": {"user": "device"}, "effect": "allow", "patterns": ["t"]}"#;
    assert_eq!(ask(http, ("POST", "/api/v1/permissions"), basic, rule).0, 201);
    let question = "/api/v1/access/explain?user=device&action=publish&name=t";
    let (_, explained) = ask(http, ("GET", question), basic, "");
    assert!(
        explained.contains(r#""decision":"allow""#) && explained.contains(r#""because":"t""#),
        "{explained}"
    );
    if missing(&[Program::Mosquitto]) {
        return;
    }
    for (topic, password, served) in
        [("t", "d3vice", true), ("t", "wrong", false), ("other", "d3vice", false)]
    {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &broker.mqtt().port().to_string(), "-V", "5", "-q", "1"]);
        command.args(["-u", "device", "-P", password, "-t", topic, "-m", "hello"]);
        let mut process = Process::start(command);
        process.close_input();
        let (content, said) = (process.wait().success(), process.errors());
        let accepted = content && !said.to_lowercase().contains("not authorized");
        assert_eq!(accepted, served, "{topic} {password}: {said}");
    }
}
