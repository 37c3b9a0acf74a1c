//! What a client sends and what it must get, against a whole broker core in this process. Each test is named after the requirement
//! that it shows. What is about bytes is a transcript; here is what needs more: rights, restarts, great numbers.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod access;
mod connect;
mod delayed;
mod delivery;
mod framing;
mod hand;
mod link;
mod observe;
mod publish;
mod rules;
mod script;
mod session;
mod shared;
mod subscribe;
mod time;
mod transcripts;
mod will;
