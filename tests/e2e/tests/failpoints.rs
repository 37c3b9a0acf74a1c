//! The broker dies at each place that has a name, early and late, over sessions that have messages under way at every stage:
//! nothing that was acknowledged is lost, and QoS 2 is once.
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;

use e2e::{Broker, Fleet, FleetSize, Opening, Settings, Socket, wait_until};
use wire::mqtt::Qos;

/// Which passes of a place are its last ones, unless the environment says more.
const PASSES: [u64; 2] = [1, 12];
const VARIABLE: &str = "ROBUSTMQ_FAILPOINT_PASSES";

fn passes() -> Vec<u64> {
    let more = std::env::var(VARIABLE).ok().and_then(|text| text.parse::<u64>().ok());
    more.map_or_else(|| PASSES.to_vec(), |count| (1..=count).collect())
}

/// Fills journal segments in which there are no messages, so that they can be recycled: a session with many subscriptions is
/// stored as a whole whenever one of them changes.
fn write_rows_until(what: &str, address: SocketAddr, mut is_over: impl FnMut() -> bool) {
    let filters: Vec<_> = (0..100).map(|number| format!("{number}/{}", "x".repeat(70))).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    let mut socket: Option<Socket> = None;
    wait_until(what, || {
        // An error is the crash that this is about.
        socket = socket.take().or_else(|| Socket::open(address, &Opening::persistent("rows")).ok());
        let subscribed = socket.as_mut().map(|socket| socket.subscribe_all(&filters, Qos::AtMostOnce));
        if !matches!(subscribed, Some(Ok(()))) {
            socket = None;
        }
        is_over().then_some(())
    });
}

#[test]
fn nothing_is_lost_wherever_the_broker_dies() {
    let mut broker = Broker::start_with(
        Settings::new()
            .with_failpoints()
            .with_fixed_ports()
            .with("limits.max_message_bytes", "16KiB")
            .with("storage.segment_bytes", "64KiB"),
    );
    let fleet = Fleet::start(broker.mqtt(), FleetSize { lanes: 4, subscribers: 3 });
    for place in Broker::failpoints() {
        for nth in passes() {
            broker.kill_9();
            broker.restart_to_die(&place, nth);
            let what = format!("{place}:{nth}");
            match place.starts_with("recycle.") {
                true => write_rows_until(&what, broker.mqtt(), || broker.has_died()),
                false => fleet.publish_until(&what, || broker.has_died()),
            }
            broker.restart();
        }
    }
    fleet.settle();
    let (sent, reconnects) = fleet.finish();
    println!("each publisher sent {sent}; sessions came back {reconnects} times");
}
