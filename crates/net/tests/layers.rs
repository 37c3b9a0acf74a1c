//! Everything that may stand between a socket and a session, over real sockets: an echo behind each kind of listener, and
//! clients that speak as they should, or do not.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use net::{
    Address, CertificateUser, ClientAuth, ClientIssuers, Closed, CoreIo, Entrance, Mailbox, Peer,
    ProxyProtocol, Refused, Session, Tls, TlsFiles, Transport, Turn, WebSocketRules, drive,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets, and closes when it is told to.
struct Echo;

impl Session for Echo {
    type Event = ();

    fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        if input.starts_with(b"close") {
            turn.output.buffer().extend_from_slice(b"bye");
            turn.close();
        } else {
            turn.output.push(input.split().freeze());
        }
    }

    fn handle_event(&mut self, (): (), _turn: &mut Turn<'_>) {}
    fn handle_deadline(&mut self, _turn: &mut Turn<'_>) {}
    fn handle_drained(&mut self, _turn: &mut Turn<'_>) {}
    fn handle_closed(&mut self, _closed: Closed) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn wants_input(&self) -> bool {
        true
    }
}

fn plain() -> Entrance {
    Entrance {
        name: "test".into(),
        transport: Transport::Tcp,
        proxy: None,
        tls: None,
        websocket: None,
        user: CertificateUser::None,
        timeout: PATIENCE,
    }
}

fn websocket(frame_bytes_max: u64) -> Entrance {
    let rules = WebSocketRules { path: "/mqtt".to_owned(), require_sub_protocol: true, frame_bytes_max };
    Entrance { transport: Transport::WebSocket, websocket: Some(Arc::new(rules)), ..plain() }
}

/// Who got in and who did not, in order.
type Seen = Vec<Result<Peer, Refused>>;

/// Serves an echo behind `entrance` while `client` runs on a thread of its own. Answers what became of the `count`
/// connections that it makes, and what it answers.
fn serve<T: Send + 'static>(
    entrance: Entrance,
    count: usize,
    client: impl FnOnce(SocketAddr) -> T + Send + 'static,
) -> (Seen, T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = tokio::task::spawn_blocking(move || client(address));
        let (seen, core, entrance) = (Rc::new(RefCell::new(Vec::new())), CoreIo::new(), Rc::new(entrance));
        let mut connections = Vec::new();
        for _ in 0..count {
            let (stream, peer) = listener.accept().await.expect("a connection");
            let (seen, core, entrance) = (Rc::clone(&seen), core.clone(), Rc::clone(&entrance));
            connections.push(tokio::task::spawn_local(async move {
                match entrance.enter_tcp(stream, Address::Ip(peer), &core).await {
                    Ok(entered) => {
                        seen.borrow_mut().push(Ok(entered.peer));
                        drive(entered.io, core, Echo, Mailbox::new(), ()).await;
                    }
                    Err(refused) => seen.borrow_mut().push(Err(refused)),
                }
            }));
        }
        let answer = client.await.expect("the client does not panic");
        for connection in connections {
            connection.await.expect("a connection does not panic");
        }
        (seen.take(), answer)
    })
}

fn connect(address: SocketAddr) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn read_exactly(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("so many bytes come");
    bytes
}

/// All that comes until the end; a reset is an end too.
fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Opens a WebSocket and reads the answer.
fn upgrade(stream: &mut (impl Read + Write)) {
    stream.write_all(UPGRADE.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.extend(read_exactly(stream, 1));
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Protocol: mqtt\r\n"), "{answer}");
}

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let len = u16::try_from(payload.len()).expect("short");
    let header = match len {
        0..126 => vec![first, 0x80 | len as u8],
        _ => [&[first, 0xFE][..], &len.to_be_bytes()].concat(),
    };
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    header.into_iter().chain(mask).chain(masked).collect()
}

