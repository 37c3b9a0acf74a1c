//! Kafka clients log in. Spec: S80, KIP-368.

use std::sync::Arc;
use std::time::{Duration, Instant};

use auth::scram::Mechanism;
use auth::{
    AuthenticateFuture, Authenticator, Ban, Banned, Credentials, Effect, Identity, Link, Outcome, Permission,
    User, Who,
};
use broker::Broker as _;
use bytes::{BufMut, Bytes, BytesMut};
use kafka::Config;
use model::TenantId;
use net::Arrivals;
use rt::{Clock, SystemClock};
use testkit::{ScramClient, TestNode, on_core};
use wire::kafka::messages::{
    MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use wire::kafka::{APIS, ApiKey, ApiRange, ApiVersionsRequest, ErrorCode, Request, Response};

use crate::client::{Client, Kafka, batch, fetch};

/// A listener through which anonymous clients do not come in.
fn wide(node: &TestNode) -> Kafka {
    let mut config = Config::default();
    config.listener.loopback = false;
    Kafka::with(node, config)
}

/// A node whose user may do everything below `open/`.
async fn node_of(name: &str, password: &str) -> TestNode {
    let node = TestNode::start().await;
    add_user(&node, user(name), password).await;
    open(&node, Who::User(name.to_owned())).await;
    node
}

fn user(name: &str) -> User {
    User::new(TenantId::default(), name)
}

async fn add_user(node: &TestNode, user: User, password: &str) {
    let user = node.core.access().set_password(user, password.as_bytes()).await.expect("derived");
    node.put(&user).await;
}

async fn open(node: &TestNode, who: Who) {
    node.put(&Permission::new(TenantId::default(), "open", who, Effect::Allow, "open/#")).await;
}

fn handshake(mechanism: &str) -> Request {
    let mut request = SaslHandshakeRequest::default();
    request.mechanism = mechanism.into();
    Request::SaslHandshake(request)
}

async fn shake_hands(client: &mut Client, version: i16, mechanism: &str) -> SaslHandshakeResponse {
    match client.call(version, handshake(mechanism)).await {
        Response::SaslHandshake(response) => response,
        other => panic!("{other:?}"),
    }
}

fn token(bytes: impl Into<Bytes>) -> Request {
    let mut request = SaslAuthenticateRequest::default();
    request.auth_bytes = bytes.into();
    Request::SaslAuthenticate(request)
}

async fn authenticate(client: &mut Client, bytes: impl Into<Bytes>) -> SaslAuthenticateResponse {
    match client.call(2, token(bytes)).await {
        Response::SaslAuthenticate(response) => response,
        other => panic!("{other:?}"),
    }
}

fn plain(user: &str, password: &str) -> Bytes {
    format!("\0{user}\0{password}").into()
}

async fn log_in(client: &mut Client, user: &str, password: &str) -> SaslAuthenticateResponse {
    assert_eq!(shake_hands(client, 1, "PLAIN").await.error_code, 0);
    authenticate(client, plain(user, password)).await
}

/// The connection ends when the client had time to read why, and nothing is taken from it any more.
fn assert_ends(client: &mut Client) {
    let (metadata, _) = client.encode(12, &all_topics());
    client.deliver(&metadata);
    assert!(client.deadline().expect("it ends") <= Instant::now() + Duration::from_millis(100));
    client.pass_deadline();
    assert!(client.is_closed() && client.try_frame().is_none());
}

/// What every refusal looks like.
fn assert_refused(client: &mut Client, response: &SaslAuthenticateResponse) {
    let mut refusal = SaslAuthenticateResponse::default();
    refusal.error_code = ErrorCode::SaslAuthenticationFailed.to_wire();
    refusal.error_message = Some("user or proof is not accepted".into());
    assert_eq!(response, &refusal);
    assert_ends(client);
}

async fn advertised(client: &mut Client) -> Vec<ApiRange> {
    let request =
        ApiVersionsRequest { client_software_name: "t".into(), client_software_version: "1".into() };
    match client.call(3, Request::ApiVersions(request)).await {
        Response::ApiVersions(response) => response.apis,
        other => panic!("{other:?}"),
    }
}

fn all_topics() -> Request {
    let mut request = MetadataRequest::default();
    request.topics = None;
    Request::Metadata(request)
}

/// A token as a frame of its own.
fn bare(token: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(token.len()).expect("short"));
    frame.put_slice(token);
    frame.freeze()
}

