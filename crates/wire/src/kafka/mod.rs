//! Sans-IO codec of the Kafka protocol, for brokers and clients alike.
//!
//! ```text
//! request   | i32 length | i16 api | i16 version | i32 correlation | i16 len, client id | [tags] | body |
//! response  | i32 length | i32 correlation | [tags] | body |
//! ```
//!
//! Bytes in, messages out, and the reverse. ApiVersions, Produce and Fetch are written by hand, because they
//! are the hot path or have rules of their own; every other message is encoded by the `kafka-wire` crate, whose structs
//! are named one by one in [`messages`].
//!
//! This module does not know what a record batch contains (crate `model`), which versions a listener
//! advertises (crate `kafka`), or what a request means.
//!
//! Invariant: no input makes a decoder panic, and memory taken is bounded by [`Limits`] before it is taken.
//! Decoded strings and records are slices of the frame: whoever keeps one beyond the request copies it,
//! or it keeps the whole frame in memory.

mod api;
mod api_versions;
mod control;
mod error_code;
mod fetch;
mod frame;
mod header;
mod message;
pub mod messages;
mod output;
mod produce;
mod reader;
mod writer;

pub use api::{APIS, ApiKey, ApiSpec};
pub use api_versions::{ApiRange, ApiVersionsRequest, ApiVersionsResponse};
pub use error_code::ErrorCode;
pub use fetch::{
    AbortedTransaction, FetchPartition, FetchPartitionAnswer, FetchRequest, FetchResponse, FetchTopic,
    FetchTopicAnswer, ForgottenTopic,
};
pub use frame::{FrameError, Framing, Limits, split_frame, split_request_frame};
pub use header::{ReplyHeader, RequestHeader};
pub use message::{
    Request, RequestError, Response, decode_request, decode_response, encode_request, encode_response,
};
pub use output::Output;
pub use produce::{
    ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicAnswer, RecordError,
};
pub use reader::{Fault, Malformed};
pub use writer::EncodeError;
