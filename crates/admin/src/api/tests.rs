//! The API over a listener and a plain HTTP client, with a Meta Service in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::{Access, Host, Link, Passwords, Policy, offload_to_blocking_threads};
use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::{Credentials, Listener};
use broker::{Broker as _, Guarantee, Message, Retain, Shared};
use bytes::{BufMut, BytesMut};
use meta::{MemoryMeta, MetaStore, Transaction};
use model::{Resource, ResourceError, TenantId};
use parking_lot::Mutex;
use rt::{ManualClock, SystemRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::{Inbox, TestNode, on_core};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Api, BODY_BYTES_MAX, import, routes};
use crate::kind::{CaughtUp, Kind};
use crate::observed::Observed;

/// The wall clock of the tests.
const NOW_MS: i64 = 1_800_000_000_000;

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn tag(&self) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix("etag: "));
        line.unwrap_or_else(|| panic!("an ETag: {}", self.head)).to_owned()
    }

    /// A problem of this status that names this field.
    fn is_problem(&self, status: u16, field: Option<&str>) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let body = self.json();
        assert_eq!((body["status"].as_u64(), body["field"].as_str()), (Some(status.into()), field), "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    }
}

/// An operator's client.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    headers: String,
}

impl Client {
    fn with(&self, name: &str, value: &str) -> Client {
        Client { address: self.address, headers: format!("{}{name}: {value}\r\n", self.headers) }
    }

    fn user(&self, name: &str, password: &str) -> Client {
        let encoded = STANDARD.encode(format!("{name}:{password}"));
        Client { headers: String::new(), ..self.clone() }.with("Authorization", &format!("Basic {encoded}"))
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let Client { address, headers } = self;
        let len = body.len();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
        );
        // One that is too long is answered before all of it is read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, &body.to_string()).await
    }
}

/// A front that knows one client, and counts what it counts.
#[derive(Default)]
struct Front {
    slow: Mutex<Vec<Value>>,
}

impl Observed for Front {
    fn history(&self, client: &str) -> Vec<Value> {
        if client == "a/b" {
            vec![json!({"event": "connected"}), json!({"event": "refused"})]
        } else {
            Vec::new()
        }
    }

    fn slow_subscriptions(&self) -> Option<Vec<Value>> {
        Some(self.slow.lock().clone())
    }

    fn clear_slow_subscriptions(&self) {
        self.slow.lock().clear();
    }

    fn topic_metrics(&self) -> Vec<Value> {
        vec![json!({ "filter": "counted" })]
    }
}

/// A resource of some crate that this one does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    tenant: String,
    name: String,
    text: String,
    #[serde(default)]
    order: u8,
}

impl Resource for Note {
    const KIND: &'static str = "note";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        body.put_slice(&serde_json::to_vec(self).unwrap());
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Note, ResourceError> {
        serde_json::from_slice(body).map_err(|_| ResourceError::Malformed { kind: "note", field: "body" })
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = ResourceError::Invalid { kind: "note", field: "text", rule: "must not be empty" };
        if self.text.is_empty() { Err(invalid) } else { Ok(()) }
    }
}

/// Another one, named by its only field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    tenant: String,
    filter: String,
}

impl Resource for Counted {
    const KIND: &'static str = "counted";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.filter)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        body.put_slice(&serde_json::to_vec(self).unwrap());
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Counted, ResourceError> {
        serde_json::from_slice(body).map_err(|_| ResourceError::Malformed { kind: "counted", field: "body" })
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = ResourceError::Invalid { kind: "counted", field: "filter", rule: "must be a filter" };
        if self.filter.is_empty() { Err(invalid) } else { Ok(()) }
    }
}

/// Kinds whose changes count at once; revisions that were waited for come out.
fn kinds() -> (Vec<Kind>, mpsc::UnboundedReceiver<u64>) {
    let (waits, waited) = mpsc::unbounded_channel();
    let caught_up: CaughtUp = Arc::new(move |revision| {
        let _ = waits.send(revision);
        Box::pin(std::future::ready(()))
    });
    let counted = Kind::of::<Counted>("topic-metrics", &caught_up).named_by("filter").listed_elsewhere();
    (vec![Kind::of::<Note>("foot-notes", &caught_up).at_most(2), counted.at_most(2)], waited)
}

/// A node's API on a listener that counts as bound to `bound`.
async fn serve(bound: &str) -> Client {
    serve_over(bound, None).await
}

/// The same, over a broker.
async fn serve_over(bound: &str, broker: Option<Arc<Shared>>) -> Client {
    serve_kinds(bound, broker, Arc::new(MemoryMeta::new()), kinds().0).await
}

