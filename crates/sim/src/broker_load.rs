//! A load on a whole node: one core, one publisher, one idempotent producer, a row that counts up, and somebody who reads;
//! all on a disk that loses power.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use auth::{Access, Host, Passwords};
use broker::{
    Broker, BrokerConfig, Core, Event, Foundation, Guarantee, Message, Outside, Place, Publisher, Retain,
    RowWrite,
};
use bytes::Bytes;
use cluster::{JournalDriver, Node, NodeConfig, RowStores};
use model::batch::Records;
use model::{GroupId, MAX_DECODED_BATCH_BYTES, Offset, ShardId, TenantId, TopicName};
use rt::{Disk, Fault, Rng, SeededRng, Shutdown, SimDisk, SystemClock, Tasks};
use storage::kv::{Kv, MapKv};
use testkit::Inbox;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::producer::Producer;
use crate::turns::{patiently, step};

/// Topics that are published to.
const TOPICS: [&str; 3] = ["a", "a/b", "c"];
/// Times that everything that is ready may run before a life ends.
const TAIL: usize = 200;
/// The row that counts up.
const ROW: &[u8] = b"~row";

/// What was promised in all lives of a node, and what is left of its disk.
pub struct BrokerLoad {
    seed: u64,
    choices: SeededRng,
    disk: SimDisk,
    rows: BTreeMap<GroupId, Arc<MapKv>>,
    next: u64,
    /// By topic: what was pushed, and whether it was acknowledged.
    pushed: BTreeMap<&'static str, Vec<(u64, bool)>>,
    /// By topic: what a reader was shown, from offset 0 on.
    shown: BTreeMap<&'static str, Vec<u64>>,
    producer: Producer,
    row_pushed: u64,
    row_acknowledged: u64,
}

/// One life: from opening the disk until the power goes.
struct Life {
    core: Core,
    node: Arc<Node>,
    inbox: Inbox,
    publisher: Publisher,
    /// What each ticket stands for.
    tickets: Vec<(&'static str, u64)>,
}

impl BrokerLoad {
    /// An empty disk.
    pub fn new(seed: u64) -> BrokerLoad {
        BrokerLoad {
            seed,
            choices: SeededRng::new(seed),
            disk: SimDisk::new(),
            rows: BTreeMap::new(),
            next: 0,
            pushed: BTreeMap::new(),
            shown: BTreeMap::new(),
            producer: Producer::default(),
            row_pushed: 0,
            row_acknowledged: 0,
        }
    }

    /// Messages that were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.pushed.values().flatten().filter(|(_, acknowledged)| *acknowledged).count()
    }

