//! MQTT over everything that it can travel in: unmodified clients over TLS, mutual TLS, WebSocket, QUIC and unix sockets;
//! certificates that are renewed while the broker runs; and connections that never get to the point.
#![allow(clippy::print_stdout)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{Broker, Message, Process, Program, Settings, allow_open_files, missing, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// An authority and what it issues, as files.
struct Certificates {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let this = Certificates {
            folder: TempDir::new().expect("a folder"),
            issuer: issuer.expect("a certificate"),
        };
        fs::write(this.path("ca.pem"), this.issuer.pem()).expect("a file");
        this.issue("server", "broker");
        this.issue("client", "device-7");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, common_name: &str) {
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("hosts");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    /// A listener with these certificates; `more` are further keys of its TLS section.
    fn listener(&self, name: &str, transport: &str, own: &str, more: &str) -> String {
        format!(
            "[[mqtt.listeners]]\nname = \"{name}\"\ntransport = \"{transport}\"\nbind = \"127.0.0.1:0\"\n{own}\n\
             [mqtt.listeners.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n{more}\n",
            self.path("server.pem"),
            self.path("server.key"),
        )
    }

    fn mutual(&self) -> String {
        format!("client_auth = \"required\"\nca_file = {:?}", self.path("ca.pem"))
    }
}

/// A listener without certificates.
fn listener(name: &str, transport: &str, own: &str) -> String {
    format!(
        "[[mqtt.listeners]]\nname = \"{name}\"\ntransport = \"{transport}\"\nbind = \"127.0.0.1:0\"\n{own}\n"
    )
}

fn start(listeners: &str) -> Broker {
    Broker::start_with(Settings::new().with("log.level", "debug").with_file(listeners))
}

/// Messages of every QoS there and back, large and small, in both versions.
fn exchange(program: Program, address: SocketAddr, options: &[&str]) {
    for version in ["version=4", "version=5"] {
        let options = [options, &[version, "qos=2"]].concat();
        let mut reader = program.subscribe(address, "over/#", &options);
        let large = vec![7; 300_000];
        let sent: Vec<_> = (0..9_u8)
            .map(|n| {
                Message::new(
                    "over/it",
                    [&[n], &large[..if n % 4 == 3 { large.len() } else { 3 }]].concat(),
                    n % 3,
                )
            })
            .collect();
        program.publish(address, &sent, &options);
        let mut received = reader.take(sent.len());
        // Order holds per QoS.
        received.sort_by_key(|message| message.payload[0]);
        assert!(received == sent, "{program:?} {options:?}");
        reader.finish();
    }
}

#[test]
fn paho_over_websocket_and_tls() {
    if missing(&[Program::Paho]) {
        return;
    }
    let certificates = Certificates::new();
    let broker = start(&[listener("web", "ws", ""), certificates.listener("safe", "tls", "", "")].concat());
    exchange(Program::Paho, broker.listener("web"), &["transport=websockets"]);
    let ca = format!("ca={}", certificates.text("ca.pem"));
    exchange(Program::Paho, broker.listener("safe"), &[&ca]);
    assert!(broker.listener("web").ip().is_loopback());
}

#[test]
fn mqtt_js_over_websocket_with_and_without_tls() {
    if missing(&[Program::MqttJs]) {
        return;
    }
    let certificates = Certificates::new();
    let broker =
        start(&[listener("web", "ws", ""), certificates.listener("safe-web", "wss", "", "")].concat());
    exchange(Program::MqttJs, broker.listener("web"), &["protocol=ws"]);
    let ca = format!("ca={}", certificates.text("ca.pem"));
    exchange(Program::MqttJs, broker.listener("safe-web"), &["protocol=wss", &ca]);
}

#[test]
fn paho_through_a_unix_socket() {
    if missing(&[Program::Paho]) {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("mqtt.sock");
    let mut broker = start(&format!(
        "[[mqtt.listeners]]\nname = \"local\"\ntransport = \"unix\"\npath = {path:?}\nmode = \"0600\"\n"
    ));
    assert_eq!(broker.socket_file("local"), path);
    let option = format!("path={}", path.display());
    exchange(Program::Paho, broker.mqtt(), &["transport=unix", &option]);
    // A killed broker leaves the file, and the next one replaces it; one that stops removes it.
    broker.kill_9();
    assert!(path.exists());
    broker.restart();
    exchange(Program::Paho, broker.mqtt(), &["transport=unix", &option]);
    let second = Settings::new()
        .with_file(&format!("[[mqtt.listeners]]\nname = \"local\"\ntransport = \"unix\"\npath = {path:?}\n"));
    let other = TempDir::new().expect("a folder");
    let (status, errors) = run(Broker::command(other.path(), &second));
    assert!(!status.success() && errors.contains("in use by another process"), "{errors}");
    assert_eq!(broker.terminate().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn mosquitto_through_a_unix_socket() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("mqtt.sock");
    let _broker =
        start(&format!("[[mqtt.listeners]]\nname = \"local\"\ntransport = \"unix\"\npath = {path:?}\n"));
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "--unix"]).arg(&path).args(arguments);
        command
    };
    let arguments = ["-d", "-q", "2", "-t", "m/+", "-F", "got %t %p", "-C", "1"];
    let mut reader = Process::start(client("mosquitto_sub", &arguments));
    while !reader.next_line().starts_with("Subscribed") {}
    let (status, errors) = run(client("mosquitto_pub", &["-q", "2", "-t", "m/x", "-m", "hello"]));
    assert!(status.success(), "{errors}");
    let got = std::iter::repeat_with(|| reader.next_line()).find(|line| line.starts_with("got"));
    assert_eq!(got.as_deref(), Some("got m/x hello"));
    reader.finish();
}

