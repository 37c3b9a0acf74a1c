//! Publishing, delivery, catching up, retained messages and sessions, over a real node.

use std::sync::Arc;

use broker::routing::{Dialect, Filter};
use broker::{
    Broker, CatchUp, Core, Cursor, Delivery, Guarantee, Keep, Message, Origin, Place, Retain, Retention,
    RowWrite, Start, Subscriber, TopicConfig, TopicSpec,
};
use bytes::Bytes;
use cluster::Command;
use model::{EngineKind, ErrorKind, Offset, TenantId, TopicName};
use storage::Change;
use testkit::{Inbox, SteppedClock, TestNode, on_core};

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Dialect::CANONICAL).expect("a legal filter")
}

fn message<'a>(subject: &'a str, value: &'a str, guarantee: Guarantee) -> Message<'a> {
    Message {
        subject,
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
        guarantee,
        retain: Retain::Keep,
        rows: &[],
    }
}

fn values(delivery: &Delivery) -> Vec<String> {
    let records = delivery.batch.records().expect("a sound batch");
    let picked = (0..).map_while(|nth| delivery.pick(nth));
    let value =
        |index: usize| records.get(index).and_then(|record| record.value()).expect("a value").to_vec();
    picked.map(|(index, _)| String::from_utf8(value(index)).expect("text")).collect()
}

async fn publish(core: &Core, subject: &str, bodies: &[&str]) {
    let inbox = Inbox::new();
    let mut publisher = core.publisher(&TenantId::default(), inbox.sink());
    for body in bodies {
        publisher.push(&message(subject, body, Guarantee::Durable)).expect("taken");
    }
    let mut decided = 0;
    while decided < bodies.len() as u64 {
        let published = inbox.published().await;
        assert_eq!(published.result, Ok(()));
        decided += published.tickets.end - published.tickets.start;
    }
}

async fn catch_up(subscriber: &mut Subscriber, cursor: &mut Cursor) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match subscriber.catch_up(cursor, 1 << 20) {
            CatchUp::Live => return found,
            CatchUp::Wait(wait) => wait.await,
            CatchUp::Batches(deliveries) => {
                for delivery in deliveries {
                    let position = delivery.batch.position.expect("a committed batch");
                    assert!(position > cursor.get(delivery.batch.group), "in log order, once");
                    cursor.set(delivery.batch.group, position);
                    found.extend(values(&delivery));
                }
            }
        }
    }
}

#[test]
fn a_durable_message_reaches_live_subscribers_and_stays() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let inbox = Inbox::new();
        let mut subscriber = node.core.subscriber(&tenant, inbox.sink());
        subscriber.start_live();
        subscriber.subscribe(&filter("sensor/+/temp"), 7, Start::Now).expect("subscribed");
        publish(&node.core, "sensor/1/temp", &["a", "b"]).await;
        let mut got = Vec::new();
        while got.len() < 2 {
            let delivery = inbox.delivery().await;
            assert_eq!(delivery.pick(0).map(|(_, tags)| tags.to_vec()), Some(vec![7]));
            got.extend(values(&delivery));
        }
        assert_eq!(got, ["a", "b"]);
        let name = TopicName::new("sensor/1/temp").expect("legal");
        let topic = node.core.find_topic(&tenant, &name).await.expect("read").expect("created by first use");
        let offsets = node.core.offsets(topic.shards[0]).expect("known");
        assert_eq!((offsets.start, offsets.end), (Offset(0), Offset(2)));
    });
}

#[test]
fn an_at_most_once_message_comes_live_and_is_stored_but_not_replayed() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let inbox = Inbox::new();
        let mut subscriber = node.core.subscriber(&tenant, inbox.sink());
        subscriber.start_live();
        subscriber.subscribe(&filter("#"), 1, Start::Now).expect("subscribed");
        let publisher_inbox = Inbox::new();
        let mut publisher = node.core.publisher(&tenant, publisher_inbox.sink());
        let ticket = publisher.push(&message("t", "live", Guarantee::Live)).expect("taken");
        assert_eq!(ticket, None);
        let delivery = inbox.delivery().await;
        assert_eq!((values(&delivery), delivery.batch.position), (vec!["live".to_owned()], None));
        assert!(publisher_inbox.published().await.tickets.is_empty());
        assert_eq!(publisher.in_flight_bytes(), 0);
        let mut behind = node.core.subscriber(&tenant, Inbox::new().sink());
        behind.subscribe(&filter("#"), 1, Start::AtCursor).expect("subscribed");
        assert!(catch_up(&mut behind, &mut Cursor::default()).await.is_empty());
        let name = TopicName::new("t").expect("legal");
        let topic = node.core.find_topic(&tenant, &name).await.expect("read").expect("there");
        assert_eq!(node.core.offsets(topic.shards[0]).expect("known").end, Offset(1));
    });
}

