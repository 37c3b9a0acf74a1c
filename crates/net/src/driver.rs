//! The connection driver: one task per connection that moves bytes between a socket and a [`Session`].
//! Hot path.
//!
//! An idle connection holds no buffer: reading borrows the core's scratch buffer ([`CoreIo`]), and only the
//! beginning of a packet whose rest has not come yet is kept with the connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::Sleep;

use crate::io::Io;
use crate::leave::{Leave, Leaver};
use crate::mailbox::Mailbox;
use crate::output::Output;
use crate::pressure::Pressure;
use crate::session::{Closed, Session, Turn};

/// Bytes that one read takes at most: enough to batch, small enough that no connection starves the others.
const READ_MAX: usize = 256 * 1024;
/// Events handled in one turn before the output is written.
const EVENTS_PER_TURN: usize = 256;
/// How often a core measures how long its rounds take.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// A measurement that has not come to an end after this was lost with its task.
const PROBE_REST: Duration = Duration::from_secs(60);
/// How long a closing connection may take to accept what is left for it.
const LINGER: Duration = Duration::from_secs(5);

/// What the connections of one core share: the scratch buffers that each read borrows, and how they hear that the broker
/// goes down.
#[derive(Clone, Default)]
pub struct CoreIo {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    scratch: RefCell<BytesMut>,
    /// For what a layer reads and does not hand on as it is.
    sealed: Scratch,
    probe: Option<Rc<Probe>>,
    leave: Rc<Leave>,
}

/// Measures now and then, while the core is busy, how long a round of its work takes.
struct Probe {
    pressure: Arc<Pressure>,
    /// Before this nothing is measured.
    next: Cell<Instant>,
}

/// A buffer that is lent for the time of a call.
pub(crate) type Scratch = Rc<RefCell<BytesMut>>;

impl CoreIo {
    /// One per core.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a core that tells the node how long its rounds take.
    pub fn watched(pressure: Arc<Pressure>) -> Self {
        let next = Cell::new(Instant::now());
        let probe = Some(Rc::new(Probe { pressure, next }));
        Self { shared: Rc::new(Shared { probe, ..Shared::default() }) }
    }

    /// What a layer may read into.
    pub(crate) fn sealed(&self) -> &Scratch {
        &self.shared.sealed
    }

    /// The broker goes down: the core's connections are told so ([`Session::handle_shutdown`]) and end, and so does any that
    /// comes later.
    pub fn leave(&self) {
        self.shared.leave.begin();
    }

    /// A connection was read from at `now`. To be called on the core's `LocalSet`.
    #[inline]
    fn note_busy(&self, now: Instant) {
        if let Some(probe) = &self.shared.probe
            && now >= probe.next.get()
        {
            probe.measure(now);
        }
    }

    fn take(&self) -> BytesMut {
        let mut scratch = std::mem::take(&mut *self.shared.scratch.borrow_mut());
        scratch.reserve(READ_MAX);
        scratch
    }

    fn give_back(&self, scratch: BytesMut) {
        *self.shared.scratch.borrow_mut() = scratch;
    }
}

impl Probe {
    /// What is spawned now runs when everything that is ready has had its turn.
    #[cold]
    fn measure(self: &Rc<Self>, now: Instant) {
        let probe = Rc::clone(self);
        // One at a time: the next one comes after this one has run.
        probe.next.set(now + PROBE_REST);
        tokio::task::spawn_local(async move {
            let ended = tokio::time::Instant::now().into_std();
            probe.pressure.note_delay(ended.saturating_duration_since(now), ended);
            probe.next.set(ended + PROBE_INTERVAL);
        });
    }
}

/// Runs one connection to its end, or until the core leaves ([`CoreIo::leave`]). `held` is what has to live as long as the
/// connection, also if that panics, such as what counts it.
///
/// Cancel-safe in the sense that dropping the future closes the socket; [`Session::handle_closed`] is then not
/// called, so a core only drops it when it drops everything.
pub fn drive<S: Session, I: Io>(
    io: I,
    core: CoreIo,
    session: S,
    mailbox: Mailbox<S::Event>,
    held: impl Sized + 'static,
) -> impl Future<Output = ()> {
    // Built out here: an async function keeps room for its arguments beside what it makes of them, and this future is
    // most of what an idle connection costs.
    let mut connection = Connection {
        io,
        leaver: Leaver::new(&core.shared.leave),
        core,
        session,
        mailbox,
        partial: BytesMut::new(),
        output: Output::new(),
        closing: false,
        timer: Timer::default(),
        write_blocked: false,
        is_held_up: false,
    };
    async move {
        // Named so that it is captured, and not moved: it goes when all of this goes.
        let _ = &held;
        let closed = connection.run().await;
        connection.mailbox.close();
        if closed == Closed::BySession || closed == Closed::Shutdown {
            connection.linger().await;
        }
        connection.session.handle_closed(closed);
    }
}