#[test]
fn s80_a_client_logs_in_and_is_its_user() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let mut client = kafka.connect();
        let before = advertised(&mut client).await;
        let shaken = shake_hands(&mut client, 1, "PLAIN").await;
        let names: Vec<_> = shaken.mechanisms.iter().map(ToString::to_string).collect();
        assert_eq!((shaken.error_code, names.join(" ")), (0, "PLAIN SCRAM-SHA-256 SCRAM-SHA-512".into()));
        let response = authenticate(&mut client, plain("alice", "s3cret")).await;
        let mut accepted = SaslAuthenticateResponse::default();
        accepted.error_message = None;
        assert_eq!(response, accepted);
        assert_eq!(advertised(&mut client).await, before, "the list is the same before and after");

        client.create("open.log", 1).await;
        assert_eq!(client.produce("open.log", 0, batch(0, &["x"])).await.error_code, 0);
        assert_eq!(client.fetch("open.log", 0, 0).await.high_watermark, 1);
        let denied = ErrorCode::TopicAuthorizationFailed.to_wire();
        assert_eq!(client.produce("secret", 0, batch(0, &["x"])).await.error_code, denied);
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_nothing_but_a_login_is_served_before_it() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        for api in APIS.map(|spec| spec.key) {
            if matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate) {
                continue;
            }
            let mut client = kafka.connect();
            advertised(&mut client).await;
            shake_hands(&mut client, 1, "PLAIN").await;
            let [high, low] = api.to_wire().to_be_bytes();
            client.send_bytes(&[0, 0, 0, 10, high, low, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
            assert!(client.is_closed() && client.try_frame().is_none(), "{api:?}");
        }
        // Not even a large request that would be served is waited for.
        for key in [0, 36] {
            let mut client = kafka.connect();
            client.send_bytes(&[0, 1, 0, 1, 0, key]);
            assert!(client.is_closed());
        }
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_an_unknown_mechanism_is_answered_with_those_that_there_are() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = wide(&node);
        for (version, name) in [(0, "GSSAPI"), (1, "plain"), (1, ""), (1, "SCRAM-SHA-256-PLUS")] {
            let mut client = kafka.connect();
            let response = shake_hands(&mut client, version, name).await;
            let unsupported = ErrorCode::UnsupportedSaslMechanism.to_wire();
            assert_eq!((response.error_code, response.mechanisms.len()), (unsupported, 3), "{name}");
            assert_ends(&mut client);
        }
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_every_wrong_login_looks_the_same_and_takes_time() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        add_user(&node, user("banned"), "s3cret").await;
        add_user(&node, User { disabled: true, ..user("disabled") }, "s3cret").await;
        let who = Banned::User("banned".into());
        node.put(&Ban { tenant: None, id: "b".into(), who, until_ms: None, reason: String::new() }).await;
        let kafka = wide(&node);
        let long = "x".repeat(65_000);
        let tokens: [Bytes; 9] = [
            plain("alice", "S3cret"),
            plain("nobody", "s3cret"),
            plain("banned", "s3cret"),
            plain("disabled", "s3cret"),
            plain("", "s3cret"),
            plain("alice", ""),
            plain("alice", &long),
            Bytes::from_static(b"bob\0alice\0s3cret"),
            Bytes::from_static(b"alice"),
        ];
        for token in tokens {
            let mut client = kafka.connect();
            shake_hands(&mut client, 1, "PLAIN").await;
            let begun = Instant::now();
            let response = authenticate(&mut client, token).await;
            assert!(begun.elapsed() >= Duration::from_millis(100));
            assert_refused(&mut client, &response);
        }
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_scram_proves_the_password_without_sending_it() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
            let cases = [("alice", "s3cret", true), ("alice", "other", false), ("nobody", "s3cret", false)];
            for (user, password, is_right) in cases {
                let mut client = kafka.connect();
                shake_hands(&mut client, 1, mechanism.name()).await;
                let scram = ScramClient::new(mechanism, user, password);
                let challenge = authenticate(&mut client, scram.first()).await;
                assert_eq!((challenge.error_code, challenge.session_lifetime_ms), (0, 0), "{user}");
                let answer = authenticate(&mut client, scram.answer(&challenge.auth_bytes)).await;
                if is_right {
                    assert!(scram.is_broker(&challenge.auth_bytes, &answer.auth_bytes));
                    client.create(&format!("open.{}", mechanism.name()), 1).await;
                } else {
                    assert_refused(&mut client, &answer);
                }
            }
            // What another mechanism would take is no way in.
            let mut client = kafka.connect();
            shake_hands(&mut client, 1, mechanism.name()).await;
            let response = authenticate(&mut client, plain("alice", "s3cret")).await;
            assert_refused(&mut client, &response);
        }
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_tokens_are_bare_frames_after_a_handshake_of_version_0() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let mut client = kafka.connect();
        // What is behind the token is a request again, also if all of it comes at once.
        let (shake, first) = client.encode(0, &handshake("PLAIN"));
        let (metadata, last) = client.encode(12, &all_topics());
        client.send_bytes(&[&shake[..], &bare(&plain("alice", "s3cret")), &metadata].concat());
        client.response(first, ApiKey::SaslHandshake, 0).await;
        assert!(client.frame().await.is_empty(), "PLAIN has nothing to say");
        client.response(last, ApiKey::Metadata, 12).await;

        let scram = ScramClient::new(Mechanism::Sha512, "alice", "s3cret");
        let mut client = kafka.connect();
        shake_hands(&mut client, 0, "SCRAM-SHA-512").await;
        client.send_bytes(&bare(scram.first().as_bytes()));
        let challenge = client.frame().await;
        client.send_bytes(&bare(&scram.answer(&challenge)));
        let verdict = client.frame().await;
        assert!(scram.is_broker(&challenge, &verdict));
        client.create("open.log", 1).await;

        for token in [&bare(&plain("alice", "other"))[..], &bare(b"")] {
            let mut client = kafka.connect();
            shake_hands(&mut client, 0, "PLAIN").await;
            client.send_bytes(token);
            client.closed().await;
            assert!(client.try_frame().is_none());
        }
        for length in [[0, 1, 0, 1], [0xff; 4]] {
            let mut client = kafka.connect();
            shake_hands(&mut client, 0, "PLAIN").await;
            client.send_bytes(&length);
            assert!(client.is_closed());
        }
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_a_proof_needs_a_handshake() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let mut client = kafka.connect();
        let response = authenticate(&mut client, plain("alice", "s3cret")).await;
        assert_eq!(response.error_code, ErrorCode::IllegalSaslState.to_wire());
        assert_ends(&mut client);
        // Nor is one good for two.
        let mut client = kafka.connect();
        log_in(&mut client, "alice", "s3cret").await;
        let response = authenticate(&mut client, plain("alice", "s3cret")).await;
        assert_eq!(response.error_code, ErrorCode::IllegalSaslState.to_wire());
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_on_loopback_a_client_need_not_log_in_but_is_not_believed_either() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut anonymous = kafka.connect();
        anonymous.create("open.log", 1).await;
        // Nobody has set up users: whatever is claimed, it is an anonymous client.
        let mut claimer = kafka.connect();
        assert_eq!(log_in(&mut claimer, "root", "x").await.error_code, 0);
        assert_eq!(claimer.produce("open.log", 0, batch(0, &["x"])).await.error_code, 0);

        add_user(&node, user("alice"), "s3cret").await;
        open(&node, Who::User("alice".to_owned())).await;
        let denied = ErrorCode::TopicAuthorizationFailed.to_wire();
        assert_eq!(anonymous.produce("open.log", 0, batch(0, &["x"])).await.error_code, denied);
        assert_eq!(claimer.produce("open.log", 0, batch(0, &["x"])).await.error_code, denied);
        assert_eq!(log_in(&mut anonymous, "alice", "s3cret").await.error_code, 0);
        assert_eq!(anonymous.produce("open.log", 0, batch(0, &["x"])).await.error_code, 0);
        let response = log_in(&mut claimer, "alice", "x").await;
        assert_refused(&mut claimer, &response);
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn kip_368_a_client_logs_in_again_as_the_same_user() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        add_user(&node, user("bob"), "s3cret").await;
        let kafka = wide(&node);
        let mut client = kafka.connect();
        log_in(&mut client, "alice", "s3cret").await;
        client.create("open.log", 1).await;
        // What waits meanwhile is answered first.
        let waiting = client.send(12, &fetch("open.log", 0, 0, 50));
        let shaking = client.send(1, &handshake("PLAIN"));
        client.response(waiting, ApiKey::Fetch, 12).await;
        client.response(shaking, ApiKey::SaslHandshake, 1).await;
        assert_eq!(authenticate(&mut client, plain("alice", "s3cret")).await.error_code, 0);
        assert_eq!(client.produce("open.log", 0, batch(0, &["x"])).await.error_code, 0);
        let response = log_in(&mut client, "bob", "s3cret").await;
        assert_refused(&mut client, &response);
        kafka.stop().await;
        node.stop().await;
    });
}

