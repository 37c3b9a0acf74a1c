//! The one screen that a start prints.

use std::fmt::Write as _;
use std::io::Write as _;

use super::listeners::{Listening, Place};
use crate::config::Config;

/// Prints version, data directory, listeners, and a line to try for each protocol, to standard output.
pub(super) fn print(config: &Config, listening: &[Listening]) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason to stop.
    let _ = out.write_all(text(config, listening).as_bytes());
    let _ = out.flush();
}

fn text(config: &Config, listening: &[Listening]) -> String {
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
    let wide: Vec<_> = listening.iter().filter(|listener| listener.place.is_wide()).collect();
    if !wide.is_empty() {
        text.push_str(
            "\nWARNING: there is no access control yet, and these listeners are open to the network:\n",
        );
        for listener in wide {
            let _ = writeln!(text, "  {} {}", listener.name, listener.place);
        }
    }
    text.push('\n');
    text
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
        let shown = text(&config, &narrow);
        assert!(!shown.contains("WARNING"), "{shown}");
        assert!(shown.contains("  local  unix:/run/robustmq.sock (unix)\n"), "{shown}");
        let wide = [&narrow[..], &[listening("mqtt-tls", ip("0.0.0.0:8883"), Some("tls"))]].concat();
        let shown = text(&config, &wide);
        assert!(shown.contains("WARNING") && shown.contains("  mqtt-tls 0.0.0.0:8883\n"), "{shown}");
    }
}
