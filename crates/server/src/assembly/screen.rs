//! The one screen that a start prints.

use std::fmt::Write as _;
use std::io::Write as _;

use super::Address;
use crate::config::Config;

/// Prints version, data directory, listeners, and a line to try for each protocol, to standard output.
pub(super) fn print(config: &Config, addresses: &[Address]) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason to stop.
    let _ = out.write_all(text(config, addresses).as_bytes());
    let _ = out.flush();
}

fn text(config: &Config, addresses: &[Address]) -> String {
    let mut text = format!("RobustMQ {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<6} {value}");
    };
    line("data", config.node.data_dir.display().to_string());
    for (name, address) in addresses {
        line(name, address.to_string());
    }
    text.push_str("\nTry:\n");
    for (name, address) in addresses {
        let (host, port) = (address.ip(), address.port());
        let _ = match *name {
            "mqtt" => writeln!(
                text,
                "  mosquitto_sub -h {host} -p {port} -t 'hello/#' -v\n  mosquitto_pub -h {host} -p {port} -t hello/world -m hi -q 1"
            ),
            "kafka" => writeln!(text, "  kcat -b {host}:{port} -t hello.world -C -o beginning"),
            "http" => writeln!(text, "  curl http://{host}:{port}/health/ready"),
            _ => Ok(()),
        };
    }
    let wide: Vec<_> = addresses.iter().filter(|(_, address)| !address.ip().is_loopback()).collect();
    if !wide.is_empty() {
        text.push_str(
            "\nWARNING: there is no access control yet, and these listeners are open to the network:\n",
        );
        for (name, address) in wide {
            let _ = writeln!(text, "  {name} {address}");
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
        let loopback = ("mqtt", "127.0.0.1:1883".parse().expect("an address"));
        let wide = ("kafka", "0.0.0.0:9092".parse().expect("an address"));
        let config = Config::default();
        assert!(!text(&config, &[loopback]).contains("WARNING"));
        assert!(text(&config, &[loopback, wide]).contains("WARNING"));
    }
}
