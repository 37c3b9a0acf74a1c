//! The clients that tests drive: where they are, and whether they are there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binary;
use crate::process::Process;

/// An unmodified client. Those that are libraries are driven by a small program of ours in `clients/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// paho-mqtt (Python).
    Paho,
    /// aioquic (Python), with MQTT packets of ours on its stream.
    Aioquic,
    /// aiomqtt (Python).
    Aiomqtt,
    /// MQTT.js (Node).
    MqttJs,
    /// MQTT.js in a page of headless Chromium, over WebSocket.
    Browser,
    /// Eclipse Paho for 3.1.1 (Java).
    PahoJavaV3,
    /// Eclipse Paho for 5.0 (Java).
    PahoJavaV5,
    /// rumqttc (Rust).
    Rumqttc,
    /// confluent-kafka (Python over librdkafka).
    Confluent,
    /// aiokafka (Python).
    Aiokafka,
    /// kafka-python, which infers the broker's age from what it advertises.
    KafkaPython,
    /// Apache Kafka's own client (Java).
    Java,
    /// Debian's mosquitto_pub and mosquitto_sub.
    Mosquitto,
    /// Debian's kcat.
    Kcat,
}

/// Whether a client is not there, so that the test has to be left out. In CI that is a failure.
pub fn missing(needed: &[Program]) -> bool {
    let absent: Vec<_> = needed.iter().filter(|program| !program.is_there()).collect();
    if absent.is_empty() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "in CI every client must be there; missing: {absent:?}");
    eprintln!("SKIPPED: {absent:?} not installed; scripts/setup test installs them");
    true
}

impl Program {
    /// Starts one of our client programs with `verb` towards `address`; options are `key=value`.
    pub fn start(self, verb: &str, address: SocketAddr, options: &[String]) -> Process {
        let mut command = self.command();
        command.arg(verb).arg(format!("address={address}")).args(options);
        Process::start(command)
    }

    fn command(self) -> Command {
        match self {
            Program::Paho => python("mqtt_paho.py"),
            Program::Aiomqtt => python("mqtt_aiomqtt.py"),
            Program::Aioquic => python("mqtt_quic.py"),
            Program::Confluent => python("kafka_confluent.py"),
            Program::Aiokafka => python("kafka_aiokafka.py"),
            Program::KafkaPython => python("kafka_python.py"),
            Program::MqttJs => node("mqtt_js.mjs"),
            Program::Browser => node("mqtt_browser.mjs"),
            Program::PahoJavaV3 => java("PahoV3"),
            Program::PahoJavaV5 => java("PahoV5"),
            Program::Java => java("KafkaClient"),
            Program::Rumqttc => Command::new(binary::beside_the_tests("mqtt_rumqttc")),
            Program::Mosquitto | Program::Kcat => panic!("{self:?} is no program of ours"),
        }
    }

    fn is_there(self) -> bool {
        match self {
            Program::Paho
            | Program::Aiomqtt
            | Program::Aioquic
            | Program::Confluent
            | Program::Aiokafka
            | Program::KafkaPython => cache().join("venv/installed").exists(),
            Program::MqttJs => cache().join("node/installed").exists(),
            Program::Browser => Program::MqttJs.is_there() && runs("chromium", "--version"),
            Program::Java | Program::PahoJavaV3 | Program::PahoJavaV5 => {
                cache().join("java/installed").exists()
            }
            // Cargo builds it before the tests.
            Program::Rumqttc => true,
            Program::Mosquitto => {
                ["pub", "sub", "rr"].iter().all(|one| runs(&format!("mosquitto_{one}"), "--help"))
            }
            Program::Kcat => runs("kcat", "-V"),
        }
    }
}

fn runs(program: &str, flag: &str) -> bool {
    let quiet = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok()
}

fn python(script: &str) -> Command {
    let mut command = Command::new(cache().join("venv/bin/python"));
    command.arg(clients().join("python").join(script));
    command
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(clients().join("node").join(script)).env("ROBUSTMQ_NODE_MODULES", cache().join("node"));
    command
}

fn java(class: &str) -> Command {
    let path = format!("{0}/classes:{0}/lib/*", cache().join("java").display());
    let mut command = Command::new("java");
    // Quick to start rather than quick in the long run.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &path, class]);
    command
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where `tests/e2e/setup` puts what it installs.
fn cache() -> PathBuf {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("ROBUSTMQ_CACHE").unwrap_or_else(|| {
        let parent = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        parent.expect("HOME is set").join("robustmq")
    })
}
