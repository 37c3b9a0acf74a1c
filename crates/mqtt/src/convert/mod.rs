//! PUBLISH to record and back, as `docs/protocols/mqtt.md` says. Hot path.

mod from_record;
mod names;
mod to_record;

#[cfg(test)]
mod tests;

pub(crate) use from_record::{Expired, Reading, identify, last_moment, topic_of};
pub(crate) use names::{PUBLISHER, RETAINED_STATE};
pub(crate) use to_record::Inbound;
