//! The tree as a whole: layers, problems with their places, printing, and the reference page.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::load::{Flags, Loaded, Sources, load};
use super::render::{print, reference};
use super::section::Raw;
use super::values::{ByteSize, Host, Octal, TimeSpan, Value};
use super::{ClientAuth, Config, LogLevel, Transport};

/// Loads `text` as a file, under `variables`; problems come back as lines with the folder taken off.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, text).expect("a file");
    let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let sources = Sources { file: Some(file), environment, flags: Flags::default() };
    let prefix = format!("{}/", folder.path().display());
    load(&sources).map_err(|problems| problems.iter().map(|p| p.to_string().replace(&prefix, "")).collect())
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load_text(text, variables).expect_err("problems")
}

#[test]
fn no_configuration_is_needed() {
    assert_eq!(load(&Sources::default()).expect("loads").config, Config::default());
}

#[test]
fn every_listener_is_on_loopback_by_default() {
    for (name, bind) in Config::default().listeners() {
        assert!(bind.is_loopback(), "{name}");
    }
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("broker.toml");
    std::fs::write(
        &file,
        "[node]\ncores = 7\ndata_dir = \"file\"\n[mqtt]\nmax_inflight = 3\nbind = \"127.0.0.2:1\"\n",
    )
    .expect("a file");
    let loaded = load(&Sources {
        file: Some(file.clone()),
        environment: vec![
            ("ROBUSTMQ__NODE__DATA_DIR".into(), "variable".into()),
            ("ROBUSTMQ__NODE__CORES".into(), "8".into()),
            ("ROBUSTMQ_CACHE".into(), "not ours".into()),
        ],
        flags: Flags { data_dir: Some(PathBuf::from("flag")), any_port: true },
    })
    .expect("loads");
    assert_eq!(loaded.config.mqtt.max_inflight, 3);
    assert_eq!(loaded.config.node.cores, 8);
    assert_eq!(loaded.config.node.data_dir, Path::new("flag"));
    assert_eq!(loaded.config.mqtt.bind.to_string(), "127.0.0.2:0");
    assert!(loaded.config.listeners().iter().all(|(_, bind)| bind.port() == 0));
    let origins = [("mqtt", "max_inflight"), ("node", "cores"), ("node", "data_dir")]
        .map(|(section, key)| loaded.origin(section, key).to_string());
    let expected =
        [format!("{}:5", file.display()), "ROBUSTMQ__NODE__CORES".to_owned(), "--data-dir".to_owned()];
    assert_eq!(origins, expected);
}

#[test]
fn values_of_every_type_are_read_from_the_file() {
    let text = "[log]\nlevel = \"warn\"\n[storage]\nsegment_bytes = \"128 MiB\"\n[topics]\nretention = \"unlimited\"\n\
                [kafka]\nauto_create = false\nadvertised = \"broker.example.org:19092\"\n[mqtt]\nmax_inflight = 0x10\n";
    let config = load_text(text, &[]).expect("loads").config;
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.storage.segment_bytes.bytes(), 128 << 20);
    assert_eq!(config.topics.retention, None);
    assert!(!config.kafka.auto_create);
    let advertised = config.kafka.advertised.expect("a host");
    assert_eq!((advertised.name(), advertised.port()), ("broker.example.org", Some(19092)));
    assert_eq!(config.mqtt.max_inflight, 16);
}

#[test]
fn all_problems_are_reported_together_with_their_places() {
    let text = "[node]\ncoers = 1\ncores = \"two\"\n\n[storge]\nx = 1\n\n[mqtt]\nreceive_maximum = 70000\nmax_inflight = 0\n";
    let variables =
        [("ROBUSTMQ__KAFKA__BIND", "9092"), ("ROBUSTMQ__LOG__LEVL", "info"), ("ROBUSTMQ__NODE", "1")];
    let mut found = problems(text, &variables);
    found.sort();
    assert_eq!(
        found,
        [
            "ROBUSTMQ__KAFKA__BIND: kafka.bind: expected an IP address with a port, such as \"127.0.0.1:1883\" or \
             \"[::]:1883\", found 9092",
            "ROBUSTMQ__LOG__LEVL: log.levl: no such setting; did you mean log.level?",
            "ROBUSTMQ__NODE: node: a variable is named ROBUSTMQ__SECTION__KEY",
            "broker.toml:10: mqtt.max_inflight: must be at least 1",
            "broker.toml:2: node.coers: no such setting; did you mean node.cores?",
            "broker.toml:3: node.cores: expected an integer from 0 to 65535, found \"two\"",
            "broker.toml:5: [storge]: no such setting; did you mean [storage]?",
            "broker.toml:9: mqtt.receive_maximum: expected an integer from 0 to 65535, found 70000",
        ]
    );
}

