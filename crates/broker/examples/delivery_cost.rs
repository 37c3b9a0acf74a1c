//! What routing and the view cost, in nanoseconds: run with `--release`. Prints one line per figure.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a person at a terminal")]

use std::hint::black_box;
use std::time::Instant;

use broker::routing::{Dialect, Filter, Scratch, Trie};
use broker::view::{Acknowledge, ConsumerId, Policy, Progress, Reason, View};

const FILTERS: u32 = 100_000;
const ROUNDS: u32 = 2_000_000;

fn report(what: &str, count: u32, started: Instant) {
    println!("{what:<58} {:>8.1} ns", started.elapsed().as_nanos() as f64 / f64::from(count));
}

fn filled(spell: impl Fn(u32) -> String, what: &str) -> (Trie<u32>, Vec<Filter>) {
    let filters: Vec<Filter> =
        (0..FILTERS).map(|at| Filter::parse(&spell(at), &Dialect::CANONICAL).unwrap()).collect();
    let started = Instant::now();
    let mut trie = Trie::new();
    for (filter, value) in filters.iter().zip(0..) {
        trie.insert(filter, value);
    }
    report(&format!("insert, {what}"), FILTERS, started);
    (trie, filters)
}

fn matching(trie: &Trie<u32>, what: &str, subjects: &[String]) {
    let mut scratch = Scratch::default();
    let mut found = 0u64;
    let started = Instant::now();
    for subject in subjects.iter().cycle().take(ROUNDS as usize) {
        trie.matches(black_box(subject), &mut scratch, |_| found += 1);
    }
    report(&format!("match, {what}, {:.1} found", found as f64 / f64::from(ROUNDS)), ROUNDS, started);
}

fn routing() {
    let near: Vec<String> = (0..1024u32).map(|at| format!("sensor/{at}/room/temp")).collect();
    let far: Vec<String> =
        (0..FILTERS).map(|at| format!("sensor/{}/room/temp", at.wrapping_mul(7919) % FILTERS)).collect();
    let (trie, _) = filled(|at| format!("sensor/{at}/room/temp"), "exact");
    matching(&trie, "exact, 1,024 subjects", &near);
    matching(&trie, "exact, 100,000 subjects", &far);
    let (mut trie, filters) = filled(|at| format!("sensor/{at}/+/temp"), "a/N/+/c");
    matching(&trie, "a/N/+/c, 1,024 subjects", &near);
    matching(&trie, "a/N/+/c, 100,000 subjects", &far);
    for (value, filter) in ["#", "sensor/#", "+/+/room/+", "sensor/+/+/temp", "+/5/#"].iter().enumerate() {
        trie.insert(&Filter::parse(filter, &Dialect::CANONICAL).unwrap(), FILTERS + value as u32);
    }
    matching(&trie, "a/N/+/c and five broad ones, 1,024 subjects", &near);
    let started = Instant::now();
    for (filter, value) in filters.iter().zip(0..) {
        trie.remove(filter, value);
    }
    report("remove, a/N/+/c", FILTERS, started);
    let (popular, _) = filled(|_| "alerts/#".to_owned(), "one filter, 100,000 values");
    let mut scratch = Scratch::default();
    let mut found = 0u32;
    let started = Instant::now();
    for _ in 0..100 {
        popular.matches(black_box("alerts/fire"), &mut scratch, |value| found += black_box(value) & 1);
    }
    report("match, one filter, per value found", 100 * FILTERS, started);
    black_box(found);
}

fn view(what: &str, policy: Policy, order: impl Fn(usize, usize) -> usize) {
    const WINDOW: usize = 1000;
    let mut view = View::new(policy, Progress::starting_at(0));
    let mut out = Vec::new();
    let started = Instant::now();
    for round in 0..u64::from(ROUNDS) / WINDOW as u64 {
        let start = round * WINDOW as u64;
        view.offer(start..start + WINDOW as u64);
        out.clear();
        view.next_to_deliver(ConsumerId(0), WINDOW as u32, start as i64, &mut out);
        for at in 0..out.len() {
            if let Some(handle) = out[order(at, WINDOW)].handle {
                view.settle(handle);
            }
        }
        black_box(view.take_facts());
    }
    report(&format!("offer, deliver, settle: {what}"), ROUNDS, started);
}

fn main() {
    routing();
    let policy = Policy {
        acknowledge: Acknowledge::Individual,
        ack_wait_ms: None,
        deliveries_max: None,
        unacked_max: 65_535,
        durable: true,
    };
    view("window 1,000, in order", policy, |at, _| at);
    view("window 1,000, reverse", policy, |at, window| window - 1 - at);
    view("window 1,000, scattered", policy, |at, window| at * 7 % window);
    view("window 1,000, with deadlines", Policy { ack_wait_ms: Some(30_000), ..policy }, |at, _| at);
    view("no acknowledgement", Policy { acknowledge: Acknowledge::None, ..policy }, |at, _| at);
    let mut view = View::new(policy, Progress::starting_at(0));
    let mut out = Vec::new();
    view.offer(0..1000);
    let started = Instant::now();
    for _ in 0..ROUNDS / 1000 {
        out.clear();
        view.next_to_deliver(ConsumerId(0), 1000, 0, &mut out);
        for delivery in &out {
            view.give_back(delivery.handle.unwrap(), Reason::Refused, 0, 0);
        }
    }
    report("deliver, give back", ROUNDS, started);
}