    /// Lives once: opens, checks everything that was promised before, works until the power goes (after `changes` changes
    /// of the disk), or stops by itself.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn live(&mut self, changes: Option<u64>) {
        if let Some(after) = changes {
            self.disk.inject(Fault::PowerCut { after }).expect("a disk that is on");
        }
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let Some(mut life) = self.open().await else { return };
            if self.check(&life).await {
                self.work(&mut life).await;
            }
        });
        self.disk = self.disk.crash(self.seed ^ self.next);
        self.rows.values().for_each(|rows| rows.crash());
    }

    async fn open(&mut self) -> Option<Life> {
        let foundation = Foundation::new(1);
        for group in 0..=2 {
            self.rows.entry(GroupId(group)).or_default();
        }
        let rows = self.rows.clone();
        let given = move |group: GroupId| Arc::clone(&rows[&group]) as Arc<dyn Kv>;
        let config = NodeConfig { segment_bytes: 64 << 10, ..NodeConfig::new(Path::new("/node")) };
        let rng = Arc::new(SeededRng::new(self.seed ^ 0x5eed ^ self.next));
        let outside = cluster::Outside {
            disk: Arc::new(self.disk.clone()),
            rng: Arc::clone(&rng) as Arc<dyn Rng>,
            driver: JournalDriver::Task,
            rows: RowStores::Given(Box::new(given)),
            tasks: Tasks::new(Shutdown::new()),
            observer: foundation.observer(),
        };
        // An error is the power going while the node starts.
        let opened = patiently(Node::open(config, outside)).await?;
        let node = match opened {
            Ok(node) => Arc::new(node),
            Err(error) => {
                assert!(self.is_off(), "the node must open after any crash: {error:?}");
                return None;
            }
        };
        let (offload, clock) =
            (Arc::new(|work: Box<dyn FnOnce() + Send>| work()), Arc::new(SystemClock::new()));
        let passwords = Passwords::new(offload.clone(), 1, rng.clone());
        let host = Host { clock: clock.clone(), rng: rng.clone(), passwords };
        let (access, _follower) = patiently(Access::of_own_table(node.meta(), host)).await?.ok()?;
        let outside = Outside { clock, rng, offload, access };
        let core = Core::new(foundation.build(Arc::clone(&node), BrokerConfig::default(), outside), 0);
        let running = core.clone();
        tokio::task::spawn_local(async move { running.run().await });
        patiently(core.recover()).await?.ok()?;
        let inbox = Inbox::new();
        let publisher = core.publisher(&TenantId::default(), inbox.sink());
        Some(Life { core, node, inbox, publisher, tickets: Vec::new() })
    }

    fn is_off(&self) -> bool {
        self.disk.list(Path::new("/")).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
    }

    /// Batches of the idempotent producer that were acknowledged so far.
    pub fn produced(&self) -> usize {
        self.producer.acknowledged()
    }

    /// Everything acknowledged is there, once, in order, at dense offsets; nothing is there that was not pushed; whatever
    /// somebody has read is at its offset. Answers false if the power went meanwhile.
    async fn check(&mut self, life: &Life) -> bool {
        for topic in TOPICS {
            let Some(found) = self.look(life, topic).await else { return false };
            let pushed = self.pushed.get(topic).map_or(&[][..], |pushed| &pushed[..]);
            assert!(found.is_sorted_by(|a, b| a < b), "{topic}: each once, in order: {found:?}");
            for number in &found {
                assert!(
                    pushed.iter().any(|(known, _)| known == number),
                    "{topic}: {number} was never pushed"
                );
            }
            for (number, _) in pushed.iter().filter(|(_, acknowledged)| *acknowledged) {
                assert!(
                    found.binary_search(number).is_ok(),
                    "{topic}: {number} was acknowledged and is lost"
                );
            }
        }
        if !self.producer.check(&life.core).await {
            return false;
        }
        let place = Place::ByKey(Bytes::from_static(ROW));
        let Some(row) = patiently(life.core.rows().get(&place, Bytes::from_static(ROW))).await else {
            return false;
        };
        let Ok(row) = row else { return false };
        let value = row.map_or(0, |row| u64::from_be_bytes(row.value[..].try_into().expect("eight bytes")));
        assert!(value >= self.row_acknowledged, "row {value}, acknowledged {}", self.row_acknowledged);
        assert!(value <= self.row_pushed, "row {value}, pushed {}", self.row_pushed);
        true
    }

    /// Reads a topic as a consumer does: what was there at an earlier look, in whatever life, is there still.
    async fn look(&mut self, life: &Life, topic: &'static str) -> Option<Vec<u64>> {
        let name = TopicName::new(topic).expect("legal");
        let tenant = TenantId::default();
        let found = match patiently(life.core.find_topic(&tenant, &name)).await?.ok()? {
            Some(topic) => read_numbers(&life.core, topic.shards[0]).await?,
            None => Vec::new(),
        };
        let shown = self.shown.entry(topic).or_default();
        assert!(found.starts_with(shown), "{topic}: {shown:?} was shown before, now there is {found:?}");
        shown.clone_from(&found);
        Some(found)
    }

    async fn work(&mut self, life: &mut Life) {
        for _ in 0..self.choices.below(60) {
            for _ in 0..self.choices.below(8) {
                self.push(life);
            }
            match self.choices.below(10) {
                0 => life.node.keep_house(),
                1 | 2 if !self.count_up(life).await => return,
                3 if self.look(life, TOPICS[0]).await.is_none() => return,
                4 if !self.producer.send(&life.core, &self.choices).await => return,
                _ => {}
            }
            for _ in 0..self.choices.below(30) {
                step().await;
            }
            self.take_answers(life);
        }
        for _ in 0..TAIL {
            step().await;
        }
        self.take_answers(life);
    }

    fn push(&mut self, life: &mut Life) {
        let topic = TOPICS[self.choices.below(TOPICS.len() as u64) as usize];
        let number = self.next;
        self.next += 1;
        let message = Message {
            subject: topic,
            key: None,
            value: Some(&number.to_be_bytes()),
            headers: &[],
            guarantee: Guarantee::Durable,
            retain: Retain::Keep,
            rows: &[],
        };
        let ticket = life.publisher.push(&message).expect("a legal message").expect("a ticket");
        assert_eq!(ticket, life.tickets.len() as u64);
        life.tickets.push((topic, number));
        self.pushed.entry(topic).or_default().push((number, false));
    }

    fn take_answers(&mut self, life: &mut Life) {
        while let Some(event) = life.inbox.try_next() {
            let Event::Published(published) = event else { panic!("only decisions are expected") };
            for ticket in published.tickets {
                let (topic, number) = life.tickets[ticket as usize];
                let pushed = self.pushed.get_mut(topic).expect("pushed before");
                let entry = pushed.iter_mut().find(|(known, _)| *known == number).expect("pushed before");
                entry.1 |= published.result.is_ok();
            }
        }
    }

    async fn count_up(&mut self, life: &Life) -> bool {
        self.row_pushed += 1;
        let value = Bytes::copy_from_slice(&self.row_pushed.to_be_bytes());
        let write = RowWrite::Put { key: Bytes::from_static(ROW), value };
        let place = Place::ByKey(Bytes::from_static(ROW));
        match patiently(life.core.rows().transact(&place, Vec::new(), vec![write])).await {
            Some(Ok(_)) => {
                self.row_acknowledged = self.row_pushed;
                true
            }
            Some(Err(_)) | None => false,
        }
    }
}

/// All numbers of a shard, which must be dense. `None` if the power went meanwhile.
pub(crate) async fn read_numbers(core: &Core, shard: ShardId) -> Option<Vec<u64>> {
    let (mut from, mut found) = (Offset::ZERO, Vec::new());
    loop {
        let batches = patiently(core.read(shard, from, 1 << 20)).await?.ok()?;
        let Some(last) = batches.last() else { break };
        for batch in &batches {
            assert_eq!(batch.base, from, "offsets are dense");
            let records = Records::decode(&batch.bytes, MAX_DECODED_BATCH_BYTES).expect("a sound batch");
            let values = records.iter().map(|record| record.value().expect("a value").try_into());
            found.extend(values.map(|value| u64::from_be_bytes(value.expect("eight bytes"))));
            from = batch.end();
        }
        from = last.end();
    }
    assert_eq!(core.offsets(shard).ok()?.end, Offset(found.len() as u64));
    Some(found)
}
