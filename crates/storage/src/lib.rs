//! Placeholder first line, replaced when the crate is built.
pub mod journal;