/// What a connection woke up for.
#[derive(Clone, Copy, Default)]
struct Ready {
    read: bool,
    write: bool,
    events: bool,
    deadline: bool,
    shutdown: bool,
    broken: bool,
}

impl Ready {
    fn any(self) -> bool {
        self.read || self.write || self.events || self.deadline || self.shutdown || self.broken
    }
}

struct Connection<S: Session, I: Io> {
    io: I,
    core: CoreIo,
    session: S,
    mailbox: Mailbox<S::Event>,
    /// The beginning of a packet whose rest has not come yet.
    partial: BytesMut,
    output: Output,
    closing: bool,
    timer: Timer,
    /// The socket took less than we had; wait for it.
    write_blocked: bool,
    /// The session stopped wanting input in the middle of `partial`.
    is_held_up: bool,
    leaver: Leaver,
}

impl<S: Session, I: Io> Connection<S, I> {
    /// Moves bytes, events and time until the connection is over; answers why.
    async fn run(&mut self) -> Closed {
        loop {
            let ready = poll_fn(|cx| self.poll_ready(cx)).await;
            if let Some(closed) = self.turn(ready) {
                return closed;
            }
            if ready.read {
                // Lets the other connections of this core have their turn, and the batches that this turn
                // filled be sent on.
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Ready> {
        if self.leaver.poll(cx) {
            return Poll::Ready(Ready { shutdown: true, ..Ready::default() });
        }
        let mut ready = Ready { events: self.mailbox.poll_ready(cx), ..Ready::default() };
        if self.session.wants_input() {
            // Output that drained made room for input which is here already: nothing else would wake us.
            ready.events |= self.is_held_up;
            match self.io.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => ready.read = true,
                Poll::Ready(Err(_)) => ready.broken = true,
                Poll::Pending => {}
            }
        }
        if self.write_blocked {
            match self.io.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => ready.write = true,
                Poll::Ready(Err(_)) => ready.broken = true,
                Poll::Pending => {}
            }
        }
        ready.deadline = self.timer.poll(self.session.deadline(), cx);
        if ready.any() { Poll::Ready(ready) } else { Poll::Pending }
    }

    /// Handles everything that is ready, then writes once. Answers why the connection ended, if it did.
    fn turn(&mut self, ready: Ready) -> Option<Closed> {
        if ready.broken {
            return Some(Closed::Broken);
        }
        let now = tokio::time::Instant::now().into_std();
        if ready.shutdown {
            let mut turn = Turn { now, output: &mut self.output, closing: &mut self.closing };
            self.session.handle_shutdown(&mut turn);
            return Some(Closed::Shutdown);
        }
        if ready.events {
            self.handle_events(now);
        }
        if self.is_held_up && !self.closing && self.session.wants_input() {
            let mut buffer = std::mem::take(&mut self.partial);
            self.hand_over(&mut buffer, now);
            self.partial = buffer;
        }
        if ready.read && !self.closing && !self.is_held_up {
            self.core.note_busy(now);
            match self.read(now) {
                Ok(()) => {}
                Err(closed) => {
                    let _ = self.write(now);
                    return Some(closed);
                }
            }
        }
        // After the input, which may be what it was waited for.
        if ready.deadline && !self.closing && self.session.deadline().is_some_and(|deadline| deadline <= now)
        {
            let mut turn = Turn { now, output: &mut self.output, closing: &mut self.closing };
            self.session.handle_deadline(&mut turn);
        }
        if self.write(now).is_err() {
            return Some(Closed::Broken);
        }
        self.closing.then_some(Closed::BySession)
    }

    fn handle_events(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_TURN {
            if self.closing {
                return;
            }
            let Some(event) = self.mailbox.take() else { return };
            let mut turn = Turn { now, output: &mut self.output, closing: &mut self.closing };
            self.session.handle_event(event, &mut turn);
        }
    }

    fn read(&mut self, now: Instant) -> Result<(), Closed> {
        let borrowed = self.partial.is_empty();
        let mut buffer = if borrowed { self.core.take() } else { std::mem::take(&mut self.partial) };
        if !borrowed {
            // A large packet is on its way: read towards its end, growing with what has come.
            buffer.reserve(buffer.len().clamp(4096, READ_MAX));
        }
        let result = match self.io.try_read(&mut buffer) {
            Ok(0) => Err(Closed::ByPeer),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Closed::Broken),
        };
        if result.is_ok() {
            self.hand_over(&mut buffer, now);
        }
        if borrowed {
            if !buffer.is_empty() && result.is_ok() {
                self.partial = BytesMut::from(&buffer[..]);
            }
            buffer.clear();
            self.core.give_back(buffer);
        } else if !buffer.is_empty() {
            self.partial = buffer;
        }
        result
    }

