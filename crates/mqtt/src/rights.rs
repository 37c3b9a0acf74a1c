//! [`Rights`]: what a client may do, asked with canonical names, and the rule for what becomes of it when that changes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::{Action, Author, Credentials, Decision, Grant, Listener, Refusal, Request, Secret};
use model::TenantId;
use wire::mqtt::{Connect, Qos, ReasonCode};

/// As providers and logs name it.
const PROTOCOL: &str = "mqtt";

/// The grant of one connection.
pub(crate) struct Rights {
    grant: Grant,
    /// When what the client proved ends.
    pub(crate) until: Option<Instant>,
}

impl Rights {
    pub(crate) fn new(grant: Grant, now: Instant, wall_ms: i64) -> Self {
        let left = grant.expires_at().map(|at| u64::try_from(at.saturating_sub(wall_ms)).unwrap_or(0));
        // What is too far away to be counted does not end.
        let until = left.and_then(|left| now.checked_add(Duration::from_millis(left)));
        Self { grant, until }
    }

    /// Changes whenever an answer may have changed.
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.grant.revision()
    }

    /// Also for a will, and for what is published later.
    #[inline]
    pub(crate) fn may_publish(&self, subject: &str, qos: Qos, retain: bool) -> bool {
        let request = Request::new(Action::Publish, subject).qos(qos as u8).retain(retain);
        self.grant.decide(&request).is_allowed()
    }

    /// `filter` is canonical, without what stands before it in a shared subscription.
    pub(crate) fn subscribe(&self, filter: &str, qos: Qos) -> Decision {
        self.grant.decide(&Request::new(Action::Subscribe, filter).qos(qos as u8))
    }

    pub(crate) fn may_receive(&self, subject: &str, qos: Qos) -> bool {
        self.grant.decide(&Request::new(Action::Receive, subject).qos(qos as u8)).is_allowed()
    }

    /// Who it is, for what it leaves behind.
    pub(crate) fn author(&self) -> Author {
        self.grant.author()
    }

    /// What it was let in with, but for its proof.
    pub(crate) fn credentials(&self, listener: &Listener) -> Credentials {
        let principal = self.grant.principal();
        Credentials {
            tenant: principal.tenant.clone(),
            peer: principal.peer,
            certificate: principal.certificate.clone(),
            protocol: PROTOCOL,
            ..Credentials::anonymous(listener.clone(), &principal.client_id)
        }
    }

    /// The user that it has proved to be.
    pub(crate) fn user(&self) -> Option<Arc<str>> {
        self.grant.principal().user.clone()
    }

    /// Whether the client may stay; if not, what a 5.0 client is told.
    pub(crate) fn standing(&self) -> Result<(), ReasonCode> {
        self.grant.standing().map_err(|refusal| match refusal {
            Refusal::Banned => ReasonCode::AdministrativeAction,
            Refusal::Unavailable => ReasonCode::ServerBusy,
            Refusal::BadCredentials | Refusal::AnonymousNotAllowed | Refusal::NoUsers | Refusal::Expired => {
                ReasonCode::NotAuthorized
            }
        })
    }
}

/// What a CONNECT that is not let in is answered. An older version has 4 and 5 for the first two kinds (section 3.2.2.3).
pub(crate) fn refusal_reason(refusal: Refusal) -> ReasonCode {
    match refusal {
        Refusal::BadCredentials | Refusal::Expired => ReasonCode::BadUserNameOrPassword,
        Refusal::AnonymousNotAllowed | Refusal::NoUsers => ReasonCode::NotAuthorized,
        Refusal::Banned => ReasonCode::Banned,
        Refusal::Unavailable => ReasonCode::ServerUnavailable,
    }
}

/// What a client says of itself, and what the network says of it. A user of its certificate stands above the user name and the
/// password that it gives itself.
pub(crate) fn credentials(
    packet: &Connect<'_>,
    client: &Arc<str>,
    peer: &net::Peer,
    place: (&TenantId, &Listener),
) -> Credentials {
    let (tenant, listener) = place;
    let certified = peer.user.as_deref().map(Arc::<str>::from);
    let password = packet.password.filter(|_| certified.is_none());
    Credentials {
        tenant: tenant.clone(),
        listener: listener.clone(),
        protocol: PROTOCOL,
        client_id: Arc::clone(client),
        user: certified.clone().or_else(|| packet.user_name.map(Arc::from)),
        password: password.map(|password| Secret::new(password.to_vec())),
        peer: host(peer),
        certificate: certified,
    }
}

/// Where a client is. Who comes through a unix socket is on this machine.
pub(crate) fn host(peer: &net::Peer) -> IpAddr {
    peer.address.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
