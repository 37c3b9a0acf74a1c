//! What a subscription chooses from: how it acknowledges, how long a delivery may take, how often it is tried.

/// Who a delivery is given to, as numbered by the owner of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u32);

/// How deliveries are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// Not at all: a delivery is settled when it is made.
    None,
    /// Settling a delivery settles every position before it as well.
    Cumulative,
    /// Each delivery alone.
    Individual,
}

/// The settings of a view; they stay as they are while it lives.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How deliveries are acknowledged.
    pub acknowledge: Acknowledge,
    /// After this many milliseconds a delivery that is neither settled nor extended is returned.
    pub ack_wait_ms: Option<u32>,
    /// A position that was returned this many times is dead.
    pub deliveries_max: Option<u16>,
    /// Bound: positions in flight over all consumers.
    pub unacked_max: u32,
    /// Whether facts are collected for the log. A view that dies with its connection needs none.
    pub durable: bool,
}

/// Why a delivery comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The consumer failed on it and wants it tried again.
    Refused,
    /// The consumer never wants it again: it is dead at once.
    Rejected,
    /// The consumer gives it back untouched; the attempt does not count.
    Released,
    /// Its acknowledgement was not there in time.
    TimedOut,
    /// The consumer that held it is gone.
    HolderGone,
}

/// Where a returned position went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// It is ready again, before everything newer.
    Ready,
    /// It is ready again at this time, in milliseconds since the epoch.
    Delayed {
        /// When.
        due: i64,
    },
    /// It will not be delivered again; [`super::View::poll_dead`] tells it.
    Dead,
}
