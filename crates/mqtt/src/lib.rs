//! The MQTT front: 3.1, 3.1.1 and 5.0 on one port.
//!
//! A [`Session`] is one connection without any I/O; [`Front`] makes them for the listener of one core. What a packet means is
//! here; how it is written is `wire::mqtt`'s business, and what becomes of a message is the broker's. The map between MQTT
//! and our records is `docs/protocols/mqtt.md`.
//!
//! Invariant: no other front is known here. What this front keeps are sessions, rows, and resources of the kinds in `resources`.

mod aliases;
mod auto;
mod config;
mod connection;
mod convert;
mod error;
mod exclusive;
mod handlers;
mod inbox;
mod incoming;
mod metrics;
mod observe;
mod outgoing;
mod pace;
mod protection;
mod resources;
mod rewrite;
mod rights;
mod rules;
mod saver;
mod session;
mod state;
mod subscription;
mod template;
mod will;
mod window;

pub use auto::{AutoSubscribe, AutoSubscribeError};
pub use config::{MqttConfig, Versions};
pub use inbox::Event;
pub use metrics::Metrics;
pub use observe::{
    Happening, HistoryEvent, Observatory, ObserveConfig, SlowConfig, SlowSubscription, TopicReading,
};
pub use pace::{ListenerPace, RateLimit};
pub use protection::{Connects, Protection, Unwelcome};
pub use resources::{AutoSubscription, CountedTopic, RewriteRule, SendRetained};
pub use rewrite::{Rewrite, RewriteAction, RewriteError};
pub use rules::Rules;
pub use session::{Front, Session};
pub use template::{Template, TemplateError};
