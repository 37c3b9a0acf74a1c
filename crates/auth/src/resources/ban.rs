//! `Ban`: somebody who is kept out, whatever they can prove.

use std::net::IpAddr;

use bytes::BytesMut;
use model::{Resource, ResourceError, TenantId};
use serde::{Deserialize, Serialize};

use super::{check_name, read, write};

/// Bound: bytes of the reason.
const REASON_LEN_MAX: usize = 512;

/// The part of the key of a ban that holds in every tenant; no tenant can be called so.
const EVERY_TENANT: &str = "*";

/// An entry of the block list. Its key is `tenant/id`, or `*/id` if it holds in every tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// In which tenant it holds; `None`: in all of them.
    pub tenant: Option<String>,
    /// What it is called, 1 to 255 bytes without control characters.
    pub id: String,
    /// Who is kept out.
    pub who: Banned,
    /// When it ends, in milliseconds since 1970; `None`: never. What has ended is as if it were not there, and may be removed at any
    /// time.
    pub until_ms: Option<i64>,
    /// Why, for the operator; clients never see it.
    pub reason: String,
}

/// Who is kept out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banned {
    /// The client of this id.
    Client(String),
    /// Clients whose id the pattern matches: `*` stands for any characters, all others for themselves.
    ClientPattern(String),
    /// This user, claimed or proved.
    User(String),
    /// Users whose name the pattern matches.
    UserPattern(String),
    /// This address.
    Address(IpAddr),
    /// These addresses.
    Network(Network),
}

/// A network in CIDR notation. An IPv4 address in IPv6 clothes is compared as what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Ban {
    /// Whether it keeps nobody out any more.
    pub fn has_ended(&self, now_ms: i64) -> bool {
        !holds(self.until_ms, now_ms)
    }
}

/// Whether what ends at a time, if ever, has not ended.
pub(crate) fn holds(until_ms: Option<i64>, now_ms: i64) -> bool {
    until_ms.is_none_or(|until_ms| now_ms < until_ms)
}

impl Network {
    /// Whether the address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The text is not `address/bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is spelled as an address, a `/`, and how many of its bits count")]
pub struct NotANetwork;

impl std::str::FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, bits) = text.split_once('/').ok_or(NotANetwork)?;
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let bits: u8 = bits.parse().map_err(|_| NotANetwork)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits > width || address != address.to_canonical() {
            Err(NotANetwork)
        } else {
            Ok(Network { address, bits })
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Network, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        format!("{}/{}", network.address, network.bits)
    }
}

impl Resource for Ban {
    const KIND: &'static str = "ban";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant.as_deref().unwrap_or(EVERY_TENANT), self.id)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Ban, ResourceError> {
        read(Ban::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let invalid = |field, rule| ResourceError::Invalid { kind: Ban::KIND, field, rule };
        check_name(Ban::KIND, "id", &self.id)?;
        if self.tenant.as_ref().is_some_and(|tenant| TenantId::new(tenant).is_err()) {
            return Err(invalid("tenant", "must be the name of a tenant"));
        }
        if self.reason.len() > REASON_LEN_MAX {
            return Err(invalid("reason", "must have at most 512 bytes"));
        }
        match &self.who {
            Banned::Client(name)
            | Banned::ClientPattern(name)
            | Banned::User(name)
            | Banned::UserPattern(name) => check_name(Ban::KIND, "who", name),
            Banned::Address(_) | Banned::Network(_) => Ok(()),
        }
    }
}

/// Whether a pattern with `*` matches a text. Takes time in proportion to the product of their lengths at worst.
pub(crate) fn glob_matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The first place is as good as any later one: it leaves the most.
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_count_bits() {
        for (network, address, inside) in [
            ("10.1.0.0/16", "10.1.255.3", true),
            ("10.1.0.0/16", "10.2.0.3", false),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "255.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "::ffff:1.2.3.4/120", "/8", "1.1.1.1/-1"]
        {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text}");
        }
    }

    #[test]
    fn globs_know_only_the_star() {
        for (pattern, text, matches) in [
            ("dev-*", "dev-7", true),
            ("dev-*", "dev-", true),
            ("dev-*", "adev-7", false),
            ("*-7", "dev-7", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("a.c", "abc", false),
            ("a", "ab", false),
        ] {
            assert_eq!(glob_matches(pattern, text), matches, "{pattern} on {text}");
        }
    }
}
