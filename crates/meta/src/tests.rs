//! The store over consensus: the suite, against a naive model, across restarts and power losses.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use consensus::{Groups, Limits};
use model::{GroupId, NodeId, Resource, ResourceError};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use rt::{SeededRng, Shutdown, SimDisk, Tasks};
use storage::journal::{Driver, Identity, Journal, JournalConfig};
use storage::kv::MapKv;

use crate::conformance;
use crate::{
    Change, Changes, Expect, Follower, MemoryMeta, MetaError, MetaStore, News, Operation, ReplicatedMeta,
    Resources, Transaction, WatchError,
};

/// Deadline of a test that would otherwise hang.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") })
}

/// A node with nothing but its Meta Service.
struct Node {
    groups: Groups,
    tasks: Tasks,
    meta: Arc<ReplicatedMeta>,
}

impl Node {
    async fn start(disk: &SimDisk, kv: &Arc<MapKv>) -> Node {
        let config = JournalConfig {
            segment_bytes: 16 << 20,
            ..JournalConfig::new(Path::new("/journal"), Identity { cluster: 1, node: 1 })
        };
        let opened =
            Journal::open(config, Arc::new(disk.clone()), Arc::new(SeededRng::new(1)), Driver::Threads);
        let (journal, mut recovered) = opened.unwrap();
        let tasks = Tasks::new(Shutdown::new());
        let groups = Groups::new(NodeId(1), Arc::new(journal), tasks.clone(), Limits::default());
        let recovered = recovered.groups.remove(&GroupId::META).unwrap_or_default();
        let meta = ReplicatedMeta::open(&groups, recovered, kv.clone(), &tasks).await.unwrap();
        Node { groups, tasks, meta: Arc::new(meta) }
    }

    async fn stop(self) {
        self.groups.shutdown().await;
        self.tasks.shutdown().trigger();
        self.tasks.drained().await;
    }
}

#[test]
fn the_store_in_memory_passes_the_suite() {
    run(conformance::suite(Arc::new(MemoryMeta::new())));
}

#[test]
fn the_replicated_store_passes_the_suite() {
    run(async {
        let node = Node::start(&SimDisk::new(), &Arc::default()).await;
        conformance::suite(node.meta.clone()).await;
        node.stop().await;
    });
}

#[test]
fn rows_are_flushed_and_the_log_is_purged_as_it_grows() {
    run(async {
        let node = Node::start(&SimDisk::new(), &Arc::default()).await;
        for n in 0..1100 {
            node.meta.transact(Transaction::new().put("n", n.to_string())).await.unwrap();
        }
        while node.meta.group().status().purged_index.is_none_or(|purged| purged < 1024) {
            tokio::task::yield_now().await;
        }
        node.stop().await;
    });
}

#[test]
fn a_watch_ends_with_the_service_and_resumes_after_it() {
    run(async {
        let (disk, kv) = (SimDisk::new(), Arc::default());
        let node = Node::start(&disk, &kv).await;
        node.meta.transact(Transaction::new().put("a", "1")).await.unwrap();
        let mut watch = node.meta.watch("", 0).unwrap();
        let seen = watch.next().await.unwrap().revision;
        let meta = node.meta.clone();
        node.stop().await;
        assert_eq!(watch.next().await, Err(WatchError::Stopped));
        let late = meta.transact(Transaction::new().put("a", "2")).await;
        assert_eq!(late, Err(MetaError::Stopped));

        let node = Node::start(&disk, &kv).await;
        let mut watch = node.meta.watch("", seen).unwrap();
        node.meta.transact(Transaction::new().put("a", "3")).await.unwrap();
        let changes = vec![Change { key: "a".into(), value: Some("3".into()) }];
        assert_eq!(watch.next().await, Ok(Changes { revision: seen + 1, changes }));
        node.stop().await;
    });
}

