//! Who a connection is, once somebody has proved it.

use std::net::IpAddr;
use std::sync::Arc;

use model::TenantId;

use crate::rule::Rule;

/// A connection's identity for as long as it lives. What decisions are made about.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Its tenant. Rules of other tenants never concern it.
    pub tenant: TenantId,
    /// The proven user; `None` for an anonymous client, whatever it claimed.
    pub user: Option<Arc<str>>,
    /// The client id of the session; empty if the protocol has none.
    pub client_id: Arc<str>,
    /// The common name of the verified certificate.
    pub certificate: Option<Arc<str>>,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// What the authenticator said of it.
    pub identity: Identity,
}

/// What an [`Authenticator`](crate::Authenticator) has proved.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The user; it may be another one than was claimed (a token's subject, a certificate's name). `None`: the claimed.
    pub user: Option<Arc<str>>,
    /// Whether everything is allowed that no rule denies, and the cluster's administration whatever rules say.
    pub superuser: bool,
    /// Groups that permissions may name.
    pub groups: Vec<Arc<str>>,
    /// When the proof ends, in milliseconds since 1970: the connection ends then too.
    pub expires_at_ms: Option<i64>,
    /// Rules that came with the proof and hold for this connection only, beside the stored ones.
    pub rules: Arc<[Rule]>,
    /// Whether the user is one of our own table, so that its removal there ends the connection.
    pub(crate) stored: bool,
}

impl Principal {
    /// What a placeholder stands for; `None` if there is nothing or it is empty.
    pub(crate) fn value(&self, placeholder: crate::pattern::Placeholder) -> Option<&str> {
        use crate::pattern::Placeholder;
        let value = match placeholder {
            Placeholder::Username => self.user.as_deref(),
            Placeholder::ClientId => Some(&*self.client_id),
            Placeholder::CertCommonName => self.certificate.as_deref(),
        };
        value.filter(|value| !value.is_empty())
    }
}
