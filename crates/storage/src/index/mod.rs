//! The index over the journal: extents, the footer file of each sealed segment, and the tails that outlive recycled
//! segments. Formats and folds; who reads batches through it is the engine's affair.

mod bloom;
mod envelope;
mod extent;
mod files;
mod footer;
mod tails;
mod varint;

#[cfg(test)]
mod tests;

#[cfg(test)]
use envelope::FileKind;
pub(crate) use envelope::Unusable;
pub(crate) use extent::{Extent, Mark, Row};
pub(crate) use files::IndexFiles;
pub(crate) use footer::{Changed, Contents, Footer, GroupRange, Section, encode};
pub(crate) use tails::{GroupTails, Tails, put_producer, take_producers};
pub(crate) use varint::{Cursor, Malformed, put};
