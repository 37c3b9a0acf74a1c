//! `JwtProvider`: a password that is a signed token (RFC 7519) is judged by its signature and its claims.
//!
//! The algorithm is that of the key, never the token's choice. A token without an end is refused, and the connection ends with it.

mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Validation, decode_header};
use model::TenantId;
use rt::Clock;
use serde_json::{Map, Value};

use super::claims;
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::principal::Identity;
use keys::Keys;
pub use keys::{JwtKey, KeyError, KeySource, TokenAlgorithm};

/// Bound: bytes of a token.
const TOKEN_LEN_MAX: usize = 16 << 10;
/// Bound: groups in a token.
const GROUPS_MAX: usize = 64;

/// Which tokens are accepted, and what is read from them.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// If set, connections of other tenants are none of this provider's: their tokens come from elsewhere.
    pub tenant: Option<TenantId>,
    /// A token must be for one of these (`aud`). None: a token that names an audience is refused, as the standard wants.
    pub audiences: Vec<String>,
    /// A token must be from one of these (`iss`). None: from whoever holds the key.
    pub issuers: Vec<String>,
    /// The claim that is the user; `sub` unless told otherwise. A token without it is refused.
    pub user_claim: String,
    /// The claim that must be equal to the client's id, if any must.
    pub client_id_claim: Option<String>,
    /// The claim that lists the user's groups, if one does.
    pub groups_claim: Option<String>,
    /// How far the issuer's clock may be off, for `nbf` only: at `exp` a token has ended.
    pub leeway: Duration,
}

impl Default for JwtSettings {
    fn default() -> JwtSettings {
        JwtSettings {
            tenant: None,
            audiences: Vec::new(),
            issuers: Vec::new(),
            user_claim: "sub".to_owned(),
            client_id_claim: None,
            groups_claim: None,
            leeway: Duration::from_secs(30),
        }
    }
}

/// Judges tokens. A password that is no token, or is signed with a key of somebody else, is not its business.
pub struct JwtProvider {
    settings: JwtSettings,
    keys: Keys,
    clock: Arc<dyn Clock>,
}

impl JwtProvider {
    /// A provider with these keys. Keys of a file or an address are read when the first token comes.
    ///
    /// # Errors
    /// If there is nowhere to read keys from.
    pub fn new(
        settings: JwtSettings,
        keys: KeySource,
        clock: Arc<dyn Clock>,
    ) -> Result<JwtProvider, KeyError> {
        Ok(JwtProvider { settings, keys: Keys::new(keys, clock.clone())?, clock })
    }

    async fn judge(&self, credentials: &Credentials) -> Result<Outcome, AuthenticateError> {
        let password = credentials.password.as_ref().map(Secret::expose).unwrap_or_default();
        let ours = self.settings.tenant.as_ref().is_none_or(|tenant| *tenant == credentials.tenant);
        if !ours || !looks_like_token(password) {
            return Ok(Outcome::NotMine);
        }
        let Ok(header) = decode_header(password) else { return Ok(Outcome::NotMine) };
        let keys = self.keys.find(header.kid.as_deref(), header.alg).await?;
        if keys.is_empty() {
            return Ok(Outcome::NotMine);
        }
        if header.crit.is_some() {
            // Spec: RFC 7515 4.1.11: what is critical and not understood makes the token invalid.
            return Ok(Outcome::Deny);
        }
        let claims = keys.iter().find_map(|key| {
            let validation = self.validation(key.algorithm());
            jsonwebtoken::decode::<Map<String, Value>>(password, key.key(), &validation).ok()
        });
        Ok(claims
            .and_then(|token| self.identity(&token.claims, credentials))
            .map_or(Outcome::Deny, Outcome::Allow))
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp"];
        // Times are compared by our own clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        if !self.settings.audiences.is_empty() {
            validation.set_audience(&self.settings.audiences);
            required.push("aud");
        }
        if !self.settings.issuers.is_empty() {
            validation.set_issuer(&self.settings.issuers);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// What the claims of a token with a right signature say, if they are acceptable.
    fn identity(&self, claims: &Map<String, Value>, credentials: &Credentials) -> Option<Identity> {
        let now_ms = self.clock.wall_ms();
        let expires_at_ms = time_ms(claims.get("exp")?)?;
        let leeway = i64::try_from(self.settings.leeway.as_millis()).unwrap_or(i64::MAX);
        let from_ms = claims.get("nbf").map_or(Some(i64::MIN), time_ms)?;
        if expires_at_ms <= now_ms || from_ms > now_ms.saturating_add(leeway) {
            return None;
        }
        let user = claims.get(&self.settings.user_claim)?.as_str().filter(|user| !user.is_empty())?;
        if let Some(claim) = &self.settings.client_id_claim
            && claims.get(claim)?.as_str()? != &*credentials.client_id
        {
            return None;
        }
        let groups = match self.settings.groups_claim.as_ref().and_then(|claim| claims.get(claim)) {
            Some(groups) => {
                let groups = groups.as_array().filter(|groups| groups.len() <= GROUPS_MAX)?;
                groups.iter().map(|group| group.as_str().map(Into::into)).collect::<Option<_>>()?
            }
            None => Vec::new(),
        };
        let rules = claims::rules(claims.get("acl")).ok()?.into();
        let expires_at_ms = Some(expires_at_ms);
        Some(Identity { user: Some(user.into()), groups, expires_at_ms, rules, ..Identity::default() })
    }
}

impl Authenticator for JwtProvider {
    fn name(&self) -> &str {
        "jwt"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(self.judge(credentials))
    }
}

/// Three parts of the URL-safe alphabet, the first of which begins like an object of JSON in base64.
fn looks_like_token(password: &[u8]) -> bool {
    let dots = password.iter().filter(|&&byte| byte == b'.').count();
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    password.len() <= TOKEN_LEN_MAX && password.starts_with(b"ey") && dots == 2 && password.iter().all(legal)
}

/// Seconds since 1970, whole or not (RFC 7519, NumericDate), in milliseconds.
fn time_ms(value: &Value) -> Option<i64> {
    match value.as_i64() {
        Some(seconds) => Some(seconds.saturating_mul(1_000)),
        // The conversion saturates.
        None => value.as_f64().map(|seconds| (seconds * 1_000.0) as i64),
    }
}
