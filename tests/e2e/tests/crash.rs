//! What a broker that is killed owes to those who were connected: their wills, and what a share had given them.

use std::num::NonZeroU16;

use e2e::{Broker, Incoming, Opening, Program, Settings, Socket, missing};
use wire::mqtt::{AckKind, Delivery, Qos};

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

/// Publishes with QoS 2, one after the other.
fn publish(broker: &Broker, topic: &str, payloads: impl Iterator<Item = u32>) {
    let mut socket = Socket::open(broker.mqtt(), &Opening::clean("publisher")).expect("the broker is up");
    for payload in payloads {
        let delivery = Delivery::ExactlyOnce { id: id(1), dup: false };
        socket.put_publish(topic, payload.to_string().as_bytes(), delivery);
        expect(&mut socket, AckKind::Pubrec);
        socket.put_ack(AckKind::Pubrel, id(1));
        expect(&mut socket, AckKind::Pubcomp);
    }
}

/// Sends what is queued and waits for its answer.
fn expect(socket: &mut Socket, kind: AckKind) {
    socket.flush().expect("the broker is up");
    let answer = socket.read().expect("the broker is up");
    assert!(matches!(answer, Incoming::Ack(of, ..) if of == kind), "{answer:?} instead of {kind:?}");
}

/// The next messages, not answered: identifier and payload.
fn receive(socket: &mut Socket, count: usize) -> Vec<(NonZeroU16, String)> {
    let mut received = Vec::new();
    while received.len() < count {
        if let Incoming::Publish { payload, delivery: Delivery::ExactlyOnce { id, .. }, .. } =
            socket.read().expect("the broker is up")
        {
            received.push((id, String::from_utf8(payload).expect("text")));
        }
    }
    received
}

/// After a kill the row of the share knew less than the sessions of its members, so that a record came to another one, too.
#[test]
fn mqtt_4_8_2_4_what_a_share_gave_stays_with_its_client_over_a_kill() {
    const EACH: usize = 10;
    let mut broker = Broker::start_with(Settings::new().with_fixed_ports());
    let connect =
        |broker: &Broker, name| Socket::open(broker.mqtt(), &Opening::persistent(name)).expect("it is up");
    let mut members = ["one", "two"].map(|name| connect(&broker, name));
    for member in &mut members {
        member.subscribe("$share/crew/jobs/#", Qos::ExactlyOnce).expect("granted");
    }
    let mut last = 0;
    for _ in 0..3 {
        publish(&broker, "jobs/1", last..last + 2 * EACH as u32);
        last += 2 * EACH as u32;
        let given = members.each_mut().map(|member| receive(member, EACH));
        broker.kill_9();
        broker.restart();
        // The other way round: what is free goes to who comes first.
        let two = connect(&broker, "two");
        members = [connect(&broker, "one"), two];
        assert!(members.iter().all(|member| member.session_present));
        let again = members.each_mut().map(|member| receive(member, EACH));
        assert_eq!(again, given);
        for (member, given) in members.iter_mut().zip(given) {
            for (id, _) in &given {
                member.put_ack(AckKind::Pubrec, *id);
                expect(member, AckKind::Pubrel);
                member.put_ack(AckKind::Pubcomp, *id);
                member.flush().expect("the broker is up");
            }
        }
    }
    let mut end = Vec::new();
    publish(&broker, "jobs/1", last..last + 2);
    members.iter_mut().for_each(|member| end.extend(receive(member, 1).into_iter().map(|(_, text)| text)));
    end.sort();
    assert_eq!(end, [last.to_string(), (last + 1).to_string()], "nothing else was left");
}

/// Wills of connections that were open when the broker died were lost.
#[test]
fn mqtt_3_1_2_8_a_kill_publishes_the_wills_of_open_connections_once() {
    if missing(&[Program::Confluent]) {
        return;
    }
    let mut broker = Broker::start_with(Settings::new().with_fixed_ports());
    let with_will = |broker: &Broker, name: &'static str| {
        let opening = Opening { will: Some(("will", name.as_bytes())), ..Opening::clean(name) };
        Socket::open(broker.mqtt(), &opening).expect("it is up")
    };
    let _gone = with_will(&broker, "gone");
    let mut said = with_will(&broker, "said good-bye");
    said.put_disconnect();
    said.flush().expect("the broker is up");
    said.read().expect_err("the broker closes");
    // Everything before it is durable when this is answered.
    publish(&broker, "other", 0..1);
    for _ in 0..2 {
        broker.kill_9();
        broker.restart();
        // Heard behind what the start published.
        publish(&broker, "other", 1..2);
    }
    let mut reader = Program::Confluent.consume(broker.kafka(), "will", &[]);
    let stored: Vec<_> = reader.to_end().into_iter().filter_map(|fetched| fetched.record.value).collect();
    assert_eq!(stored, [b"gone".to_vec()]);
}
