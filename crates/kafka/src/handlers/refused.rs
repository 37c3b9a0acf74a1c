//! Access rules and quotas (keys 29, 30, 31: versions 1 to 3; key 48: versions 0 and 1). Permissions have no ACLs, and there are
//! no quotas; clients infer from these rows how old a broker is.

use wire::kafka::messages::{
    AclCreationResult, CreateAclsRequest, CreateAclsResponse, DeleteAclsFilterResult, DeleteAclsRequest,
    DeleteAclsResponse, DescribeAclsResponse, DescribeClientQuotasResponse,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};

pub(super) const DESCRIBE_ACLS: Offered = offered(ApiKey::DescribeAcls, 1, 3);
pub(super) const CREATE_ACLS: Offered = offered(ApiKey::CreateAcls, 1, 3);
pub(super) const DELETE_ACLS: Offered = offered(ApiKey::DeleteAcls, 1, 3);
pub(super) const DESCRIBE_CLIENT_QUOTAS: Offered = offered(ApiKey::DescribeClientQuotas, 0, 1);

const CODE: i16 = ErrorCode::SecurityDisabled as i16;
const MESSAGE: &str = "permissions are read and changed over HTTP";

pub(super) fn describe_acls() -> DescribeAclsResponse {
    let mut response = DescribeAclsResponse::default();
    response.error_code = CODE;
    response.error_message = Some(MESSAGE.into());
    response
}

pub(super) fn create_acls(request: &CreateAclsRequest) -> CreateAclsResponse {
    let mut response = CreateAclsResponse::default();
    let result = || {
        let mut result = AclCreationResult::default();
        result.error_code = CODE;
        result.error_message = Some(MESSAGE.into());
        result
    };
    response.results = request.creations.iter().map(|_| result()).collect();
    response
}

pub(super) fn delete_acls(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let mut response = DeleteAclsResponse::default();
    let result = || {
        let mut result = DeleteAclsFilterResult::default();
        result.error_code = CODE;
        result.error_message = Some(MESSAGE.into());
        result
    };
    response.filter_results = request.filters.iter().map(|_| result()).collect();
    response
}

pub(super) fn describe_client_quotas() -> DescribeClientQuotasResponse {
    let mut response = DescribeClientQuotasResponse::default();
    response.entries = Some(Vec::new());
    response
}
