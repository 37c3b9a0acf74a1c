//! A sink that keeps what it is told until the test asks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use broker::{Delivery, Event, Published, SharedDelivery, Sink, TakeOver};
use tokio::sync::Notify;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events of one connection. Clones are the same inbox.
#[derive(Clone, Default)]
pub struct Inbox {
    events: Rc<RefCell<VecDeque<Event>>>,
    arrived: Rc<Notify>,
}

impl Sink for Inbox {
    fn tell(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        self.arrived.notify_one();
    }
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Inbox {
        Inbox::default()
    }

    /// As the broker wants it.
    pub fn sink(&self) -> Rc<dyn Sink> {
        Rc::new(self.clone())
    }

    /// The next event. Panics if none comes in time.
    pub async fn next(&self) -> Event {
        let wait = async {
            loop {
                if let Some(event) = self.events.borrow_mut().pop_front() {
                    return event;
                }
                self.arrived.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("an event comes in time")
    }

    /// The next event, if one waits.
    pub fn try_next(&self) -> Option<Event> {
        self.events.borrow_mut().pop_front()
    }

    /// The next event, which must be a delivery.
    pub async fn delivery(&self) -> Delivery {
        match self.next().await {
            Event::Delivery(delivery) => delivery,
            _ => panic!("a delivery was expected"),
        }
    }

    /// The next event, which must be a decision about messages.
    pub async fn published(&self) -> Published {
        match self.next().await {
            Event::Published(published) => published,
            _ => panic!("a decision was expected"),
        }
    }

    /// The next event, which must be records of a share.
    pub async fn shared(&self) -> SharedDelivery {
        match self.next().await {
            Event::Shared(shared) => shared,
            _ => panic!("records of a share were expected"),
        }
    }

    /// The next event, which must be a claim by somebody else.
    pub async fn take_over(&self) -> TakeOver {
        match self.next().await {
            Event::TakeOver(take_over) => take_over,
            _ => panic!("a take-over was expected"),
        }
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.events.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
