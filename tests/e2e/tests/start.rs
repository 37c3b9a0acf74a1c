//! Starting, stopping, and what a broker tells about itself.
#![allow(clippy::print_stdout)]

use std::net::TcpStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use e2e::{Broker, Incoming, Opening, Process, Settings, Socket, allow_open_files, get, wait_until};
use tempfile::TempDir;
use wire::mqtt::{Qos, ReasonCode};

/// How long the idle broker is watched.
const IDLE_SECONDS: &str = "ROBUSTMQ_IDLE_SECONDS";
const CONNECTIONS: usize = 10_000;
/// Bound: 10 ms of processor time in 60 s.
const IDLE_PART: u32 = 6_000;
/// Windows watched at most: the first one below the bound ends the watch.
const IDLE_WINDOWS: u32 = 6;

fn run(command: Command) -> (ExitStatus, Vec<String>, String) {
    let mut process = Process::start(command);
    process.close_input();
    let status = process.wait();
    let lines = std::iter::from_fn(|| process.try_line(Instant::now() + Duration::from_secs(1))).collect();
    (status, lines, process.errors())
}

#[test]
fn it_is_ready_at_once_and_prints_one_screen() {
    let began = Instant::now();
    let mut broker = Broker::start();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "ready after {took:?}");
    let listeners = broker.listeners();
    for address in [listeners.mqtt, listeners.kafka, listeners.http] {
        assert!(address.ip().is_loopback(), "{address} is open to the network");
        TcpStream::connect(address).expect("it accepts what it lists");
    }
    let mut screen = String::new();
    while !screen.contains("curl") {
        screen.push_str(&broker.next_line());
        screen.push('\n');
    }
    let port = |address: std::net::SocketAddr| address.port().to_string();
    for part in [port(listeners.mqtt), port(listeners.kafka), port(listeners.http), "mosquitto_sub".into()] {
        assert!(screen.contains(&part), "{part} in\n{screen}");
    }
    assert!(screen.lines().count() <= 24, "one screen:\n{screen}");
    assert!(broker.said().lines().count() <= 10, "a quiet start:\n{}", broker.said());
}

