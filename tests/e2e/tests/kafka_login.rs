//! Kafka clients log in: a broker that lets nobody in without a user, and unmodified clients.

use std::fs;
use std::process::Command;

use e2e::{Broker, KafkaRecord, Process, Program, Settings, ask, missing};
use tempfile::TempDir;

/// Of root, whose password is `s3cret`.
const ROOT: &str = "Authorization: Basic cm9vdDpzM2NyZXQ=\r\n";

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// What every client is told that does not prove who it is.
const REFUSAL: &str = "user or proof is not accepted";

/// A broker whose user `meter` may do everything below `open/`, and with the groups that our clients name.
fn broker() -> Broker {
    let secrets = TempDir::new().expect("a temporary directory can be made");
    let file = secrets.path().join("first-password");
    fs::write(&file, "s3cret\n").expect("the password can be written");
    let settings = Settings::new()
        .with("auth.anonymous_on_loopback", "false")
        .with("auth.first_user.name", "root")
        .with("auth.first_user.password_file", &file.display().to_string());
    let broker = Broker::start_with(settings);
    for (path, thing) in [
        ("/api/v1/users", r#"{"name": "meter", "password": "pass word"}"#),
        (
            "/api/v1/permissions",
            r##"{"id": "open", "who": {"user": "meter"}, "effect": "allow", "patterns": ["open/#"]}"##,
        ),
        (
            "/api/v1/permissions",
            r#"{"id": "g", "who": {"user": "meter"}, "effect": "allow", "object": "group", "patterns": ["g", "unused"]}"#,
        ),
    ] {
        let (status, text) = ask(broker.listeners().http, ("POST", path), ROOT, thing);
        assert_eq!(status, 201, "{text}");
    }
    broker
}

fn kcat(broker: &Broker, login: Option<(&str, &str, &str)>, arguments: &[&str]) -> Process {
    let mut command = Command::new("kcat");
    command.args(["-b", &broker.kafka().to_string()]).args(arguments);
    if let Some((mechanism, user, password)) = login {
        let settings = [
            "security.protocol=sasl_plaintext".to_owned(),
            format!("sasl.mechanisms={mechanism}"),
            format!("sasl.username={user}"),
            format!("sasl.password={password}"),
        ];
        settings.iter().for_each(|setting| {
            command.args(["-X", setting]);
        });
    }
    Process::start(command)
}

/// What a kcat says that fails.
fn complaint(mut kcat: Process) -> String {
    kcat.close_input();
    assert!(!kcat.wait().success());
    kcat.errors()
}

#[test]
fn kcat_with_every_mechanism() {
    if missing(&[Program::Kcat]) {
        return;
    }
    let broker = broker();
    for mechanism in MECHANISMS {
        let login = Some((mechanism, "meter", "pass word"));
        let topic = format!("open.{mechanism}");
        let mut producer = kcat(&broker, login, &["-P", "-t", &topic]);
        producer.write_line("hello");
        producer.finish();
        let mut reader = kcat(&broker, login, &["-C", "-t", &topic, "-o", "beginning", "-e"]);
        assert_eq!(reader.next_line(), "hello", "{mechanism}");
        reader.finish();

        let mut producer = kcat(&broker, login, &["-P", "-t", "closed"]);
        producer.write_line("hello");
        let said = complaint(producer);
        assert!(said.contains("Topic authorization failed"), "{mechanism}: {said}");
        for (user, password) in [("meter", "password"), ("nobody", "pass word")] {
            let said = complaint(kcat(&broker, Some((mechanism, user, password)), &["-L"]));
            assert!(said.contains(REFUSAL), "{mechanism} {user}: {said}");
        }
    }
    let said = complaint(kcat(&broker, None, &["-L", "-m", "2"]));
    assert!(said.contains("Failed to acquire metadata"), "{said}");
}

fn logs_in(program: Program) {
    if missing(&[program]) {
        return;
    }
    let broker = broker();
    for mechanism in MECHANISMS {
        let mechanism = format!("mechanism={mechanism}");
        let right = [&*mechanism, "user=meter", "password=pass word"];
        let sent = [KafkaRecord::of("1"), KafkaRecord::of("2")];
        let topic = format!("open.{}", mechanism.replace('=', "."));
        program.produce(broker.kafka(), &topic, &sent, &right);
        let mut reader = program.consume(broker.kafka(), &topic, &right);
        assert_eq!(reader.take(2)[1].record.value.as_deref(), Some(&b"2"[..]), "{mechanism}");
        reader.finish();

        let options = |password: &str| [&*mechanism, "user=meter", password].map(str::to_owned);
        let mut login = program.start("login", broker.kafka(), &options("password=pass word"));
        login.next_event(&["welcome"]);
        let mut login = program.start("login", broker.kafka(), &options("password=password"));
        let refused = login.next_event(&["refused"]);
        let why = refused["message"].as_str().expect("a message");
        assert!(why.contains(REFUSAL), "{mechanism}: {why}");
    }
}

#[test]
fn confluent_with_every_mechanism() {
    logs_in(Program::Confluent);
}

#[test]
fn kafka_python_with_every_mechanism() {
    logs_in(Program::KafkaPython);
}

#[test]
fn java_with_every_mechanism() {
    logs_in(Program::Java);
}

#[test]
fn a_user_reads_in_its_group_until_it_is_locked_out() {
    if missing(&[Program::Confluent]) {
        return;
    }
    let broker = broker();
    let login = ["mechanism=SCRAM-SHA-512", "user=meter", "password=pass word"];
    Program::Confluent.produce(broker.kafka(), "open.log", &[KafkaRecord::of("1")], &login);
    let in_group = |group: &'static str| [login[0], login[1], login[2], group, "commit=true"];
    let mut reader = Program::Confluent.consume(broker.kafka(), "open.log", &in_group("group=g"));
    assert_eq!(reader.next_record().offset, 0);
    reader.finish();
    let path = "/api/v1/users/meter";
    let (status, text) = ask(broker.listeners().http, ("PATCH", path), ROOT, r#"{"disabled": true}"#);
    assert_eq!(status, 200, "{text}");
    let options = login.map(str::to_owned);
    let mut login = Program::Confluent.start("login", broker.kafka(), &options);
    login.next_event(&["refused"]);
}
