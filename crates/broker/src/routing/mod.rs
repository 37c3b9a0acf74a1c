//! Routing: which subscriptions want a subject. One trie of filters serves every dialect at once; it knows
//! levels and wildcards, and leaves names, sessions and what a match leads to, to its callers.

mod dialect;
mod filter;
mod node;
mod symbols;
mod trie;
mod walk;

#[cfg(test)]
mod tests;

pub use dialect::{Dialect, Embedded, ManyPlace, ManyTakes};
pub use filter::{FILTER_BYTES_MAX, FILTER_LEVELS_MAX, Filter, FilterError, Level};
pub use trie::{Scratch, Trie};
pub(crate) use walk::Ahead;
