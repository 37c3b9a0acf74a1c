//! Request and response headers.
//!
//! ```text
//! request v1   | i16 api | i16 version | i32 correlation id | i16 length, client id |
//! request v2   | the same, the client id not compact either | tagged fields |
//! response v0  | i32 correlation id |
//! response v1  | i32 correlation id | tagged fields |
//! ```

use super::api::ApiKey;
use super::message::RequestError;
use super::messages::StrBytes;
use super::output::Output;
use super::reader::{Malformed, Reader};
use super::writer::{EncodeError, Writer};

/// What precedes the body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api: ApiKey,
    /// Version of the body. Outside the table only where the request is [`super::Request::ApiVersionsFallback`].
    pub version: i16,
    /// Chosen by the client, repeated in the response.
    pub correlation_id: i32,
    /// Name the client gives itself, for logs. Null is allowed.
    pub client_id: Option<StrBytes>,
}

/// What a response repeats from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Version of the request.
    pub version: i16,
    /// Correlation id of the request.
    pub correlation_id: i32,
}

impl RequestHeader {
    /// The header for the response to this request.
    pub fn reply(&self) -> ReplyHeader {
        ReplyHeader { version: self.version, correlation_id: self.correlation_id }
    }

    /// Leaves the reader at the body, set to the body's encoding.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, RequestError> {
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let api = ApiKey::from_wire(key).ok_or(RequestError::UnknownApi { key })?;
        if !api.supports(version) && api != ApiKey::ApiVersions {
            return Err(RequestError::UnsupportedVersion { api, version });
        }
        let client_id = reader.plain_nullable_string()?;
        reader.set_flexible(api.is_flexible(version));
        if api.supports(version) {
            reader.skip_tags()?;
        }
        Ok(Self { api, version, correlation_id, client_id })
    }

    pub(super) fn encode(&self, output: &mut Output) -> Result<(), EncodeError> {
        let mut writer = Writer::new(output, self.api.is_flexible(self.version));
        writer.i16(self.api.to_wire());
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.plain_nullable_string(self.client_id.as_ref())?;
        writer.no_tags();
        Ok(())
    }
}

impl ReplyHeader {
    /// Returns the correlation id and leaves the reader at the body.
    pub(super) fn decode(reader: &mut Reader<'_>, api: ApiKey, version: i16) -> Result<i32, Malformed> {
        let correlation_id = reader.i32()?;
        reader.set_flexible(api.has_response_tags(version));
        reader.skip_tags()?;
        reader.set_flexible(api.is_flexible(version));
        Ok(correlation_id)
    }

    pub(super) fn encode(&self, api: ApiKey, output: &mut Output) {
        let mut writer = Writer::new(output, api.has_response_tags(self.version));
        writer.i32(self.correlation_id);
        writer.no_tags();
    }
}
