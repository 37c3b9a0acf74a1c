//! Shared subscriptions over a real node: each record to one member, nothing lost when members come and go or the node does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::routing::{Dialect, Filter};
use broker::{
    Broker, Core, Guarantee, Keep, Message, Place, Retain, Row, ShareJoin, ShareKey, ShareMember,
    SharedDelivery, Strategy,
};
use bytes::Bytes;
use model::TenantId;
use testkit::{Inbox, TestNode, on_core};

/// Records that nobody acknowledged, or not yet.
struct Worker {
    inbox: Inbox,
    member: Option<ShareMember>,
    held: Vec<(SharedDelivery, usize)>,
}

impl Worker {
    fn join(core: &Core, client: &str, lasts: bool, how: (Strategy, usize)) -> Self {
        let inbox = Inbox::new();
        let filter = Filter::parse("jobs/#", &Dialect::CANONICAL).expect("a legal filter");
        let share = ShareKey { tenant: TenantId::default(), name: "crew".into(), filter };
        let (strategy, credit) = how;
        let client = Arc::from(client);
        let join = ShareJoin { share, client, lasts, credit, strategy, publisher_header: "who" };
        let member = Some(core.join_share(join, inbox.sink()));
        Self { inbox, member, held: Vec::new() }
    }

    /// Takes hand-overs until it holds `count` records; their values.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut got = Vec::new();
        while got.len() < count {
            let shared = self.inbox.shared().await;
            let values = values(&shared);
            self.held.push((shared, values.len()));
            got.extend(values);
        }
        assert_eq!(got.len(), count, "{got:?}");
        got
    }

    fn settle_all(&mut self) {
        for (shared, count) in self.held.drain(..) {
            (0..count).for_each(|nth| shared.receipt.settle(nth));
        }
    }

    fn leave(&mut self) {
        self.member = None;
        self.held.clear();
    }
}

fn values(shared: &SharedDelivery) -> Vec<String> {
    let records = shared.delivery.batch.records().expect("a sound batch");
    let picked = (0..).map_while(|nth| shared.delivery.pick(nth));
    let value =
        |index: usize| records.get(index).and_then(|record| record.value()).expect("a value").to_vec();
    picked.map(|(index, _)| String::from_utf8(value(index)).expect("text")).collect()
}

async fn publish(core: &Core, subject: &str, numbers: std::ops::Range<u32>) {
    publish_padded(core, subject, numbers, 0).await;
}

