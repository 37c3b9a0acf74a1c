//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), the server's side, without I/O.
//!
//! ```text
//!   client                      server
//!   client-first  ------------>  client_first   -> who it claims to be
//!                 <------------  server_first   <- the stored keys of that user, or none
//!   client-final  ------------>  client_final   -> server-final and a proof of identity
//! ```
//!
//! It knows no protocol: MQTT carries the messages in AUTH packets, Kafka in SaslAuthenticate. Names and passwords are compared
//! as the bytes of their UTF-8; SASLprep is left to whoever enters them, control characters are refused.

mod keys;
mod server;
#[cfg(test)]
mod tests;

pub use keys::{Mechanism, StoredKeys};
pub use server::{ScramError, ScramServer, Verified};
