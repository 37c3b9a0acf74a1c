//! Messages that are published later, over a real node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::{Author, Credentials, Listener};
use broker::routing::{Dialect, Filter};
use broker::{
    Broker, Core, Guarantee, Message, Place, Retain, RowWrite, ScheduleId, Scheduled, Shared, Start,
};
use model::TenantId;
use testkit::{Inbox, SteppedClock, TestNode, on_core};

const HOUR: Duration = Duration::from_hours(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Somebody who is let in.
async fn author(core: &Core) -> Author {
    let listener = Listener::bound("local", [127, 0, 0, 1].into());
    core.access().admit(&Credentials::anonymous(listener, "c1")).await.expect("an open broker").author()
}

/// Puts a message down and waits until it is durable.
async fn push_later(core: &Core, text: &str, delay: Duration) {
    let inbox = Inbox::new();
    let mut publisher = core.publisher(&TenantId::default(), inbox.sink());
    let message = Message {
        subject: "later/1",
        key: Some(b"k"),
        value: Some(text.as_bytes()),
        headers: &[(b"h", Some(b"v"))],
        guarantee: Guarantee::Durable,
        retain: Retain::Keep,
        rows: &[],
    };
    let ticket = publisher.push_later(&message, delay, &author(core).await).expect("taken");
    assert_eq!(ticket, Some(0));
    let published = inbox.published().await;
    assert_eq!((published.tickets, published.result), (0..1, Ok(())));
    assert_eq!(publisher.in_flight_bytes(), 0);
}

struct Reader {
    inbox: Inbox,
    _subscriber: broker::Subscriber,
}

impl Reader {
    fn new(core: &Core) -> Self {
        let inbox = Inbox::new();
        let mut subscriber = core.subscriber(&TenantId::default(), inbox.sink());
        subscriber.start_live();
        let filter = Filter::parse("later/#", &Dialect::CANONICAL).expect("a legal filter");
        subscriber.subscribe(&filter, 1, Start::Now).expect("subscribed");
        Self { inbox, _subscriber: subscriber }
    }

    async fn next(&self) -> String {
        let delivery = self.inbox.delivery().await;
        let records = delivery.batch.records().expect("a sound batch");
        assert_eq!(records.len(), 1);
        let record = records.get(0).expect("one");
        assert_eq!((record.key(), record.header("h")), (Some(&b"k"[..]), Some(Some(&b"v"[..]))));
        String::from_utf8(record.value().expect("a value").to_vec()).expect("text")
    }
}

async fn waiting(core: &Core) -> Vec<ScheduleId> {
    let found = core.scheduled(&TenantId::default(), None, 100).await.expect("read");
    found.into_iter().map(|scheduled| scheduled.id).collect()
}

#[test]
fn messages_come_when_they_are_due_and_once() {
    on_core(async {
        let node = TestNode::start().await;
        let reader = Reader::new(&node.core);
        push_later(&node.core, "third", ms(400)).await;
        push_later(&node.core, "hours", HOUR).await;
        push_later(&node.core, "second", ms(200)).await;
        push_later(&node.core, "first", Duration::ZERO).await;
        let begun = node.core.wall_ms();
        for text in ["first", "second", "third"] {
            assert_eq!(reader.next().await, text);
        }
        assert!(node.core.wall_ms() - begun >= 150, "not before its time");
        // Only the one that is far away is left.
        while waiting(&node.core).await.len() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(reader.inbox.is_empty());
    });
}

#[test]
fn a_step_of_the_wall_clock_neither_hurries_nor_delays_a_message() {
    on_core(async {
        let clock = Arc::new(SteppedClock::new());
        let node = TestNode::start_with(clock.clone()).await;
        let reader = Reader::new(&node.core);
        push_later(&node.core, "soon", ms(300)).await;
        push_later(&node.core, "hours", HOUR).await;
        let due = |scheduled: &Scheduled| scheduled.due_ms;
        let shown = |found: Vec<Scheduled>| found.iter().map(due).collect::<Vec<_>>();
        let before = shown(node.core.scheduled(&TenantId::default(), None, 9).await.expect("read"));
        clock.step(-2 * HOUR.as_millis() as i64);
        assert_eq!(reader.next().await, "soon");
        clock.step(5 * HOUR.as_millis() as i64);
        // By the clock on the wall it would have come long ago; what is put down now comes first.
        push_later(&node.core, "now", Duration::ZERO).await;
        assert_eq!(reader.next().await, "now");
        while waiting(&node.core).await.len() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(reader.inbox.is_empty());
        let after = shown(node.core.scheduled(&TenantId::default(), None, 9).await.expect("read"));
        let moved = after[0] - before[1];
        let steps = 3 * HOUR.as_millis() as i64;
        assert!((moved - steps).abs() < 1000, "shown by the clock on the wall: moved by {moved} ms");
    });
}

#[test]
fn what_is_due_after_a_restart_comes_after_it() {
    let kept = std::cell::RefCell::new(None);
    on_core(async {
        let node = TestNode::start().await;
        push_later(&node.core, "soon", ms(300)).await;
        push_later(&node.core, "hours", HOUR).await;
        *kept.borrow_mut() = Some(node.stop().await);
    });
    on_core(async {
        let dir = kept.borrow_mut().take().expect("the node before left it");
        let node = TestNode::start_on(dir).await;
        let reader = Reader::new(&node.core);
        assert_eq!(reader.next().await, "soon");
        while waiting(&node.core).await.len() > 1 {
            tokio::task::yield_now().await;
        }
        let subjects = node.core.scheduled(&TenantId::default(), None, 1).await.expect("read");
        assert_eq!((subjects[0].subject.as_str(), subjects[0].value_bytes), ("later/1", 5));
    });
}

#[test]
fn a_message_can_be_taken_back() {
    on_core(async {
        let node = TestNode::start().await;
        let reader = Reader::new(&node.core);
        for text in ["a", "b", "c"] {
            push_later(&node.core, text, HOUR).await;
        }
        let tenant = TenantId::default();
        let all = waiting(&node.core).await;
        assert_eq!(all.len(), 3);
        let after = node.core.scheduled(&tenant, Some(all[0]), 100).await.expect("read");
        assert_eq!(after.iter().map(|scheduled| scheduled.id).collect::<Vec<_>>(), all[1..]);
        let other = TenantId::new("other").expect("legal");
        assert!(!node.core.cancel_scheduled(&other, all[1]).await.expect("read"), "not theirs");
        assert!(node.core.cancel_scheduled(&tenant, all[1]).await.expect("read"));
        assert!(!node.core.cancel_scheduled(&tenant, all[1]).await.expect("read"), "once");
        assert_eq!(waiting(&node.core).await, [all[0], all[2]]);
        assert!(reader.inbox.is_empty());
    });
}

/// A message with this payload.
fn later(value: &str) -> Message<'_> {
    Message {
        subject: "later/1",
        key: Some(b"k"),
        value: Some(value.as_bytes()),
        headers: &[(b"h", Some(b"v"))],
        guarantee: Guarantee::Durable,
        retain: Retain::Keep,
        rows: &[],
    }
}

