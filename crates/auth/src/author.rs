//! `Author`: whose something is that takes effect later, when its connection may be gone: a will, a delayed message.

use std::net::IpAddr;

use model::TenantId;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::authorizer::{Decision, Request};
use crate::chain::identity_of;
use crate::grant::Grant;
use crate::principal::{Identity, Principal};

/// A principal as it is written beside what it left to be done.
///
/// What a provider proved of it (groups, rules of a token) is not kept: it was asked when the thing was accepted. What this
/// node knows itself is asked again, with [`Access::may_still`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(rename = "c")]
    client_id: String,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(rename = "a")]
    peer: IpAddr,
    /// The user is one of our own table.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    stored: bool,
}

impl Author {
    /// As bytes, some fifty of them.
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory, with keys that are texts, cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What [`Author::encode`] wrote; `None` if it is cut or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Author> {
        serde_json::from_slice(bytes).ok()
    }

    fn principal(&self, tenant: &TenantId) -> Principal {
        Principal {
            tenant: tenant.clone(),
            user: self.user.as_deref().map(Into::into),
            client_id: self.client_id.as_str().into(),
            certificate: self.certificate.as_deref().map(Into::into),
            peer: self.peer,
            identity: Identity::default(),
        }
    }
}

impl Grant {
    /// Who it is, for what it leaves to be done.
    pub fn author(&self) -> Author {
        let principal = self.principal();
        Author {
            user: principal.user.as_deref().map(str::to_owned),
            client_id: principal.client_id.to_string(),
            certificate: principal.certificate.as_deref().map(str::to_owned),
            peer: principal.peer,
            stored: principal.identity.stored,
        }
    }
}

impl Access {
    /// Whether something that was allowed to `author` when it was accepted may take effect now: nobody has banned it, its user is
    /// still there, and the rules of now allow it. For a user that a provider proved, only what denies it is known here.
    pub fn may_still(&self, tenant: &TenantId, author: &Author, request: &Request<'_>) -> bool {
        let shared = self.shared();
        let view = shared.tables.view(tenant.as_str());
        let mut principal = author.principal(tenant);
        if !view.whole || shared.check_bans(&principal).is_err() {
            return false;
        }
        let mut unmatched = shared.unmatched(&principal, &view);
        if let Some(name) = &author.user {
            if !author.stored {
                unmatched = Decision::Allow;
            } else {
                match shared.tables.user(tenant.as_str(), name) {
                    Some(user) if !user.disabled => principal.identity = identity_of(&user),
                    Some(_) | None => return false,
                }
            }
        }
        view.rules.decide(&principal, request, unmatched).decision.is_allowed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_author_comes_back(user: Option<String>, client in "\\PC*", stored: bool, peer: [u8; 4]) {
            let author = Author {
                certificate: user.clone(),
                user,
                client_id: client,
                peer: peer.into(),
                stored,
            };
            let bytes = author.encode();
            prop_assert_eq!(Author::decode(&bytes), Some(author));
            prop_assert_eq!(Author::decode(&bytes[..bytes.len() - 1]), None);
        }
    }
}
