//! The Kafka view: stock Kafka clients produce and consume, form groups and manage topics.
//!
//! One [`Front`] per core makes a sans-IO [`Session`] per connection; `net` moves the bytes. Record batches pass through
//! unchanged in both directions: `wire` cuts them out of requests, `broker` stores and returns them. This crate does not
//! know how a batch becomes durable, how it is stored, or which other protocols read it. The contract with clients is
//! `docs/protocols/kafka.md`; labels such as P24 are its clauses.
//!
//! Consumer groups have one owner per node, the [`Coordinator`], whichever core a member is connected to.

mod config;
mod context;
mod convert;
mod error;
mod groups;
mod handlers;
mod login;
mod metrics;
mod pipeline;
mod resources;
mod rights;
mod session;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use broker::Broker;
use net::{Arrival, Mailbox, Peer};
use tokio::sync::mpsc;

pub use config::Config;
pub use metrics::Metrics;
pub use session::{Event, Session};

use context::{Context, FrontState, TopicIds};
use groups::{Ask, GroupLimits, GroupsHandle, Owner};
use login::Login;

/// Bound: groups that have members.
const GROUPS_MAX: usize = 100_000;
/// Bound: bytes of names, subscriptions and assignments of all members of all groups.
const MEMBERS_BYTES_MAX: usize = 256 << 20;

/// What the fronts of all cores of a node share. Clones are the same.
#[derive(Clone)]
pub struct Shared {
    groups: GroupsHandle,
    topic_ids: Arc<TopicIds>,
    metrics: Arc<Metrics>,
}

impl Shared {
    /// For one node, with the coordinator that must run for groups to work.
    pub fn new() -> (Self, Coordinator) {
        let (groups, asks) = groups::channel();
        let shared = Self { groups, topic_ids: Arc::default(), metrics: Arc::default() };
        (shared, Coordinator { asks })
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// The owner of all consumer groups of a node.
pub struct Coordinator {
    asks: mpsc::Receiver<Ask>,
}

impl Coordinator {
    /// Coordinates until the last [`Shared`] and [`Front`] is gone. To be spawned on the `LocalSet` of one core; without it
    /// every request about groups waits.
    pub async fn run<B: Broker>(self, config: &Config, broker: B) {
        let ms = |duration: std::time::Duration| duration.as_millis() as u64;
        let limits = GroupLimits {
            session: ms(config.session_timeout_min)..=ms(config.session_timeout_max),
            initial_delay: ms(config.initial_rebalance_delay),
            members_max: config.group_members_max,
            groups_max: GROUPS_MAX,
            bytes_max: MEMBERS_BYTES_MAX,
        };
        Owner::new(self.asks, limits, &broker).run().await;
    }
}

/// The Kafka view on one core.
pub struct Front<B> {
    state: Rc<FrontState<B>>,
}

impl<B: Broker> Front<B> {
    /// For one core.
    pub fn new(config: Arc<Config>, broker: B, shared: Shared) -> Self {
        let Shared { groups, topic_ids, metrics } = shared;
        Self { state: Rc::new(FrontState::new(broker, config, groups, topic_ids, metrics)) }
    }

    /// A session for a connection from `peer` that was accepted at `local`, and its mailbox, for [`net::drive`]. To be
    /// called, and driven, on a `LocalSet`. It has its place among those who arrive, if any, until it has got to the point.
    pub fn session(
        &self,
        peer: Peer,
        local: SocketAddr,
        arrival: Option<Arrival>,
    ) -> (Session<B>, Mailbox<Event>) {
        let (host, port) = self.state.config.advertised.clone().unwrap_or_else(|| convert::advertised(local));
        let login = Login::new(&self.state, &peer);
        let front = Rc::clone(&self.state);
        let context = Context { front, peer, login, host: host.into(), port: i32::from(port) };
        let mailbox = Mailbox::new();
        (Session::new(Rc::new(context), mailbox.clone(), arrival), mailbox)
    }
}