/// Numbers with so many zeros before them that each has `width` digits.
async fn publish_padded(core: &Core, subject: &str, numbers: std::ops::Range<u32>, width: usize) {
    let inbox = Inbox::new();
    let mut publisher = core.publisher(&TenantId::default(), inbox.sink());
    let count = u64::from(numbers.end - numbers.start);
    for number in numbers {
        let (value, who) = (format!("{number:0>width$}"), format!("p{}", number % 7));
        let headers = [(&b"who"[..], Some(who.as_bytes()))];
        let message = Message {
            subject,
            key: None,
            value: Some(value.as_bytes()),
            headers: &headers,
            guarantee: Guarantee::Durable,
            retain: Retain::Keep,
            rows: &[],
        };
        publisher.push(&message).expect("taken");
    }
    let mut decided = 0;
    while decided < count {
        let published = inbox.published().await;
        assert_eq!(published.result, Ok(()));
        decided += published.tickets.end - published.tickets.start;
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

const MANY: usize = 1000;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn mqtt_4_8_2_1_each_record_goes_to_one_member_in_turns() {
    on_core(async {
        let node = TestNode::start().await;
        let mut workers: Vec<_> = ["a", "b", "c"]
            .map(|client| Worker::join(&node.core, client, false, (Strategy::RoundRobin, MANY)))
            .into();
        publish(&node.core, "jobs/1", 0..30).await;
        let mut all = Vec::new();
        for worker in &mut workers {
            all.extend(worker.take(10).await);
        }
        all.sort_by_key(|text| text.parse::<u32>().expect("a number"));
        assert_eq!(all, numbers(0..30));
        assert!(workers.iter().all(|worker| worker.inbox.is_empty()));
    });
}

#[test]
fn a_member_without_room_gets_nothing_and_the_others_go_on() {
    on_core(async {
        let node = TestNode::start().await;
        let mut slow = Worker::join(&node.core, "slow", false, (Strategy::RoundRobin, 2));
        let mut quick = Worker::join(&node.core, "quick", false, (Strategy::RoundRobin, MANY));
        publish(&node.core, "jobs/1", 0..100).await;
        assert_eq!(slow.take(2).await.len(), 2);
        assert_eq!(quick.take(98).await.len(), 98);
        assert!(slow.inbox.is_empty());
    });
}

#[test]
fn with_no_room_anywhere_the_log_keeps_the_rest_in_order() {
    on_core(async {
        let node = TestNode::start().await;
        let worker = Worker::join(&node.core, "one", false, (Strategy::RoundRobin, 3));
        for round in 0..5_u32 {
            publish(&node.core, "jobs/1", round * 20..round * 20 + 20).await;
        }
        let mut got = Vec::new();
        while got.len() < 100 {
            let shared = worker.inbox.shared().await;
            let texts = values(&shared);
            assert!(texts.len() <= 3, "never more than its credit");
            (0..texts.len()).for_each(|nth| shared.receipt.settle(nth));
            got.extend(texts);
        }
        assert_eq!(got, numbers(0..100));
    });
}

#[test]
fn mqtt_4_8_2_5_what_a_leaving_member_did_not_settle_goes_to_another() {
    on_core(async {
        let node = TestNode::start().await;
        let mut first = Worker::join(&node.core, "first", false, (Strategy::RoundRobin, MANY));
        publish(&node.core, "jobs/1", 0..10).await;
        first.take(10).await;
        // Half of them are done.
        for (shared, count) in &first.held {
            let texts = values(shared);
            let even = |nth: &usize| texts[*nth].parse::<u32>().expect("a number") % 2 == 0;
            (0..*count).filter(even).for_each(|nth| shared.receipt.settle(nth));
        }
        let mut second = Worker::join(&node.core, "second", false, (Strategy::RoundRobin, MANY));
        first.leave();
        assert_eq!(second.take(5).await, ["1", "3", "5", "7", "9"]);
    });
}

#[test]
fn a_share_of_sessions_that_last_waits_for_them() {
    on_core(async {
        let node = TestNode::start().await;
        let mut worker = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, 4));
        publish(&node.core, "jobs/1", 0..6).await;
        worker.take(4).await;
        worker.leave();
        publish(&node.core, "jobs/2", 6..12).await;
        let mut again = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, MANY));
        assert_eq!(again.take(12).await, numbers(0..12));
        again.settle_all();
        if let Some(member) = again.member.take() {
            member.unsubscribe();
        }
        publish(&node.core, "jobs/2", 12..14).await;
        let mut late = Worker::join(&node.core, "late", false, (Strategy::RoundRobin, MANY));
        publish(&node.core, "jobs/2", 14..15).await;
        assert_eq!(late.take(1).await, ["14"], "nobody waited for 12 and 13");
    });
}

#[test]
fn a_share_survives_the_node() {
    on_core(async {
        let node = TestNode::start().await;
        let mut worker = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, 8));
        publish(&node.core, "jobs/1", 0..20).await;
        worker.take(8).await;
        // 0 to 3 are done, 4 to 7 are not; the rest was not handed out.
        for (shared, count) in &worker.held {
            let texts = values(shared);
            let done = |nth: &usize| texts[*nth].parse::<u32>().expect("a number") < 4;
            (0..*count).filter(done).for_each(|nth| shared.receipt.settle(nth));
        }
        worker.take(4).await;
        worker.leave();
        node.core.settled().await;
        let dir = node.stop().await;
        let node = TestNode::start_on(dir).await;
        publish(&node.core, "jobs/1", 20..22).await;
        let mut again = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, MANY));
        assert_eq!(again.take(18).await, numbers(4..22));
    });
}

