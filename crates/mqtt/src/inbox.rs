//! What is told to a connection from elsewhere, and what becomes of it when the connection is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use broker::{Delivery, Keep, Published, SessionLease, SharedDelivery, Sink, TakeOver};
use bytes::Bytes;
use model::ErrorKind;
use net::Mailbox;
use wire::mqtt::ReasonCode;

use crate::exclusive::Grant;
use crate::handlers::connect::Claimed;
use crate::outgoing::{Loaded, RetainedPage};

/// Something that a connection is told through its mailbox. Opaque: only this crate makes and reads them.
pub struct Event(pub(crate) Told);

/// What is told.
pub(crate) enum Told {
    /// Publications are decided.
    Decided(Published),
    /// Records for a subscriber that keeps up.
    Delivery(Delivery),
    /// Records of a shared subscription.
    Shared(SharedDelivery),
    /// Another connection wants the session; its request waits in the inbox.
    TakenOver,
    /// CONNECT can be answered.
    Claimed(Box<Result<Claimed, ReasonCode>>),
    /// Users, permissions or bans have changed.
    RightsChanged,
    /// The session's state is durable.
    Saved(Result<(), ErrorKind>),
    /// The rows of packet identifiers are gone.
    Released(Result<(), ErrorKind>),
    /// What `catch_up` waited for is there.
    CaughtUp,
    /// Retained messages for a new subscription.
    Retained(Box<RetainedPage>),
    /// Rows of exclusive subscriptions were asked for.
    Exclusive(Result<Grant, ErrorKind>),
    /// It took too long to say CONNECT, and others wait for its place.
    TurnedAway,
    /// Records to be sent again to a session that came back.
    Loaded(Result<Vec<Loaded>, ErrorKind>),
}

/// The sink of one connection. It outlives the connection where publications of it are still undecided.
pub(crate) struct Inbox {
    mailbox: Mailbox<Event>,
    /// Tickets decided so far, whether or not the connection has heard of them.
    decided: Cell<u64>,
    take_over: RefCell<Option<TakeOver>>,
    departing: RefCell<Option<Box<Departing>>>,
    closed: Cell<bool>,
}

/// A session whose connection is gone, and whose publications are not all decided: a client that comes back must find
/// the packet identifiers of those that were stored.
struct Departing {
    /// Tickets to be decided before the session is given up.
    pushed: u64,
    farewell: Farewell,
}

/// How a session is given up.
pub(crate) struct Farewell {
    pub(crate) lease: SessionLease,
    /// None: nothing is kept.
    pub(crate) state: Option<Bytes>,
    pub(crate) keep: Keep,
}

impl Inbox {
    pub(crate) fn new(mailbox: Mailbox<Event>) -> Rc<Self> {
        Rc::new(Self {
            mailbox,
            decided: Cell::new(0),
            take_over: RefCell::new(None),
            departing: RefCell::new(None),
            closed: Cell::new(false),
        })
    }

    /// Tells the connection something; lost if it is gone.
    pub(crate) fn post(&self, told: Told) {
        self.mailbox.post(Event(told));
    }

    /// Whether the connection has heard everything that it was told.
    pub(crate) fn is_drained(&self) -> bool {
        self.mailbox.is_drained()
    }

    /// The connection is gone.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether another connection waits for the session.
    pub(crate) fn is_wanted(&self) -> bool {
        self.take_over.borrow().is_some()
    }

    /// Gives the session up once `pushed` tickets are decided: at once if they are.
    pub(crate) fn depart(&self, pushed: u64, farewell: Farewell) {
        if self.decided.get() >= pushed {
            self.give_up(farewell);
        } else {
            *self.departing.borrow_mut() = Some(Box::new(Departing { pushed, farewell }));
        }
    }

    fn give_up(&self, farewell: Farewell) {
        match self.take_over.borrow_mut().take() {
            Some(take_over) => farewell.lease.hand_over(take_over, farewell.state),
            None => farewell.lease.release(farewell.state, farewell.keep),
        }
    }

    /// The last undecided publication of a connection that is gone may have been decided.
    fn check_departing(self: &Rc<Self>) {
        let is_due =
            self.departing.borrow().as_ref().is_some_and(|departing| self.decided.get() >= departing.pushed);
        if is_due && let Some(departing) = self.departing.borrow_mut().take() {
            let inbox = Rc::clone(self);
            // The broker is in the middle of telling: it must not be called from here.
            tokio::task::spawn_local(async move { inbox.give_up(departing.farewell) });
        }
    }
}

/// The sink as the broker holds it.
pub(crate) struct InboxSink(pub(crate) Rc<Inbox>);

impl Sink for InboxSink {
    fn tell(&self, event: broker::Event) {
        let inbox = &self.0;
        match event {
            broker::Event::Published(published) => {
                let count = published.tickets.end.saturating_sub(published.tickets.start);
                inbox.decided.set(inbox.decided.get() + count);
                inbox.post(Told::Decided(published));
                inbox.check_departing();
            }
            broker::Event::Delivery(delivery) => inbox.post(Told::Delivery(delivery)),
            broker::Event::Shared(shared) => inbox.post(Told::Shared(shared)),
            broker::Event::TakeOver(take_over) => {
                *inbox.take_over.borrow_mut() = Some(take_over);
                inbox.post(Told::TakenOver);
            }
        }
    }
}

/// A sink of nobody: for what the broker publishes in place of a client that is gone.
pub(crate) struct Nobody;

impl Sink for Nobody {
    fn tell(&self, _event: broker::Event) {}
}
