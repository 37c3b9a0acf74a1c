//! Waiting for the end of a shard to grow: registered wakers, woken in one pass when a turn of applied entries ends.
//! Nothing here polls. Which engine holds the shard is not known.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ahash::AHashMap;
use model::{Offset, ShardId};
use parking_lot::Mutex;

/// What a [`Watch`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The shard now ends here, beyond what was watched.
    Grown {
        /// Offset that the next record will get.
        end: Offset,
    },
    /// The shard was dropped.
    Dropped,
}

/// Knows where shards end.
pub(crate) trait Ends: Send + Sync {
    /// The published end of a shard; `None` if it was dropped. May not call back into [`Watchers`].
    fn end(&self, shard: ShardId) -> Option<Offset>;
}

/// Everybody who waits for a shard of one group.
#[derive(Default)]
pub(crate) struct Watchers {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    shards: AHashMap<ShardId, Vec<Waiter>>,
    id_next: u64,
}

struct Waiter {
    id: u64,
    beyond: Offset,
    waker: Waker,
}

impl Watchers {
    /// Wakes whoever waits for one of the `touched` shards and has what was waited for. One lock, wakers called after it.
    pub(crate) fn wake(&self, touched: &[ShardId], ends: &dyn Ends) {
        let mut woken = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            if waiting.shards.is_empty() {
                return;
            }
            for shard in touched {
                let Some(waiters) = waiting.shards.get_mut(shard) else { continue };
                let end = ends.end(*shard);
                waiters.retain(|waiter| {
                    let satisfied = end.is_none_or(|end| end > waiter.beyond);
                    if satisfied {
                        woken.push(waiter.waker.clone());
                    }
                    !satisfied
                });
                if waiters.is_empty() {
                    waiting.shards.remove(shard);
                }
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().shards.values().map(Vec::len).sum()
    }
}

/// Resolves when a shard ends beyond an offset, or is dropped. Made by [`Log::watch`](crate::Log::watch).
#[must_use = "a watch does nothing until it is awaited"]
pub struct Watch {
    watchers: Arc<Watchers>,
    ends: Arc<dyn Ends>,
    shard: ShardId,
    beyond: Offset,
    registered: Option<u64>,
}

impl Watch {
    pub(crate) fn new(watchers: Arc<Watchers>, ends: Arc<dyn Ends>, shard: ShardId, beyond: Offset) -> Watch {
        Watch { watchers, ends, shard, beyond, registered: None }
    }
}

impl Future for Watch {
    type Output = Watched;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Watched> {
        let this = &mut *self;
        // Invariant: the end is looked up under the lock that `wake` takes, after the writer moved the end. So either it
        // is seen here, or the waker is found there.
        let mut waiting = this.watchers.waiting.lock();
        let waiters = waiting.shards.get_mut(&this.shard);
        let known = this.registered.and_then(|id| waiters?.iter_mut().find(|waiter| waiter.id == id));
        match this.ends.end(this.shard) {
            Some(end) if end <= this.beyond => {}
            Some(end) => return Poll::Ready(Watched::Grown { end }),
            None => return Poll::Ready(Watched::Dropped),
        }
        if let Some(waiter) = known {
            waiter.waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let id = waiting.id_next;
        waiting.id_next += 1;
        let waiter = Waiter { id, beyond: this.beyond, waker: context.waker().clone() };
        waiting.shards.entry(this.shard).or_default().push(waiter);
        this.registered = Some(id);
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(id) = self.registered else { return };
        let mut waiting = self.watchers.waiting.lock();
        let Some(waiters) = waiting.shards.get_mut(&self.shard) else { return };
        waiters.retain(|waiter| waiter.id != id);
        if waiters.is_empty() {
            waiting.shards.remove(&self.shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::task::Wake;

    use model::{EngineKind, GroupId, TopicNumber};

    use super::*;

    struct End(AtomicU64);

    impl Ends for End {
        fn end(&self, _: ShardId) -> Option<Offset> {
            let end = self.0.load(Ordering::SeqCst);
            (end != u64::MAX).then_some(Offset(end))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn setup() -> (Arc<Watchers>, Arc<End>, ShardId, Arc<Woken>) {
        let shard = ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(1), 0);
        (Arc::default(), Arc::new(End(AtomicU64::new(3))), shard, Arc::default())
    }

    fn poll(watch: &mut Watch, woken: &Arc<Woken>) -> Poll<Watched> {
        Pin::new(watch).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    #[test]
    fn a_watch_is_woken_once_and_only_by_what_it_waits_for() {
        let (watchers, end, shard, woken) = setup();
        let mut watch = Watch::new(watchers.clone(), end.clone(), shard, Offset(4));
        assert_eq!(poll(&mut watch, &woken), Poll::Pending);
        assert_eq!(poll(&mut watch, &woken), Poll::Pending);
        assert_eq!(watchers.len(), 1, "polled twice, registered once");
        end.0.store(4, Ordering::SeqCst);
        watchers.wake(&[shard], &*end);
        assert_eq!(woken.0.load(Ordering::SeqCst), 0, "4 is not beyond 4");
        end.0.store(6, Ordering::SeqCst);
        watchers.wake(&[shard, shard], &*end);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut watch, &woken), Poll::Ready(Watched::Grown { end: Offset(6) }));
        assert_eq!(watchers.len(), 0);
    }

    #[test]
    fn a_satisfied_watch_is_ready_at_once_and_a_dropped_one_leaves_nothing() {
        let (watchers, end, shard, woken) = setup();
        let mut ready = Watch::new(watchers.clone(), end.clone(), shard, Offset(2));
        assert_eq!(poll(&mut ready, &woken), Poll::Ready(Watched::Grown { end: Offset(3) }));
        let mut cancelled = Watch::new(watchers.clone(), end.clone(), shard, Offset(3));
        assert_eq!(poll(&mut cancelled, &woken), Poll::Pending);
        drop(cancelled);
        assert_eq!(watchers.len(), 0);
    }

    #[test]
    fn dropping_the_shard_ends_every_watch() {
        let (watchers, end, shard, woken) = setup();
        let mut watch = Watch::new(watchers.clone(), end.clone(), shard, Offset(100));
        assert_eq!(poll(&mut watch, &woken), Poll::Pending);
        end.0.store(u64::MAX, Ordering::SeqCst);
        watchers.wake(&[shard], &*end);
        assert_eq!(poll(&mut watch, &woken), Poll::Ready(Watched::Dropped));
    }
}
