//! Transcripts: what a client sends and what it must get, against a whole broker core in this process. Each test is named after
//! the requirement that it shows.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod connect;
mod delayed;
mod link;
mod publish;
mod session;
mod shared;
mod subscribe;
mod will;
