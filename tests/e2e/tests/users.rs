//! The first steps of an operator who moves from Mosquitto, over HTTP and with unmodified clients.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use e2e::{Broker, Process, Program, Settings, ask, get, missing};
use tempfile::TempDir;

/// Written by `mosquitto_passwd` 2.0.11; the last line by `-H sha512`, as those of Mosquitto 1 are.
const PASSWORD_FILE: &str = include_str!("../fixtures/mosquitto.passwd");

/// Of root, whose password is `s3cret`.
const ROOT: &str = "Authorization: Basic cm9vdDpzM2NyZXQ=\r\n";

/// A Mosquitto client that logs in.
fn client(program: &str, broker: SocketAddr, login: (&str, &str)) -> Command {
    // Through a pipe it would keep its lines to itself.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]);
    command.args(["-u", login.0, "-P", login.1]);
    command
}

/// Whether a client may publish.
fn publishes(broker: SocketAddr, login: (&str, &str)) -> bool {
    let mut command = client("mosquitto_pub", broker, login);
    command.args(["-q", "1", "-t", "t", "-m", login.0]);
    let mut process = Process::start(command);
    process.close_input();
    process.wait().success()
}

#[test]
fn clients_of_mosquitto_log_in_with_the_passwords_that_they_have() {
    if missing(&[Program::Mosquitto]) {
        return;
    }
    // As Mosquitto without an ACL file.
    let broker = Broker::start_with(Settings::new().with("auth.unmatched", "allow"));
    let http = broker.listeners().http;
    let root = r#"{"name": "root", "password": "s3cret", "superuser": true}"#;
    assert_eq!(ask(http, ("POST", "/api/v1/users"), "", root).0, 201);
    assert_eq!(get(http, "/api/v1/users").0, 401);

    let import = |path: &str, file: &str| ask(http, ("POST", path), ROOT, file);
    let (status, text) = import("/api/v1/users/import", PASSWORD_FILE);
    assert_eq!((status, text.as_str()), (200, r#"{"created":3,"replaced":0}"#));
    let mut command = client("mosquitto_sub", broker.mqtt(), ("reader", "über:alles"));
    command.args(["-t", "t", "-t", "$SYS/broker/version", "-F", "%t %p"]);
    let mut reader = Process::start(command);
    // It is subscribed when the value is there.
    assert!(reader.next_line().starts_with("$SYS/broker/version "));
    for (name, password) in [("sensor", "old secret"), ("legacy", "from 2012")] {
        assert!(publishes(broker.mqtt(), (name, password)), "{name}");
        assert_eq!(reader.next_line(), format!("t {name}"));
        assert!(!publishes(broker.mqtt(), (name, "other")), "{name}");
    }

    let (status, text) = import("/api/v1/users/import", PASSWORD_FILE);
    assert!(status == 409 && text.contains("the user in line 1 exists already"), "{text}");
    let mixed = PASSWORD_FILE.replace("sensor:", "legacy:").replace("legacy:$6", "new:$6");
    let (status, text) = import("/api/v1/users/import?replace=true", &mixed);
    assert_eq!((status, text.as_str()), (200, r#"{"created":1,"replaced":2}"#));
    for (name, password, served) in
        [("legacy", "old secret", true), ("legacy", "from 2012", false), ("new", "from 2012", true)]
    {
        assert_eq!(publishes(broker.mqtt(), (name, password)), served, "{name} {password}");
    }
}

/// A first user by settings, for a broker that lets nobody in without one.
fn first_user(password_file: &std::path::Path) -> Settings {
    Settings::new()
        .with("auth.anonymous_on_loopback", "false")
        .with("auth.first_user.name", "root")
        .with("auth.first_user.password_file", &password_file.display().to_string())
}

#[test]
fn the_first_user_of_the_settings_is_created_once() {
    let secrets = TempDir::new().expect("a temporary directory can be made");
    let file = secrets.path().join("first-password");
    fs::write(&file, "s3cret\n").expect("the password can be written");
    let mut broker = Broker::start_with(first_user(&file));
    assert_eq!(get(broker.listeners().http, "/api/v1/users").0, 401);
    let rule = r##"{"id": "all", "who": {"user": "root"}, "effect": "allow", "patterns": ["#"]}"##;
    let (status, text) = ask(broker.listeners().http, ("POST", "/api/v1/permissions"), ROOT, rule);
    assert_eq!(status, 201, "{text}");
    if !missing(&[Program::Mosquitto]) {
        assert!(publishes(broker.mqtt(), ("root", "s3cret")) && !publishes(broker.mqtt(), ("root", "")));
    }
    // root:other
    let other = "Authorization: Basic cm9vdDpvdGhlcg==\r\n";
    let prepare: [&dyn Fn(); 2] =
        [&|| fs::write(&file, "other").expect("the password can be written"), &|| {
            fs::remove_file(&file).expect("the password can be removed")
        }];
    for prepare in prepare {
        prepare();
        assert!(broker.terminate().success());
        broker.restart();
        let list = |by: &str| ask(broker.listeners().http, ("GET", "/api/v1/permissions"), by, "");
        assert_eq!((list(ROOT).0, list(other).0, list("").0), (200, 401, 401));
        assert!(list(ROOT).1.contains(r#""id":"all""#));
    }
    let said = broker.said();
    let count = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    assert_eq!(
        (count("the first user was created"), count("auth.first_user does nothing")),
        (1, 2),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn a_first_user_without_a_password_keeps_the_broker_from_starting() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let file = directory.path().join("lost");
    let output = Broker::command(directory.path(), &first_user(&file)).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("cannot create the first user") && said.contains("lost"),
        "{said}"
    );
}

#[test]
fn whoever_has_lost_the_password_gives_a_new_one_by_settings() {
    let secrets = TempDir::new().expect("a temporary directory can be made");
    let (first, new) = (secrets.path().join("first-password"), secrets.path().join("new-password"));
    fs::write(&first, "lost").expect("the password can be written");
    fs::write(&new, "s3cret\n").expect("the password can be written");
    let settings = first_user(&first)
        .with("auth.recover_user.name", "root")
        .with("auth.recover_user.password_file", &new.display().to_string());
    let mut broker = Broker::start_with(settings);
    broker.allow("auth.recover_user");
    let users = |broker: &Broker| ask(broker.listeners().http, ("GET", "/api/v1/users"), ROOT, "").0;
    assert_eq!(users(&broker), 200);
    assert!(broker.terminate().success());
    broker.restart();
    assert_eq!(users(&broker), 200);
    let said = broker.said();
    for part in ["auth.recover_user has made the user a superuser", "auth.recover_user does nothing any more"]
    {
        assert_eq!(said.lines().filter(|line| line.contains(part)).count(), 1, "{said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
}