/// A node whose share waits for "lasting", with the records 0 to 11, of which none is in memory.
async fn node_with_share_on_disk() -> TestNode {
    let node = TestNode::start().await;
    let mut worker = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, 8));
    publish(&node.core, "jobs/1", 0..12).await;
    worker.take(8).await;
    worker.leave();
    node.core.settled().await;
    // Segments have 1 MiB: what a start finds in sealed ones is not in memory.
    for round in 0..10 {
        publish_padded(&node.core, "other", round * 8..round * 8 + 8, 50_000).await;
    }
    TestNode::start_on(node.stop().await).await
}

/// A member that joins while nothing can be read from the disk.
async fn join_in_vain(node: &TestNode) -> Worker {
    let mut worker = None;
    let join = || Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, MANY));
    node.fail_reads(|| worker = Some(join())).await;
    worker.expect("it joined")
}

/// What could not be read when the share went on was taken for gone, for ever.
#[test]
fn what_cannot_be_read_for_a_while_is_handed_out_when_it_can() {
    on_core(async {
        let node = node_with_share_on_disk().await;
        let mut worker = join_in_vain(&node).await;
        node.refuse_reads(false);
        assert_eq!(worker.take(12).await, numbers(0..12));
    });
}

/// The feed went on for ever.
#[test]
fn a_share_ends_while_the_disk_does_not_answer_and_forgets_nothing() {
    on_core(async {
        let node = node_with_share_on_disk().await;
        let mut worker = join_in_vain(&node).await;
        worker.leave();
        tokio::time::timeout(PATIENCE, node.core.settled()).await.expect("it is put down in time");
        drop(worker);
        let node = TestNode::start_on(node.stop().await).await;
        let mut again = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, MANY));
        assert_eq!(again.take(12).await, numbers(0..12));
    });
}

/// After a crash the share knows less than the session: a record that the session took came to another member.
#[test]
fn mqtt_4_8_2_4_what_a_session_took_goes_to_nobody_else_over_a_crash() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let claimed = node.core.claim_session(&tenant, "one", Inbox::new().sink()).await;
        let (lease, _) = claimed.expect("claimed");
        let mut one = Worker::join(&node.core, "one", true, (Strategy::RoundRobin, MANY));
        one.member.as_mut().expect("a member").stored().await.expect("the share waits for it");
        publish(&node.core, "jobs/1", 0..6).await;
        assert_eq!(one.take(6).await, numbers(0..6));
        // Takes 2 and 4. That is durable with its state; the row of the share is not written yet.
        let mut taken = Vec::new();
        for (shared, _) in &one.held {
            let texts = values(shared);
            let nths = (0..texts.len()).filter(|nth| texts[*nth] == "2" || texts[*nth] == "4");
            taken.extend(nths.filter_map(|nth| shared.receipt.take(nth)));
        }
        assert_eq!(taken.len(), 2);
        // This one is not taken after all.
        drop(one.held[0].0.receipt.take(0).expect("it has 0"));
        lease.save(Bytes::from_static(b"state"), Keep::Forever).await.expect("saved");
        taken.into_iter().for_each(broker::Taken::settle);
        let dir = node.stop().await;
        // Whatever they say now, nobody hears it.
        drop((one, lease));
        let node = TestNode::start_on(dir).await;
        let mut two = Worker::join(&node.core, "two", true, (Strategy::RoundRobin, MANY));
        assert_eq!(two.take(4).await, ["0", "1", "3", "5"]);
        publish(&node.core, "jobs/1", 6..7).await;
        assert_eq!(two.take(1).await, ["6"]);
    });
}

/// The row of the only share.
async fn share_row(core: &Core) -> Option<Row> {
    let rows = core.rows();
    for group in rows.groups() {
        let found = rows.scan(&Place::Group(group), Bytes::from_static(b"S"), Bytes::new(), 1).await;
        if let Some(row) = found.expect("rows can be read").pop() {
            return Some(row);
        }
    }
    None
}

