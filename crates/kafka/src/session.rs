//! One connection: frames in, answers out in the order of the requests. Hot path.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use broker::Broker;
use bytes::{Bytes, BytesMut};
use net::{Arrival, Closed, Mailbox, Peer, Turn};
use tokio::task::AbortHandle;
use tracing::{debug, info};
use wire::kafka::{
    ApiKey, FrameError, Framing, Limits, Output, ReplyHeader, Request, RequestHeader, Response,
    decode_request, encode_response, split_frame, split_request_frame,
};

use crate::context::Context;
use crate::handlers::{self, Handled};
use crate::login::{Failure, LOGIN_TIME_MAX, Standing, TOKEN_LEN_MAX, Taken};
use crate::metrics::Metrics;
use crate::pipeline::{Lane, Pipeline};

/// A frame of this size or less is copied out of the read buffer, so that what is kept of it does not keep the
/// whole buffer in memory.
const COPY_MAX: usize = 64 * 1024;
/// How long a connection lasts behind its last answer: some clients do not read it when they read the end with it.
const FAREWELL_TIME: Duration = Duration::from_millis(100);
/// Room that is made at once for the rest of a frame that is on its way.
const RESERVE_MAX: usize = 4 << 20;

/// What a session is told.
pub struct Event(Told);

enum Told {
    /// A request is answered.
    Answered(u64, Answer),
    /// Others need the place of a client that does not get to the point.
    TurnedAway,
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// These bytes, in order.
    Bytes(Vec<Bytes>),
    /// The same, and soon the end of the connection.
    Farewell(Vec<Bytes>),
    /// Nothing: the client does not wait for an answer. Spec: P24.
    Silent,
    /// The connection cannot go on.
    Close,
}

/// What is understood and waits for its turn.
#[expect(
    clippy::large_enum_variant,
    reason = "a box for each request would cost more than the few tokens that there are"
)]
enum Parked {
    Request(RequestHeader, Request),
    /// A token that is a frame of its own.
    Token(Bytes),
}

impl Parked {
    /// Whether it is a step of a login.
    fn is_login(&self) -> bool {
        self.is_proof() || matches!(self, Self::Request(_, Request::SaslHandshake(_)))
    }

    /// Whether it proves who the client is, which is judged for nobody if the client leaves.
    fn is_proof(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Request(_, Request::SaslAuthenticate(_)))
    }
}

/// The Kafka protocol on one connection. Made by [`crate::Front::session`].
pub struct Session<B> {
    context: Rc<Context<B>>,
    mailbox: Mailbox<Event>,
    limits: Limits,
    pipeline: Pipeline<Parked, Answer>,
    /// Requests that wait, and proofs that are judged, to be dropped with the connection. Bound: that of the pipeline.
    waiting: Vec<(u64, AbortHandle)>,
    /// The peer takes its answers more slowly than we make them.
    output_full: bool,
    /// The last call left a part of a frame in the input.
    has_partial: bool,
    /// When something was last received or answered, or the connection was made.
    last_active: Instant,
    /// A step of a login is not answered. What follows it is not looked at: it says what that is.
    is_logging_in: bool,
    /// When the client has to have logged in, if it has to.
    login_by: Instant,
    /// Its place among those who arrive, until it is served or says who it is.
    arrival: Option<Arrival>,
    /// The last answer is given, and the connection ends then.
    ends_at: Option<Instant>,
}