#[test]
fn a_subscriber_that_was_away_gets_everything_once_in_order_also_after_a_restart() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let mut cursor = {
            let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
            subscriber.start_live()
        };
        let bodies: Vec<String> = (0..500).map(|i| i.to_string()).collect();
        for chunk in bodies.chunks(50) {
            let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
            publish(&node.core, "a/b", &chunk).await;
            publish(&node.core, "not/for/it", &["x"]).await;
        }
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
        subscriber.subscribe(&filter("a/#"), 1, Start::AtCursor).expect("subscribed");
        assert_eq!(catch_up(&mut subscriber, &mut cursor).await, bodies);
        assert!(subscriber.is_live());
        assert!(catch_up(&mut subscriber, &mut cursor).await.is_empty());
    });
}

#[test]
fn what_lies_in_sealed_segments_is_waited_for_and_what_comes_meanwhile_is_not_missed() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        // Segments have 1 MiB.
        let bodies: Vec<String> = (0..80).map(|i| format!("{i:0>50000}")).collect();
        for chunk in bodies.chunks(8) {
            let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
            publish(&node.core, "a/b", &chunk).await;
        }
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        for wanted in ["a/b", "a/#"] {
            let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
            subscriber.subscribe(&filter(wanted), 1, Start::AtCursor).expect("subscribed");
            let (mut cursor, mut found, mut waits) = (Cursor::default(), Vec::new(), 0);
            loop {
                match subscriber.catch_up(&mut cursor, 1 << 20) {
                    CatchUp::Live => break,
                    CatchUp::Wait(wait) => {
                        waits += 1;
                        wait.await;
                        if waits == 1 {
                            // After the disk was looked at, and before anybody looks at what was found.
                            publish(&node.core, "a/b", &["late"]).await;
                        }
                    }
                    CatchUp::Batches(deliveries) => {
                        for delivery in deliveries {
                            let position = delivery.batch.position.expect("a committed batch");
                            cursor.set(delivery.batch.group, position);
                            found.extend(values(&delivery));
                        }
                    }
                }
            }
            assert!(waits > 1, "{wanted}: nothing was in memory");
            let late = found.iter().filter(|body| *body == "late").count();
            assert!(late >= 1, "{wanted}");
            found.retain(|body| body != "late");
            assert_eq!(found.len(), bodies.len(), "{wanted}");
            assert!(found == bodies, "{wanted}: in order");
        }
    });
}

/// What was found for the subscriptions of before was taken for all that there was: a message for a new one was passed over.
#[test]
fn what_is_subscribed_while_the_disk_is_waited_for_misses_nothing() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let body = "x".repeat(50_000);
        publish(&node.core, "new", &["1"]).await;
        for _ in 0..10 {
            publish(&node.core, "old", &[body.as_str(); 8]).await;
        }
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        for name in ["old", "new"] {
            let name = TopicName::new(name).expect("legal");
            node.core.find_topic(&tenant, &name).await.expect("read").expect("there");
        }
        let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
        subscriber.subscribe(&filter("old"), 1, Start::AtCursor).expect("subscribed");
        let (mut cursor, mut found, mut is_first) = (Cursor::default(), Vec::new(), true);
        loop {
            match subscriber.catch_up(&mut cursor, 1 << 20) {
                CatchUp::Live => break,
                CatchUp::Wait(wait) => {
                    if std::mem::take(&mut is_first) {
                        // Before anybody looks at the disk.
                        subscriber.subscribe(&filter("new"), 2, Start::Now).expect("subscribed");
                        publish(&node.core, "new", &["2"]).await;
                    }
                    wait.await;
                }
                CatchUp::Batches(deliveries) => {
                    for delivery in deliveries {
                        let position = delivery.batch.position.expect("a committed batch");
                        cursor.set(delivery.batch.group, position);
                        found.extend(values(&delivery));
                    }
                }
            }
        }
        assert!(!is_first, "it waited");
        let count = found.len();
        found.retain(|found| *found != body);
        assert_eq!((count, found), (81, vec!["2".to_owned()]));
    });
}