/// The share's row, once it is as it should be.
async fn share_row_when(core: &Core, is_so: impl Fn(&Row) -> bool) -> Row {
    let wait = async {
        loop {
            if let Some(row) = share_row(core).await.filter(|row| is_so(row)) {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the row is written in time")
}

/// Records of a batch that was handed out in part were in no row after the share was told to wait for one session more, or
/// fewer.
#[test]
fn a_session_that_comes_or_ends_takes_nothing_from_what_a_crash_leaves() {
    for joins in [false, true] {
        on_core(async {
            let node = TestNode::start().await;
            let mut one = Worker::join(&node.core, "one", true, (Strategy::RoundRobin, 1));
            let mut away = Worker::join(&node.core, "away", true, (Strategy::RoundRobin, 1));
            away.leave();
            publish(&node.core, "jobs/1", 0..40).await;
            assert_eq!(one.take(1).await, ["0"]);
            // 20 bytes for each record that is not settled: it says where the feed stands.
            let stored = share_row_when(&node.core, |row| row.value.len() >= 40 * 20).await;
            let mut late = None;
            if joins {
                let mut worker = Worker::join(&node.core, "late", true, (Strategy::RoundRobin, 1));
                worker.member.as_mut().expect("a member").stored().await.expect("the share waits for it");
                late = Some(worker);
            } else {
                node.core.forget_shares(&TenantId::default(), "away");
                share_row_when(&node.core, |row| row.version > stored.version).await;
            }
            let dir = node.stop().await;
            // Whatever they say now, nobody hears it.
            drop((one, late));
            let node = TestNode::start_on(dir).await;
            let mut again = Worker::join(&node.core, "one", true, (Strategy::RoundRobin, MANY));
            assert_eq!(again.take(40).await, numbers(0..40));
        });
    }
}

#[test]
fn a_session_that_ends_is_not_waited_for() {
    on_core(async {
        let node = TestNode::start().await;
        let tenant = TenantId::default();
        let claimed = node.core.claim_session(&tenant, "lasting", Inbox::new().sink()).await;
        let (lease, _) = claimed.expect("claimed");
        lease.save(Bytes::from_static(b"state"), Keep::Forever).await.expect("saved");
        let mut worker = Worker::join(&node.core, "lasting", true, (Strategy::RoundRobin, MANY));
        worker.leave();
        lease.release(None, Keep::For(0));
        publish(&node.core, "jobs/1", 0..3).await;
        let mut late = Worker::join(&node.core, "late", false, (Strategy::RoundRobin, MANY));
        publish(&node.core, "jobs/1", 3..4).await;
        assert_eq!(late.take(1).await, ["3"]);
    });
}

#[test]
fn strategies_choose_as_they_say() {
    on_core(async {
        for strategy in
            [Strategy::Sticky, Strategy::HashSubject, Strategy::HashPublisher, Strategy::LeastInFlight]
        {
            let node = TestNode::start().await;
            let mut workers: Vec<_> = ["a", "b", "c"]
                .map(|client| Worker::join(&node.core, client, false, (strategy, MANY)))
                .into();
            for subject in 0..8_u32 {
                publish(&node.core, &format!("jobs/{subject}"), subject * 14..subject * 14 + 14).await;
            }
            let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
            let mut total = 0;
            while total < 112 {
                for (at, worker) in workers.iter_mut().enumerate() {
                    while let Some(broker::Event::Shared(shared)) = worker.inbox.try_next() {
                        for text in values(&shared) {
                            owners.insert(text.parse().expect("a number"), at);
                            total += 1;
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
            let group = |number: u32| match strategy {
                Strategy::HashSubject => number / 14,
                Strategy::HashPublisher => number % 7,
                _ => 0,
            };
            let mut by_group: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            owners
                .iter()
                .for_each(|(number, owner)| by_group.entry(group(*number)).or_default().push(*owner));
            let is_one = by_group.values().all(|owners| owners.iter().all(|owner| *owner == owners[0]));
            let counts = (0..3).map(|at| owners.values().filter(|owner| **owner == at).count());
            match strategy {
                Strategy::LeastInFlight => {
                    assert!(counts.clone().all(|count| (37..=38).contains(&count)), "{strategy:?} {owners:?}")
                }
                _ => assert!(is_one, "{strategy:?} {owners:?}"),
            }
        }
    });
}
