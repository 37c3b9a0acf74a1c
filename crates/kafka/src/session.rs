//! One connection: frames in, answers out in the order of the requests. Hot path.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use broker::Broker;
use bytes::{Bytes, BytesMut};
use net::{Closed, Mailbox, Peer, Turn};
use tokio::task::AbortHandle;
use tracing::debug;
use wire::kafka::{
    Framing, Limits, Output, ReplyHeader, Request, RequestHeader, Response, decode_request, encode_response,
    split_request_frame,
};

use crate::context::Context;
use crate::handlers::{self, Handled};
use crate::metrics::Metrics;
use crate::pipeline::{Lane, Pipeline};

/// A frame of this size or less is copied out of the read buffer, so that what is kept of it does not keep the
/// whole buffer in memory.
const COPY_MAX: usize = 64 * 1024;
/// Room that is made at once for the rest of a frame that is on its way.
const RESERVE_MAX: usize = 4 << 20;

/// A request is answered.
pub struct Event {
    number: u64,
    answer: Answer,
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// These bytes, in order.
    Bytes(Vec<Bytes>),
    /// Nothing: the client does not wait for an answer. Spec: P24.
    Silent,
    /// The connection cannot go on.
    Close,
}

/// A request that is understood.
struct Parked {
    header: RequestHeader,
    request: Request,
}

/// The Kafka protocol on one connection. Made by [`crate::Front::session`].
pub struct Session<B> {
    context: Rc<Context<B>>,
    mailbox: Mailbox<Event>,
    limits: Limits,
    pipeline: Pipeline<Parked, Answer>,
    /// Requests that wait, to be dropped with the connection. Bound: that of the pipeline.
    waiting: Vec<(u64, AbortHandle)>,
    /// The peer takes its answers more slowly than we make them.
    output_full: bool,
    /// The last call left a part of a frame in the input.
    has_partial: bool,
    /// When something was last received or answered, or the connection was made.
    last_active: Instant,
}

impl<B: Broker> Session<B> {
    pub(crate) fn new(context: Rc<Context<B>>, mailbox: Mailbox<Event>) -> Self {
        Metrics::add(&context.front.metrics.connections_opened, 1);
        let limits = Limits { data_frame_max: context.config().request_bytes_max, ..Limits::default() };
        Self {
            context,
            mailbox,
            limits,
            pipeline: Pipeline::new(),
            waiting: Vec::new(),
            output_full: false,
            has_partial: false,
            last_active: tokio::time::Instant::now().into_std(),
        }
    }

    /// Where the client is told to come back to.
    pub fn advertised(&self) -> (&str, i32) {
        (&self.context.host, self.context.port)
    }

    /// Who is connected.
    pub fn peer(&self) -> &Peer {
        &self.context.peer
    }

    fn handle_frame(&mut self, frame: Bytes, turn: &mut Turn<'_>) {
        let size = frame.len();
        match decode_request(&frame, &self.limits) {
            Ok((header, request)) if handlers::is_advertised(&header, &request) => {
                Metrics::add(&self.context.front.metrics.requests, 1);
                self.pipeline.push(Parked { header, request }, size);
            }
            Ok((header, _)) => {
                debug!(conn = %self.context.peer, api = ?header.api, version = header.version, "version not offered");
                self.refuse(turn);
            }
            Err(error) => {
                debug!(conn = %self.context.peer, err = %error, "request refused");
                self.refuse(turn);
            }
        }
    }

    fn refuse(&self, turn: &mut Turn<'_>) {
        Metrics::add(&self.context.front.metrics.refused, 1);
        turn.close();
    }