#[test]
fn a_thousand_that_are_due_at_once_all_come() {
    on_core(async {
        let node = TestNode::start().await;
        let reader = Reader::new(&node.core);
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&TenantId::default(), inbox.sink());
        for number in 0..1000_u32 {
            let value = number.to_string();
            let message = later(&value);
            publisher.push_later(&message, ms(100), &author(&node.core).await).expect("taken");
        }
        let mut got = Vec::new();
        while got.len() < 1000 {
            let delivery = reader.inbox.delivery().await;
            let records = delivery.batch.records().expect("a sound batch");
            let texts = records.iter().map(|record| record.value().expect("a value").to_vec());
            got.extend(
                texts.map(|text| String::from_utf8(text).expect("text").parse::<u32>().expect("a number")),
            );
        }
        got.sort_unstable();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
        while !waiting(&node.core).await.is_empty() {
            tokio::task::yield_now().await;
        }
    });
}

/// Takes these back, as a thread that is no core does; answers how long the payloads of those are of which it was told
/// that they are gone.
fn take_back(shared: Arc<Shared>, mut waiting: Vec<Scheduled>) -> std::thread::JoinHandle<BTreeSet<usize>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let mut gone = BTreeSet::new();
            // From the last one on: somewhere it meets whoever publishes.
            waiting.reverse();
            for one in waiting {
                if shared.cancel_scheduled(&TenantId::default(), one.id).await.expect("answered") {
                    gone.insert(one.value_bytes);
                }
            }
            gone
        })
    })
}

