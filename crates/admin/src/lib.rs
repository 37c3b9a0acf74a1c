//! HTTP for people and machines that run the broker: health, metrics, and `/api/v1`, by which operators change who may do
//! what and look at what became of clients. It reads the broker's counters, writes resources of other crates, and knows no
//! protocol. Kinds of resource that are not those of `auth` are handed to it ([`Kind`]).

mod api;
mod kind;
mod metrics;
mod observed;
mod serve;

pub use api::Api;
pub use kind::{CaughtUp, Kind};
pub use metrics::ReadSamples;
pub use observed::Observed;
pub use serve::{Admin, ServeError};
