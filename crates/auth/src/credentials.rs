//! What a connection says of itself before anybody believes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use model::TenantId;

/// What is known of a connection that wants in. A front fills it once, from its protocol's connect exchange and from
/// the transport, and hands it to [`Access::admit`](crate::Access::admit).
///
/// Everything but `tenant`, `listener`, `protocol`, `peer` and `certificate` was said by the client and proves nothing.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The tenant that the listener, the server name or the protocol's own field led to.
    pub tenant: TenantId,
    /// Where the connection came in.
    pub listener: Listener,
    /// The protocol's lower-case name, such as `mqtt`; for providers and logs. No decision of this crate reads it.
    pub protocol: &'static str,
    /// The client's id as its session will have it: if the broker assigns one, the assigned one. Empty if the protocol
    /// has none.
    pub client_id: Arc<str>,
    /// The claimed user. `None` and empty mean the same.
    pub user: Option<Arc<str>>,
    /// The password or token as it came.
    pub password: Option<Secret>,
    /// The other end of the connection. It is told to providers and compared with the block list; **that it is local
    /// gives no right**, because a proxy on this machine makes every client local.
    pub peer: IpAddr,
    /// The common name of the client's certificate, only if the transport has verified the chain.
    pub certificate: Option<Arc<str>>,
}

/// The listener of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its configured name.
    pub name: Arc<str>,
    /// Whether the address that it is **bound to** is a loopback address (`127.0.0.0/8`, `::1`). It is a fact of the
    /// configuration, decided once when the socket is bound, never of a connection.
    pub loopback: bool,
}

impl Listener {
    /// A listener bound to `address`. An IPv4 address in IPv6 clothes counts as what it is; an unspecified one is wide.
    pub fn bound(name: impl Into<Arc<str>>, address: IpAddr) -> Listener {
        Listener { name: name.into(), loopback: address.to_canonical().is_loopback() }
    }
}

impl Credentials {
    /// Of a client of the default tenant, on this machine, that presents nothing.
    pub fn anonymous(listener: Listener, client_id: &str) -> Credentials {
        Credentials {
            tenant: TenantId::default(),
            listener,
            protocol: "",
            client_id: client_id.into(),
            user: None,
            password: None,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certificate: None,
        }
    }

    /// Whether nothing was presented that could prove an identity.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.claims_nobody() && self.certificate.is_none()
    }

    /// Whether neither a user nor a password was presented.
    pub(crate) fn claims_nobody(&self) -> bool {
        self.user().is_none() && self.password.is_none()
    }

    /// The claimed user, if it is not empty.
    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref().filter(|user| !user.is_empty())
    }
}

/// Bound: bytes of a password that somebody is given, and at least.
pub const NEW_PASSWORD_BYTES: RangeInclusive<usize> = 1..=1024;

/// Bytes that must not be seen: they are never formatted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// Keeps these bytes to itself.
    pub fn new(bytes: impl Into<Bytes>) -> Secret {
        Secret(bytes.into())
    }

    /// The bytes, for whoever verifies or forwards them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_bind_is_loopback() {
        for (address, loopback) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(Listener::bound("l", address.parse().unwrap()).loopback, loopback, "{address}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(Secret)");
    }
}