/// A batch whose topic or bytes could not be read for a moment was taken for one that is gone.
#[test]
fn what_cannot_be_read_for_a_moment_is_not_passed_over() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        // More than one read from the disk brings.
        let bodies: Vec<String> = (0..32).map(|i| format!("{i:0>50000}")).collect();
        for chunk in bodies.chunks(8) {
            let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
            publish(&node.core, "a/b", &chunk).await;
        }
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
        subscriber.subscribe(&filter("a/#"), 1, Start::AtCursor).expect("subscribed");
        let (mut cursor, mut found, mut waits) = (Cursor::default(), Vec::new(), 0);
        loop {
            match subscriber.catch_up(&mut cursor, 1 << 20) {
                CatchUp::Live => break,
                CatchUp::Wait(wait) => {
                    waits += 1;
                    // At first the place in the log, then the topic, then a batch is asked for in vain.
                    node.refuse_reads(waits % 2 == 1);
                    wait.await;
                    node.refuse_reads(false);
                }
                CatchUp::Batches(deliveries) => {
                    for delivery in deliveries {
                        let position = delivery.batch.position.expect("a committed batch");
                        cursor.set(delivery.batch.group, position);
                        found.extend(values(&delivery));
                    }
                }
            }
        }
        assert!(waits >= 6, "{waits}");
        assert!(found == bodies, "{} of {}", found.len(), bodies.len());
    });
}

/// Batches beside each other in a log: too many to be looked at without a pause.
async fn append_many(core: &Core, subject: &str, count: usize) {
    publish(core, subject, &["first"]).await;
    let name = TopicName::new(subject).expect("legal");
    let topic = core.find_topic(&TenantId::default(), &name).await.expect("read").expect("there");
    let shard = topic.shards[0];
    let first = core.read(shard, Offset(0), 1).await.expect("read").swap_remove(0);
    let appends: Vec<_> = (1..count)
        .map(|_| {
            let (core, bytes) = (core.clone(), first.bytes.clone());
            tokio::task::spawn_local(async move { core.append(shard, bytes).await })
        })
        .collect();
    for append in appends {
        append.await.expect("it runs").expect("appended");
    }
}

/// One `catch_up` looked at everything that was published while a session was away, and nobody else of the core had a turn.
#[test]
fn catching_up_over_what_is_not_wanted_lets_others_have_their_turn() {
    on_core(async {
        let node = TestNode::start().await;
        append_many(&node.core, "not/for/it", 3000).await;
        publish(&node.core, "a/b", &["for it"]).await;
        let mut subscriber = node.core.subscriber(&TenantId::default(), Inbox::new().sink());
        subscriber.subscribe(&filter("a/#"), 1, Start::AtCursor).expect("subscribed");
        // All of it is in memory.
        node.refuse_reads(true);
        let (mut cursor, mut found, mut waits) = (Cursor::default(), Vec::new(), 0);
        loop {
            let before = cursor.clone();
            match subscriber.catch_up(&mut cursor, 1 << 20) {
                CatchUp::Live => break,
                CatchUp::Wait(wait) => {
                    assert_ne!(cursor, before, "it goes on behind what it has looked at");
                    waits += 1;
                    wait.await;
                }
                CatchUp::Batches(deliveries) => {
                    for delivery in deliveries {
                        let position = delivery.batch.position.expect("a committed batch");
                        cursor.set(delivery.batch.group, position);
                        found.extend(values(&delivery));
                    }
                }
            }
        }
        assert_eq!(found, ["for it"]);
        assert!(waits > 0);
    });
}

/// The place of a live subscriber stayed where it had last taken something: whoever came back looked at all that had been published
/// since.
#[test]
fn a_live_subscriber_passes_over_what_does_not_concern_it() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let (everything, nothing) = (Inbox::new(), Inbox::new());
        let mut all = node.core.subscriber(&tenant, everything.sink());
        all.subscribe(&filter("#"), 1, Start::Now).expect("subscribed");
        all.start_live();
        let mut other = node.core.subscriber(&tenant, nothing.sink());
        other.subscribe(&filter("other/#"), 1, Start::Now).expect("subscribed");
        let mut cursor = other.start_live();
        publish(&node.core, "a/b", &["1"]).await;
        let delivery = everything.delivery().await;
        let (group, at) = (delivery.batch.group, delivery.batch.position.expect("a committed batch"));
        assert!(cursor.get(group) < at);
        other.pass_over(&mut cursor);
        assert!(cursor.get(group) >= at && nothing.is_empty());
        // One that is behind has its place still to go on from.
        let before = cursor.clone();
        other.fall_behind();
        publish(&node.core, "a/b", &["2"]).await;
        other.pass_over(&mut cursor);
        assert_eq!(cursor, before);
    });
}

