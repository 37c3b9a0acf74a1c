//! HTTP for people and machines that run the broker: health and metrics. It reads the broker's counters and knows
//! no protocol.

mod metrics;
mod serve;

pub use metrics::ReadSamples;
pub use serve::{Admin, ServeError};