    /// Starts what may start and sends what is answered, in order.
    fn advance(&mut self, turn: &mut Turn<'_>) {
        loop {
            let mut has_started = false;
            while !self.output_full
                && let Some((number, lane, parked)) = self.next()
            {
                has_started = true;
                self.run(number, lane, parked);
            }
            while let Some(answer) = self.pipeline.pop() {
                self.last_active = turn.now;
                match answer {
                    Answer::Bytes(chunks) => chunks.into_iter().for_each(|chunk| turn.output.push(chunk)),
                    Answer::Silent => {}
                    Answer::Close => return turn.close(),
                }
                self.output_full = turn.output.is_full();
            }
            if !has_started {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<(u64, Lane, Parked)> {
        let mut lane = Lane::Alone;
        let context = &self.context;
        let (number, parked) = self.pipeline.start(|parked: &Parked| {
            lane = handlers::lane(context, &parked.request);
            lane
        })?;
        Some((number, lane, parked))
    }

    /// Begins a request at once, which decides the order of appends; what does not end at once becomes a task of this core.
    fn run(&mut self, number: u64, lane: Lane, parked: Parked) {
        let context = Rc::clone(&self.context);
        let mut work: Pin<Box<dyn Future<Output = Answer>>> = Box::pin(async move {
            let reply = parked.header.reply();
            answer(reply, handlers::handle(&context, &parked.header, parked.request).await)
        });
        let mut unheard = std::task::Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = work.as_mut().poll(&mut unheard) {
            return self.pipeline.finish(number, answer);
        }
        let mut promise = Promise { mailbox: self.mailbox.clone(), number, is_kept: false };
        let task = tokio::task::spawn_local(async move {
            let answer = work.await;
            promise.keep(answer);
        });
        if lane == Lane::Wait {
            self.waiting.push((number, task.abort_handle()));
        }
    }
}

impl<B: Broker> net::Session for Session<B> {
    type Event = Event;

    fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        self.last_active = turn.now;
        if !self.context.is_let_in() {
            return self.refuse(turn);
        }
        let had_partial = std::mem::take(&mut self.has_partial);
        while self.wants_input() {
            let capacity = input.capacity();
            match split_request_frame(input, &self.limits) {
                Ok(Framing::Frame(frame)) => {
                    let is_wasteful = frame.len() <= COPY_MAX && frame.len() < capacity / 2;
                    let frame = if is_wasteful { Bytes::copy_from_slice(&frame) } else { frame };
                    self.handle_frame(frame, turn);
                }
                Ok(Framing::Incomplete(needed)) => {
                    self.has_partial = !input.is_empty();
                    // The buffer is this connection's own only if it held a part of a frame already.
                    if had_partial {
                        input.reserve(needed.saturating_sub(input.len()).min(RESERVE_MAX));
                    }
                    break;
                }
                Err(error) => {
                    debug!(conn = %self.context.peer, err = %error, "frame refused");
                    self.refuse(turn);
                }
            }
            if turn.is_closing() {
                return;
            }
            self.advance(turn);
            if turn.is_closing() {
                return;
            }
        }
        self.has_partial = !input.is_empty();
    }

    fn handle_event(&mut self, event: Event, turn: &mut Turn<'_>) {
        self.waiting.retain(|(number, _)| *number != event.number);
        self.pipeline.finish(event.number, event.answer);
        self.advance(turn);
    }

    fn handle_deadline(&mut self, turn: &mut Turn<'_>) {
        if self.deadline().is_some_and(|deadline| deadline <= turn.now) {
            debug!(conn = %self.context.peer, "idle connection closed");
            turn.close();
        }
    }

    fn handle_drained(&mut self, turn: &mut Turn<'_>) {
        self.output_full = false;
        self.advance(turn);
    }

    fn handle_closed(&mut self, closed: Closed) {
        Metrics::add(&self.context.front.metrics.connections_closed, 1);
        for (_, task) in self.waiting.drain(..) {
            task.abort();
        }
        match closed {
            Closed::ByPeer | Closed::Broken => self.finish_appends(),
            Closed::BySession | Closed::Shutdown => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        // A request under way is not idleness.
        self.pipeline.is_empty().then(|| self.last_active + self.context.config().idle_max)
    }

    fn wants_input(&self) -> bool {
        !self.output_full && !self.pipeline.is_full(self.context.config().in_flight_bytes_max)
    }
}

impl<B: Broker> Session<B> {
    /// The peer sent records and left: they are appended all the same, as it does not wait to hear so.
    fn finish_appends(&mut self) {
        let mut parked = Vec::new();
        while let Some((_, request)) = self.pipeline.start_any() {
            if matches!(request.request, Request::Produce(_)) {
                parked.push(request);
            }
        }
        if parked.is_empty() {
            return;
        }
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            for Parked { header, request } in parked {
                handlers::handle(&context, &header, request).await;
            }
        });
    }
}

fn answer(reply: ReplyHeader, handled: Handled) -> Answer {
    match handled {
        Handled::Response(response) => encode(reply, &response),
        Handled::Silent => Answer::Silent,
        Handled::Close => Answer::Close,
    }
}

fn encode(reply: ReplyHeader, response: &Response) -> Answer {
    let mut output = Output::new();
    match encode_response(reply, response, &mut output) {
        Ok(()) => Answer::Bytes(output.take_chunks()),
        Err(error) => {
            tracing::error!(api = ?response.api(), version = reply.version, err = %error, "response cannot be encoded");
            Answer::Close
        }
    }
}

/// A task that ends without an answer (it panicked) must not leave its connection waiting.
struct Promise {
    mailbox: Mailbox<Event>,
    number: u64,
    is_kept: bool,
}

impl Promise {
    fn keep(&mut self, answer: Answer) {
        self.is_kept = true;
        self.mailbox.post(Event { number: self.number, answer });
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_kept {
            self.mailbox.post(Event { number: self.number, answer: Answer::Close });
        }
    }
}