#[test]
fn a_subscription_begins_now_even_if_the_subscriber_is_behind() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        publish(&node.core, "old", &["1"]).await;
        publish(&node.core, "new", &["2"]).await;
        let mut subscriber = node.core.subscriber(&tenant, Inbox::new().sink());
        subscriber.subscribe(&filter("old"), 1, Start::AtCursor).expect("subscribed");
        subscriber.subscribe(&filter("new"), 2, Start::Now).expect("subscribed");
        assert_eq!(catch_up(&mut subscriber, &mut Cursor::default()).await, ["1"]);
    });
}

#[test]
fn the_last_retained_message_of_each_subject_is_found() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&tenant, inbox.sink());
        for (subject, value, retain) in [
            ("a/1", "old", Retain::Set),
            ("a/1", "new", Retain::Set),
            ("a/2", "gone", Retain::Set),
            ("a/2", "", Retain::Clear),
            ("b/1", "other", Retain::Set),
        ] {
            let message = Message { retain, ..message(subject, value, Guarantee::Durable) };
            publisher.push(&message).expect("taken");
        }
        let mut decided = 0;
        while decided < 5 {
            let published = inbox.published().await;
            decided += published.tickets.end - published.tickets.start;
        }
        let found = node.core.retained(&tenant, &filter("a/#"), None, 10).await.expect("read");
        let found: Vec<_> = found
            .iter()
            .map(|found| {
                let records = found.batch.records().expect("sound");
                let record = records.get(0).expect("one record");
                (found.batch.subject(&record).to_owned(), record.value().map(<[u8]>::to_vec))
            })
            .collect();
        assert_eq!(found, [("a/1".to_owned(), Some(b"new".to_vec()))]);
    });
}

#[test]
fn a_session_has_one_owner_and_its_state_goes_from_hand_to_hand() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let first = Inbox::new();
        let (lease, state) = node.core.claim_session(&tenant, "client", first.sink()).await.expect("claimed");
        assert_eq!(state, None);
        let second = Inbox::new();
        let claim = node.core.claim_session(&tenant, "client", second.sink());
        let asked = async { lease.hand_over(first.take_over().await, Some(Bytes::from_static(b"one"))) };
        let (claimed, ()) = tokio::join!(claim, asked);
        let (claimed, state) = claimed.expect("claimed");
        assert_eq!(state.as_deref(), Some(&b"one"[..]));
        claimed.release(Some(Bytes::from_static(b"two")), Keep::Forever);
        let anew = node.core.claim_session(&tenant, "client", Inbox::new().sink()).await;
        let (again, state) = anew.expect("claimed");
        assert_eq!(state.as_deref(), Some(&b"two"[..]));
        again.save(Bytes::from_static(b"three"), Keep::Forever).await.expect("saved");
        drop(again);
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        let anew = node.core.claim_session(&tenant, "client", Inbox::new().sink()).await;
        let (after, state) = anew.expect("claimed");
        assert_eq!(state.as_deref(), Some(&b"three"[..]));
        after.release(None, Keep::For(0));
        let gone = node.core.claim_session(&tenant, "client", Inbox::new().sink()).await;
        assert_eq!(gone.expect("claimed").1, None);
    });
}