#[test]
fn a_key_in_the_wrong_place_is_sent_to_its_section() {
    let found =
        problems("tail_cache_bytes = \"1MiB\"\nzebra = 1\n[node]\nauto_create = true\nzebra = 1\n", &[]);
    let expected = [
        "broker.toml:1: tail_cache_bytes: no such setting; did you mean storage.tail_cache_bytes?",
        "broker.toml:4: node.auto_create: no such setting; did you mean kafka.auto_create?",
        "broker.toml:5: node.zebra: no such setting",
        "broker.toml:2: zebra: settings belong to a section",
    ];
    for line in expected {
        assert!(found.iter().any(|problem| problem == line), "{line} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn broken_toml_is_reported_with_its_line_and_beside_other_problems() {
    let found =
        problems("[node]\ncores = 1\ncores = 2\n[mqtt]\nbind = \n", &[("ROBUSTMQ__NODE__CORES", "many")]);
    for start in
        ["broker.toml:3: not valid TOML: ", "broker.toml:5: not valid TOML: ", "ROBUSTMQ__NODE__CORES: "]
    {
        assert!(found.iter().any(|problem| problem.starts_with(start)), "{start} is not in {found:#?}");
    }
}

#[test]
fn a_file_that_is_missing_is_a_problem() {
    let sources = Sources { file: Some(PathBuf::from("missing/broker.toml")), ..Sources::default() };
    let found = load(&sources).expect_err("problems");
    assert!(found[0].to_string().starts_with("missing/broker.toml: cannot be read: "), "{}", found[0]);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_a_problem() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let sources =
        Sources { environment: vec![("ROBUSTMQ__NODE__CORES".into(), value)], ..Sources::default() };
    let found = load(&sources).expect_err("problems");
    assert!(found[0].to_string().contains("not UTF-8"), "{}", found[0]);
}

#[test]
fn rules_between_settings_name_the_setting_to_change() {
    for (text, expected) in [
        (
            "[limits]\nmax_message_bytes = \"64MiB\"",
            "default: limits.connection_inflight_bytes: must be at least",
        ),
        (
            "[storage]\nsegment_bytes = \"12MiB\"",
            "broker.toml:2: storage.segment_bytes: must be at least twice",
        ),
        (
            "[storage]\nsegment_bytes = \"67000000B\"",
            "broker.toml:2: storage.segment_bytes: must be from 64KiB",
        ),
        (
            "[kafka]\nmax_session_timeout = \"1s\"",
            "broker.toml:2: kafka.max_session_timeout: must be at least",
        ),
        ("[http]\nbind = \"127.0.0.1:1883\"", "broker.toml:2: http.bind: 127.0.0.1:1883 is also mqtt.bind"),
        ("[groups]\ndata_groups = 5000", "broker.toml:2: groups.data_groups: must be at most 4095"),
        ("[node]\ncores = 2000", "broker.toml:2: node.cores: must be at most 1024"),
        (
            "[mqtt]\nserver_keep_alive = \"500ms\"",
            "broker.toml:2: mqtt.server_keep_alive: must be whole seconds, at most",
        ),
        (
            "[mqtt]\nmax_bytes_per_second = \"1B\"",
            "broker.toml:2: mqtt.max_bytes_per_second: must be from 1KiB",
        ),
        (
            "[mqtt]\nresponse_information = \"${clientid\"",
            "broker.toml:2: mqtt.response_information: is not valid: a placeholder is not closed by }",
        ),
        (
            "[mqtt]\nrewrite = [\"all a/# ( b\"]",
            "broker.toml:2: mqtt.rewrite: has a rule that is not valid, \"all a/# ( b\": its regular expression",
        ),
        (
            "[mqtt]\nauto_subscribe = [\"a\", \"b qos=3\"]",
            "broker.toml:2: mqtt.auto_subscribe: has a subscription that is not valid, \"b qos=3\": qos=3 is no option",
        ),
        (
            "[mqtt]\ntopic_metrics = [\"a\", \"a/#/b\"]",
            "broker.toml:2: mqtt.topic_metrics: cannot have \"a/#/b\": it must be",
        ),
        ("[mqtt]\nrewrite = [1]", "broker.toml:2: mqtt.rewrite: expected a list of texts"),
        (
            "[auth.first_user]\nname = \"root\"",
            "default: auth.first_user.password_file: must be given with name",
        ),
        (
            "[auth.recover_user]\nname = \"root\"",
            "default: auth.recover_user.password_file: must be given with name",
        ),
        (
            "[auth.first_user]\npassword_file = \"p\"",
            "default: auth.first_user.name: must be given with password_file",
        ),
        (
            "[auth.first_user]\npassword_file = \"p\"\nname = \"a\\nb\"",
            "broker.toml:3: auth.first_user.name: must have 1 to 255 bytes",
        ),
        ("[topics]\ndefault_shards = 0", "broker.toml:2: topics.default_shards: must be at least 1"),
    ] {
        let found = problems(text, &[]);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {found:#?}");
    }
}

#[test]
fn lists_are_read_from_the_file_and_from_variables() {
    let text = "[mqtt]\nauto_subscribe = [\n  'to/${clientid} qos=1', # one\n  \"all\",\n]\n";
    let variable = r#"["all a/# ^a/(\\d+)$ b/$1"]"#;
    let loaded = load_text(text, &[("ROBUSTMQ__MQTT__REWRITE", variable)]).expect("loads");
    assert_eq!(loaded.config.mqtt.auto_subscribe, ["to/${clientid} qos=1", "all"]);
    assert_eq!(loaded.config.mqtt.rewrite, ["all a/# ^a/(\\d+)$ b/$1"]);
    assert_eq!(load_text(&print(&loaded), &[]).expect("loads").config, loaded.config);
    for bad in ["", "all", "[\"a\"", "[1]", "[\"a\"]\nlist = [\"b\"]", "[\"a\"]\nother = 1"] {
        assert!(load_text("", &[("ROBUSTMQ__MQTT__REWRITE", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn a_section_within_a_section_is_read_from_both_and_checked_if_it_is_used() {
    let text = "[auth]\nchain = [\"users\", \"jwt\", \"http\"]\n[auth.jwt]\nalgorithm = \"ES256\"\n";
    let variables =
        [("ROBUSTMQ__AUTH__JWT__KEY_FILE", "/k.pem"), ("ROBUSTMQ__AUTH__HTTP__URL", "https://a/b")];
    let loaded = load_text(text, &variables).expect("loads");
    let providers = &loaded.config.providers;
    assert_eq!(providers.jwt.key_file.as_deref(), Some(Path::new("/k.pem")));
    assert_eq!((providers.jwt.algorithm.word(), providers.http.url.as_str()), ("ES256", "https://a/b"));
    let told = problems(&format!("{text}user_clam = \"x\"\n[auth.jtw]\nleeway = \"1s\"\n"), &[]);
    for part in [
        "auth.jwt.user_clam",
        "auth.jwt.user_claim",
        "[auth.jtw]",
        "auth.http.url: must be given",
        "auth.jwt.key_file: exactly one",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
    let told = problems("[auth]\nchain = [\"users\", \"kerberos\", \"users\"]\n", &[]);
    assert!(told.iter().any(|line| line.contains("kerberos")), "{told:#?}");
}

#[test]
fn what_is_printed_loads_to_the_same_settings() {
    let text = "[topics]\nretention = \"unlimited\"\n[kafka]\nadvertised = \"[::1]:9\"\n[node]\ndata_dir = \"a \\\"b\"\n";
    let loaded = load_text(text, &[("ROBUSTMQ__LOG__LEVEL", "warn")]).expect("loads");
    let printed = print(&loaded);
    assert!(printed.contains("# Set by ROBUSTMQ__LOG__LEVEL.\nlevel = \"warn\"\n"), "{printed}");
    assert_eq!(load_text(&printed, &[]).expect("loads").config, loaded.config);
}

const LISTENERS: &str = r#"
[mqtt]
bind = "127.0.0.1:1"

[[mqtt.listeners]]
name = "web"
transport = "wss"
bind = "127.0.0.1:8084"
max_connections = 7
max_packet_bytes = "64KiB"
[mqtt.listeners.tls]
certificate_file = "server.pem"
key_file = "server.key"
client_auth = "optional"
ca_file = "ca.pem"

[[mqtt.listeners]]
name = "local"
transport = "unix"
path = "/run/robustmq.sock"
mode = "0600"

[kafka]
auto_create = false
"#;

#[test]
fn listeners_are_read_printed_and_read_again() {
    let loaded = load_text(LISTENERS, &[]).expect("loads");
    let [web, local] = &loaded.config.mqtt_listeners[..] else { panic!("two") };
    assert_eq!((web.own.name.as_str(), web.own.transport), ("web", Transport::Wss));
    assert_eq!((web.own.max_connections, web.tls.client_auth), (Some(7), ClientAuth::Optional));
    assert_eq!((local.own.mode, local.own.bind), (Octal(0o600), None));
    assert!(!loaded.config.kafka.auto_create, "what follows belongs to its own section");
    let printed = print(&loaded);
    assert!(printed.contains("broker.toml:10.\nmax_packet_bytes = \"64KiB\"\n"), "{printed}");
    assert_eq!(load_text(&printed, &[]).expect("loads").config, loaded.config);
}

#[test]
fn any_port_holds_for_all_listeners() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, LISTENERS).expect("a file");
    let flags = Flags { any_port: true, ..Flags::default() };
    let loaded = load(&Sources { file: Some(file), flags, ..Sources::default() }).expect("loads");
    let ports: Vec<_> =
        loaded.config.mqtt_listeners.iter().map(|item| item.own.bind.map(|bind| bind.port())).collect();
    assert_eq!(ports, [Some(0), None]);
}

/// It was also said to be missing.
#[test]
fn a_value_that_cannot_be_read_is_reported_once() {
    for (listener, expected) in [
        ("name = \"A b\"\nbind = \"127.0.0.1:5\"", "broker.toml:2: mqtt.listeners.name: expected"),
        ("name = \"a\"\nbind = 5", "broker.toml:3: mqtt.listeners.bind: expected"),
    ] {
        let found = problems(&format!("[[mqtt.listeners]]\n{listener}"), &[]);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:#?}");
    }
}

#[test]
fn every_mistake_in_a_listener_is_reported_with_its_line() {
    let one = |rest: &str| format!("[[mqtt.listeners]]\nname = \"a\"\n{rest}");
    let bound = |rest: &str| one(&format!("bind = \"127.0.0.1:5\"\n{rest}"));
    assert_problems(&[
        (
            "[mqtt]\nlisteners = 5".to_owned(),
            "broker.toml:2: mqtt.listeners: expected tables, each begun by [[mqtt",
        ),
        (
            "[[mqtt.listeners]]\nbind = \"127.0.0.1:5\"".to_owned(),
            "broker.toml:1: mqtt.listeners.name: must be given",
        ),
        (one(""), "broker.toml:1: mqtt.listeners.bind: must be given"),
        (
            one("naem = 1"),
            "broker.toml:3: mqtt.listeners.naem: no such setting; did you mean mqtt.listeners.name?",
        ),
        (one("bind = 5"), "broker.toml:3: mqtt.listeners.bind: expected an IP address with a port"),
        (one("transport = \"sctp\""), "broker.toml:3: mqtt.listeners.transport: expected \"tcp\", \"tls\""),
        (one("transport = \"unix\""), "broker.toml:1: mqtt.listeners.path: must be given for a unix socket"),
        (
            one("transport = \"unix\"\npath = \"p\"\nbind = \"127.0.0.1:5\""),
            "broker.toml:5: mqtt.listeners.bind: is not for a unix",
        ),
        (bound("path = \"p\""), "broker.toml:4: mqtt.listeners.path: is only for transport = \"unix\""),
        (bound("mode = \"999\""), "broker.toml:4: mqtt.listeners.mode: expected permissions"),
        (bound("max_connections = 0"), "broker.toml:4: mqtt.listeners.max_connections: must be at least 1"),
        (
            bound("max_accepts_per_second = 0"),
            "broker.toml:4: mqtt.listeners.max_accepts_per_second: must be at",
        ),
        (
            bound("max_packet_bytes = \"1GiB\""),
            "broker.toml:4: mqtt.listeners.max_packet_bytes: must be from",
        ),
        (
            bound("handshake_timeout = \"1h\""),
            "broker.toml:4: mqtt.listeners.handshake_timeout: must be from",
        ),
        (
            bound("websocket_path = \"mqtt\""),
            "broker.toml:4: mqtt.listeners.websocket_path: must begin with /",
        ),
        (
            bound("certificate_user = \"subject\""),
            "broker.toml:4: mqtt.listeners.certificate_user: needs tls.",
        ),
        (
            [bound(""), bound("")].concat(),
            "broker.toml:5: mqtt.listeners.name: a is the name of another listener",
        ),
        (
            [bound(""), bound("")].concat(),
            "broker.toml:6: mqtt.listeners.bind: 127.0.0.1:5 is also that of another",
        ),
        (
            "[[mqtt.listeners]]\nname = \"kafka\"\nbind = \"127.0.0.1:9092\"".to_owned(),
            "broker.toml:3: mqtt.listeners.bind: 127.0.0.1:9092 is also kafka.bind",
        ),
        (
            "[[mqtt.listeners]]\nname = \"kafka\"\nbind = \"127.0.0.1:5\"".to_owned(),
            "broker.toml:2: mqtt.listeners.name: kafka is the listener of its own section",
        ),
    ]);
}

/// Each file has the problem that is beside it.
fn assert_problems(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let found = problems(text, &[]);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {found:#?}");
    }
}

#[test]
fn every_mistake_in_a_listeners_certificates_is_reported_with_its_line() {
    let files = "certificate_file = \"c\"\nkey_file = \"k\"\n";
    let bound = |rest: &str| format!("[[mqtt.listeners]]\nname = \"a\"\nbind = \"127.0.0.1:5\"\n{rest}");
    let secure = |rest: &str| bound(&format!("transport = \"tls\"\n[mqtt.listeners.tls]\n{files}{rest}"));
    assert_problems(&[
        (bound("transport = \"tls\""), "broker.toml:1: mqtt.listeners.tls.certificate_file: must be given"),
        (
            bound("[mqtt.listeners.tls]\nkey_file = \"k\""),
            "broker.toml:4: mqtt.listeners.tls.certificate_file: is only for transport",
        ),
        (secure("key_fiel = \"k\""), "broker.toml:8: mqtt.listeners.tls.key_fiel: no such setting; did you"),
        (
            secure("client_auth = \"required\""),
            "broker.toml:5: mqtt.listeners.tls.ca_file: must be given for",
        ),
        (secure("crl_file = \"r\""), "broker.toml:8: mqtt.listeners.tls.crl_file: needs client_auth"),
    ]);
}

/// Fails when docs/reference/configuration.md is stale; `cargo xtask gen` makes it write the page instead.
#[test]
fn reference_page_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    if std::env::var_os("ROBUSTMQ_WRITE_GENERATED").is_some() {
        std::fs::write(&page, reference()).expect("the page is written");
    }
    let current = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(current == reference(), "docs/reference/configuration.md is stale; run `cargo xtask gen`");
}

fn read<T: Value>(text: &str) -> Option<T> {
    let file = T::read(Raw::Text(text)).ok();
    let variable = T::read(Raw::Bare(text)).ok();
    assert_eq!(
        file.as_ref().map(Value::show),
        variable.as_ref().map(Value::show),
        "file and variable differ"
    );
    file
}

#[test]
fn sizes_and_durations_refuse_what_is_ambiguous() {
    for text in [
        "",
        "10",
        "10MB",
        "10mib",
        "-1KiB",
        "1.5GiB",
        "99999999999GiB",
        "MiB",
        "1 KiB x",
        "18446744073709551616B",
    ] {
        assert_eq!(read::<ByteSize>(text), None, "{text}");
    }
    for text in ["", "10", "10sec", "1h30m", "-1s", "0.5s", "213503982334602d"] {
        assert_eq!(read::<TimeSpan>(text), None, "{text}");
    }
}

#[test]
fn hosts_are_names_or_addresses_with_or_without_a_port() {
    for (text, name, port) in [
        ("broker", "broker", None),
        ("broker.example.org:9092", "broker.example.org", Some(9092)),
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:1", "10.0.0.1", Some(1)),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[::1]:9", "::1", Some(9)),
    ] {
        let host = read::<Host>(text).expect(text);
        assert_eq!((host.name(), host.port()), (name, port), "{text}");
    }
    for text in ["", "a b", "a:0", "a:x", "10.0.0.1:0", ":1", "http://a", "a:1:2"] {
        assert_eq!(read::<Host>(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn sizes_show_what_they_read(bytes in any::<u64>(), shift in 0_u32..64) {
        let text = format!("{}B", bytes >> shift << (shift % 41));
        let size = read::<ByteSize>(&text).expect("a number of bytes");
        prop_assert_eq!(read::<ByteSize>(&size.to_string()), Some(size));
    }

    #[test]
    fn durations_show_what_they_read(millis in any::<u64>()) {
        let span = TimeSpan::millis(millis);
        prop_assert_eq!(read::<TimeSpan>(&span.to_string()), Some(span));
    }

    #[test]
    fn no_text_makes_reading_panic(text in any::<String>()) {
        let _ = (read::<ByteSize>(&text), read::<TimeSpan>(&text), read::<Host>(&text), read::<Octal>(&text));
        // A number in quotes is no number in the file, and one in a variable.
        let _ = (u16::read(Raw::Text(&text)), u16::read(Raw::Bare(&text)));
        let _ = load_text(&text, &[]);
    }
}