#[test]
fn mqtt_over_quic() {
    if missing(&[Program::Aioquic]) {
        return;
    }
    let certificates = Certificates::new();
    let own = "certificate_user = \"common_name\"";
    let mut broker = start(&certificates.listener("fast", "quic", own, &certificates.mutual()));
    let file = |key: &str, name: &str| format!("{key}={}", certificates.text(name));
    let mut options = vec!["topic=over/quic".to_owned(), "payload=00ff".to_owned(), file("ca", "ca.pem")];
    options.extend([file("cert", "client.pem"), file("key", "client.key")]);
    for times in [1, 700_000] {
        let options = [&options[..], &[format!("times={times}")]].concat();
        let mut client = Program::Aioquic.start("echo", broker.listener("fast"), &options);
        assert_eq!(client.next_event(&["echoed"])["length"], times * 2);
        assert_eq!(client.next_event(&["done"])["rest"], "", "the broker ends its side");
        client.finish();
    }
    wait_until("the user is known", || broker.said().contains("(device-7)").then_some(()));
    // Without a certificate there is no connection.
    let mut stranger = Program::Aioquic.start("echo", broker.listener("fast"), &options[..3]);
    assert!(!stranger.wait().success());
}

/// A mosquitto client over TLS.
fn mosquitto(program: &str, address: SocketAddr, certificates: &Certificates, arguments: &[&str]) -> Command {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &address.port().to_string()]);
    command.arg("--cafile").arg(certificates.path("ca.pem")).args(arguments);
    command
}

fn run(command: Command) -> (ExitStatus, String) {
    let mut process = Process::start(command);
    process.close_input();
    (process.wait(), process.errors())
}

#[test]
fn mosquitto_over_tls_and_mutual_tls() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let certificates = Certificates::new();
    let own = "certificate_user = \"common_name\"";
    let mut broker = start(
        &[
            certificates.listener("safe", "tls", "", ""),
            certificates.listener("mutual", "tls", own, &certificates.mutual()),
        ]
        .concat(),
    );
    let (cert, key) = (certificates.text("client.pem"), certificates.text("client.key"));
    let identity = ["--cert", &cert, "--key", &key];
    for (name, identity) in [("safe", &[][..]), ("mutual", &identity)] {
        let address = broker.listener(name);
        let arguments = [identity, &["-d", "-q", "1", "-t", "m/+", "-F", "got %t %p", "-C", "1"]].concat();
        let mut reader = Process::start(mosquitto("mosquitto_sub", address, &certificates, &arguments));
        while !reader.next_line().starts_with("Subscribed") {}
        let arguments = [identity, &["-q", "1", "-t", "m/x", "-m", "hello"]].concat();
        let (status, errors) = run(mosquitto("mosquitto_pub", address, &certificates, &arguments));
        assert!(status.success(), "{errors}");
        let got = std::iter::repeat_with(|| reader.next_line()).find(|line| line.starts_with("got"));
        assert_eq!(got.as_deref(), Some("got m/x hello"));
        reader.finish();
    }
    wait_until("the user is known", || broker.said().contains("(device-7)").then_some(()));
    // Who shows no certificate stays out.
    let publish = ["-q", "1", "-t", "m/x", "-m", "hello"];
    let (status, _) = run(mosquitto("mosquitto_pub", broker.listener("mutual"), &certificates, &publish));
    assert!(!status.success());
}

