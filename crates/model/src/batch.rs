//! The stored batch: Kafka's RecordBatch v2 (magic 2), the one record format on disk and in flight.
//!
//! A Kafka producer's batch is kept as it came; records of other fronts are packed by [`BatchBuilder`]. Readers
//! that want single records decode lazily through [`Records`].
//!
//! ```text
//!  off len field                    in CRC   changed by us
//!    0   8 base offset              no       on reading, in a copy of the header (on disk it is 0)
//!    8   4 batch length (total-12)  no       never
//!   12   4 partition leader epoch   no       on reading, in a copy of the header
//!   16   1 magic = 2                no       never
//!   17   4 CRC-32C of bytes 21..    -        never
//!   21   2 attributes               yes      never
//!   23   4 last offset delta        yes      never
//!   27   8 base timestamp           yes      never
//!   35   8 max timestamp            yes      never
//!   43   8 producer id              yes      never
//!   51   2 producer epoch           yes      never
//!   53   4 base sequence            yes      never
//!   57   4 record count             yes      never
//!   61   … records, compressed as one blob where the attributes name a codec
//! ```

mod builder;
mod compression;
mod error;
mod header;
mod records;
#[cfg(test)]
mod testing;
mod validate;
mod varint;
mod walk;

pub use builder::{Appended, BatchBuilder};
#[cfg(any(test, feature = "compress"))]
pub use compression::compress_batch;
pub use error::{BatchError, RecordFault};
pub use header::{Attributes, BatchHeader, Codec, HEADER_LEN, LEN_PREFIX, field, patched_header};
pub use records::{HeaderRefs, RecordRef, Records};
pub use validate::validate;
