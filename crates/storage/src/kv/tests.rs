//! Both implementations against an ordered map, through crashes and replays; commands and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::GroupId;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{
    Command, CommandResult, Expect, Kv, KvError, KvTurn, KvWrite, MapKv, Operation, RocksKv, decode_value,
};
use crate::database::Database;

fn key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0xff)], 0..4).prop_map(Bytes::from)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Absent), (1..12_u64).prop_map(Expect::Version)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let value = || vec(any::<u8>(), 0..4).prop_map(Bytes::from);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Operation::Put { key, value }),
        key().prop_map(|key| Operation::Delete { key }),
        (key(), expect(), proptest::option::of(value()))
            .prop_map(|(key, expect, value)| Operation::CompareAndSet { key, expect, value }),
        (key(), key()).prop_map(|(from, to)| Operation::DeleteRange { from, to }),
        (key(), expect()).prop_map(|(key, expect)| Operation::Check { key, expect }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    vec(operation(), 0..4).prop_map(|operations| Command { operations })
}

/// What happens to a store: entries in turns, flushes, crashes.
#[derive(Clone, Debug)]
enum Step {
    Turn(Vec<Vec<Command>>),
    Flush,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(vec(command(), 0..3), 0..3).prop_map(Step::Turn),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

/// The model: keys with version and value, changed one command at a time.
fn apply_to_model(rows: &mut BTreeMap<Bytes, (u64, Bytes)>, index: u64, command: &Command) -> CommandResult {
    let before = rows.clone();
    for (number, operation) in command.operations.iter().enumerate() {
        let condition = match operation {
            Operation::CompareAndSet { key, expect, .. } | Operation::Check { key, expect } => {
                Some((key, expect))
            }
            _ => None,
        };
        if let Some((key, expect)) = condition {
            let found = before.get(key).map(|(version, _)| *version);
            let wanted = match expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(*version),
            };
            if found != wanted {
                *rows = before;
                return CommandResult::Conflict { operation: number, found };
            }
        }
    }
    for operation in &command.operations {
        match operation {
            Operation::Put { key, value } | Operation::CompareAndSet { key, value: Some(value), .. } => {
                rows.insert(key.clone(), (index, value.clone()));
            }
            Operation::Delete { key } | Operation::CompareAndSet { key, value: None, .. } => {
                rows.remove(key);
            }
            Operation::DeleteRange { from, to } => rows.retain(|key, _| key < from || key >= to),
            Operation::Check { .. } => {}
        }
    }
    CommandResult::Applied { version: index }
}

fn rows(kv: &dyn Kv) -> BTreeMap<Bytes, (u64, Bytes)> {
    let rows = kv.scan(b"", b"", usize::MAX).expect("scan");
    let row = |row: super::Row| {
        let value = decode_value(&row.value).expect("a versioned value");
        (row.key, (value.version, value.value))
    };
    rows.into_iter().map(row).collect()
}

/// Runs a history; `crash` loses what was not flushed and answers the store as it is found.
fn run(steps: &[Step], mut kv: Arc<dyn Kv>, crash: &mut dyn FnMut(Arc<dyn Kv>) -> Arc<dyn Kv>) {
    let mut model = BTreeMap::new();
    let mut entries: Vec<Vec<Command>> = Vec::new();
    let mut flushed = 0;
    for step in steps {
        match step {
            Step::Turn(turn) => {
                let mut applying = KvTurn::new(&*kv);
                for commands in turn {
                    entries.push(commands.clone());
                    let index = entries.len() as u64;
                    let results = applying.entry(index, commands).expect("apply");
                    let expected: Vec<_> =
                        commands.iter().map(|command| apply_to_model(&mut model, index, command)).collect();
                    assert_eq!(results, expected);
                }
                applying.finish().expect("write");
            }
            Step::Flush => flushed = kv.flush().expect("flush"),
            Step::Crash => {
                kv = crash(kv);
                let applied = kv.applied();
                assert!(flushed <= applied && applied <= entries.len() as u64, "{flushed} {applied}");
                let mut replay = KvTurn::new(&*kv);
                for (number, commands) in entries.iter().enumerate() {
                    let results = replay.entry(number as u64 + 1, commands).expect("replay");
                    assert!(
                        number as u64 >= applied
                            || results.iter().all(|r| *r == CommandResult::AlreadyApplied)
                    );
                }
                replay.finish().expect("write");
            }
        }
        assert_eq!((rows(&*kv), kv.applied()), (model.clone(), entries.len() as u64));
    }
}

