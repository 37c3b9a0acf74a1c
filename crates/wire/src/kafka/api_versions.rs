//! ApiVersions, versions 0 to 4: the handshake that must never fail.
//!
//! Our response carries no tagged fields at all: librdkafka before 2.2 passes over one byte too few of each.

use super::error_code::ErrorCode;
use super::messages::StrBytes;
use super::reader::{Malformed, Reader};
use super::writer::{EncodeError, Writer};

/// First version in which the client names its software.
const SOFTWARE_SINCE: i16 = 3;

/// Asks for the versions that the broker speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiVersionsRequest {
    /// Name of the client library. Empty before version 3.
    pub client_software_name: StrBytes,
    /// Version of the client library. Empty before version 3.
    pub client_software_version: StrBytes,
}

/// The versions that the broker speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    /// An [`ErrorCode`] on the wire.
    pub error_code: i16,
    /// One row for each API.
    pub apis: Vec<ApiRange>,
    /// How long the client should wait before its next request. From version 1.
    pub throttle_time_ms: i32,
}

/// Versions of one API. The key may be one that this codec does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// Number of the API.
    pub key: i16,
    /// Lowest version.
    pub version_min: i16,
    /// Highest version.
    pub version_max: i16,
}

impl ApiVersionsRequest {
    /// Whether the client named its software as version 3 and later demand. If not, the answer is 42 INVALID_REQUEST.
    /// Spec: V9.
    pub fn is_valid(&self, version: i16) -> bool {
        version < SOFTWARE_SINCE
            || (is_software_token(&self.client_software_name)
                && is_software_token(&self.client_software_version))
    }

    pub(super) fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        if version < SOFTWARE_SINCE {
            return Ok(Self::default());
        }
        let client_software_name = reader.string()?;
        let client_software_version = reader.string()?;
        reader.skip_tags()?;
        Ok(Self { client_software_name, client_software_version })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        if version < SOFTWARE_SINCE {
            return Ok(());
        }
        writer.string(&self.client_software_name)?;
        writer.string(&self.client_software_version)?;
        writer.no_tags();
        Ok(())
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_token(token: &StrBytes) -> bool {
    let (Some(first), Some(last)) = (token.as_bytes().first(), token.as_bytes().last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && token.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

impl ApiVersionsResponse {
    /// The answer to a version that we do not speak, to be sent in the body of version 0: the client picks a version
    /// of ApiVersions from it and asks again. Spec: V8.
    pub fn fallback(apis: Vec<ApiRange>) -> Self {
        Self { error_code: ErrorCode::UnsupportedVersion.to_wire(), apis, throttle_time_ms: 0 }
    }

    pub(super) fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let error_code = reader.i16()?;
        let apis = reader.array(6, |reader| {
            let range =
                ApiRange { key: reader.i16()?, version_min: reader.i16()?, version_max: reader.i16()? };
            reader.skip_tags()?;
            Ok(range)
        })?;
        let throttle_time_ms = if version >= 1 { reader.i32()? } else { 0 };
        reader.skip_tags()?;
        Ok(Self { error_code, apis, throttle_time_ms })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.i16(self.error_code);
        writer.array(&self.apis, |writer, range| {
            writer.i16(range.key);
            writer.i16(range.version_min);
            writer.i16(range.version_max);
            writer.no_tags();
            Ok(())
        })?;
        if version >= 1 {
            writer.i32(self.throttle_time_ms);
        }
        writer.no_tags();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_the_pattern() {
        let request = |name: &str, version: &str| ApiVersionsRequest {
            client_software_name: name.into(),
            client_software_version: version.into(),
        };
        for (name, version, valid) in [
            ("apache-kafka-java", "4.1.0", true),
            ("a", "1", true),
            ("", "1", false),
            ("a", "", false),
            ("-a", "1", false),
            ("a", "1.", false),
            ("a b", "1", false),
        ] {
            assert_eq!(request(name, version).is_valid(3), valid, "{name:?} {version:?}");
            assert!(request(name, version).is_valid(2));
        }
    }
}
