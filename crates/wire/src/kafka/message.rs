//! Requests and responses of every API, and the four functions that turn them into frames and back.

use bytes::Bytes;
use thiserror::Error;

use super::api::ApiKey;
use super::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use super::control;
use super::fetch::{FetchRequest, FetchResponse};
use super::frame::Limits;
use super::header::{ReplyHeader, RequestHeader};
use super::messages::{
    CreateAclsRequest, CreateAclsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteAclsRequest, DeleteAclsResponse, DeleteGroupsRequest,
    DeleteGroupsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest,
    HeartbeatResponse, InitProducerIdRequest, InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use super::output::Output;
use super::produce::{ProduceRequest, ProduceResponse};
use super::reader::{Fault, Malformed, Reader};
use super::writer::{EncodeError, Writer};

/// A request that cannot be answered. The connection is closed. Spec: C2, C3.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The bytes are not what the protocol says.
    #[error("malformed request: {0}")]
    Malformed(#[from] Malformed),
    /// An API that this codec does not know.
    #[error("unknown API {key}")]
    UnknownApi {
        /// Its number on the wire.
        key: i16,
    },
    /// A version of a known API that this codec does not read.
    #[error("{api:?} has no version {version}")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
}

macro_rules! messages {
    ($($api:ident: $request:ident, $response:ident;)*) => {
        /// The body of a request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            /// Asks for our versions.
            ApiVersions(ApiVersionsRequest),
            /// Asks for our versions in a version that we do not speak; its body is not read. It is answered with
            /// [`ApiVersionsResponse::fallback`].
            ApiVersionsFallback,
            /// Appends records.
            Produce(ProduceRequest),
            /// Reads records.
            Fetch(FetchRequest),
            $(#[doc = concat!("See [`ApiKey::", stringify!($api), "`].")] $api($request),)*
        }

        /// The body of a response.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Response {
            /// Our versions. For a version that we do not speak it is written as version 0.
            ApiVersions(ApiVersionsResponse),
            /// What became of appended records.
            Produce(ProduceResponse),
            /// Records.
            Fetch(FetchResponse),
            $(#[doc = concat!("See [`ApiKey::", stringify!($api), "`].")] $api($response),)*
        }

        impl Request {
            /// The API that this is a request of.
            pub fn api(&self) -> ApiKey {
                match self {
                    Self::ApiVersions(_) | Self::ApiVersionsFallback => ApiKey::ApiVersions,
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            fn encode(&self, version: i16, output: &mut Output) -> Result<(), EncodeError> {
                let mut writer = Writer::new(output, self.api().is_flexible(version));
                match self {
                    Self::ApiVersions(request) => request.encode(&mut writer, version),
                    Self::ApiVersionsFallback => Ok(()),
                    Self::Produce(request) => request.encode(&mut writer),
                    Self::Fetch(request) => request.encode(&mut writer, version),
                    $(Self::$api(request) => control::encode(request, version, output),)*
                }
            }
        }

        impl Response {
            /// The API that this is a response of.
            pub fn api(&self) -> ApiKey {
                match self {
                    Self::ApiVersions(_) => ApiKey::ApiVersions,
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            fn encode(&self, version: i16, output: &mut Output) -> Result<(), EncodeError> {
                let mut writer = Writer::new(output, self.api().is_flexible(version));
                match self {
                    Self::ApiVersions(response) => response.encode(&mut writer, version),
                    Self::Produce(response) => response.encode(&mut writer, version),
                    Self::Fetch(response) => response.encode(&mut writer, version),
                    $(Self::$api(response) => control::encode(response, version, output),)*
                }
            }
        }

        fn decode_request_body(body: Body<'_>) -> Result<Request, Malformed> {
            let Body { api, version, .. } = body;
            Ok(match api {
                ApiKey::ApiVersions if !api.supports(version) => Request::ApiVersionsFallback,
                ApiKey::ApiVersions => {
                    Request::ApiVersions(body.by_hand(|reader| ApiVersionsRequest::decode(reader, version))?)
                }
                ApiKey::Produce => Request::Produce(body.by_hand(ProduceRequest::decode)?),
                ApiKey::Fetch => Request::Fetch(body.by_hand(|reader| FetchRequest::decode(reader, version))?),
                $(ApiKey::$api => Request::$api(body.generated()?),)*
            })
        }

        fn decode_response_body(body: Body<'_>) -> Result<Response, Malformed> {
            let Body { api, version, .. } = body;
            Ok(match api {
                ApiKey::ApiVersions => {
                    Response::ApiVersions(body.by_hand(|reader| ApiVersionsResponse::decode(reader, version))?)
                }
                ApiKey::Produce => Response::Produce(body.by_hand(|reader| ProduceResponse::decode(reader, version))?),
                ApiKey::Fetch => Response::Fetch(body.by_hand(|reader| FetchResponse::decode(reader, version))?),
                $(ApiKey::$api => Response::$api(body.generated()?),)*
            })
        }
    };
}

messages! {
    ListOffsets: ListOffsetsRequest, ListOffsetsResponse;
    Metadata: MetadataRequest, MetadataResponse;
    OffsetCommit: OffsetCommitRequest, OffsetCommitResponse;
    OffsetFetch: OffsetFetchRequest, OffsetFetchResponse;
    FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse;
    JoinGroup: JoinGroupRequest, JoinGroupResponse;
    Heartbeat: HeartbeatRequest, HeartbeatResponse;
    LeaveGroup: LeaveGroupRequest, LeaveGroupResponse;
    SyncGroup: SyncGroupRequest, SyncGroupResponse;
    DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse;
    ListGroups: ListGroupsRequest, ListGroupsResponse;
    SaslHandshake: SaslHandshakeRequest, SaslHandshakeResponse;
    CreateTopics: CreateTopicsRequest, CreateTopicsResponse;
    DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse;
    InitProducerId: InitProducerIdRequest, InitProducerIdResponse;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    DescribeAcls: DescribeAclsRequest, DescribeAclsResponse;
    CreateAcls: CreateAclsRequest, CreateAclsResponse;
    DeleteAcls: DeleteAclsRequest, DeleteAclsResponse;
    DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse;
    SaslAuthenticate: SaslAuthenticateRequest, SaslAuthenticateResponse;
    CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse;
    DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse;
    DescribeClientQuotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse;
    DescribeCluster: DescribeClusterRequest, DescribeClusterResponse;
}

/// The rest of a frame behind its header.
struct Body<'a> {
    frame: &'a Bytes,
    reader: Reader<'a>,
    api: ApiKey,
    version: i16,
    limits: &'a Limits,
}

impl<'a> Body<'a> {
    fn by_hand<M>(
        mut self,
        decode: impl FnOnce(&mut Reader<'a>) -> Result<M, Malformed>,
    ) -> Result<M, Malformed> {
        let message = decode(&mut self.reader)?;
        self.reader.finish()?;
        Ok(message)
    }

    fn generated<M: kafka_wire::KafkaMessage>(self) -> Result<M, Malformed> {
        control::decode(self.frame.slice(self.reader.position()..), self.version, self.limits)
    }
}

/// Decodes a request from its frame (without the length), as a broker does.
///
/// Strings and records of the result are slices of `frame`.
pub fn decode_request(frame: &Bytes, limits: &Limits) -> Result<(RequestHeader, Request), RequestError> {
    let mut reader = Reader::new(frame, limits.elements_max);
    let header = RequestHeader::decode(&mut reader)?;
    let (api, version) = (header.api, header.version);
    let request = decode_request_body(Body { frame, reader, api, version, limits })?;
    Ok((header, request))
}

/// Appends the frame of a response, as a broker does. On an error, which is a mistake of the caller, nothing is appended.
///
/// Produce requests with acks 0 have no response: do not encode one.
pub fn encode_response(
    reply: ReplyHeader,
    response: &Response,
    output: &mut Output,
) -> Result<(), EncodeError> {
    let api = response.api();
    let version = match (api, api.supports(reply.version)) {
        (_, true) => reply.version,
        (ApiKey::ApiVersions, false) => 0,
        (_, false) => return Err(EncodeError::UnsupportedVersion { api, version: reply.version }),
    };
    encode_frame(output, |output| {
        reply.encode(api, output);
        response.encode(version, output)
    })
}

/// Appends the frame of a request, as a client does. On an error nothing is appended.
pub fn encode_request(
    header: &RequestHeader,
    request: &Request,
    output: &mut Output,
) -> Result<(), EncodeError> {
    let RequestHeader { api, version, .. } = *header;
    if api != request.api() {
        return Err(EncodeError::WrongApi { header: api, body: request.api() });
    }
    if !api.supports(version) && !matches!(request, Request::ApiVersionsFallback) {
        return Err(EncodeError::UnsupportedVersion { api, version });
    }
    encode_frame(output, |output| {
        header.encode(output)?;
        request.encode(version, output)
    })
}

/// Decodes a response from its frame (without the length), as a client does: `api` and `version` are those of the
/// request with the correlation id that the frame begins with. Returns that id too.
///
/// To an ApiVersions request of a version that the broker does not speak, the answer is of version 0: ask for that
/// again when this fails.
pub fn decode_response(
    frame: &Bytes,
    api: ApiKey,
    version: i16,
    limits: &Limits,
) -> Result<(i32, Response), Malformed> {
    let mut reader = Reader::new(frame, limits.elements_max);
    if !api.supports(version) {
        return Err(reader.malformed(Fault::Refused));
    }
    let correlation_id = ReplyHeader::decode(&mut reader, api, version)?;
    let response = decode_response_body(Body { frame, reader, api, version, limits })?;
    Ok((correlation_id, response))
}

fn encode_frame(
    output: &mut Output,
    encode: impl FnOnce(&mut Output) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = output.begin_frame();
    let encoded = encode(output).and_then(|()| output.end_frame(start).ok_or(EncodeError::TooLong));
    if encoded.is_err() {
        output.abandon_frame(start);
    }
    encoded
}
