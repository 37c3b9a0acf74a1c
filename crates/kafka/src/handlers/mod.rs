//! One file per API. Its first lines declare key and versions; the table below is what we advertise.
//!
//! A handler validates, translates, calls the broker (or the groups) and translates back. It keeps nothing.

mod api_versions;
mod create_topics;
mod delete_groups;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod refused;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;

use broker::Broker;
use wire::kafka::{ApiKey, ApiRange, ProduceResponse, Request, RequestHeader, Response};

use crate::context::Context;
use crate::pipeline::Lane;

/// An API that we offer.
#[derive(Clone, Copy)]
pub(crate) struct Offered {
    key: ApiKey,
    /// Lowest version that we say we read.
    version_min: i16,
    version_max: i16,
}

const fn offered(key: ApiKey, version_min: i16, version_max: i16) -> Offered {
    Offered { key, version_min, version_max }
}

/// What we advertise, in order of the keys.
const OFFERED: [Offered; 27] = [
    produce::API,
    fetch::API,
    list_offsets::API,
    metadata::API,
    offset_commit::API,
    offset_fetch::API,
    find_coordinator::API,
    join_group::API,
    heartbeat::API,
    leave_group::API,
    sync_group::API,
    describe_groups::API,
    list_groups::API,
    sasl_handshake::API,
    api_versions::API,
    create_topics::API,
    delete_topics::API,
    init_producer_id::API,
    offset_for_leader_epoch::API,
    refused::DESCRIBE_ACLS,
    refused::CREATE_ACLS,
    refused::DELETE_ACLS,
    describe_configs::API,
    sasl_authenticate::API,
    delete_groups::API,
    refused::DESCRIBE_CLIENT_QUOTAS,
    describe_cluster::API,
];

/// The table as ApiVersions tells it.
fn ranges() -> Vec<ApiRange> {
    let range = |api: &Offered| ApiRange {
        key: api.key.to_wire(),
        version_min: api.version_min,
        version_max: api.version_max,
    };
    OFFERED.iter().map(range).collect()
}

/// Whether we offered this version. Spec: C3.
pub(crate) fn is_advertised(header: &RequestHeader, request: &Request) -> bool {
    if matches!(request, Request::ApiVersionsFallback) {
        return true;
    }
    let row = OFFERED.iter().find(|api| api.key == header.api);
    row.is_some_and(|api| (api.version_min..=api.version_max).contains(&header.version))
}

/// Whether a request is served before a login, by its frame. Spec: S80.
pub(crate) fn precedes_login(frame: &[u8]) -> bool {
    let api = ApiKey::of_frame(frame);
    matches!(api, Some(ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate))
}

/// How a request gets along with others of its connection.
pub(crate) fn lane<B: Broker>(context: &Context<B>, request: &Request) -> Lane {
    match request {
        Request::Produce(request) if produce::is_resolved(context, request) => Lane::Append,
        // A member that gives up while it waits is heard at once, instead of holding up its group.
        Request::Fetch(_) | Request::JoinGroup(_) | Request::SyncGroup(_) => Lane::Wait,
        _ => Lane::Alone,
    }
}

/// What a handler says.
pub(crate) enum Handled {
    Response(Response),
    /// The same, and soon the end of the connection.
    Farewell(Response),
    /// The client wants no answer.
    Silent,
    /// The client wants no answer and has to know of an error.
    Close,
}

/// Answers one request.
pub(crate) async fn handle<B: Broker>(
    context: &Context<B>,
    header: &RequestHeader,
    request: Request,
) -> Handled {
    let version = header.version;
    Handled::Response(match request {
        Request::Produce(request) => {
            let wants_answer = request.acks != 0;
            let response = produce::handle(context, version, request).await;
            return produced(response, wants_answer);
        }
        Request::Fetch(request) => Response::Fetch(fetch::handle(context, version, request).await),
        Request::ApiVersions(request) => Response::ApiVersions(api_versions::handle(version, &request)),
        Request::ApiVersionsFallback => Response::ApiVersions(api_versions::fallback()),
        Request::Metadata(request) => Response::Metadata(metadata::handle(context, version, request).await),
        Request::ListOffsets(request) => {
            Response::ListOffsets(list_offsets::handle(context, version, request).await)
        }
        request => return handle_other(context, header, request).await,
    })
}