    fn hand_over(&mut self, buffer: &mut BytesMut, now: Instant) {
        if !buffer.is_empty() {
            let mut turn = Turn { now, output: &mut self.output, closing: &mut self.closing };
            self.session.handle_input(buffer, &mut turn);
        }
        self.is_held_up = !buffer.is_empty() && !self.session.wants_input();
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        self.write_blocked = false;
        while !self.output.is_empty() {
            let mut slices = Vec::with_capacity(8);
            self.output.slices(&mut slices);
            match self.io.try_write(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    drop(slices);
                    if self.output.advance(written) && !self.closing {
                        let mut turn = Turn { now, output: &mut self.output, closing: &mut self.closing };
                        self.session.handle_drained(&mut turn);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.release();
        match self.io.try_flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_blocked = true;
                Ok(())
            }
            result => result,
        }
    }

    /// Writes what is left before the connection is closed, then the stream's farewell, for a bounded time.
    async fn linger(&mut self) {
        let deadline = tokio::time::Instant::now() + LINGER;
        self.closing = true;
        let mut finished = false;
        loop {
            let now = tokio::time::Instant::now().into_std();
            if self.write(now).is_err() {
                return;
            }
            if self.write_blocked {
                let writable = poll_fn(|cx| self.io.poll_write_ready(cx));
                // Boxed: an idle connection shall not keep room for it.
                let writable = Box::pin(tokio::time::timeout_at(deadline, writable));
                if !matches!(writable.await, Ok(Ok(()))) {
                    return;
                }
            } else if finished {
                return;
            } else {
                self.io.finish();
                finished = true;
            }
        }
    }
}

/// A deadline on the core's timer wheel that is only re-armed when it fires or moves to the front.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Whether `deadline` has come; if not, the task is woken when it does.
    fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = deadline.map(tokio::time::Instant::from_std) else {
            self.sleep = None;
            return false;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            if sleep.deadline() >= deadline {
                // Fired for real. The session names its next deadline before we are polled again.
                let elapsed = sleep.deadline() >= deadline;
                self.sleep = None;
                return elapsed;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::IoSlice;
    use std::task::Waker;

    use super::*;

    /// Bytes that have arrived, each read by itself.
    #[derive(Clone, Default)]
    struct Arrived(Rc<RefCell<VecDeque<&'static [u8]>>>);

    impl Io for Arrived {
        fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.0.borrow().is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
            let bytes = self.0.borrow_mut().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            buffer.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn poll_write_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }
    }

    /// Closes when it has heard nothing for so long.
    struct Listener {
        heard: Instant,
        closed: Rc<Cell<Option<Closed>>>,
    }

    const SILENCE_MAX: Duration = Duration::from_secs(3);

    impl Session for Listener {
        type Event = ();

        fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
            input.clear();
            self.heard = turn.now;
        }

        fn handle_event(&mut self, (): (), _: &mut Turn<'_>) {}

        fn handle_deadline(&mut self, turn: &mut Turn<'_>) {
            turn.close();
        }

        fn handle_drained(&mut self, _: &mut Turn<'_>) {}

        fn handle_closed(&mut self, closed: Closed) {
            self.closed.set(Some(closed));
        }

        fn deadline(&self) -> Option<Instant> {
            Some(self.heard + SILENCE_MAX)
        }

        fn wants_input(&self) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_is_heard_before_silence_is_judged() {
        let (arrived, closed) = (Arrived::default(), Rc::new(Cell::new(None)));
        let heard = tokio::time::Instant::now().into_std();
        let listener = Listener { heard, closed: Rc::clone(&closed) };
        let connection = drive(arrived.clone(), CoreIo::new(), listener, Mailbox::new(), ());
        let mut connection = std::pin::pin!(connection);
        let mut context = Context::from_waker(Waker::noop());
        assert!(connection.as_mut().poll(&mut context).is_pending());
        // The core stands still for longer than a client may be silent, and the client is not.
        arrived.0.borrow_mut().push_back(b"here");
        tokio::time::advance(SILENCE_MAX + SILENCE_MAX / 2).await;
        for _ in 0..4 {
            assert!(connection.as_mut().poll(&mut context).is_pending(), "it was heard");
        }
        connection.await;
        assert_eq!(closed.get(), Some(Closed::BySession), "and now it is silent");
    }
}