/// The claim of another core found the session as it was saved last: what its owner released at the same time was not stored yet,
/// and the owner's core, asked afterwards, had nothing to say.
#[test]
fn mqtt_3_1_3_9_a_session_that_is_given_up_while_it_is_claimed_is_not_read_stale() {
    on_core(async {
        let node = TestNode::start_cores(2).await;
        let tenant = TenantId::default();
        let claimed = node.core.claim_session(&tenant, "client", Inbox::new().sink()).await;
        let (lease, _) = claimed.expect("claimed");
        lease.save(Bytes::from_static(b"old"), Keep::Forever).await.expect("saved");
        // The release is begun before the owner's core hears of the claim.
        let claim = node.others[0].claim_session(&tenant, "client", Inbox::new().sink());
        let release = async { lease.release(Some(Bytes::from_static(b"new")), Keep::Forever) };
        let (claimed, ()) = tokio::join!(biased; claim, release);
        let (lease, state) = claimed.expect("claimed");
        assert_eq!(state.as_deref(), Some(&b"new"[..]));
        // The same when it ends.
        let claim = node.core.claim_session(&tenant, "client", Inbox::new().sink());
        let release = async { lease.release(None, Keep::For(0)) };
        let (claimed, ()) = tokio::join!(biased; claim, release);
        let (lease, state) = claimed.expect("claimed");
        assert_eq!(state, None);
        // And when the owner has only saved it, and goes without a word.
        let saved = lease.save(Bytes::from_static(b"last"), Keep::Forever);
        let claim = node.others[0].claim_session(&tenant, "client", Inbox::new().sink());
        let (claimed, (), saved) = tokio::join!(biased; claim, async { drop(lease) }, saved);
        saved.expect("saved");
        assert_eq!(claimed.expect("claimed").1.as_deref(), Some(&b"last"[..]));
    });
}

/// A burst larger than an entry may be was refused as a whole: bundles did not know the size of the journal's segments.
#[test]
fn a_burst_larger_than_an_entry_is_stored() {
    on_core(async {
        let node = TestNode::start().await;
        let body = "x".repeat(50_000);
        let bodies = vec![body.as_str(); 60];
        publish(&node.core, "burst", &bodies).await;
        let name = TopicName::new("burst").expect("legal");
        let topic = node.core.find_topic(&TenantId::default(), &name).await.expect("read").expect("there");
        assert_eq!(node.core.offsets(topic.shards[0]).expect("known").end, Offset(60));
    });
}

/// The rows that came with it were written all the same: the packet identifier of a refused QoS 2 publication, so that the next
/// message with it was acknowledged and not stored, and the retained message.
#[test]
fn a_refused_message_leaves_no_rows() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        publish(&node.core, "a/b", &["stored"]).await;
        let name = TopicName::new("a/b").expect("legal");
        let topic = node.core.find_topic(&tenant, &name).await.expect("read").expect("there");
        let shard = topic.shards[0];
        let place = Place::OfShard(shard);
        let group = node.node().groups().iter().find(|group| group.id() == shard.home()).expect("there");
        // The topic is known yet, as to whoever pushed before its deletion was heard of.
        let dropping = Command { changes: vec![Change::Drop { shard }], ..Command::default() };
        group.commit(dropping).await.expect("dropped");
        let key = Bytes::from_static(b"mq of a message");
        let rows = [RowWrite::Put { key: key.clone(), value: Bytes::new() }];
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&tenant, inbox.sink());
        let refused =
            Message { retain: Retain::Set, rows: &rows, ..message("a/b", "refused", Guarantee::Durable) };
        publisher.push(&refused).expect("taken");
        assert_eq!(inbox.published().await.result, Err(ErrorKind::NotFound));
        assert_eq!(node.core.rows().get(&place, key.clone()).await.expect("read"), None);
        assert!(node.core.retained(&tenant, &filter("a/b"), None, 10).await.expect("read").is_empty());
        drop(publisher);
        // The next start does not make anything else of the entries.
        let node = TestNode::start_on(node.stop().await).await;
        assert_eq!(node.core.rows().get(&place, key).await.expect("read"), None);
        assert!(node.core.retained(&tenant, &filter("a/b"), None, 10).await.expect("read").is_empty());
    });
}

/// Publishes something that concerns the retained message, and waits until it is stored.
async fn retain(core: &Core, subject: &str, value: &str) {
    let inbox = Inbox::new();
    let mut publisher = core.publisher(&TenantId::default(), inbox.sink());
    let retain = if value.is_empty() { Retain::Clear } else { Retain::Set };
    let message = Message { retain, ..message(subject, value, Guarantee::Durable) };
    publisher.push(&message).expect("taken");
    assert_eq!(inbox.published().await.result, Ok(()));
}

async fn retained(core: &Core, wanted: &str) -> Vec<String> {
    let found = core.retained(&TenantId::default(), &filter(wanted), None, 10).await.expect("read");
    found.iter().flat_map(values).collect()
}