/// A map with versions, as simple as can be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<String, (Bytes, u64)>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, transaction: &Transaction) -> Result<u64, Option<u64>> {
        for check in &transaction.checks {
            let found = self.entries.get(&check.key).map(|(_, version)| *version);
            let holds = match check.expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Version(version) => found == Some(version),
            };
            if !holds {
                return Err(found);
            }
        }
        let before = self.entries.clone();
        let version = self.revision + 1;
        for operation in &transaction.operations {
            match operation {
                Operation::Put { key, value } => {
                    self.entries.insert(key.clone(), (value.clone(), version));
                }
                Operation::Delete { key } => {
                    self.entries.remove(key);
                }
            }
        }
        if self.entries != before {
            self.revision = version;
        }
        Ok(self.revision)
    }

    fn follow(&mut self, changes: Changes) {
        self.revision = changes.revision;
        for change in changes.changes {
            match change.value {
                Some(value) => self.entries.insert(change.key, (value, changes.revision)),
                None => self.entries.remove(&change.key),
            };
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Transact(Transaction),
    Restart,
    /// Power loss: what the journal has must be enough.
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || "[a-d]{1,2}";
    let expect = prop_oneof![
        proptest::strategy::Just(Expect::Absent),
        proptest::strategy::Just(Expect::Present),
        (0_u64..12).prop_map(Expect::Version),
    ];
    let checks = proptest::collection::vec((key(), expect), 0..2);
    let operations = proptest::collection::btree_map(key(), proptest::option::of("[0-9]{0,3}"), 0..4);
    let transact = (checks, operations).prop_map(|(checks, operations)| {
        let checked =
            checks.into_iter().fold(Transaction::new(), |all, (key, expect)| all.check(key, expect));
        Step::Transact(operations.into_iter().fold(checked, |all, (key, value)| match value {
            Some(value) => all.put(key, value),
            None => all.delete(key),
        }))
    });
    prop_oneof![
        12 => transact,
        1 => proptest::strategy::Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

async fn check_against_model(steps: Vec<Step>) {
    let (mut disk, kv) = (SimDisk::new(), Arc::new(MapKv::new()));
    let mut node = Node::start(&disk, &kv).await;
    let (mut model, mut cache) = (Model::default(), Model::default());
    let mut watch = node.meta.watch("", 0).unwrap();
    for step in steps {
        match step {
            Step::Transact(transaction) => {
                let answer = node.meta.transact(transaction.clone()).await;
                match model.apply(&transaction) {
                    Ok(revision) => assert_eq!(answer, Ok(revision)),
                    Err(wanted) => {
                        assert!(
                            matches!(&answer, Err(MetaError::Conflict { found, .. }) if *found == wanted),
                            "{answer:?} instead of {wanted:?}"
                        );
                    }
                }
                while let Some(changes) = watch.try_next().unwrap() {
                    cache.follow(changes);
                }
                assert_eq!(cache, model, "a cache that is fed by a watch is the store");
                continue;
            }
            Step::Restart => node.stop().await,
            Step::Crash(seed) => {
                let after = disk.crash(seed);
                node.stop().await;
                kv.crash();
                disk = after;
            }
        }
        node = Node::start(&disk, &kv).await;
        watch = node.meta.watch("", model.revision).unwrap();
        let page = node.meta.list("", "", usize::MAX).await.unwrap();
        let entries = page.entries.into_iter().map(|entry| (entry.key, (entry.at.value, entry.at.version)));
        assert_eq!(Model { entries: entries.collect(), revision: page.revision }, model);
    }
    node.stop().await;
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_is_a_versioned_map_that_survives(steps in proptest::collection::vec(step(), 1..50)) {
        run(check_against_model(steps));
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Colour(String, u8);

impl Resource for Colour {
    const KIND: &'static str = "colour";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        self.0.clone()
    }

    fn encode_body(&self, body: &mut BytesMut) {
        body.put_u8(self.1);
        body.put_slice(self.0.as_bytes());
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Colour, ResourceError> {
        let malformed = ResourceError::Malformed { kind: Colour::KIND, field: "name" };
        let (shade, name) = body.split_first().ok_or(malformed)?;
        Ok(Colour(str::from_utf8(name).map_err(|_| malformed)?.to_owned(), *shade))
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let rule = ResourceError::Invalid { kind: Colour::KIND, field: "name", rule: "must not be empty" };
        if self.0.is_empty() { Err(rule) } else { Ok(()) }
    }
}

#[test]
fn resources_are_read_and_written_by_type() {
    run(async {
        let resources = Resources::new(Arc::new(MemoryMeta::new()));
        let red = Colour("red".into(), 1);
        let version = resources.put(&red, Some(Expect::Absent)).await.unwrap();
        let known = resources.get::<Colour>("red").await.unwrap().unwrap();
        assert_eq!((known.resource, known.version), (red.clone(), version));
        resources.put(&Colour("blue".into(), 2), None).await.unwrap();
        let page = resources.list::<Colour>("", "", 1).await.unwrap();
        assert_eq!((page.resources[0].resource.0.as_str(), page.next.as_deref()), ("blue", Some("blue")));
        let page = resources.list::<Colour>("", "blue", 5).await.unwrap();
        assert_eq!((page.resources.len(), page.next), (1, None));
        let stale = resources.delete::<Colour>("red", Some(Expect::Version(version + 1))).await;
        assert!(matches!(stale, Err(MetaError::Conflict { .. })));
        resources.delete::<Colour>("red", Some(Expect::Version(version))).await.unwrap();
        assert_eq!(resources.get::<Colour>("red").await, Ok(None));
        let invalid = resources.put(&Colour(String::new(), 0), None).await;
        assert!(matches!(invalid, Err(MetaError::Resource(ResourceError::Invalid { .. }))));
    });
}

/// The colours that changes have made, or the kind of what cannot be read.
fn colours(changes: &[Change]) -> Vec<(&str, Result<Option<u8>, ResourceError>)> {
    let found = changes.iter().filter_map(Change::of::<Colour>);
    found.map(|(key, now)| (key, now.map(|colour| colour.map(|colour| colour.1)))).collect()
}

#[test]
fn a_follower_tells_everything_and_then_each_transaction() {
    run(async {
        let store = Arc::new(MemoryMeta::new());
        let resources = Resources::new(store.clone());
        for n in 0..1100_u16 {
            resources.put(&Colour(format!("{n:04}"), 1), None).await.unwrap();
        }
        store.transact(Transaction::new().put("colours/x", "?").put("shape/round", "r")).await.unwrap();
        let mut follower = Follower::new(store.clone(), &["shape", Colour::KIND]);
        let News { is_whole, changes, revision } = follower.next().await.unwrap();
        assert_eq!((is_whole, changes.len(), revision), (true, 1101, 1101));
        assert_eq!(changes[0], Change { key: "shape/round".into(), value: Some("r".into()) });
        assert_eq!(colours(&changes)[1099], ("1099", Ok(Some(1))));

        let both = Transaction::new().put_resource(&Colour("red".into(), 7)).unwrap().delete("shape/round");
        store.transact(both.put("other/x", "x")).await.unwrap();
        store.transact(Transaction::new().put("other/x", "y")).await.unwrap();
        store.transact(Transaction::new().delete("colour/red").put("colour/new", "\0\u{9}")).await.unwrap();
        let told = follower.next().await.unwrap();
        assert_eq!((told.is_whole, told.changes.len(), told.revision), (false, 2, 1102));
        assert_eq!(colours(&told.changes), [("red", Ok(Some(7)))]);
        // Of other kinds there is nothing but the revision.
        let told = follower.next().await.unwrap();
        assert_eq!(told, News { is_whole: false, changes: Vec::new(), revision: 1103 });
        let told = follower.next().await.unwrap();
        let newer = ResourceError::Newer { kind: Colour::KIND, version: 9, known: 1 };
        assert_eq!(colours(&told.changes), [("red", Ok(None)), ("new", Err(newer))]);
    });
}

#[test]
fn a_follower_that_falls_behind_is_told_everything_again() {
    run(async {
        let store = Arc::new(MemoryMeta::new());
        let mut follower = Follower::new(store.clone(), &["n"]);
        let nothing = News { is_whole: true, changes: Vec::new(), revision: 0 };
        assert_eq!(follower.next().await, Ok(nothing));
        for n in 0..=crate::state::HISTORY_CHANGES_MAX {
            store.transact(Transaction::new().put("n/1", n.to_string())).await.unwrap();
        }
        store.transact(Transaction::new().put("n/2", "x").delete("n/1")).await.unwrap();
        let told = follower.next().await.unwrap();
        let changes = vec![Change { key: "n/2".into(), value: Some("x".into()) }];
        assert_eq!(told, News { is_whole: true, changes, revision: 4098 });
        store.transact(Transaction::new().put("n/3", "y")).await.unwrap();
        assert!(!follower.next().await.unwrap().is_whole);
    });
}

#[test]
fn a_follower_ends_with_the_service() {
    run(async {
        let node = Node::start(&SimDisk::new(), &Arc::default()).await;
        let mut follower = Follower::new(node.meta.clone(), &["n"]);
        assert!(follower.next_in_the_end().await.is_some_and(|news| news.is_whole));
        node.stop().await;
        assert_eq!(follower.next_in_the_end().await, None);
    });
}
