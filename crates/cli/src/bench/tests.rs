//! Measurements of many connections against the sink, through real sockets: what they count is what happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Parser;
use serde_json::Value;

use crate::arguments::{Arguments, Command, Mqtt};
use crate::sink::Sink;
use crate::{filters, idle};

/// Makes one measurement against a sink of its own.
fn outcome(line: &str) -> Value {
    let sink = Sink::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let line = format!("robust-bench mqtt {line} --address {}", sink.address().unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let server = thread::spawn(move || sink.serve(|| is_over.load(Ordering::Relaxed)));
    let outcome = match Arguments::parse_from(line.split_whitespace()).command {
        Command::Mqtt(Mqtt::Idle(arguments)) => serde_json::to_value(idle::run(&arguments).unwrap()),
        Command::Mqtt(Mqtt::Filters(arguments)) => serde_json::to_value(filters::run(&arguments).unwrap()),
        _ => panic!("a measurement of many connections"),
    };
    over.store(true, Ordering::Relaxed);
    server.join().unwrap().unwrap();
    outcome.unwrap()
}

#[test]
fn all_connections_stand_with_their_subscriptions() {
    for options in ["", "--filters 1", "--filters 40 --protocol 5.0", "--concurrency 60 --keep-alive 60"] {
        let outcome = outcome(&format!("idle --connections 60 --settle 0 --hold 0 {options}"));
        assert_eq!((&outcome["opened"], &outcome["still_open"]), (&60.into(), &60.into()), "{outcome}");
    }
}

#[test]
fn each_message_reaches_the_one_filter_that_matches() {
    for protocol in ["3.1.1", "5.0"] {
        let options = "--connections 20 --filters 5 --topics 40 --window 10 --duration 0.1";
        let outcome = outcome(&format!("filters {options} --protocol {protocol}"));
        assert_eq!(outcome["filters"], 100, "{outcome}");
        assert_eq!((&outcome["first"]["sent"], &outcome["first"]["arrived"]), (&40.into(), &40.into()));
        assert!(outcome["again"]["sent"].as_u64() > Some(0), "{outcome}");
        assert_eq!(outcome["again"]["sent"], outcome["again"]["arrived"], "{outcome}");
    }
}