#[test]
fn certificates_are_read_again_on_sighup_and_broken_ones_are_not_used() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let certificates = Certificates::new();
    let mut broker = start(&certificates.listener("safe", "tls", "", ""));
    broker.allow("certificates not renewed");
    let address = broker.listener("safe");
    let publish = |certificates: &Certificates| {
        let arguments = ["-q", "1", "-t", "m/x", "-m", "hello"];
        run(mosquitto("mosquitto_pub", address, certificates, &arguments)).0.success()
    };
    assert!(publish(&certificates));
    // Another authority takes over: its certificate is in the same files.
    let successors = Certificates::new();
    for name in ["server.pem", "server.key"] {
        fs::copy(successors.path(name), certificates.path(name)).expect("copied");
    }
    assert!(publish(&certificates), "not read again yet");
    broker.hang_up();
    wait_until("the new certificate is used", || publish(&successors).then_some(()));
    assert!(!publish(&certificates), "the old one is not used any more");
    fs::write(certificates.path("server.key"), "no key").expect("a file");
    broker.hang_up();
    wait_until("the failure is told", || broker.said().contains("not renewed").then_some(()));
    assert!(publish(&successors), "what worked goes on");
}

#[test]
fn a_broker_without_usable_certificates_does_not_start_and_says_why() {
    let certificates = Certificates::new();
    fs::remove_file(certificates.path("server.key")).expect("removed");
    let settings = Settings::new().with_file(&certificates.listener("safe", "tls", "", ""));
    let folder = TempDir::new().expect("a folder");
    let (status, errors) = run(Broker::command(folder.path(), &settings));
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("certificates of safe") && errors.contains("server.key"), "{errors}");
}

/// A listener's own limits: packets of one size here, of another there.
#[test]
fn each_listener_has_its_own_largest_packet() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    let broker = start(&listener("small", "tcp", "max_packet_bytes = \"1KiB\""));
    let folder = TempDir::new().expect("a folder");
    let payload = folder.path().join("payload");
    fs::write(&payload, vec![b'x'; 4096]).expect("a file");
    let publish = |address: SocketAddr, file: &Path| {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-q", "1", "-t", "t", "-f"]);
        command.arg(file);
        run(command).0.success()
    };
    assert!(publish(broker.mqtt(), &payload));
    assert!(!publish(broker.listener("small"), &payload));
    fs::write(&payload, "short").expect("a file");
    assert!(publish(broker.listener("small"), &payload));
}

/// Connections that begin a handshake and go no further.
const SLOW: usize = 10_000;
/// What the listener admits of them.
const ADMITTED: usize = 200;

#[test]
fn ten_thousand_slow_handshakes_hold_no_more_than_the_bound() {
    if missing(&[Program::Paho]) {
        return;
    }
    allow_open_files(SLOW + 500);
    let own = format!("max_connections = {ADMITTED}\nhandshake_timeout = \"3s\"");
    let mut broker = start(&listener("web", "ws", &own));
    broker.allow("connection limit reached");
    let address = broker.listener("web");
    let before = broker.resident_bytes();
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..SLOW {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        // What was refused already may not take it.
        let _ = stream.write_all(b"GET /mqtt HTTP/1.1\r\nHost: ");
        stream.set_nonblocking(true).expect("an open socket");
        open.push(stream);
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for {SLOW} handshakes");
    let still_open = |stream: &mut TcpStream| matches!(stream.read(&mut [0; 16]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    // Those beyond the bound are closed at once, the others when their time is over; nobody waits for ever.
    wait_until("those beyond the bound are gone", || {
        open.retain_mut(still_open);
        (open.len() <= ADMITTED).then_some(())
    });
    let began = Instant::now();
    wait_until("the others are gone", || {
        open.retain_mut(still_open);
        open.is_empty().then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    exchange(Program::Paho, address, &["transport=websockets"]);
}

/// TLS connections that do nothing, and what each may cost.
const IDLE: usize = 2_000;
const IDLE_BYTES_MAX: u64 = 20 * 1024;

#[test]
fn an_idle_tls_connection_is_small() {
    allow_open_files(IDLE + 500);
    let certificates = Certificates::new();
    let broker = start(&certificates.listener("safe", "tls", "", ""));
    let address = broker.listener("safe");
    let mut roots = RootCertStore::empty();
    roots.add(certificates.issuer.der().clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let connect = |number: usize| {
        let name = "localhost".try_into().expect("a host");
        let connection = ClientConnection::new(Arc::clone(&config), name).expect("a connection");
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).expect("it accepts"));
        let id = format!("{number:05}");
        let packet = [&b"\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05"[..], id.as_bytes()].concat();
        stream.write_all(&packet).expect("it reads");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("CONNACK");
        assert_eq!(answer, *b"\x20\x02\0\0");
        stream
    };
    // What is made once is there before the count begins.
    let first: Vec<_> = (0..50).map(connect).collect();
    let before = broker.resident_bytes();
    let more: Vec<_> = (50..50 + IDLE).map(connect).collect();
    let each = broker.resident_bytes().saturating_sub(before) / IDLE as u64;
    println!("{each} bytes per connection");
    assert!(each < IDLE_BYTES_MAX, "{each} bytes per connection");
    drop((first, more));
}
