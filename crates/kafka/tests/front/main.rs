//! The front over a real broker: requests in as bytes, responses out as bytes.

mod access;
mod client;
mod connections;
mod groups;
mod records;
mod sasl;
mod topics;
mod versions;