#[test]
fn a_message_is_published_or_taken_back_and_never_both() {
    const COUNT: usize = 300;
    on_core(async {
        let node = TestNode::start().await;
        let reader = Reader::new(&node.core);
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&TenantId::default(), inbox.sink());
        let (author, begun) = (author(&node.core).await, Instant::now());
        // Each payload has a length of its own, by which the message is known.
        for number in 0..COUNT {
            let value = "x".repeat(10 + number);
            publisher.push_later(&later(&value), ms(500 + number as u64), &author).expect("taken");
        }
        let all = loop {
            let found = node.core.scheduled(&TenantId::default(), None, 2 * COUNT).await.expect("read");
            if found.len() == COUNT || begun.elapsed() >= ms(500) {
                break found;
            }
        };
        // One that comes after all of them says that no more will come.
        push_later(&node.core, "end", ms(500 + 2 * COUNT as u64)).await;
        let mut published = BTreeSet::new();
        let mut taking_back = None;
        loop {
            let delivery = reader.inbox.delivery().await;
            let records = delivery.batch.records().expect("a sound batch");
            let texts = records.iter().map(|record| record.value().expect("a value").to_vec());
            let texts: Vec<_> = texts.map(|text| String::from_utf8(text).expect("text")).collect();
            taking_back.get_or_insert_with(|| take_back(Arc::clone(node.shared()), all.clone()));
            let is_over = texts.iter().any(|text| text == "end");
            for text in texts.iter().filter(|text| *text != "end") {
                assert!(published.insert(text.len()), "{text} came twice");
            }
            if is_over {
                break;
            }
        }
        let gone = taking_back.expect("some came").join().expect("it is answered");
        assert!(gone.is_disjoint(&published), "{:?}", gone.intersection(&published));
        assert_eq!(gone.len() + published.len(), COUNT, "none is lost");
        assert!(reader.inbox.is_empty());
    });
}

#[test]
fn what_was_published_before_a_crash_is_not_taken_back_after_it() {
    let kept = std::cell::RefCell::new(None);
    on_core(async {
        let node = TestNode::start().await;
        push_later(&node.core, "a", HOUR).await;
        let id = waiting(&node.core).await[0];
        // What a crash leaves behind a publication.
        let (due, number) = (id.due_ms.to_be_bytes(), id.number.to_be_bytes());
        let key = [&b"E"[..], &due, &number].concat().into();
        let rows = node.core.rows();
        let place = Place::Group(rows.groups()[0]);
        let note = vec![RowWrite::Put { key, value: Vec::new().into() }];
        rows.transact(&place, Vec::new(), note).await.expect("written");
        drop(rows);
        *kept.borrow_mut() = Some((node.stop().await, id));
    });
    on_core(async {
        let (dir, id) = kept.borrow_mut().take().expect("the node before left it");
        let node = TestNode::start_on(dir).await;
        assert!(!node.core.cancel_scheduled(&TenantId::default(), id).await.expect("answered"));
        assert!(waiting(&node.core).await.is_empty());
    });
}