#[test]
fn mqtt_6_0_0_2_a_websocket_carries_the_bytes_both_ways() {
    let (seen, ()) = serve(websocket(1000), 1, |address| {
        let mut stream = connect(address);
        upgrade(&mut stream);
        stream.write_all(&frame(0x02, b"hello ")).expect("it reads");
        assert_eq!(read_exactly(&mut stream, 8), b"\x82\x06hello ");
        stream.write_all(&[frame(0x89, b"ping"), frame(0x80, b"world")].concat()).expect("it reads");
        assert_eq!(read_exactly(&mut stream, 13), b"\x8A\x04ping\x82\x05world");
        stream.write_all(&frame(0x88, b"\x03\xE8")).expect("it reads");
        assert_eq!(read_to_end(&mut stream), b"\x88\x02\x03\xE8", "the close is answered");
    });
    let peer = seen[0].as_ref().expect("it got in");
    assert_eq!((peer.transport, &*peer.listener), (Transport::WebSocket, "test"));
}

#[test]
fn a_session_that_closes_says_so_in_the_websockets_way() {
    serve(websocket(1000), 1, |address| {
        let mut stream = connect(address);
        upgrade(&mut stream);
        stream.write_all(&frame(0x82, b"close")).expect("it reads");
        assert_eq!(read_to_end(&mut stream), b"\x82\x03bye\x88\x02\x03\xE8");
    });
}

#[test]
fn mqtt_6_0_0_1_frames_that_are_not_allowed_end_a_websocket_with_their_code() {
    let cases: [(Vec<u8>, u16); 4] = [
        (frame(0x81, b"text"), 1003),
        (b"\x82\x00".to_vec(), 1002),
        ([&[0x82, 0xFE][..], &2000_u16.to_be_bytes()].concat(), 1009),
        (frame(0x80, b"continues nothing"), 1002),
    ];
    for (bytes, code) in cases {
        serve(websocket(1000), 1, move |address| {
            let mut stream = connect(address);
            upgrade(&mut stream);
            stream.write_all(&[frame(0x82, b"before"), bytes].concat()).expect("it reads");
            let expected = [b"\x82\x06before\x88\x02".as_slice(), &code.to_be_bytes()].concat();
            assert_eq!(read_to_end(&mut stream), expected, "{code}");
        });
    }
}

#[test]
fn a_large_answer_to_a_slow_websocket_arrives_whole() {
    // More than the kernel keeps for both sides.
    const LEN: usize = 24 << 20;
    serve(websocket(1 << 20), 1, |address| {
        let mut stream = connect(address);
        upgrade(&mut stream);
        let sent: Vec<u8> = (0..LEN).map(|n| (n / 7) as u8).collect();
        for chunk in sent.chunks(60_000) {
            stream.write_all(&frame(0x82, chunk)).expect("it reads");
        }
        let mut received = Vec::new();
        while received.len() < LEN {
            let header = read_exactly(&mut stream, 2);
            assert_eq!(header[0], 0x82);
            let len = match header[1] {
                126 => read_exactly(&mut stream, 2).iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
                127 => read_exactly(&mut stream, 8).iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
                len => usize::from(len),
            };
            received.extend(read_exactly(&mut stream, len));
        }
        assert!(received == sent);
    });
}

#[test]
fn a_request_that_is_refused_is_told_why() {
    let (seen, answer) = serve(websocket(1000), 1, |address| {
        let mut stream = connect(address);
        stream.write_all(UPGRADE.replace("/mqtt", "/other").as_bytes()).expect("it reads");
        String::from_utf8(read_to_end(&mut stream)).expect("text")
    });
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(matches!(seen[0], Err(Refused::WebSocket(_))), "{seen:?}");
}