/// The same, over a store and with kinds of other crates.
async fn serve_kinds(
    bound: &str,
    broker: Option<Arc<Shared>>,
    store: Arc<MemoryMeta>,
    kinds: Vec<Kind>,
) -> Client {
    serve_at(Arc::new(ManualClock::new(NOW_MS)), bound, broker, store, kinds).await
}

/// The same by this clock.
async fn serve_at(
    clock: Arc<ManualClock>,
    bound: &str,
    broker: Option<Arc<Shared>>,
    store: Arc<MemoryMeta>,
    kinds: Vec<Kind>,
) -> Client {
    let rng = Arc::new(SystemRng);
    let passwords = Passwords::new(offload_to_blocking_threads(), 2, rng.clone());
    let host = Host { clock: clock.clone(), rng, passwords };
    let opened = Access::open(store.clone(), vec![Link::Users], Policy::default(), host).await;
    let (access, follower) = opened.unwrap();
    tokio::spawn(follower.run());
    let front = Front { slow: Mutex::new(vec![json!({"client": "c1"})]) };
    let api = Api::new(access, store, clock, bound.parse().unwrap());
    let api = api.with_observed(Arc::new(front)).with_kinds(kinds);
    let api = match broker {
        Some(broker) => api.with_broker(broker),
        None => api,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().nest("/api/v1", routes(Arc::new(api)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Client { address, headers: String::new() }
}

/// The same with a superuser, whose client this is.
async fn serve_root() -> Client {
    let client = serve("127.0.0.1").await;
    let root = json!({"name": "root", "password": "s3cret", "superuser": true});
    assert_eq!(client.post("/users", root).await.status, 201);
    client.user("root", "s3cret")
}

#[tokio::test]
async fn everyone_administers_a_loopback_listener_until_there_is_a_superuser() {
    let anyone = serve("127.0.0.1").await;
    assert_eq!(anyone.get("/users").await.json(), json!({"users": [], "next": null}));
    // Nothing may be set up that would lock everybody out.
    for user in [
        json!({"name": "device", "password": "x"}),
        json!({"name": "root", "superuser": true}),
        json!({"name": "root", "password": "x", "superuser": true, "disabled": true}),
    ] {
        anyone.post("/users", user).await.is_problem(409, None);
    }
    let rule = json!({"id": "r", "who": "everyone", "effect": "allow", "patterns": ["#"]});
    anyone.post("/permissions", rule.clone()).await.is_problem(409, None);
    let root = json!({"name": "root", "password": "s3cret", "superuser": true});
    assert_eq!(anyone.post("/users", root).await.status, 201);

    let answer = anyone.get("/users").await;
    answer.is_problem(401, None);
    assert!(answer.head.contains("www-authenticate: basic realm"), "{}", answer.head);
    anyone.user("root", "wrong").get("/users").await.is_problem(401, None);
    anyone.user("nobody", "s3cret").get("/users").await.is_problem(401, None);
    anyone.with("Authorization", "Bearer x").get("/users").await.is_problem(401, None);
    let root = anyone.user("root", "s3cret");
    assert_eq!(root.post("/permissions", rule).await.status, 201);
    assert_eq!(root.post("/users", json!({"name": "device", "password": "x"})).await.status, 201);
    anyone.user("device", "x").get("/users").await.is_problem(403, None);
    let administers = json!({"id": "ops", "who": {"user": "device"}, "effect": "allow",
        "rights": ["administer"], "object": "cluster", "patterns": ["cluster"]});
    assert_eq!(root.post("/permissions", administers).await.status, 201);
    assert_eq!(anyone.user("device", "x").get("/users").await.status, 200);
}

#[tokio::test]
async fn a_wide_listener_needs_a_user_from_the_beginning() {
    let anyone = serve("0.0.0.0").await;
    for (method, path) in [
        ("GET", "/users"),
        ("POST", "/users"),
        ("GET", "/nothing"),
        ("PUT", "/users"),
        ("GET", "/clients/a%2Fb/history"),
        ("DELETE", "/slow-subscriptions"),
        ("POST", "/topic-metrics"),
        ("PUT", "/foot-notes/a"),
    ] {
        anyone.ask(method, path, "{}").await.is_problem(401, None);
    }
}

#[tokio::test]
async fn users_come_change_and_go_and_no_password_comes_out() {
    let root = serve_root().await;
    let created =
        root.post("/users", json!({"name": "al/ice", "password": "hunter2", "groups": ["g"]})).await;
    assert_eq!(created.status, 201);
    let shown = json!({"name": "al/ice", "superuser": false, "disabled": false, "groups": ["g"], "has_password": true});
    assert_eq!(created.json(), shown);
    root.post("/users", json!({"name": "al/ice"})).await.is_problem(409, None);
    let found = root.get("/users/al%2Fice").await;
    assert_eq!((found.json(), found.tag()), (shown, created.tag()));
    assert!(!found.body.contains("argon2") && !found.body.contains("hunter2"));

    let change = json!({"password": "hunter3"}).to_string();
    let stale = root.with("If-Match", "\"1\"");
    stale.ask("PATCH", "/users/al%2Fice", &change).await.is_problem(412, None);
    let changed = root.with("If-Match", &created.tag()).ask("PATCH", "/users/al%2Fice", &change).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.tag(), created.tag());
    root.user("al/ice", "hunter2").get("/users").await.is_problem(401, None);
    root.user("al/ice", "hunter3").get("/users").await.is_problem(403, None);
    let disabled = root.ask("PATCH", "/users/al%2Fice", r#"{"disabled": true}"#).await;
    assert_eq!(disabled.json()["disabled"], true);
    root.user("al/ice", "hunter3").get("/users").await.is_problem(401, None);

    root.with("If-Match", &changed.tag()).ask("DELETE", "/users/al%2Fice", "").await.is_problem(412, None);
    assert_eq!(root.ask("DELETE", "/users/al%2Fice", "").await.status, 204);
    root.ask("DELETE", "/users/al%2Fice", "").await.is_problem(404, None);
    root.ask("PATCH", "/users/al%2Fice", "{}").await.is_problem(404, None);
}

/// One call of an operator closed the API to everybody, for good.
#[tokio::test]
async fn no_call_takes_the_api_from_its_last_operator() {
    let root = serve_root().await;
    assert_eq!(root.post("/users", json!({"name": "u", "password": "x"})).await.status, 201);
    for (method, body) in
        [("PATCH", r#"{"superuser": false}"#), ("PATCH", r#"{"disabled": true}"#), ("DELETE", "")]
    {
        let refused = root.ask(method, "/users/root", body).await;
        refused.is_problem(409, None);
        assert!(refused.body.contains("create another superuser with a password first"), "{}", refused.body);
    }
    for (id, who) in [
        ("user", json!({"user": "root"})),
        ("users", json!({"user_pattern": "*"})),
        ("clients", json!({"client_pattern": "*"})),
        ("network", json!({"network": "0.0.0.0/0"})),
    ] {
        assert_eq!(root.post("/bans", json!({"id": id, "who": who})).await.status, 201, "{id}");
        assert_eq!(root.get("/users").await.status, 200, "{id}");
    }
    let deny =
        json!({"id": "d", "who": "everyone", "effect": "deny", "object": "cluster", "patterns": ["#"]});
    assert_eq!(root.post("/permissions", deny).await.status, 201);
    assert_eq!(root.get("/users").await.status, 200);
    // With somebody else who can, it may go.
    let second = json!({"name": "second", "password": "s3cret", "superuser": true});
    assert_eq!(root.post("/users", second).await.status, 201);
    root.with("If-Match", "\"99\"").ask("DELETE", "/users/root", "").await.is_problem(412, None);
    assert_eq!(root.ask("DELETE", "/users/root", "").await.status, 204);
    let second = root.user("second", "s3cret");
    second.ask("PATCH", "/users/second", r#"{"disabled": true}"#).await.is_problem(409, None);
    assert_eq!(second.ask("PATCH", "/users/second", r#"{"password": "other"}"#).await.status, 200);
    assert_eq!(root.user("second", "other").get("/users").await.status, 200);
}

#[tokio::test]
async fn a_ban_of_an_operator_is_named_to_whoever_has_proved_to_be_it() {
    let root = serve_root().await;
    assert_eq!(root.post("/users", json!({"name": "ops", "password": "x"})).await.status, 201);
    let administers = json!({"id": "ops", "who": {"user": "ops"}, "effect": "allow",
        "rights": ["administer"], "object": "cluster", "patterns": ["cluster"]});
    assert_eq!(root.post("/permissions", administers).await.status, 201);
    assert_eq!(root.post("/bans", json!({"id": "c", "who": {"client_pattern": "*"}})).await.status, 201);
    let ops = root.user("ops", "x");
    assert_eq!(ops.get("/users").await.status, 200, "it is no client");
    assert_eq!(root.post("/bans", json!({"id": "o", "who": {"user_pattern": "o*"}})).await.status, 201);
    let refused = ops.get("/users").await;
    refused.is_problem(403, None);
    assert!(refused.body.contains("banned"), "{}", refused.body);
    root.user("ops", "wrong").get("/users").await.is_problem(401, None);
    assert_eq!(root.ask("DELETE", "/bans/o", "").await.status, 204);
    assert_eq!(ops.get("/users").await.status, 200);
}

/// Hashed by `mosquitto_passwd`: the password is `geheim 6`.
const HASH: &str = "$6$qCAl3cR1PB/zq7A+$mvyPWgrDCN3QVhBg3B4tR7gBtM4k4u1uj9ANDet/HtnfltayEKDg7xOxl3aMcsMsZmKye/WDzBU5JFOJy4UF7Q==";

#[tokio::test]
async fn users_of_a_password_file_come_in_together_or_not_at_all() {
    let root = serve_root().await;
    let file = format!("# devices\nimport:{HASH}\nsensor:{HASH}\n");
    let imported = root.ask("POST", "/users/import", &file).await;
    assert_eq!((imported.status, imported.json()), (200, json!({"created": 2, "replaced": 0})));
    root.user("sensor", "geheim 6").get("/users").await.is_problem(403, None);
    // A user may be called like the path.
    assert_eq!(root.get("/users/import").await.json()["has_password"], true);
    root.ask("POST", "/users/sensor", &file).await.is_problem(405, None);

    let more = format!("late:{HASH}\n{file}");
    let refused = root.ask("POST", "/users/import", &more).await;
    refused.is_problem(409, None);
    assert!(refused.body.contains("the user in line 3 exists already"), "{}", refused.body);
    root.get("/users/late").await.is_problem(404, None);
    let change = json!({"password": "other", "groups": ["g"]}).to_string();
    assert_eq!(root.ask("PATCH", "/users/sensor", &change).await.status, 200);
    let replaced = root.ask("POST", "/users/import?replace=true", &more).await;
    assert_eq!(replaced.json(), json!({"created": 1, "replaced": 2}));
    root.user("sensor", "other").get("/users").await.is_problem(401, None);
    root.user("sensor", "geheim 6").get("/users").await.is_problem(403, None);
    assert_eq!(root.get("/users/sensor").await.json()["groups"], json!(["g"]));

    let wrong = root.ask("POST", "/users/import", &format!("new:{HASH}\nopen:secret\n")).await;
    wrong.is_problem(400, None);
    assert!(wrong.body.contains("line 2") && wrong.body.contains("mosquitto_passwd -U"), "{}", wrong.body);
    assert!(!wrong.body.contains("secret"));
    root.get("/users/new").await.is_problem(404, None);
}

#[tokio::test]
async fn a_password_file_comes_from_an_operator_and_has_a_bound() {
    let anyone = serve("127.0.0.1").await;
    let file = format!("sensor:{HASH}\n");
    anyone.ask("POST", "/users/import", &file).await.is_problem(409, None);
    let root = json!({"name": "root", "password": "s3cret", "superuser": true});
    assert_eq!(anyone.post("/users", root).await.status, 201);
    anyone.ask("POST", "/users/import", &file).await.is_problem(401, None);
    let root = anyone.user("root", "s3cret");
    root.with("Origin", "http://evil.example")
        .ask("POST", "/users/import", &file)
        .await
        .is_problem(403, None);
    root.ask("POST", "/users/import?replace=perhaps", &file).await.is_problem(400, None);
    let long = "#".repeat(import::FILE_BYTES_MAX + 1);
    root.ask("POST", "/users/import", &long).await.is_problem(413, None);
    let comments = "#\n".repeat(BODY_BYTES_MAX);
    assert_eq!(
        root.ask("POST", "/users/import", &comments).await.json(),
        json!({"created": 0, "replaced": 0})
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let root = serve_root().await;
    for name in ["a", "b", "c"] {
        let ban = json!({"id": name, "who": {"client": name}});
        assert_eq!(root.post("/bans", ban).await.status, 201);
    }
    let page = root.get("/bans?limit=2").await.json();
    assert_eq!((page["bans"].as_array().map(Vec::len), &page["next"]), (Some(2), &json!("b")));
    let page = root.get("/bans?limit=2&after=b").await.json();
    assert_eq!((page["bans"][0]["id"].as_str(), &page["next"]), (Some("c"), &Value::Null));
    root.get("/bans?limit=x").await.is_problem(400, None);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let root = serve_root().await;
    let rule =
        |patterns: Value| json!({"id": "r", "who": "everyone", "effect": "allow", "patterns": patterns});
    root.post("/users", json!({"name": ""})).await.is_problem(400, Some("name"));
    root.post("/users", json!({"name": "x", "password": ""})).await.is_problem(400, Some("password"));
    root.post("/users", json!({"name": "x", "pasword": "x"})).await.is_problem(400, Some("pasword"));
    root.post("/users", json!({})).await.is_problem(400, Some("name"));
    root.post("/permissions", rule(json!([]))).await.is_problem(400, Some("patterns"));
    root.post("/permissions", rule(json!(["a/#/b"]))).await.is_problem(400, Some("patterns"));
    let body = rule(json!(["a"])).to_string();
    root.ask("PUT", "/permissions/other", &body).await.is_problem(400, Some("id"));
    let twice = json!({"id": "b", "who": {"user": "x"}, "until_ms": 5, "for_seconds": 5});
    root.post("/bans", twice).await.is_problem(400, Some("for_seconds"));
    root.ask("POST", "/users", "not json").await.is_problem(400, None);
    root.with("If-Match", "five").ask("DELETE", "/users/root", "").await.is_problem(400, Some("If-Match"));
    root.get("/nothing").await.is_problem(404, None);
    root.get("/users/nobody").await.is_problem(404, None);
    root.ask("PUT", "/users", "{}").await.is_problem(405, None);
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    root.ask("POST", "/users", &long).await.is_problem(413, None);
}

#[tokio::test]
async fn a_permission_is_replaced_under_its_version() {
    let root = serve_root().await;
    let body = |pattern: &str| {
        json!({"who": {"group": "g"}, "effect": "allow", "rights": ["publish"], "patterns": [pattern]})
            .to_string()
    };
    let new = root.with("If-None-Match", "*");
    let first = new.ask("PUT", "/permissions/p", &body("a/#")).await;
    assert_eq!(first.status, 200);
    new.ask("PUT", "/permissions/p", &body("b/#")).await.is_problem(412, None);
    let second = root.with("If-Match", &first.tag()).ask("PUT", "/permissions/p", &body("b/#")).await;
    assert_eq!((second.status, &second.json()["patterns"]), (200, &json!(["b/#"])));
    root.with("If-Match", &first.tag())
        .ask("PUT", "/permissions/p", &body("c/#"))
        .await
        .is_problem(412, None);
    assert_eq!(root.get("/permissions").await.json()["permissions"][0]["id"], "p");
}

#[tokio::test]
async fn explanations_name_the_rule() {
    let root = serve_root().await;
    root.post("/users", json!({"name": "alice", "groups": ["sensors"]})).await;
    let rule = json!({"id": "sensors-write", "who": {"group": "sensors"}, "effect": "allow",
        "rights": ["publish"], "patterns": ["sensor/#"]});
    root.post("/permissions", rule).await;
    for (query, decision, because) in [
        ("user=alice&action=publish&name=sensor/1", "allow", Some("sensors-write")),
        ("user=alice&action=subscribe&name=sensor/1", "deny", None),
        ("user=root&action=administer&object=cluster&name=cluster", "allow", None),
        ("action=publish&name=sensor/1", "deny", None),
    ] {
        let answer = root.get(&format!("/access/explain?{query}")).await.json();
        assert_eq!(answer["decision"], decision, "{query}: {answer}");
        if let Some(because) = because {
            assert_eq!(answer["because"], because);
        }
    }
    // A condition counted as not met by what the question left out, unlike by an ordinary publication.
    for (id, condition, value) in [("plain", "retain", json!(false)), ("lossy", "qos", json!([0]))] {
        let mut rule =
            json!({"id": id, "who": "everyone", "effect": "allow", "rights": ["publish"], "patterns": [id]});
        rule[condition] = value;
        assert_eq!(root.post("/permissions", rule).await.status, 201);
    }
    for (query, decision, asked) in [
        ("action=publish&name=plain", "allow", json!({"qos": 0, "retain": false})),
        ("action=publish&name=plain&retain=true", "deny", json!({"qos": 0, "retain": true})),
        ("action=publish&name=lossy", "allow", json!({"qos": 0, "retain": false})),
        ("action=publish&name=lossy&qos=1", "deny", json!({"qos": 1, "retain": false})),
        ("action=subscribe&name=lossy", "deny", json!({"qos": 0, "retain": null})),
        ("action=consume&name=lossy", "deny", json!({"qos": null, "retain": null})),
    ] {
        let answer = root.get(&format!("/access/explain?{query}")).await.json();
        assert_eq!((&answer["decision"], &answer["asked"]), (&decision.into(), &asked), "{query}: {answer}");
    }
    root.get("/access/explain?user=bob&action=publish&name=x").await.is_problem(404, None);
    root.get("/access/explain?action=dance&name=x").await.is_problem(400, Some("action"));
}

#[tokio::test]
async fn a_ban_ends_when_it_says() {
    let root = serve_root().await;
    let ban = json!({"id": "b", "who": {"network": "10.0.0.0/8"}, "for_seconds": 60, "reason": "noise"});
    let created = root.post("/bans", ban).await.json();
    assert_eq!(created["until_ms"], 1_800_000_060_000_u64);
    assert_eq!((&created["who"]["network"], &created["reason"]), (&json!("10.0.0.0/8"), &json!("noise")));
    assert_eq!(root.ask("DELETE", "/bans/b", "").await.status, 204);
}

/// It was listed for good, and its id was taken.
#[tokio::test]
async fn a_ban_that_has_ended_is_as_if_it_were_not_there() {
    let (clock, store) = (Arc::new(ManualClock::new(NOW_MS)), Arc::new(MemoryMeta::new()));
    let anyone = serve_at(clock.clone(), "127.0.0.1", None, store.clone(), Vec::new()).await;
    let ban = |id: &str, seconds: u64| json!({"id": id, "who": {"client": id}, "for_seconds": seconds});
    for (id, seconds) in [("a", 1), ("b", 1), ("c", 60)] {
        assert_eq!(anyone.post("/bans", ban(id, seconds)).await.status, 201, "{id}");
    }
    anyone.post("/bans", ban("a", 5)).await.is_problem(409, None);
    clock.advance(Duration::from_secs(1));
    let listed = || async { anyone.get("/bans").await.json()["bans"].as_array().unwrap().len() };
    assert_eq!(listed().await, 1);
    anyone.get("/bans/a").await.is_problem(404, None);
    anyone.ask("DELETE", "/bans/a", "").await.is_problem(404, None);
    assert_eq!(anyone.post("/bans", ban("a", 5)).await.status, 201);
    assert_eq!(listed().await, 2);
    let past = json!({"id": "p", "who": {"client": "p"}, "until_ms": NOW_MS + 1000});
    anyone.post("/bans", past).await.is_problem(400, Some("until_ms"));
    anyone.post("/bans", ban("z", 0)).await.is_problem(400, Some("for_seconds"));

    // A day later the rows of the others are gone.
    clock.advance(Duration::from_secs(24 * 60 * 60 + 60));
    assert_eq!(anyone.post("/bans", ban("d", 5)).await.status, 201);
    let rows = store.list("ban/", "", 10).await.unwrap().entries;
    let keys: Vec<_> = rows.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["ban/default/d"]);
}

#[tokio::test]
async fn what_a_front_saw_is_shown_and_forgotten() {
    let root = serve_root().await;
    let shown = root.get("/clients/a%2Fb/history").await.json();
    assert_eq!(shown, json!({"client": "a/b", "events": [{"event": "connected"}, {"event": "refused"}]}));
    root.get("/clients/nobody/history").await.is_problem(404, None);
    root.ask("DELETE", "/clients/a%2Fb/history", "").await.is_problem(405, None);
    let slow = || async { root.get("/slow-subscriptions").await.json()["slow_subscriptions"].clone() };
    assert_eq!(slow().await, json!([{"client": "c1"}]));
    assert_eq!(root.ask("DELETE", "/slow-subscriptions", "").await.status, 204);
    assert_eq!(slow().await, json!([]));
}

#[tokio::test]
async fn resources_of_other_crates_are_written_under_their_version() {
    let (kinds, mut waited) = kinds();
    let anyone = serve_kinds("127.0.0.1", None, Arc::new(MemoryMeta::new()), kinds).await;
    assert_eq!(anyone.get("/foot-notes").await.json(), json!({"foot_notes": [], "next": null}));
    let created = anyone.post("/foot-notes", json!({"name": "a/b", "text": "x"})).await;
    assert_eq!((created.status, created.json()), (201, json!({"name": "a/b", "text": "x", "order": 0})));
    assert_eq!(
        created.tag(),
        format!("\"{}\"", waited.recv().await.unwrap()),
        "it counts when it is answered"
    );
    let shown = anyone.get("/foot-notes/a%2Fb").await;
    assert_eq!((shown.json(), shown.tag()), (created.json(), created.tag()));
    // Whoever did not hear the answer asks again; another one is another matter.
    let again = anyone.post("/foot-notes", json!({"name": "a/b", "text": "x", "order": 0})).await;
    assert_eq!((again.status, again.tag()), (200, created.tag()));
    assert_eq!(created.tag(), format!("\"{}\"", waited.recv().await.unwrap()), "it counts then, too");
    anyone.post("/foot-notes", json!({"name": "a/b", "text": "y"})).await.is_problem(409, None);

    let text = |text: &str| json!({ "text": text }).to_string();
    anyone.with("If-None-Match", "*").ask("PUT", "/foot-notes/a%2Fb", &text("y")).await.is_problem(412, None);
    let second = anyone.with("If-Match", &created.tag()).ask("PUT", "/foot-notes/a%2Fb", &text("y")).await;
    assert_eq!((second.status, second.json()["text"].as_str()), (200, Some("y")));
    assert_eq!(second.tag(), format!("\"{}\"", waited.recv().await.unwrap()));
    let stale = anyone.with("If-Match", &created.tag());
    stale.ask("PUT", "/foot-notes/a%2Fb", &text("z")).await.is_problem(412, None);
    stale.ask("DELETE", "/foot-notes/a%2Fb", "").await.is_problem(412, None);
    assert_eq!(anyone.ask("PUT", "/foot-notes/c", &text("c")).await.status, 200);
    anyone.with("If-Match", "*").ask("PUT", "/foot-notes/d", &text("d")).await.is_problem(507, None);

    let page = anyone.get("/foot-notes?limit=1").await.json();
    assert_eq!((page["foot_notes"][0]["name"].as_str(), &page["next"]), (Some("a/b"), &json!("a/b")));
    let page = anyone.get("/foot-notes?limit=1&after=a%2Fb").await.json();
    assert_eq!((page["foot_notes"][0]["name"].as_str(), &page["next"]), (Some("c"), &Value::Null));

    assert_eq!(anyone.ask("DELETE", "/foot-notes/a%2Fb", "").await.status, 204);
    anyone.ask("DELETE", "/foot-notes/a%2Fb", "").await.is_problem(404, None);
    anyone.get("/foot-notes/a%2Fb").await.is_problem(404, None);
    anyone.with("If-Match", "*").ask("PUT", "/foot-notes/d", &text("d")).await.is_problem(412, None);
}

#[tokio::test]
async fn what_is_wrong_with_a_resource_is_named() {
    let root = serve_root().await;
    let note = |field: &str, value: Value| {
        let mut note = json!({"name": "n", "text": "x"});
        note[field] = value;
        note
    };
    for (body, field) in [
        (json!({"text": "x"}), Some("name")),
        (note("name", json!(7)), Some("name")),
        (json!({"name": "n"}), Some("text")),
        (note("text", json!("")), Some("text")),
        (note("order", json!("first")), Some("order")),
        (note("order", json!(256)), Some("order")),
        (note("oder", json!(1)), Some("oder")),
        (note("tenant", json!("default")), Some("tenant")),
        (json!(["n"]), None),
    ] {
        root.post("/foot-notes", body).await.is_problem(400, field);
    }
    let other = note("name", json!("other")).to_string();
    root.ask("PUT", "/foot-notes/n", &other).await.is_problem(400, Some("name"));
    root.with("If-Match", "7").ask("DELETE", "/foot-notes/n", "").await.is_problem(400, Some("If-Match"));
    root.ask("PATCH", "/foot-notes/n", "{}").await.is_problem(405, None);
    root.user("root", "wrong").post("/foot-notes", note("order", json!(1))).await.is_problem(401, None);
    root.get("/foot-notes?limit=x").await.is_problem(400, None);
    assert_eq!(root.get("/foot-notes").await.json()["foot_notes"], json!([]));
}

#[tokio::test]
async fn there_are_no_more_of_a_kind_than_there_may_be() {
    let root = serve_root().await;
    for name in ["a", "b"] {
        assert_eq!(root.post("/foot-notes", json!({"name": name, "text": "x"})).await.status, 201);
    }
    root.post("/foot-notes", json!({"name": "c", "text": "x"})).await.is_problem(507, None);
    // What is there can be written again, and makes room.
    assert_eq!(root.ask("PUT", "/foot-notes/a", r#"{"text": "y"}"#).await.status, 200);
    assert_eq!(root.post("/foot-notes", json!({"name": "b", "text": "x"})).await.status, 200);
    assert_eq!(root.ask("DELETE", "/foot-notes/a", "").await.status, 204);
    assert_eq!(root.post("/foot-notes", json!({"name": "c", "text": "x"})).await.status, 201);
}

#[tokio::test]
async fn a_resource_that_cannot_be_read_is_listed_replaced_and_removed() {
    let store = Arc::new(MemoryMeta::new());
    let unreadable = || Transaction::new().put("note/default/a", &b"\0\x09{}"[..]);
    store.transact(unreadable()).await.unwrap();
    let anyone = serve_kinds("127.0.0.1", None, Arc::clone(&store), kinds().0).await;
    assert_eq!(anyone.post("/foot-notes", json!({"name": "b", "text": "x"})).await.status, 201);
    let listed = anyone.get("/foot-notes").await.json();
    assert_eq!(listed["foot_notes"][0]["name"], "a");
    assert!(listed["foot_notes"][0]["unreadable"].as_str().is_some_and(|why| why.contains("version 9")));
    assert_eq!(listed["foot_notes"][1]["text"], "x");
    anyone.get("/foot-notes/a").await.is_problem(500, None);
    assert_eq!(anyone.ask("PUT", "/foot-notes/a", r#"{"text": "y"}"#).await.status, 200);
    store.transact(unreadable()).await.unwrap();
    assert_eq!(anyone.ask("DELETE", "/foot-notes/a", "").await.status, 204);
}

#[tokio::test]
async fn what_is_counted_is_stored_and_shown_by_the_front() {
    let root = serve_root().await;
    let count = |filter: &str| {
        let (root, body) = (root.clone(), json!({ "filter": filter }));
        async move { root.post("/topic-metrics", body).await }
    };
    let created = count("a/#").await;
    assert_eq!((created.status, created.json()), (201, json!({"filter": "a/#"})));
    assert_eq!(count("a/#").await.status, 200);
    count("").await.is_problem(400, Some("filter"));
    root.post("/topic-metrics", json!({"name": "x"})).await.is_problem(400, Some("filter"));
    assert_eq!(count("b").await.status, 201);
    count("c").await.is_problem(507, None);
    assert_eq!(root.ask("DELETE", "/topic-metrics/a%2F%23", "").await.status, 204);
    root.ask("DELETE", "/topic-metrics/a%2F%23", "").await.is_problem(404, None);
    assert_eq!(root.get("/topic-metrics").await.json(), json!({"topic_metrics": [{"filter": "counted"}]}));
}

/// Publishes to `later/N`, for N from 0 on, due in as many hours and one.
async fn push_later(node: &TestNode, count: u64) {
    let tenant = TenantId::default();
    let listener = Listener::bound("local", [127, 0, 0, 1].into());
    let grant = node.core.access().admit(&Credentials::anonymous(listener, "c1")).await.unwrap();
    let inbox = Inbox::new();
    let mut publisher = node.core.publisher(&tenant, inbox.sink());
    for number in 0..count {
        let message = Message {
            subject: &format!("later/{number}"),
            key: None,
            value: Some(b"secret"),
            headers: &[],
            guarantee: Guarantee::Durable,
            retain: Retain::Keep,
            rows: &[],
        };
        publisher.push_later(&message, Duration::from_hours(number + 1), &grant.author()).unwrap();
        inbox.published().await.result.unwrap();
    }
}

#[test]
fn messages_that_wait_are_listed_in_pages_and_taken_back() {
    on_core(async {
        let node = TestNode::start().await;
        push_later(&node, 3).await;
        let anyone = serve_over("0.0.0.0", Some(Arc::clone(node.shared()))).await;
        anyone.get("/delayed").await.is_problem(401, None);
        let anyone = serve_over("127.0.0.1", Some(Arc::clone(node.shared()))).await;
        let first = anyone.get("/delayed?limit=2").await;
        assert!(!first.body.contains("secret"), "{}", first.body);
        let first = first.json();
        let subjects = |page: &Value| {
            let all = page["delayed"].as_array().unwrap().iter();
            all.map(|one| one["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(subjects(&first), ["later/0", "later/1"]);
        assert_eq!(first["delayed"][0]["bytes"], 6);
        let after = first["next"].as_str().unwrap();
        let second = anyone.get(&format!("/delayed?limit=2&after={after}")).await.json();
        assert_eq!((subjects(&second), &second["next"]), (vec!["later/2".to_owned()], &Value::Null));
        anyone.get("/delayed?after=x").await.is_problem(400, Some("after"));

        let path = format!("/delayed/{}", first["delayed"][1]["id"].as_str().unwrap());
        assert_eq!(anyone.ask("DELETE", &path, "").await.status, 204);
        anyone.ask("DELETE", &path, "").await.is_problem(404, None);
        anyone.ask("DELETE", "/delayed/x", "").await.is_problem(404, None);
        assert_eq!(subjects(&anyone.get("/delayed").await.json()), ["later/0", "later/2"]);
        // A node that takes nothing any more says so.
        node.node().shutdown().await;
        let path = format!("/delayed/{}", first["delayed"][0]["id"].as_str().unwrap());
        anyone.ask("DELETE", &path, "").await.is_problem(503, None);
    });
}
