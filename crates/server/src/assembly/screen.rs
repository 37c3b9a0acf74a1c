//! The one screen that a start prints.

use std::fmt::Write as _;
use std::io::Write as _;

use super::listeners::{Listening, Place};
use crate::config::Config;
use auth::Access;
use model::TenantId;

/// Prints version, data directory, listeners, and a line to try for each protocol, to standard output.
pub(super) fn print(config: &Config, listening: &[Listening], access: &Access) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason to stop.
    let has_users = !access.lets_nobody_in(&TenantId::default());
    let _ = out.write_all(text(config, listening, has_users).as_bytes());
    let _ = out.flush();
}

fn text(config: &Config, listening: &[Listening], has_users: bool) -> String {
    let mut text = format!("RobustMQ {}\n\n", env!("CARGO_PKG_VERSION"));
    let width = listening.iter().map(|listener| listener.name.len()).max().unwrap_or_default().max(6);
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<width$} {value}");
    };
    line("data", config.node.data_dir.display().to_string());
    for listener in listening {
        let what = listener.transport.map(|word| format!(" ({word})")).unwrap_or_default();
        line(&listener.name, format!("{}{what}", listener.place));
    }
    text.push_str("\nTry:\n");
    for listener in listening {
        let Place::Ip(address) = listener.place else { continue };
        let (host, port) = (address.ip(), address.port());
        let _ = match listener.name.as_str() {
            "mqtt" => writeln!(
                text,
                "  mosquitto_sub -h {host} -p {port} -t 'hello/#' -v\n  mosquitto_pub -h {host} -p {port} -t hello/world -m hi -q 1"
            ),
            "kafka" => writeln!(text, "  kcat -b {host}:{port} -t hello.world -C -o beginning"),
            "http" => writeln!(text, "  curl http://{host}:{port}/health/ready"),
            _ => Ok(()),
        };
    }
    warn_of_wide(&mut text, listening, has_users);
    text.push('\n');
    text
}

fn warn_of_wide(text: &mut String, listening: &[Listening], has_users: bool) {
    let (http, others): (Vec<_>, Vec<_>) =
        listening.iter().filter(|one| one.place.is_wide()).partition(|one| one.name == "http");
    let mut warn = |why: &str, which: Vec<&Listening>| {
        if which.is_empty() {
            return;
        }
        let _ = writeln!(text, "\nWARNING: {why}:");
        for listener in which {
            let _ = writeln!(text, "  {} {}", listener.name, listener.place);
        }
    };
    if !has_users {
        let why = "these listeners are open to the network; they refuse everybody until a user exists";
        warn(why, others);
    }
    warn("whoever reaches this listener can read health and metrics", http);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_bind_is_warned_about() {
        let listening = |name: &str, place, transport| Listening { name: name.to_owned(), place, transport };
        let ip = |text: &str| Place::Ip(text.parse().expect("an address"));
        let narrow = [
            listening("mqtt", ip("127.0.0.1:1883"), None),
            listening("local", Place::Unix("/run/robustmq.sock".into()), Some("unix")),
        ];
        let config = Config::default();
        let shown = text(&config, &narrow, false);
        assert!(!shown.contains("WARNING"), "{shown}");
        assert!(shown.contains("  local  unix:/run/robustmq.sock (unix)\n"), "{shown}");
        let wide = [&narrow[..], &[listening("mqtt-tls", ip("0.0.0.0:8883"), Some("tls"))]].concat();
        let shown = text(&config, &wide, false);
        assert!(
            shown.contains("refuse everybody until a user exists:\n  mqtt-tls 0.0.0.0:8883\n"),
            "{shown}"
        );
        assert!(!text(&config, &wide, true).contains("WARNING"));
        let wide = [listening("kafka", ip("0.0.0.0:9092"), None), listening("http", ip("[::]:58080"), None)];
        let shown = text(&config, &wide, true);
        assert!(shown.contains("can read health and metrics:\n  http [::]:58080\n"), "{shown}");
        assert!(!shown.contains("  kafka 0.0.0.0:9092\n\n"), "{shown}");
        let shown = text(&config, &wide, false);
        assert!(shown.contains("refuse everybody until a user exists:\n  kafka 0.0.0.0:9092\n"), "{shown}");
    }
}