impl<B: Broker> Session<B> {
    pub(crate) fn new(context: Rc<Context<B>>, mailbox: Mailbox<Event>, arrival: Option<Arrival>) -> Self {
        Metrics::add(&context.front.metrics.connections_opened, 1);
        let limits = Limits { data_frame_max: context.config().request_bytes_max, ..Limits::default() };
        let arrival = arrival.filter(|_| context.login.standing() == Standing::Stranger);
        if let Some(arrival) = &arrival {
            let mailbox = mailbox.clone();
            arrival.when_turned_away(move || {
                // One that is gone needs no telling.
                let _ = mailbox.post(Event(Told::TurnedAway));
            });
        }
        // The driver's clock is tokio's as well.
        let now = tokio::time::Instant::now().into_std();
        Self {
            context,
            mailbox,
            limits,
            pipeline: Pipeline::new(),
            waiting: Vec::new(),
            output_full: false,
            has_partial: false,
            last_active: now,
            is_logging_in: false,
            login_by: now + LOGIN_TIME_MAX,
            arrival,
            ends_at: None,
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

    /// Cuts the next frame off. Of a client that is not served yet it is a short one.
    fn split(&self, input: &mut BytesMut) -> Result<Framing, FrameError> {
        let login = &self.context.login;
        match login.standing() == Standing::Served && !login.wants_bare_token() {
            true => split_request_frame(input, &self.limits),
            false => split_frame(input, TOKEN_LEN_MAX),
        }
    }

    fn handle_frame(&mut self, frame: Bytes, turn: &mut Turn<'_>) {
        let (size, login) = (frame.len(), &self.context.login);
        if login.wants_bare_token() {
            self.arrival = None;
            return self.park(Parked::Token(frame), size);
        }
        if login.standing() == Standing::Stranger && !handlers::precedes_login(&frame) {
            let api = ApiKey::of_frame(&frame);
            info!(conn = %self.context.peer, ?api, "a Kafka client was refused because it has not logged in");
            return self.refuse(turn);
        }
        match decode_request(&frame, &self.limits) {
            Ok((header, request)) if handlers::is_advertised(&header, &request) => {
                if matches!(request, Request::SaslAuthenticate(_)) {
                    self.arrival = None;
                }
                self.park(Parked::Request(header, request), size);
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

    fn park(&mut self, parked: Parked, size: usize) {
        Metrics::add(&self.context.front.metrics.requests, 1);
        self.is_logging_in |= parked.is_login();
        self.pipeline.push(parked, size);
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
                    Answer::Farewell(chunks) => {
                        chunks.into_iter().for_each(|chunk| turn.output.push(chunk));
                        self.ends_at = Some(turn.now + FAREWELL_TIME);
                        return;
                    }
                    Answer::Silent => {}
                    Answer::Close => return turn.close(),
                }
                self.output_full = turn.output.is_full();
            }
            // Nothing was taken in behind a step of a login.
            self.is_logging_in &= !self.pipeline.is_empty();
            if !has_started {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<(u64, Lane, Parked)> {
        let mut lane = Lane::Alone;
        let context = &self.context;
        let (number, parked) = self.pipeline.start(|parked: &Parked| {
            lane = match parked {
                Parked::Request(_, request) => handlers::lane(context, request),
                Parked::Token(_) => Lane::Alone,
            };
            lane
        })?;
        Some((number, lane, parked))
    }

    /// Begins a request at once, which decides the order of appends; what does not end at once becomes a task of this core.
    fn run(&mut self, number: u64, lane: Lane, parked: Parked) {
        let context = Rc::clone(&self.context);
        let is_waiting = lane == Lane::Wait || parked.is_proof();
        let mut work: Pin<Box<dyn Future<Output = Answer>>> = Box::pin(async move {
            match parked {
                Parked::Request(header, request) => {
                    answer(header.reply(), handlers::handle(&context, &header, request).await)
                }
                Parked::Token(token) => answer_bare(context.log_in(&token).await),
            }
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
        if is_waiting {
            self.waiting.push((number, task.abort_handle()));
        }
    }
}

impl<B: Broker> net::Session for Session<B> {
    type Event = Event;

    fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        self.last_active = turn.now;
        if self.context.login.standing() == Standing::Refused {
            return self.refuse(turn);
        }
        let had_partial = std::mem::take(&mut self.has_partial);
        while self.wants_input() {
            let capacity = input.capacity();
            match self.split(input) {
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
        let (number, answer) = match event.0 {
            Told::Answered(number, answer) => (number, answer),
            Told::TurnedAway if self.arrival.is_some() => {
                debug!(conn = %self.context.peer, "turned away for others");
                return turn.close();
            }
            Told::TurnedAway => return,
        };
        self.waiting.retain(|(waiting, _)| *waiting != number);
        if self.context.login.standing() == Standing::Refused {
            return self.refuse(turn);
        }
        self.pipeline.finish(number, answer);
        self.advance(turn);
    }

    fn handle_deadline(&mut self, turn: &mut Turn<'_>) {
        if self.deadline().is_some_and(|deadline| deadline <= turn.now) {
            debug!(conn = %self.context.peer, "connection closed because its time is over");
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
        if self.ends_at.is_some() {
            return self.ends_at;
        }
        // A request under way is not idleness.
        let idle = self.pipeline.is_empty().then(|| self.last_active + self.context.config().idle_max);
        let end = match self.context.login.standing() {
            // Of a client that is not served, nothing but a proof is waited for: it takes the time that it takes.
            Standing::Stranger => self.waiting.is_empty().then_some(self.login_by),
            Standing::Served | Standing::Refused => self.context.login.until(),
        };
        idle.into_iter().chain(end).min()
    }

    fn wants_input(&self) -> bool {
        let has_room = !self.pipeline.is_full(self.context.config().in_flight_bytes_max);
        has_room && !self.output_full && !self.is_logging_in && self.ends_at.is_none()
    }
}

impl<B: Broker> Session<B> {
    /// The peer sent records and left: they are appended all the same, as it does not wait to hear so.
    fn finish_appends(&mut self) {
        let mut parked = Vec::new();
        while let Some((_, request)) = self.pipeline.start_any() {
            if let Parked::Request(header, request @ Request::Produce(_)) = request {
                parked.push((header, request));
            }
        }
        if parked.is_empty() {
            return;
        }
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            for (header, request) in parked {
                handlers::handle(&context, &header, request).await;
            }
        });
    }
}

fn answer(reply: ReplyHeader, handled: Handled) -> Answer {
    match handled {
        Handled::Response(response) => match encode(reply, &response) {
            Some(chunks) => Answer::Bytes(chunks),
            None => Answer::Close,
        },
        Handled::Farewell(response) => match encode(reply, &response) {
            Some(chunks) => Answer::Farewell(chunks),
            None => Answer::Close,
        },
        Handled::Silent => Answer::Silent,
        Handled::Close => Answer::Close,
    }
}

fn encode(reply: ReplyHeader, response: &Response) -> Option<Vec<Bytes>> {
    let mut output = Output::new();
    let encoded = encode_response(reply, response, &mut output);
    let (api, version) = (response.api(), reply.version);
    encoded
        .inspect_err(|error| tracing::error!(?api, version, err = %error, "response cannot be encoded"))
        .ok()?;
    Some(output.take_chunks())
}

/// A token that is a frame of its own is answered by one, and a failure by nothing.
fn answer_bare(taken: Result<Taken, Failure>) -> Answer {
    match taken.map(|taken| (u32::try_from(taken.token.len()), taken.token)) {
        Ok((Ok(len), token)) => Answer::Bytes(vec![Bytes::copy_from_slice(&len.to_be_bytes()), token]),
        Ok((Err(_), _)) | Err(_) => Answer::Close,
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
        self.mailbox.post(Event(Told::Answered(self.number, answer)));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_kept {
            self.mailbox.post(Event(Told::Answered(self.number, Answer::Close)));
        }
    }
}
