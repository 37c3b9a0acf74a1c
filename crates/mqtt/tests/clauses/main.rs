//! Transcripts: what a client sends and what it must get, against a whole broker core in this process. Each test is named after
//! the requirement that it shows.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod access;
mod aliases;
mod connect;
mod delayed;
mod delivery;
mod framing;
mod hand;
mod identity;
mod link;
mod observe;
mod publish;
mod reasons;
mod rules;
mod session;
mod shared;
mod subscribe;
mod time;
mod will;