#[test]
fn a_proxy_speaks_for_its_client() {
    let entrance = Entrance { proxy: Some(ProxyProtocol::Any), ..plain() };
    let (seen, ()) = serve(entrance, 3, |address| {
        let mut stream = connect(address);
        stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 1883\r\nhello").expect("it reads");
        assert_eq!(read_exactly(&mut stream, 5), b"hello");
        drop(stream);
        let mut stream = connect(address);
        stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0hello").expect("it reads");
        assert_eq!(read_exactly(&mut stream, 5), b"hello");
        drop(stream);
        let mut stream = connect(address);
        stream.write_all(b"\x10\x0c\0\x04MQTT").expect("it reads");
        assert_eq!(read_to_end(&mut stream), b"");
    });
    let address = |at: usize| seen[at].as_ref().expect("it got in").address;
    assert_eq!(address(0), Address::Ip("192.0.2.7:50000".parse().expect("an address")));
    assert!(address(1).ip().is_some_and(|ip| ip.is_loopback()), "a health check is the proxy's own");
    assert!(matches!(seen[2], Err(Refused::Proxy(_))), "{seen:?}");
}

#[test]
fn handshakes_that_take_too_long_end() {
    let certificates = Authority::new();
    let proxy = Entrance { proxy: Some(ProxyProtocol::Any), ..plain() };
    let tls =
        Entrance { tls: Some(certificates.tls(ClientAuth::None)), transport: Transport::Tls, ..plain() };
    let beginnings: [(Entrance, &[u8]); 5] = [
        (proxy.clone(), b"PROXY TCP4 "),
        (websocket(1000), b"GET /mqtt HTTP/1.1\r\n"),
        (tls.clone(), b"\x16\x03\x01"),
        (tls, b""),
        (Entrance { proxy: proxy.proxy, ..websocket(1000) }, b"PROXY UNKNOWN\r\nGET /"),
    ];
    for (entrance, beginning) in beginnings {
        let entrance = Entrance { timeout: Duration::from_millis(50), ..entrance };
        let (seen, ()) = serve(entrance, 1, move |address| {
            let mut stream = connect(address);
            stream.write_all(beginning).expect("it reads");
            assert_eq!(read_to_end(&mut stream), b"");
        });
        assert!(matches!(seen[0], Err(Refused::TooSlow)), "{beginning:?}: {seen:?}");
    }
}

/// An authority, what it issued, and the files that a listener reads.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let this = Self { folder: tempfile::tempdir().expect("a folder"), issuer };
        fs::write(this.path("ca.pem"), this.issuer.pem()).expect("a file");
        this.renew("first.example");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate for the listener.
    fn renew(&self, name: &str) {
        let (certificate, key) = self.issue(&["localhost".to_owned(), name.to_owned()], name, 1);
        fs::write(self.path("server.pem"), certificate).expect("a file");
        fs::write(self.path("server.key"), key).expect("a file");
    }

    fn issue(&self, hosts: &[String], common_name: &str, serial: u64) -> (String, String) {
        let mut params = CertificateParams::new(hosts.to_vec()).expect("host names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Takes back the certificate with that number.
    fn revoke(&self, serial: u64) {
        let moment = |year| rcgen::date_time_ymd(year, 1, 1);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: moment(2024),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: moment(2024),
            next_update: moment(2124),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        fs::write(self.path("crl.pem"), list.pem().expect("PEM")).expect("a file");
    }

    fn issuers(&self, revoked: bool) -> ClientIssuers {
        ClientIssuers { authorities: self.path("ca.pem"), revoked: revoked.then(|| self.path("crl.pem")) }
    }

    fn files(&self, client: ClientAuth) -> TlsFiles {
        TlsFiles { certificate: self.path("server.pem"), key: self.path("server.key"), client }
    }

    fn tls(&self, client: ClientAuth) -> Arc<Tls> {
        Arc::new(Tls::load(self.files(client)).expect("usable certificates"))
    }

    /// A client that trusts this authority and shows a certificate, if it has one.
    fn client(&self, identity: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        })
    }
}

type TlsStream = StreamOwned<ClientConnection, std::net::TcpStream>;

fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>, name: &'static str) -> TlsStream {
    let connection = ClientConnection::new(config, name.try_into().expect("a host")).expect("a connection");
    StreamOwned::new(connection, connect(address))
}

/// Sends and expects back; an error if the peer has other plans.
fn exchange(stream: &mut TlsStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert!(back == bytes);
    Ok(())
}

