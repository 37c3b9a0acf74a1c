//! The one way to say "stop".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A stop signal. Clones are handles of the same signal; once triggered it stays so.
///
/// Waiting is cancel-safe and never misses a trigger, whichever comes first.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    triggered: AtomicBool,
    notify: Notify,
    /// Triggered by its own trigger, or by any ancestor's.
    parent: Option<Shutdown>,
}

impl Shutdown {
    /// A signal that is not triggered.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// A signal that this one triggers too, and that can be triggered alone.
    pub fn child(&self) -> Shutdown {
        let inner = Inner { parent: Some(self.clone()), ..Inner::default() };
        Shutdown { inner: Arc::new(inner) }
    }

    /// Triggers it and wakes everybody who waits. Idempotent.
    pub fn trigger(&self) {
        self.inner.triggered.store(true, Ordering::SeqCst);
        self.inner.notify.notify_waiters();
    }

    /// Whether it has been triggered.
    pub fn is_triggered(&self) -> bool {
        self.inner.triggered.load(Ordering::SeqCst)
            || self.inner.parent.as_ref().is_some_and(Shutdown::is_triggered)
    }

    /// Returns once it has been triggered.
    pub async fn wait(&self) {
        match &self.inner.parent {
            None => self.wait_own().await,
            Some(parent) => {
                let parent = Box::pin(parent.wait());
                tokio::select! {
                    () = self.wait_own() => {}
                    () = parent => {}
                }
            }
        }
    }

    async fn wait_own(&self) {
        let notified = self.inner.notify.notified();
        // `notified` counts from its creation, so a trigger between here and the await is not missed.
        if self.inner.triggered.load(Ordering::SeqCst) {
            return;
        }
        notified.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_sees_a_trigger_before_and_after_it_waits() {
        let shutdown = Shutdown::new();
        let waiter = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        shutdown.trigger();
        waiter.await.unwrap();
        shutdown.wait().await;
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (alone, child) = (parent.child(), parent.child());
        alone.trigger();
        assert!(alone.is_triggered() && !parent.is_triggered() && !child.is_triggered());
        alone.wait().await;
        parent.trigger();
        child.wait().await;
        assert!(child.is_triggered());
    }
}
