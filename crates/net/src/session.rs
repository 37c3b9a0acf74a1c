//! The seam between a protocol front and the network: [`Session`].

use std::time::Instant;

use bytes::BytesMut;

use crate::output::Output;

/// One connection's protocol state machine, without any I/O.
///
/// The driver ([`crate::drive`]) owns the socket. It calls exactly one method at a time, always on the core
/// that accepted the connection, so that a session needs no locks and may hold `Rc`s.
///
/// ```text
///   socket --bytes--> handle_input ----\
///   mailbox --events-> handle_event ----> Turn.output --bytes--> socket
///   wheel --time-----> handle_deadline -/
/// ```
///
/// Rules for implementers:
///
/// - No method blocks or waits. What takes time is spawned on the core; its result comes back through the
///   session's own [`crate::Mailbox`] as an `Event`.
/// - Output is written in the order in which it was left in the [`Output`], in as few writes as possible, after
///   the method returned. Nothing that was left there is lost unless the connection breaks.
/// - After [`Turn::close`] no more input or events are handed over; what is in the output is written (for at
///   most a few seconds), then the connection is closed and [`Session::handle_closed`] is called.
/// - [`Session::handle_closed`] is called exactly once, last, whatever ended the connection.
pub trait Session: 'static {
    /// What other parts of the broker tell this session: deliveries, completions, takeovers.
    type Event: 'static;

    /// Bytes arrived. The session takes whole packets from the front of `input` and leaves a partial packet
    /// where it is; it is called again with the same bytes and more behind them. Never called while
    /// [`Session::wants_input`] is false.
    ///
    /// Bound: a session refuses a packet from its header when it is larger than what it accepts, so that at most
    /// one maximum packet is ever buffered.
    fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>);

    /// One event from the mailbox, in the order in which they were posted.
    fn handle_event(&mut self, event: Self::Event, turn: &mut Turn<'_>);

    /// The moment that [`Session::deadline`] named has come (or passed).
    fn handle_deadline(&mut self, turn: &mut Turn<'_>);

    /// The output fell below its low mark after it had been above its high mark ([`Output::is_full`]).
    fn handle_drained(&mut self, turn: &mut Turn<'_>);

    /// The broker goes down: the last chance to say so. What is left in the output is written (for at most a few
    /// seconds), then the connection is closed.
    fn handle_shutdown(&mut self, turn: &mut Turn<'_>) {
        turn.close();
    }

    /// The connection is over. No output is possible any more.
    fn handle_closed(&mut self, closed: Closed);

    /// When [`Session::handle_deadline`] wants to be called next. Read after every other call; a deadline that
    /// only moved later costs nothing until the earlier one fires.
    fn deadline(&self) -> Option<Instant>;

    /// Whether the driver may read from the socket. False is how a front pushes back: the peer's window
    /// fills and it stops sending. Read after every call.
    fn wants_input(&self) -> bool;
}

/// What a session may do during one call.
pub struct Turn<'a> {
    /// Monotonic time at the start of this turn.
    pub now: Instant,
    /// Where bytes for the peer go.
    pub output: &'a mut Output,
    pub(crate) closing: &'a mut bool,
}

impl<'a> Turn<'a> {
    /// A turn outside the driver, for tests and simulations that call a session by hand. `closing` becomes true
    /// when the session asks to close.
    pub fn new(now: Instant, output: &'a mut Output, closing: &'a mut bool) -> Self {
        Self { now, output, closing }
    }

    /// Close the connection once the output is written.
    pub fn close(&mut self) {
        *self.closing = true;
    }

    /// Whether [`Turn::close`] was called.
    pub fn is_closing(&self) -> bool {
        *self.closing
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The session asked for it ([`Turn::close`]).
    BySession,
    /// The peer closed its side.
    ByPeer,
    /// Reading or writing failed.
    Broken,
    /// The broker is going down.
    Shutdown,
}