#[test]
fn tls_carries_the_bytes_both_ways_also_many_and_says_good_bye() {
    let certificates = Authority::new();
    let (tls, client) = (certificates.tls(ClientAuth::None), certificates.client(None));
    let (seen, ()) = serve(Entrance { tls: Some(tls), transport: Transport::Tls, ..plain() }, 2, |address| {
        let mut stream = connect_tls(address, Arc::clone(&client), "localhost");
        exchange(&mut stream, b"hello").expect("an echo");
        exchange(&mut stream, &vec![7; 24 << 20]).expect("an echo of many records");
        stream.write_all(b"close").expect("it reads");
        let mut last = Vec::new();
        // Without the closing alert this is an error.
        stream.read_to_end(&mut last).expect("a clean end");
        assert_eq!(last, b"bye");
        // A client that says good-bye ends its connection, although its socket stays open.
        let mut stream = connect_tls(address, client, "localhost");
        exchange(&mut stream, b"hello").expect("an echo");
        stream.conn.send_close_notify();
        stream.flush().expect("it reads");
        read_to_end(&mut stream.sock);
    });
    let peer = seen[0].as_ref().expect("it got in");
    assert_eq!((peer.transport, &peer.certificate, &peer.user), (Transport::Tls, &None, &None));
}

#[test]
fn a_websocket_over_tls_behind_a_proxy() {
    let certificates = Authority::new();
    let (tls, client) = (certificates.tls(ClientAuth::None), certificates.client(None));
    let entrance = Entrance { tls: Some(tls), proxy: Some(ProxyProtocol::V1), ..websocket(1000) };
    let (seen, ()) = serve(entrance, 1, |address| {
        let mut stream = connect_tls(address, client, "localhost");
        stream.sock.write_all(b"PROXY TCP6 ::1 ::1 7 8\r\n").expect("it reads");
        upgrade(&mut stream);
        stream.write_all(&frame(0x82, b"hello")).expect("it reads");
        assert_eq!(read_exactly(&mut stream, 7), b"\x82\x05hello");
        stream.write_all(&frame(0x82, b"close")).expect("it reads");
        assert_eq!(read_to_end(&mut stream), b"\x82\x03bye\x88\x02\x03\xE8");
    });
    let peer = seen[0].as_ref().expect("it got in");
    assert_eq!(peer.address, Address::Ip("[::1]:7".parse().expect("an address")));
}

#[test]
fn a_client_certificate_names_the_user() {
    let certificates = Authority::new();
    let required = certificates.tls(ClientAuth::Required(certificates.issuers(false)));
    let device = certificates.client(Some(certificates.issue(&[], "device-7", 7)));
    for (user, expected) in [
        (CertificateUser::CommonName, Some("device-7")),
        (CertificateUser::Subject, Some("CN=device-7,O=Acme")),
        (CertificateUser::None, None),
    ] {
        let (tls, device) = (Some(Arc::clone(&required)), Arc::clone(&device));
        let entrance = Entrance { tls, user, transport: Transport::Tls, ..plain() };
        let (seen, ()) = serve(entrance, 1, |address| {
            exchange(&mut connect_tls(address, device, "localhost"), b"hello").expect("an echo");
        });
        let peer = seen[0].as_ref().expect("it got in");
        assert_eq!(peer.user.as_deref(), expected, "{user:?}");
        let certificate = peer.certificate.as_ref().expect("a certificate");
        assert_eq!(certificate.common_name.as_deref(), Some("device-7"));
    }
}