#[test]
fn health_and_metrics_answer() {
    let broker = Broker::start();
    let http = broker.listeners().http;
    assert_eq!(get(http, "/health/live").0, 200);
    assert_eq!(get(http, "/health/ready").0, 200);
    assert_eq!(get(http, "/nothing").0, 404);
    let (status, text) = get(http, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE robustmq_messages_in counter"), "{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
}

#[test]
fn sigterm_ends_well_and_a_restart_finds_everything() {
    let mut broker = Broker::start();
    let mut socket = Socket::open(broker.mqtt(), &Opening::clean("a")).expect("it accepts");
    assert_eq!(broker.terminate().code(), Some(0));
    // A client of 5.0 is told why, then the connection ends.
    let told = socket.read().expect("DISCONNECT comes first");
    assert_eq!(told, Incoming::Disconnect(ReasonCode::ServerShuttingDown));
    broker.restart();
    Socket::open(broker.mqtt(), &Opening::clean("a")).expect("it accepts again");
    assert_eq!(broker.terminate().code(), Some(0));
}

/// It was killed by a signal that came before it listened to signals, which it did last.
#[test]
fn a_sigterm_that_comes_while_it_starts_is_an_orderly_end() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut broker = Broker::command(directory.path(), &Settings::new())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("it locks its directory", || directory.path().join("lock").exists().then_some(()));
    let killed = Command::new("kill").arg(broker.id().to_string()).status().expect("kill is there");
    assert!(killed.success());
    assert_eq!(broker.wait().expect("it ends").code(), Some(0));
}

#[test]
fn wills_of_those_who_were_connected_at_sigterm_are_kept() {
    let mut broker = Broker::start();
    let mut heir = Socket::open(broker.mqtt(), &Opening::persistent("heir")).expect("it accepts");
    heir.subscribe("wills/#", Qos::AtLeastOnce).expect("it grants");
    let will = Some(("wills/mortal", &b"farewell"[..]));
    let _mortal =
        Socket::open(broker.mqtt(), &Opening { will, ..Opening::clean("mortal") }).expect("it accepts");
    drop(heir);
    assert_eq!(broker.terminate().code(), Some(0));
    broker.restart();
    let mut heir = Socket::open(broker.mqtt(), &Opening::persistent("heir")).expect("it accepts");
    assert!(heir.session_present);
    match heir.read().expect("the will comes") {
        Incoming::Publish { topic, payload, .. } => {
            assert_eq!((topic.as_str(), payload.as_slice()), ("wills/mortal", &b"farewell"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_broker_is_refused() {
    let broker = Broker::start();
    let refused = |command, parts: &[&str]| {
        let (status, _, errors) = run(command);
        assert_eq!(status.code(), Some(1), "{errors}");
        let message = errors.lines().last().expect("it says why");
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    };
    let same = broker.data_dir();
    refused(Broker::command(&same, &Settings::new()), &["broker-server:", &same.display().to_string()]);
    let directory = tempfile::tempdir().expect("a directory");
    let listeners = broker.listeners();
    for (name, address) in [("mqtt", listeners.mqtt), ("kafka", listeners.kafka), ("http", listeners.http)] {
        let settings = ["mqtt", "kafka", "http"].iter().filter(|other| **other != name);
        let settings =
            settings.fold(Settings::new(), |set, other| set.with(&format!("{other}.bind"), "127.0.0.1:0"));
        let settings = settings.with(&format!("{name}.bind"), &address.to_string());
        let mut command = Broker::command_with(&["start", "--data-dir"]);
        command.arg(directory.path()).envs(settings.variables());
        refused(command, &["broker-server:", name, &address.to_string()]);
    }
}

#[test]
fn settings_are_printed_and_checked() {
    let (status, lines, errors) = run(Broker::command_with(&["config", "print"]));
    assert!(status.success(), "{errors}");
    assert!(lines.iter().any(|line| line.contains("127.0.0.1:1883")), "{lines:?}");
    let (status, ..) = run(Broker::command_with(&["config", "check"]));
    assert!(status.success());
    let mut wrong = Broker::command_with(&["config", "check"]);
    wrong.env("ROBUSTMQ__KAFKA__BNID", "x").env("ROBUSTMQ__NODE__CORES", "many");
    let (status, _, errors) = run(wrong);
    assert_eq!(status.code(), Some(2));
    assert!(
        errors.contains("bind") && errors.contains("CORES"),
        "all problems at once, with a suggestion: {errors}"
    );
}

#[test]
fn ten_thousand_idle_connections_cost_next_to_nothing() {
    allow_open_files(CONNECTIONS + 200);
    let broker = Broker::start();
    let before = broker.resident_bytes();
    let sockets: Vec<_> = (0..CONNECTIONS)
        .map(|n| Socket::open(broker.mqtt(), &Opening::clean(&format!("idle-{n}"))).expect("it accepts"))
        .collect();
    let each = (broker.resident_bytes() - before) / CONNECTIONS as u64;
    // What the last connections left to do is done before the watch begins.
    broker.live(Duration::from_secs(2));
    let seconds = std::env::var(IDLE_SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let window = Duration::from_secs(seconds);
    let bar = window / IDLE_PART;
    // Linux counts as ours what a hypervisor took from a thread of ours, milliseconds on a busy host. A broker that
    // polls does so in every window; such theft does not.
    let windows = (0..IDLE_WINDOWS).map(|_| broker.processor_time(window));
    let spent = windows.inspect(|spent| println!("{spent:?} in {window:?}")).find(|spent| *spent < bar);
    println!("{each} bytes per connection");
    assert!(spent.is_some(), "never below {bar:?} in {window:?}");
    assert!(each < 8 * 1024, "{each} bytes per connection");
    drop(sockets);
}
