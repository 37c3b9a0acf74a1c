//! [`Arrivals`]: connections that were accepted and have not got to the point yet: they shake hands, or their first packet is
//! not complete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// How long an arrival is left alone while others wait for its place.
const GRACE: Duration = Duration::from_secs(3);

/// The arrivals of one listener on one core. Clones are the same.
///
/// As long as there are as many as may be, nobody else is accepted: who comes then waits in the kernel's queue. Only if
/// the oldest arrival has had its time is it turned away for the next one. So a rush of honest clients is slowed and not
/// refused, and clients that never say anything keep others out for seconds at most.
#[derive(Clone)]
pub struct Arrivals {
    hall: Rc<RefCell<Hall>>,
}

struct Hall {
    most: usize,
    next: u64,
    /// Bound: `most`. The oldest is the first.
    spots: BTreeMap<u64, Rc<Spot>>,
    /// Who waits for a place: the listener's acceptor.
    acceptor: Option<Waker>,
}

struct Spot {
    since: Instant,
    turned_away: Cell<bool>,
    /// Called when it is turned away.
    tell: RefCell<Option<Box<dyn FnOnce()>>>,
}

/// One arrival. It has a place until this is dropped.
pub struct Arrival {
    hall: Rc<RefCell<Hall>>,
    number: u64,
    spot: Rc<Spot>,
}

impl Arrivals {
    /// With room for `most`, at least one.
    pub fn new(most: usize) -> Self {
        let hall = Hall { most: most.max(1), next: 0, spots: BTreeMap::new(), acceptor: None };
        Self { hall: Rc::new(RefCell::new(hall)) }
    }

    /// Returns when there is room for one more. For one task, the acceptor.
    pub async fn room(&self) {
        loop {
            let oldest = {
                let hall = self.hall.borrow();
                if hall.spots.len() < hall.most {
                    return;
                }
                hall.spots.first_key_value().map(|(number, spot)| (*number, spot.since + GRACE))
            };
            let Some((number, due)) = oldest else { return };
            if due <= Instant::now() {
                self.turn_away(number);
                return;
            }
            let has_room = poll_fn(|cx| {
                let mut hall = self.hall.borrow_mut();
                if hall.spots.len() < hall.most {
                    return Poll::Ready(());
                }
                hall.acceptor = Some(cx.waker().clone());
                Poll::Pending
            });
            // Either way it is looked at again.
            let _ = tokio::time::timeout_at(due, has_room).await;
        }
    }

    /// Takes a place; the caller has waited for room.
    pub fn enter(&self) -> Arrival {
        let mut hall = self.hall.borrow_mut();
        let number = hall.next;
        hall.next += 1;
        let spot =
            Rc::new(Spot { since: Instant::now(), turned_away: Cell::new(false), tell: RefCell::new(None) });
        hall.spots.insert(number, Rc::clone(&spot));
        Arrival { hall: Rc::clone(&self.hall), number, spot }
    }

    fn turn_away(&self, number: u64) {
        let removed = self.hall.borrow_mut().spots.remove(&number);
        if let Some(spot) = removed {
            spot.turned_away.set(true);
            let tell = spot.tell.take();
            if let Some(tell) = tell {
                tell();
            }
        }
    }
}

impl Arrival {
    /// Has `tell` called when this is turned away; replaces what was to be called before.
    pub fn when_turned_away(&self, tell: impl FnOnce() + 'static) {
        *self.spot.tell.borrow_mut() = Some(Box::new(tell));
    }

    /// Resolves when this is turned away.
    pub async fn turned_away(&self) {
        poll_fn(|cx| {
            if self.spot.turned_away.get() {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            self.when_turned_away(move || waker.wake());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let acceptor = {
            let mut hall = self.hall.borrow_mut();
            hall.spots.remove(&self.number);
            hall.acceptor.take()
        };
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    async fn waits(future: impl Future<Output = ()>, time: Duration) -> bool {
        tokio::time::timeout(time, future).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rush_waits_and_nobody_in_time_is_turned_away() {
        let arrivals = Arrivals::new(2);
        arrivals.room().await;
        let first = arrivals.enter();
        arrivals.room().await;
        let second = arrivals.enter();
        let mut room = pin!(arrivals.room());
        assert!(waits(room.as_mut(), GRACE / 2).await);
        drop(second);
        room.await;
        assert!(!first.spot.turned_away.get());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_first_once_it_had_its_time() {
        let arrivals = Arrivals::new(2);
        let first = arrivals.enter();
        tokio::time::advance(GRACE / 2).await;
        let second = arrivals.enter();
        let mut away = Box::pin(first.turned_away());
        assert!(waits(&mut away, Duration::ZERO).await);
        let start = Instant::now();
        arrivals.room().await;
        assert_eq!(start.elapsed(), GRACE - GRACE / 2);
        (&mut away).await;
        drop(away);
        assert!(!second.spot.turned_away.get());
        // It holds no place any more, however long it takes to go.
        let third = arrivals.enter();
        drop(first);
        assert!(waits(arrivals.room(), Duration::ZERO).await);
        drop((second, third));
        assert!(arrivals.hall.borrow().spots.is_empty());
    }
}