proptest! {
    #[test]
    fn the_ordered_map_is_the_model_through_crashes(steps in vec(step(), 0..25)) {
        let map = Arc::new(MapKv::new());
        run(&steps, map.clone(), &mut |kv| {
            map.crash();
            kv
        });
    }

    #[test]
    fn commands_come_back(commands in vec(command(), 0..5)) {
        let encoded = Command::encode_list(&commands);
        prop_assert_eq!(Command::decode_list(&encoded), Ok(commands));
        for cut in 0..encoded.len() {
            prop_assert_eq!(Command::decode_list(&encoded.slice(..cut)).is_ok(), false);
        }
    }

    #[test]
    fn any_bytes_are_commands_or_refused(mut bytes in vec(any::<u8>(), 0..60)) {
        if let Some(format) = bytes.first_mut() {
            *format = 1;
        }
        let bytes = Bytes::from(bytes);
        if let Ok(commands) = Command::decode_list(&bytes) {
            let again = Command::encode_list(&commands);
            prop_assert_eq!(Command::decode_list(&again), Ok(commands));
        }
    }

    #[test]
    fn a_checkpoint_moves_all_rows_and_a_damaged_one_none(
        entries in vec(vec(command(), 0..3), 1..6), at in any::<proptest::sample::Index>(), bit in 0..8_u8,
    ) {
        let from = MapKv::new();
        let mut turn = KvTurn::new(&from);
        for (number, commands) in entries.iter().enumerate() {
            turn.entry(number as u64 + 1, commands).expect("apply");
        }
        turn.finish().expect("write");
        let mut checkpoint = Vec::new();
        from.export(&mut checkpoint).expect("export");
        let to = MapKv::new();
        to.apply(&[KvWrite::Put { key: "old".into(), value: "old".into() }], 99).expect("apply");
        prop_assert_eq!(to.import(&mut &checkpoint[..]).expect("import"), entries.len() as u64);
        prop_assert_eq!((rows(&to), to.applied()), (rows(&from), from.applied()));

        let index = at.index(checkpoint.len());
        let refused = to.import(&mut &checkpoint[..index]);
        prop_assert_eq!(matches!(refused, Err(KvError::Damaged { .. })), true);
        checkpoint[index] ^= 1 << bit;
        prop_assert_eq!(to.import(&mut &checkpoint[..]).is_err(), true);
        prop_assert_eq!((rows(&to).len(), to.applied()), (0, 0));
    }
}

#[test]
fn rocksdb_is_the_model_through_crashes() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut crashes, mut losses) = (0, 0);
    for group in 1..15 {
        let steps = vec(step(), 0..25).new_tree(&mut runner).expect("a history").current();
        let mut dir = tempfile::tempdir().expect("a temporary directory");
        let open = |dir: &tempfile::TempDir| -> Arc<dyn Kv> {
            let database = Database::open(dir.path()).expect("open");
            Arc::new(RocksKv::open(database, GroupId(group)).expect("open the group"))
        };
        let first = open(&dir);
        run(&steps, first, &mut |kv| {
            let applied = kv.applied();
            dir = crate::database::files_after_kill(dir.path());
            let found = open(&dir);
            crashes += 1;
            losses += usize::from(found.applied() < applied);
            found
        });
    }
    assert!(crashes > 10 && losses > 5, "{crashes} crashes, of which {losses} lost something");
}

