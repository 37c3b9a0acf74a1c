//! What every [`MetaStore`] must do, as a function that panics where one does not.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{MetaError, WatchError};
use crate::store::{Change, Changes, Expect, KEY_LEN_MAX, MetaStore, Operation, Transaction, VALUE_LEN_MAX};

/// Runs all cases on one store, which must be empty. Takes no time that a clock would tell; must run on a
/// tokio runtime.
pub async fn suite(store: Arc<dyn MetaStore>) {
    an_empty_store(&*store).await;
    versions_are_revisions(&*store).await;
    checks_hold_before_the_operations(&*store).await;
    all_or_nothing(&*store).await;
    bounds_are_refused(&*store).await;
    listings_are_paged_in_key_order(&*store).await;
    watches_are_ordered_complete_and_resumable(&*store).await;
    a_watch_sleeps_until_its_prefix_changes(&store).await;
    a_watch_that_falls_behind_is_told(&*store).await;
    writers_that_race_do_not_lose_updates(&store).await;
}

async fn an_empty_store(store: &dyn MetaStore) {
    assert_eq!(store.get("a").await, Ok(None));
    let page = store.list("", "", 10).await.expect("a page");
    assert_eq!((page.entries.len(), page.revision, page.more), (0, 0, false));
    assert_eq!(store.transact(Transaction::new()).await, Ok(0), "nothing makes no revision");
    assert_eq!(store.transact(Transaction::new().delete("a")).await, Ok(0), "nor does deleting nothing");
    assert!(matches!(store.watch("", 1), Err(WatchError::Ahead { revision: 0 })));
}

async fn versions_are_revisions(store: &dyn MetaStore) {
    assert_eq!(store.transact(Transaction::new().put("v/a", "1").put("v/b", "1")).await, Ok(1));
    assert_eq!(store.transact(Transaction::new().put("v/a", "2")).await, Ok(2));
    assert_eq!((version(store, "v/a").await, version(store, "v/b").await), (Some(2), Some(1)));
    assert_eq!(store.transact(Transaction::new().delete("v/b")).await, Ok(3));
    assert_eq!(version(store, "v/b").await, None);
    assert_eq!(store.transact(Transaction::new().put("v/b", "1")).await, Ok(4));
    assert_eq!(version(store, "v/b").await, Some(4), "a version never comes back");
    assert_eq!(
        store.transact(Transaction::new().put("v/b", "1")).await,
        Ok(5),
        "an equal value is a new version"
    );
}

async fn checks_hold_before_the_operations(store: &dyn MetaStore) {
    let absent = Transaction::new().check("c/a", Expect::Absent).put("c/a", "1");
    let first = store.transact(absent.clone()).await.expect("it is absent");
    let conflict = |found| Err(MetaError::Conflict { key: "c/a".to_owned(), found });
    assert_eq!(store.transact(absent).await, conflict(Some(first)));
    let put = |expect| Transaction::new().check("c/a", expect).put("c/a", "2");
    let second = store.transact(put(Expect::Version(first))).await.expect("it has that version");
    assert_eq!(store.transact(put(Expect::Version(first))).await, conflict(Some(second)));
    store.transact(put(Expect::Present)).await.expect("it is there");
    store.transact(Transaction::new().delete("c/a")).await.expect("a deletion");
    assert_eq!(store.transact(put(Expect::Present)).await, conflict(None));
    assert_eq!(store.transact(put(Expect::Version(second))).await, conflict(None));
    let only_checks = Transaction::new().check("c/a", Expect::Absent);
    let revision = store.list("", "", 1).await.expect("a page").revision;
    assert_eq!(store.transact(only_checks).await, Ok(revision));
}

async fn all_or_nothing(store: &dyn MetaStore) {
    let before = store.list("", "", 1).await.expect("a page").revision;
    let refused = Transaction::new()
        .check("n/a", Expect::Absent)
        .check("n/b", Expect::Present)
        .put("n/a", "1")
        .delete("v/a");
    let conflict = MetaError::Conflict { key: "n/b".to_owned(), found: None };
    assert_eq!(store.transact(refused).await, Err(conflict));
    assert_eq!(version(store, "n/a").await, None);
    assert_eq!(version(store, "v/a").await, Some(2));
    assert_eq!(store.list("", "", 1).await.expect("a page").revision, before);
}

async fn bounds_are_refused(store: &dyn MetaStore) {
    let long = "k".repeat(KEY_LEN_MAX);
    let large = Bytes::from(vec![0; VALUE_LEN_MAX]);
    store.transact(Transaction::new().put(&long, large.clone())).await.expect("it is at the bound");
    store.transact(Transaction::new().delete(&long)).await.expect("it is at the bound");
    let many = |len: u32| {
        let operations = (0..len).map(|n| Operation::Delete { key: n.to_string() }).collect();
        Transaction { checks: Vec::new(), operations }
    };
    store.transact(many(1024)).await.expect("it is at the bound");
    let refused = [
        Transaction::new().put("", "1"),
        Transaction::new().check("", Expect::Absent),
        Transaction::new().put(long.clone() + "k", "1"),
        Transaction::new().put("b/a", [&large[..], b"1"].concat()),
        Transaction::new().put("b/a", "1").delete("b/a"),
        (0..5).fold(Transaction::new(), |all, n| all.put(format!("b/{n}"), large.clone())),
        many(1025),
    ];
    for refused in refused {
        let answer = store.transact(refused).await;
        assert!(matches!(answer, Err(MetaError::Invalid { .. })), "{answer:?}");
    }
    assert_eq!(store.list("b/", "", 10).await.expect("a page").entries, []);
}

