//! MQTT through rumqttc: the verbs, options and lines are those of mqtt_paho.py.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::mpsc::{self, Sender};
use std::thread;

use serde_json::{Value, json};

#[path = "rumqttc_v4.rs"]
mod v4;
#[path = "rumqttc_v5.rs"]
mod v5;

const SESSION_SECONDS: u32 = 3600;
/// Bound: requests that wait for the connection; more block.
const REQUESTS_MAX: usize = 100;

/// The command line: `key=value` behind the verb.
struct Options(HashMap<String, String>);

impl Options {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn host_and_port(&self) -> (&str, u16) {
        let (host, port) = self.get("address").and_then(|address| address.rsplit_once(':')).unwrap();
        (host, port.parse().unwrap())
    }

    fn id(&self) -> String {
        // It refuses to connect without one.
        self.get("id").map_or_else(|| format!("rumqttc-{}", std::process::id()), str::to_owned)
    }

    fn is_clean(&self) -> bool {
        self.get("clean") != Some("false")
    }

    /// Topic and payload.
    fn will(&self) -> Option<(&str, Vec<u8>)> {
        Some((self.get("will_topic")?, unhex(self.get("will_payload").unwrap_or(""))))
    }
}

/// What either version's client can do.
trait Client {
    fn publish(&self, message: &Value);
    fn subscribe(&self, filter: &str, qos: u8);
    fn unsubscribe(&self, filter: &str);
    fn disconnect(&self);
}

/// What happens on a connection, as far as it is told.
enum Happening {
    /// With a session or without.
    Connected(bool),
    Granted,
    Left,
    Acknowledged,
    /// The event that tells it.
    Message(Value),
    Other,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap();
    let pairs = arguments
        .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let options = Options(pairs.collect());
    let (sender, happenings) = mpsc::channel();
    if options.get("version") == Some("4") {
        let client = v4::connect(&options, sender);
        run(&verb, &options, client, happenings.into_iter());
    } else {
        let client = v5::connect(&options, sender);
        run(&verb, &options, client, happenings.into_iter());
    }
}

fn run(
    verb: &str,
    options: &Options,
    client: impl Client,
    mut happenings: impl Iterator<Item = Happening> + Send + 'static,
) {
    let present = happenings.find_map(|happening| match happening {
        Happening::Connected(present) => Some(present),
        _ => None,
    });
    let present = present.expect("the broker accepts");
    match verb {
        "publish" => publish(&client, happenings),
        "subscribe" => subscribe(options, present, &client, happenings),
        other => panic!("{other} is no verb"),
    }
}

fn publish(client: &impl Client, happenings: impl Iterator<Item = Happening> + Send + 'static) {
    let mut sent = 0;
    let mut acknowledged = happenings.filter(|happening| matches!(happening, Happening::Acknowledged));
    for (index, line) in std::io::stdin().lock().lines().map_while(Result::ok).enumerate() {
        client.publish(&serde_json::from_str(&line).unwrap());
        acknowledged.next().expect("an acknowledgement comes");
        tell(&json!({ "event": "acked", "index": index, "reason": 0 }));
        sent += 1;
    }
    client.disconnect();
    acknowledged.for_each(drop);
    tell(&json!({ "event": "done", "sent": sent }));
}

fn subscribe(
    options: &Options,
    present: bool,
    client: &impl Client,
    happenings: impl Iterator<Item = Happening> + Send + 'static,
) {
    tell(&json!({ "event": "connected", "session_present": present }));
    let filters: Vec<_> = options.get("filter").unwrap().split(',').collect();
    if present {
        tell(&json!({ "event": "ready" }));
    } else {
        let qos = options.get("qos").map_or(1, |qos| qos.parse().unwrap());
        filters.iter().for_each(|filter| client.subscribe(filter, qos));
    }
    let mut wanted = if present { 0 } else { filters.len() };
    let showing = thread::spawn(move || {
        for happening in happenings {
            match happening {
                Happening::Granted => {
                    wanted -= 1;
                    if wanted == 0 {
                        tell(&json!({ "event": "ready" }));
                    }
                }
                Happening::Left => tell(&json!({ "event": "unsubscribed" })),
                Happening::Message(event) => tell(&event),
                Happening::Connected(_) | Happening::Acknowledged | Happening::Other => {}
            }
        }
    });
    // Each line is a filter to leave.
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        client.unsubscribe(line.trim());
    }
    client.disconnect();
    showing.join().unwrap();
    tell(&json!({ "event": "done" }));
}

/// Hands on what happens until the connection ends.
fn watch(happenings: impl Iterator<Item = Happening>, sender: &Sender<Happening>) {
    for happening in happenings {
        if sender.send(happening).is_err() {
            return;
        }
    }
}

fn tell(event: &Value) {
    println!("{event}");
}

fn text(message: &Value, name: &str) -> Option<String> {
    message[name].as_str().map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