fn produced(response: ProduceResponse, wants_answer: bool) -> Handled {
    if wants_answer {
        return Handled::Response(Response::Produce(response));
    }
    let mut answers = response.topics.iter().flat_map(|topic| &topic.partitions);
    if answers.all(|answer| answer.error_code == 0) { Handled::Silent } else { Handled::Close }
}

/// What is not asked for all the time.
async fn handle_other<B: Broker>(context: &Context<B>, header: &RequestHeader, request: Request) -> Handled {
    let version = header.version;
    Handled::Response(match request {
        Request::SaslHandshake(request) => return sasl_handshake::handle(context, version, &request),
        Request::SaslAuthenticate(request) => return sasl_authenticate::handle(context, request).await,
        Request::OffsetCommit(request) => {
            Response::OffsetCommit(offset_commit::handle(context, request).await)
        }
        Request::OffsetFetch(request) => {
            Response::OffsetFetch(offset_fetch::handle(context, version, request).await)
        }
        Request::FindCoordinator(request) => {
            Response::FindCoordinator(find_coordinator::handle(context, version, &request))
        }
        Request::JoinGroup(request) => {
            Response::JoinGroup(join_group::handle(context, header, request).await)
        }
        Request::Heartbeat(request) => Response::Heartbeat(heartbeat::handle(context, request).await),
        Request::LeaveGroup(request) => {
            Response::LeaveGroup(leave_group::handle(context, version, request).await)
        }
        Request::SyncGroup(request) => {
            Response::SyncGroup(sync_group::handle(context, version, request).await)
        }
        Request::DescribeGroups(request) => {
            Response::DescribeGroups(describe_groups::handle(context, version, request).await)
        }
        Request::ListGroups(request) => {
            Response::ListGroups(list_groups::handle(context, version, &request).await)
        }
        Request::CreateTopics(request) => {
            Response::CreateTopics(create_topics::handle(context, version, request).await)
        }
        Request::DeleteTopics(request) => {
            Response::DeleteTopics(delete_topics::handle(context, version, request).await)
        }
        Request::InitProducerId(request) => {
            Response::InitProducerId(init_producer_id::handle(context, &request).await)
        }
        Request::OffsetForLeaderEpoch(request) => {
            Response::OffsetForLeaderEpoch(offset_for_leader_epoch::handle(context, request).await)
        }
        Request::DescribeConfigs(request) => {
            Response::DescribeConfigs(describe_configs::handle(context, version, request).await)
        }
        Request::DeleteGroups(request) => {
            Response::DeleteGroups(delete_groups::handle(context, request).await)
        }
        Request::DescribeCluster(request) => {
            Response::DescribeCluster(describe_cluster::handle(context, version, &request))
        }
        Request::DescribeAcls(_) => Response::DescribeAcls(refused::describe_acls()),
        Request::CreateAcls(request) => Response::CreateAcls(refused::create_acls(&request)),
        Request::DeleteAcls(request) => Response::DeleteAcls(refused::delete_acls(&request)),
        Request::DescribeClientQuotas(_) => Response::DescribeClientQuotas(refused::describe_client_quotas()),
        // Not advertised, or answered by the caller.
        Request::CreatePartitions(_)
        | Request::Produce(_)
        | Request::Fetch(_)
        | Request::ApiVersions(_)
        | Request::ApiVersionsFallback
        | Request::Metadata(_)
        | Request::ListOffsets(_) => return Handled::Close,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_within_the_codec() {
        assert!(OFFERED.is_sorted_by_key(|api| api.key));
        for api in OFFERED {
            let codec = api.key.spec();
            assert!(api.version_min >= codec.advertised_min, "{:?}", api.key);
            assert!(api.version_max <= codec.version_max, "{:?}", api.key);
        }
    }
}