/// Creates a topic that captures `s/#` and lies in another group than the topic `s/a`.
async fn capture_elsewhere(node: &TestNode) -> TopicName {
    let (tenant, own) = (TenantId::default(), TopicName::new("s/a").expect("legal"));
    let own = node.core.open_topic(&tenant, &own).await.expect("open").shards[0].home();
    let mut names = (0..).map(|number| TopicName::new(&format!("capture-{number}")).expect("legal"));
    let is_elsewhere = |name: &TopicName| {
        let key = [tenant.as_str().as_bytes(), &[0], name.as_str().as_bytes()].concat();
        node.node().group_of_key(&key).id() != own
    };
    let name = names.find(is_elsewhere).expect("there are two groups");
    let config = TopicConfig {
        engine: EngineKind::Segment,
        retention: Retention { ms: None, bytes: None },
        captures: vec!["s/#".into()],
        extra: Vec::new(),
    };
    let spec = TopicSpec {
        tenant,
        name: name.clone(),
        shards: Some(1),
        origin: Origin::Created,
        config: Some(config),
        dry_run: false,
    };
    let topic = node.core.create_topic(spec).await.expect("created");
    assert_ne!(topic.shards[0].home(), own);
    name
}

/// The old one lay in the group of the subject's own topic, was served instead of the new one, and stayed when that was cleared.
#[test]
fn a_retained_message_has_one_place_whoever_captures_its_subject() {
    on_core(async {
        let tenant = TenantId::default();
        let mut node = TestNode::start().await;
        for wanted in ["s/a", "s/+"] {
            retain(&node.core, "s/a", "old").await;
            let capturing = capture_elsewhere(&node).await;
            assert_eq!(retained(&node.core, wanted).await, ["old"]);
            retain(&node.core, "s/a", "new").await;
            assert_eq!(retained(&node.core, wanted).await, ["new"]);
            retain(&node.core, "s/a", "").await;
            assert_eq!(retained(&node.core, wanted).await, [""; 0]);
            // And back.
            retain(&node.core, "s/a", "captured").await;
            node.core.delete_topic(&tenant, &capturing).await.expect("deleted");
            node = TestNode::start_on(node.stop().await).await;
            assert_eq!(retained(&node.core, wanted).await, ["captured"]);
            retain(&node.core, "s/a", "").await;
            assert_eq!(retained(&node.core, wanted).await, [""; 0]);
            // Cleared as the first thing that happens to it elsewhere.
            retain(&node.core, "s/a", "old").await;
            let capturing = capture_elsewhere(&node).await;
            retain(&node.core, "s/a", "").await;
            assert_eq!(retained(&node.core, wanted).await, [""; 0]);
            node.core.delete_topic(&tenant, &capturing).await.expect("deleted");
        }
    });
}

/// What waits until the retained message is moved is stored before what is published after it.
#[test]
fn messages_keep_their_order_while_a_retained_message_is_moved() {
    on_core(async {
        let tenant = TenantId::default();
        let node = TestNode::start().await;
        retain(&node.core, "s/a", "old").await;
        capture_elsewhere(&node).await;
        let subscribed = Inbox::new();
        let mut subscriber = node.core.subscriber(&tenant, subscribed.sink());
        subscriber.start_live();
        subscriber.subscribe(&filter("s/a"), 1, Start::Now).expect("subscribed");
        let mut publisher = node.core.publisher(&tenant, Inbox::new().sink());
        for (value, retain) in
            [("1", Retain::Keep), ("2", Retain::Set), ("3", Retain::Keep), ("4", Retain::Keep)]
        {
            let message = Message { retain, ..message("s/a", value, Guarantee::Durable) };
            publisher.push(&message).expect("taken");
        }
        let mut got = Vec::new();
        while got.len() < 4 {
            got.extend(values(&subscribed.delivery().await));
        }
        assert_eq!(got, ["1", "2", "3", "4"]);
        assert_eq!(retained(&node.core, "s/a").await, ["2"]);
    });
}

/// A page that held only expired messages looked like the end.
#[test]
fn expired_retained_messages_do_not_end_a_page() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&tenant, inbox.sink());
        let expired: [(&[u8], Option<&[u8]>); 1] = [(b"expires-at", Some(b"1"))];
        for (subject, headers) in [("r/1", &expired[..]), ("r/2", &expired[..]), ("r/3", &[])] {
            let message =
                Message { retain: Retain::Set, headers, ..message(subject, "v", Guarantee::Durable) };
            publisher.push(&message).expect("taken");
        }
        let mut decided = 0;
        while decided < 3 {
            let published = inbox.published().await;
            decided += published.tickets.end - published.tickets.start;
        }
        let found = node.core.retained(&tenant, &filter("r/#"), None, 1).await.expect("read");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].batch.topic.name.as_str(), "r/3");
    });
}