#[test]
fn rocksdb_groups_do_not_see_each_other_and_checkpoints_move_between_implementations() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(dir.path()).expect("open");
    let open = |group| RocksKv::open(database.clone(), GroupId(group)).expect("open the group");
    let (one, two, three) = (open(1), open(2), open(3));
    let put = |key: &str| KvWrite::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: "value".into() };
    one.apply(&[put("a"), put("b/1"), put("b/2"), put("c")], 5).expect("apply");
    two.apply(&[put("b/9")], 7).expect("apply");
    let keys = |kv: &dyn Kv, prefix: &str, from: &str| -> Vec<Bytes> {
        let rows = kv.scan(prefix.as_bytes(), from.as_bytes(), 10).expect("scan");
        rows.into_iter().map(|row| row.key).collect()
    };
    assert_eq!(keys(&one, "b/", ""), ["b/1", "b/2"]);
    assert_eq!(keys(&one, "b/", "b/1\0"), ["b/2"]);
    assert_eq!(keys(&one, "", "b/2"), ["b/2", "c"]);
    assert_eq!(keys(&one, "d", ""), Vec::<Bytes>::new());
    assert_eq!(one.scan(b"", b"", 2).expect("scan").len(), 2);
    assert_eq!(keys(&three, "", ""), Vec::<Bytes>::new());

    let mut checkpoint = Vec::new();
    assert_eq!(one.export(&mut checkpoint).expect("export"), 5);
    three.apply(&[put("gone")], 100).expect("apply");
    assert_eq!(three.import(&mut &checkpoint[..]).expect("import"), 5);
    let map = MapKv::new();
    map.import(&mut &checkpoint[..]).expect("import");
    for copy in [&three as &dyn Kv, &map] {
        assert_eq!(keys(copy, "", ""), ["a", "b/1", "b/2", "c"]);
        assert_eq!(copy.applied(), 5);
    }
    assert_eq!(keys(&two, "", ""), ["b/9"]);
    assert!(three.import(&mut &checkpoint[..checkpoint.len() - 1]).is_err());
    assert_eq!((keys(&three, "", ""), three.applied()), (Vec::new(), 0));
}

#[test]
fn storage_55_a_database_of_another_format_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(Database::open(dir.path()).expect("open"));
    let mut options = rocksdb::Options::default();
    options.create_if_missing(false);
    let families = rocksdb::DB::list_cf(&options, dir.path()).expect("list");
    let raw = rocksdb::DB::open_cf(&options, dir.path(), families).expect("open");
    raw.put(b"format", [2]).expect("put");
    raw.flush().expect("flush");
    drop(raw);
    assert!(matches!(Database::open(dir.path()), Err(KvError::Damaged { what: "rocksdb format version" })));
}

#[test]
fn what_lies_on_disk_alone_is_not_answered_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open =
        || RocksKv::open(Database::open(dir.path()).expect("open"), GroupId(1)).expect("open the group");
    let kv = open();
    // In three blocks: the applied index, which opening reads, and a large row; one that is there and a large row; the last.
    let put = |key: &'static str, value| KvWrite::Put { key: key.into(), value };
    let large = || Bytes::from(vec![7; 64 << 10]);
    let rows =
        [put("large", large()), put("there", "value".into()), put("u", large()), put("v", "last".into())];
    kv.apply(&rows, 1).expect("apply");
    let at_once = |kv: &RocksKv, key: &[u8]| kv.get_at_once(key).map(|found| found.expect("read"));
    assert_eq!(at_once(&kv, b"there"), Some(Some("value".into())));
    kv.flush().expect("flush");
    drop(kv);
    let kv = open();
    assert_eq!(at_once(&kv, b"there"), None, "its block is on disk");
    assert_eq!(at_once(&kv, b"elsewhere"), Some(None), "the filter knows that it is not there");
    assert_eq!(kv.get(b"there").expect("read"), Some("value".into()));
    assert_eq!(at_once(&kv, b"there"), Some(Some("value".into())), "now it is in memory");
    let all = |kv: &RocksKv| kv.scan_at_once(b"", b"", 9).map(|rows| rows.expect("scan").len());
    assert_eq!(all(&kv), None, "the last is on disk");
    assert_eq!(kv.scan(b"", b"", 9).expect("scan").len(), 4);
    assert_eq!(all(&kv), Some(4));
}