#[test]
fn who_shows_no_valid_certificate_stays_out_if_one_is_required() {
    let certificates = Authority::new();
    let strangers = Authority::new();
    certificates.revoke(7);
    let issuers = certificates.issuers(true);
    let clients = [
        ("nobody", None, true),
        ("a stranger", Some(strangers.issue(&[], "device-7", 8)), false),
        ("taken back", Some(certificates.issue(&[], "device-7", 7)), false),
        ("valid", Some(certificates.issue(&[], "device-8", 8)), true),
    ];
    for (what, identity, optional_gets_in) in clients {
        for (required, gets_in) in [(true, what == "valid"), (false, optional_gets_in)] {
            let client = if required { ClientAuth::Required } else { ClientAuth::Optional };
            let tls = certificates.tls(client(issuers.clone()));
            let config = certificates.client(identity.clone());
            let entrance = Entrance { tls: Some(tls), transport: Transport::Tls, ..plain() };
            let (seen, exchanged) = serve(entrance, 1, |address| {
                exchange(&mut connect_tls(address, config, "localhost"), b"hello")
            });
            assert_eq!(exchanged.is_ok(), gets_in, "{what}, required: {required}: {exchanged:?}");
            assert_eq!(seen[0].is_ok(), gets_in, "{what}, required: {required}: {seen:?}");
        }
    }
}

#[test]
fn a_certificate_without_the_wanted_name_is_refused() {
    let certificates = Authority::new();
    let tls = certificates.tls(ClientAuth::Required(certificates.issuers(false)));
    let client = certificates.client(Some(certificates.issue(&[], "", 9)));
    let entrance =
        Entrance { tls: Some(tls), user: CertificateUser::CommonName, transport: Transport::Tls, ..plain() };
    let (seen, exchanged) =
        serve(entrance, 1, |address| exchange(&mut connect_tls(address, client, "localhost"), b"hello"));
    assert!(exchanged.is_err());
    assert!(matches!(seen[0], Err(Refused::Nameless)), "{seen:?}");
}

#[test]
fn certificates_are_renewed_without_a_restart_and_kept_if_the_new_ones_are_broken() {
    let certificates = Authority::new();
    let tls = certificates.tls(ClientAuth::None);
    let entrance = Entrance { tls: Some(Arc::clone(&tls)), transport: Transport::Tls, ..plain() };
    let client = certificates.client(None);
    let (seen, ()) = serve(entrance, 6, move |address| {
        let reach = |name| exchange(&mut connect_tls(address, Arc::clone(&client), name), b"hello").is_ok();
        // An open connection goes on with what it began with.
        let mut open = connect_tls(address, Arc::clone(&client), "first.example");
        exchange(&mut open, b"before").expect("an echo");
        assert!(reach("first.example"));
        certificates.renew("second.example");
        tls.reload().expect("usable");
        assert!(!reach("first.example") && reach("second.example"));
        exchange(&mut open, b"after").expect("an echo");
        // The key of another certificate: refused, and what worked goes on.
        let stranger = KeyPair::generate().expect("a key");
        fs::write(certificates.path("server.key"), stranger.serialize_pem()).expect("a file");
        let refused = tls.reload().expect_err("they do not belong together");
        assert!(refused.to_string().contains("server.pem"), "{refused}");
        assert!(!tls.reload_if_changed().expect("not tried again"));
        assert!(reach("second.example"));
        // Both files again, without anybody saying so.
        certificates.renew("third.example");
        assert!(tls.reload_if_changed().expect("usable"));
        assert!(reach("third.example"));
    });
    assert_eq!(seen.len(), 6);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let certificates = Authority::new();
    certificates.revoke(1);
    let issuers = ClientAuth::Required(certificates.issuers(true));
    for (name, content) in [
        ("server.pem", None),
        ("server.pem", Some("")),
        ("server.key", Some("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n")),
        ("server.key", None),
        ("ca.pem", Some("nothing")),
        ("crl.pem", Some("nothing")),
        ("crl.pem", None),
    ] {
        let path = certificates.path(name);
        let before = fs::read(&path).expect("it is there");
        match content {
            Some(content) => fs::write(&path, content).expect("a file"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let error = Tls::load(certificates.files(issuers.clone())).err().expect("refused");
        assert!(error.to_string().contains(name), "{name}: {error}");
        fs::write(&path, before).expect("a file");
    }
    Tls::load(certificates.files(issuers)).expect("usable again");
}