/// Nothing ever removed them.
#[test]
fn expired_retained_messages_are_removed_within_the_hour() {
    on_core(async {
        let clock = Arc::new(SteppedClock::new());
        let node = TestNode::start_with(clock.clone()).await;
        let tenant = TenantId::default();
        let inbox = Inbox::new();
        let mut publisher = node.core.publisher(&tenant, inbox.sink());
        let expired: [(&[u8], Option<&[u8]>); 1] = [(b"expires-at", Some(b"1"))];
        let subjects: Vec<_> = (0..600).map(|number| format!("r/{number}")).collect();
        for (subject, headers) in
            subjects.iter().map(|subject| (&**subject, &expired[..])).chain([("r/x", &[][..])])
        {
            let message =
                Message { retain: Retain::Set, headers, ..message(subject, "v", Guarantee::Durable) };
            publisher.push(&message).expect("taken");
        }
        let mut decided = 0;
        while decided < 601 {
            let published = inbox.published().await;
            decided += published.tickets.end - published.tickets.start;
        }
        node.shared().trim_expired().await;
        assert_eq!(retained_rows(&node.core).await.len(), 601, "not before the next hour");
        clock.step(3_600_000);
        node.shared().trim_expired().await;
        let left = retained_rows(&node.core).await;
        assert_eq!(left.len(), 1);
        assert!(left[0].ends_with(b"r/x"), "{left:?}");
    });
}

/// Keys of the rows of retained messages.
async fn retained_rows(core: &Core) -> Vec<Bytes> {
    let (rows, mut keys) = (core.rows(), Vec::new());
    for group in rows.groups() {
        let found = rows.scan(&Place::Group(group), Bytes::from_static(b"r"), Bytes::new(), 1024).await;
        keys.extend(found.expect("read").into_iter().map(|row| row.key));
    }
    keys
}

/// Only the first group was told to forget producers.
#[test]
fn every_group_forgets_producers_once_an_hour() {
    on_core(async {
        let clock = Arc::new(SteppedClock::new());
        let node = TestNode::start_with(clock.clone()).await;
        let applied = || node.node().groups().iter().map(|group| group.log().applied()).collect::<Vec<_>>();
        let before = applied();
        assert!(before.len() > 1 && before.iter().all(|applied| *applied > 0), "{before:?}");
        node.shared().trim_expired().await;
        assert_eq!(applied(), before, "not before the next hour");
        clock.step(3_600_000);
        node.shared().trim_expired().await;
        assert!(applied().iter().zip(&before).all(|(now, before)| now > before));
    });
}

#[test]
fn an_announcement_reaches_those_who_subscribe_now_and_nobody_later() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        assert!(!node.core.is_wanted(&tenant, "$news/a"));
        node.core.announce(&tenant, &message("$news/a", "lost", Guarantee::Live)).expect("a valid subject");
        let inbox = Inbox::new();
        let mut subscriber = node.core.subscriber(&tenant, inbox.sink());
        let mut cursor = subscriber.start_live();
        for wanted in ["$news/+", "#"] {
            subscriber.subscribe(&filter(wanted), 7, Start::Now).expect("subscribed");
        }
        assert!(node.core.is_wanted(&tenant, "$news/a"));
        node.core.announce(&tenant, &message("$news/a", "heard", Guarantee::Live)).expect("a valid subject");
        let delivery = inbox.delivery().await;
        assert_eq!((values(&delivery), delivery.batch.position), (vec!["heard".to_owned()], None));
        assert_eq!(delivery.batch.topic.name.as_str(), "$news/a");
        assert!(inbox.is_empty());
        subscriber.fall_behind();
        assert!(catch_up(&mut subscriber, &mut cursor).await.is_empty(), "nothing was stored");
        let nowhere = node.core.announce(&tenant, &message("", "x", Guarantee::Live));
        assert_eq!(nowhere, Err(model::ErrorKind::Invalid));
        let name = TopicName::new("$news/a").expect("legal");
        assert!(node.core.find_topic(&tenant, &name).await.expect("read").is_none());
    });
}