async fn listings_are_paged_in_key_order(store: &dyn MetaStore) {
    let keys = ["l/", "l/a", "l/a/1", "l/b", "l/é"];
    let put = keys
        .iter()
        .rev()
        .fold(Transaction::new().put("l", "x").put("m", "x"), |all, key| all.put(*key, *key));
    let revision = store.transact(put).await.expect("new keys");
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = store.list("l/", &after, 2).await.expect("a page");
        assert_eq!(page.revision, revision);
        assert!(page.entries.len() <= 2 && !page.entries.is_empty());
        for entry in page.entries {
            assert_eq!((entry.at.value, entry.at.version), (Bytes::from(entry.key.clone()), revision));
            listed.push(entry.key);
        }
        if !page.more {
            break;
        }
        after = listed.last().expect("pages are not empty").clone();
    }
    assert_eq!(listed, keys);
    let one = store.list("l/", "", 0).await.expect("a page");
    assert_eq!((one.entries.len(), one.more), (1, true), "a page holds at least one");
    assert_eq!(store.list("l/", "zzz", 5).await.expect("a page").entries, []);
    assert_eq!(store.list("l/", "a", 1).await.expect("a page").entries[0].key, "l/");
}

async fn watches_are_ordered_complete_and_resumable(store: &dyn MetaStore) {
    let start = store.list("", "", 1).await.expect("a page").revision;
    store
        .transact(Transaction::new().put("w/a", "1").put("other", "1").put("w/b", "1"))
        .await
        .expect("a put");
    store.transact(Transaction::new().put("other", "2")).await.expect("a put");
    store.transact(Transaction::new().delete("w/a").put("w/b", "2")).await.expect("a put");
    let mut watch = store.watch("w/", start).expect("the history goes back that far");
    let first = watch.next().await.expect("changes");
    let both = vec![change("w/a", Some("1")), change("w/b", Some("1"))];
    assert_eq!(first, Changes { revision: start + 1, changes: both });
    let mut resumed = store.watch("w/", first.revision).expect("it goes on behind that revision");
    let second =
        Changes { revision: start + 3, changes: vec![change("w/a", None), change("w/b", Some("2"))] };
    assert_eq!(watch.next().await.as_ref(), Ok(&second));
    assert_eq!(resumed.next().await.as_ref(), Ok(&second));
    assert_eq!(watch.try_next(), Ok(None));
    assert_eq!(watch.revision(), start + 3);
}

async fn a_watch_sleeps_until_its_prefix_changes(store: &Arc<dyn MetaStore>) {
    let now = store.list("", "", 1).await.expect("a page").revision;
    let mut watch = store.watch("s/", now).expect("a watch from now");
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        writer.transact(Transaction::new().put("t/a", "1")).await.expect("a put");
        writer.transact(Transaction::new().put("s/a", "1")).await.expect("a put")
    });
    let changes = watch.next().await.expect("changes");
    assert_eq!(changes, Changes { revision: now + 2, changes: vec![change("s/a", Some("1"))] });
    assert_eq!(writing.await.expect("it wrote"), now + 2);
}

async fn a_watch_that_falls_behind_is_told(store: &dyn MetaStore) {
    let now = store.list("", "", 1).await.expect("a page").revision;
    let mut slow = store.watch("h/", now).expect("a watch from now");
    let mut other = store.watch("none/", now).expect("a watch from now");
    for round in 0..10 {
        let put = (0..1000).fold(Transaction::new(), |all, n| all.put(format!("h/{n}"), round.to_string()));
        store.transact(put).await.expect("a put");
        assert_eq!(other.try_next(), Ok(None), "changes to other keys do not outrun a watch that is polled");
    }
    let Err(WatchError::Compacted { oldest }) = slow.next().await else {
        panic!("ten thousand changes are more than any history");
    };
    assert!(matches!(store.watch("h/", now), Err(WatchError::Compacted { .. })));
    let mut again = store.watch("h/", oldest).expect("the oldest revision");
    assert_eq!(again.next().await.expect("changes").revision, oldest + 1);
}

async fn writers_that_race_do_not_lose_updates(store: &Arc<dyn MetaStore>) {
    store.transact(Transaction::new().put("r/n", "0")).await.expect("a put");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    increment(&*store).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("it wrote");
    }
    assert_eq!(store.get("r/n").await.expect("a value").expect("it is there").value, "40");
}

async fn increment(store: &dyn MetaStore) {
    loop {
        let at = store.get("r/n").await.expect("a value").expect("it is there");
        let n: u32 = str::from_utf8(&at.value).expect("digits").parse().expect("a number");
        let put =
            Transaction::new().check("r/n", Expect::Version(at.version)).put("r/n", (n + 1).to_string());
        match store.transact(put).await {
            Ok(_) => return,
            Err(MetaError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

fn change(key: &str, value: Option<&'static str>) -> Change {
    Change { key: key.to_owned(), value: value.map(Bytes::from) }
}

async fn version(store: &dyn MetaStore, key: &str) -> Option<u64> {
    store.get(key).await.expect("a store that answers").map(|at| at.version)
}
