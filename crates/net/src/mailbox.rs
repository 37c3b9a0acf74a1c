//! [`Mailbox`]: how the rest of a core tells a session something. Hot path.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

/// An empty queue with room for more events than this gives its memory back.
const KEEP_MAX: usize = 4;

/// A queue of events for one session, on one core. Cloning gives another handle to the same queue.
///
/// Posting wakes the connection's task once, however many events are posted before it runs. A closed mailbox
/// drops what is posted.
///
/// Bound: the mailbox itself has none; whoever posts bounds what it has outstanding (a window of publishes, one
/// delivery per committed batch, one answer per request).
pub struct Mailbox<E> {
    inner: Rc<RefCell<Inner<E>>>,
}

struct Inner<E> {
    events: VecDeque<E>,
    waker: Option<Waker>,
    closed: bool,
    /// An event was dropped.
    lost: bool,
}

impl<E> Clone for Mailbox<E> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<E> Default for Mailbox<E> {
    fn default() -> Self {
        let inner = Inner { events: VecDeque::new(), waker: None, closed: false, lost: false };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }
}

impl<E> Mailbox<E> {
    /// An empty mailbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues an event and wakes the session. Answers false when the connection is gone.
    pub fn post(&self, event: E) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.closed {
            inner.lost = true;
            return false;
        }
        if inner.events.capacity() == 0 {
            // Most connections have one event at a time.
            inner.events.reserve_exact(1);
        }
        inner.events.push_back(event);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.inner.borrow().events.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every event that was ever posted has been taken: none waits, and none was dropped when it was closed or later.
    pub fn is_drained(&self) -> bool {
        let inner = self.inner.borrow();
        inner.events.is_empty() && !inner.lost
    }

    /// Takes the oldest event. The driver does this; tests and simulations may.
    pub fn take(&self) -> Option<E> {
        let mut inner = self.inner.borrow_mut();
        let event = inner.events.pop_front();
        if inner.events.is_empty() && inner.events.capacity() > KEEP_MAX {
            inner.events = VecDeque::new();
        }
        event
    }

    /// Whether an event waits; if none does, the task is woken by the next one.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> bool {
        let mut inner = self.inner.borrow_mut();
        if !inner.events.is_empty() {
            return true;
        }
        match &inner.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => inner.waker = Some(cx.waker().clone()),
        }
        false
    }

    /// No event is accepted any more; those that wait are dropped.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut inner = self.inner.borrow_mut();
            inner.closed = true;
            inner.lost |= !inner.events.is_empty();
            inner.waker = None;
            std::mem::take(&mut inner.events)
        };
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_was_not_taken() {
        let mailbox = Mailbox::new();
        assert!(mailbox.is_drained());
        mailbox.post(1);
        assert!(!mailbox.is_drained());
        assert_eq!(mailbox.take(), Some(1));
        assert!(mailbox.is_drained());
        mailbox.close();
        assert!(mailbox.is_drained());
        assert!(!mailbox.post(2));
        assert!(!mailbox.is_drained());

        let mailbox = Mailbox::new();
        mailbox.post(1);
        mailbox.close();
        assert!(!mailbox.is_drained());
    }
}
