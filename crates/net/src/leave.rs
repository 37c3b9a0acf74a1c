//! [`Leave`]: how a core tells all of its connections that the broker goes down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use slab::Slab;

/// Of one core. A signal that each connection waited for by itself would be most of what it waits with.
#[derive(Default)]
pub(crate) struct Leave {
    begun: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// One connection that is to hear of it.
pub(crate) struct Leaver {
    leave: Rc<Leave>,
    place: Option<usize>,
}

impl Leave {
    /// Wakes all that wait. Whoever asks later hears it at once.
    pub(crate) fn begin(&self) {
        self.begun.set(true);
        // They wake into the same core's queue: none of them runs before this returns.
        for (_, waker) in self.waiting.borrow().iter() {
            waker.wake_by_ref();
        }
    }
}

impl Leaver {
    pub(crate) fn new(leave: &Rc<Leave>) -> Self {
        Self { leave: Rc::clone(leave), place: None }
    }

    /// Whether it has begun; if not, the task is woken when it does. Always asked by the same task.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> bool {
        if self.leave.begun.get() {
            return true;
        }
        if self.place.is_none() {
            self.place = Some(self.leave.waiting.borrow_mut().insert(cx.waker().clone()));
        }
        false
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.leave.waiting.borrow_mut().remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn whoever_waits_and_whoever_comes_later_hears_it_and_who_is_gone_holds_no_place() {
        let leave = Rc::new(Leave::default());
        let cx = Context::from_waker(Waker::noop());
        let (mut first, mut gone) = (Leaver::new(&leave), Leaver::new(&leave));
        assert!(!first.poll(&cx) && !first.poll(&cx) && !gone.poll(&cx));
        assert_eq!(leave.waiting.borrow().len(), 2);
        drop(gone);
        assert_eq!(leave.waiting.borrow().len(), 1);
        leave.begin();
        assert!(first.poll(&cx) && Leaver::new(&leave).poll(&cx));
        drop(first);
        assert!(leave.waiting.borrow().is_empty());
    }
}