/// A service whose tokens are valid for a minute.
struct Minute;

impl Authenticator for Minute {
    fn name(&self) -> &str {
        "minute"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(async move {
            let mut identity = Identity::default();
            identity.user = credentials.user.clone();
            identity.expires_at_ms = Some(SystemClock::new().wall_ms() + 60_000);
            Ok(Outcome::Allow(identity))
        })
    }
}

#[test]
fn kip_368_a_proof_that_ends_is_told_and_ends_the_connection() {
    on_core(async {
        let node = TestNode::start_asking(vec![Link::Provider(Arc::new(Minute))]).await;
        open(&node, Who::Everyone).await;
        let kafka = wide(&node);
        let mut client = kafka.connect();
        let lifetime = log_in(&mut client, "alice", "token").await.session_lifetime_ms;
        assert!((50_000..=60_000).contains(&lifetime), "{lifetime}");
        let first = client.deadline().expect("it ends");
        assert!(first <= Instant::now() + Duration::from_secs(60));
        client.create("open.log", 1).await;
        // A request under way does not hold the end up.
        let waiting = client.send(12, &fetch("open.log", 0, 0, 50));
        assert_eq!(client.deadline(), Some(first));
        client.response(waiting, ApiKey::Fetch, 12).await;
        assert_eq!(log_in(&mut client, "alice", "token").await.error_code, 0);
        assert!(client.deadline().expect("it ends") >= first, "a new proof has a new end");
        client.pass_deadline();
        assert!(client.is_closed());
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_who_may_not_stay_is_not_served_any_more() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let (mut asking, mut waiting) = (kafka.connect(), kafka.connect());
        log_in(&mut asking, "alice", "s3cret").await;
        log_in(&mut waiting, "alice", "s3cret").await;
        asking.create("open.log", 1).await;
        waiting.send(12, &fetch("open.log", 0, 0, 10_000));
        node.put(&User { disabled: true, ..user("alice") }).await;
        asking.send(12, &all_topics());
        assert!(asking.is_closed() && asking.try_frame().is_none());
        // It is woken by what it may not have any more.
        let loopback = Kafka::new(&node);
        let mut anonymous = loopback.connect();
        open(&node, Who::Everyone).await;
        assert_eq!(anonymous.produce("open.log", 0, batch(0, &["x"])).await.error_code, 0);
        waiting.closed().await;
        assert!(waiting.try_frame().is_none());
        kafka.stop().await;
        loopback.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_a_client_that_does_not_log_in_is_let_go() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let begun = Instant::now();
        let mut client = kafka.connect();
        let deadline = client.deadline().expect("it has to log in");
        assert!(deadline <= begun + Duration::from_secs(11));
        // Whatever else it says does not give it more time.
        advertised(&mut client).await;
        shake_hands(&mut client, 1, "PLAIN").await;
        client.send_bytes(&[0, 0]);
        assert_eq!(client.deadline(), Some(deadline));
        client.pass_deadline();
        assert!(client.is_closed());
        // A password that is compared has the time that it takes.
        let mut client = kafka.connect();
        shake_hands(&mut client, 1, "PLAIN").await;
        let id = client.send(2, &token(plain("alice", "s3cret")));
        assert_eq!(client.deadline(), None);
        client.response(id, ApiKey::SaslAuthenticate, 2).await;
        assert!(client.deadline().expect("it may be idle") > begun + Duration::from_secs(60));
        kafka.stop().await;
        node.stop().await;
    });
}

#[test]
fn s80_half_open_connections_make_room_for_others() {
    on_core(async {
        let node = node_of("alice", "s3cret").await;
        let kafka = wide(&node);
        let arrivals = Arrivals::new(1);
        let is_full = async || tokio::time::timeout(Duration::ZERO, arrivals.room()).await.is_err();
        let mut client = kafka.arrive(Some(arrivals.enter()));
        shake_hands(&mut client, 1, "PLAIN").await;
        assert!(is_full().await);
        let id = client.send(2, &token(plain("alice", "s3cret")));
        assert!(!is_full().await, "it has said who it is");
        client.response(id, ApiKey::SaslAuthenticate, 2).await;

        let mut silent = kafka.arrive(Some(arrivals.enter()));
        arrivals.room().await;
        silent.closed().await;
        // Where anonymous clients come in, nobody waits for a login.
        let loopback = Kafka::new(&node);
        let _anonymous = loopback.arrive(Some(arrivals.enter()));
        assert!(!is_full().await);
        kafka.stop().await;
        loopback.stop().await;
        node.stop().await;
    });
}
