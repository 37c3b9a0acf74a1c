//! The keys that tokens are signed with: given, or read from a JWK set (RFC 7517) in a file or at an address.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use rt::{Clock, Instant};
use serde_json::Value;

use crate::authenticator::AuthenticateError;

/// Bound: bytes of a set.
const SET_LEN_MAX: usize = 1 << 20;
/// Bound: keys of a set.
const KEYS_MAX: usize = 128;
/// A set is read again after this time.
const REFRESH_AFTER: Duration = Duration::from_secs(300);
/// It is read again sooner if a token names a key that is not there, but not more often than this.
const REFRESH_AT_MOST: Duration = Duration::from_secs(10);
/// If it cannot be read, the last one holds for this long. Then the provider fails.
const STALE_MAX: Duration = Duration::from_secs(3_600);

/// An algorithm of a signature. `none` is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// RSA, PKCS #1 v1.5, with SHA-384.
    Rs384,
    /// RSA, PKCS #1 v1.5, with SHA-512.
    Rs512,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// RSA, PSS, with SHA-384.
    Ps384,
    /// RSA, PSS, with SHA-512.
    Ps512,
    /// ECDSA over P-256.
    Es256,
    /// ECDSA over P-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl TokenAlgorithm {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            TokenAlgorithm::Hs256 => Algorithm::HS256,
            TokenAlgorithm::Hs384 => Algorithm::HS384,
            TokenAlgorithm::Hs512 => Algorithm::HS512,
            TokenAlgorithm::Rs256 => Algorithm::RS256,
            TokenAlgorithm::Rs384 => Algorithm::RS384,
            TokenAlgorithm::Rs512 => Algorithm::RS512,
            TokenAlgorithm::Ps256 => Algorithm::PS256,
            TokenAlgorithm::Ps384 => Algorithm::PS384,
            TokenAlgorithm::Ps512 => Algorithm::PS512,
            TokenAlgorithm::Es256 => Algorithm::ES256,
            TokenAlgorithm::Es384 => Algorithm::ES384,
            TokenAlgorithm::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A key with the one algorithm that it is for.
#[derive(Clone)]
pub struct JwtKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtKey {
    /// A key: for HMAC the secret, at least as long as the hash; for the others a public key in PEM.
    ///
    /// # Errors
    /// [`KeyError::Key`] if it is not one of the algorithm's, or too short.
    pub fn new(id: Option<String>, algorithm: TokenAlgorithm, bytes: &[u8]) -> Result<JwtKey, KeyError> {
        let key = match algorithm {
            TokenAlgorithm::Hs256 if bytes.len() >= 32 => Ok(DecodingKey::from_secret(bytes)),
            TokenAlgorithm::Hs384 if bytes.len() >= 48 => Ok(DecodingKey::from_secret(bytes)),
            TokenAlgorithm::Hs512 if bytes.len() >= 64 => Ok(DecodingKey::from_secret(bytes)),
            TokenAlgorithm::Hs256 | TokenAlgorithm::Hs384 | TokenAlgorithm::Hs512 => {
                return Err(KeyError::Key);
            }
            TokenAlgorithm::Es256 | TokenAlgorithm::Es384 => DecodingKey::from_ec_pem(bytes),
            TokenAlgorithm::EdDsa => DecodingKey::from_ed_pem(bytes),
            TokenAlgorithm::Rs256
            | TokenAlgorithm::Rs384
            | TokenAlgorithm::Rs512
            | TokenAlgorithm::Ps256
            | TokenAlgorithm::Ps384
            | TokenAlgorithm::Ps512 => DecodingKey::from_rsa_pem(bytes),
        };
        Ok(JwtKey { id, algorithm: algorithm.algorithm(), key: key.map_err(|_| KeyError::Key)? })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn key(&self) -> &DecodingKey {
        &self.key
    }
}

/// Where keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// From the settings.
    Fixed(Vec<JwtKey>),
    /// From a JWK set in a file, read again every five minutes.
    File(PathBuf),
    /// From a JWK set at an address, read again every five minutes, and when a token names an unknown key.
    #[cfg(feature = "http")]
    Url(String),
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no key of that algorithm.
    #[error("this is no key of that algorithm, or one that is too short for it")]
    Key,
    /// None was given.
    #[error("at least one key is needed")]
    None,
    /// The address cannot be asked.
    #[cfg(feature = "http")]
    #[error("the address of the keys is of no use")]
    Url(#[source] crate::providers::http::HttpError),
}

/// The keys as they are known.
pub(super) struct Keys {
    source: Source,
    clock: Arc<dyn Clock>,
    held: RwLock<Held>,
    /// Held by whoever reads them anew; the others wait for it and then look again.
    reading: tokio::sync::Mutex<()>,
}

enum Source {
    Fixed,
    File(PathBuf),
    #[cfg(feature = "http")]
    Url(Box<super::super::client::HttpClient>, hyper::Uri),
}

#[derive(Default)]
struct Held {
    keys: Arc<[JwtKey]>,
    /// When they were read.
    read_at: Option<Instant>,
    /// When it was last tried.
    tried_at: Option<Instant>,
}

impl Keys {
    pub(super) fn new(source: KeySource, clock: Arc<dyn Clock>) -> Result<Keys, KeyError> {
        let mut held = Held::default();
        let source = match source {
            KeySource::Fixed(keys) if keys.is_empty() => return Err(KeyError::None),
            KeySource::Fixed(keys) => {
                held.keys = keys.into();
                Source::Fixed
            }
            KeySource::File(path) => Source::File(path),
            #[cfg(feature = "http")]
            KeySource::Url(url) => {
                use crate::providers::http::{HttpError, parse_url};
                let (uri, tls) = parse_url(&url).ok_or(KeyError::Url(HttpError::Url))?;
                let client = super::super::client::HttpClient::new(tls);
                let client = client.map_err(|error| KeyError::Url(HttpError::Trust(error)))?;
                Source::Url(Box::new(client), uri)
            }
        };
        Ok(Keys { source, clock, held: RwLock::new(held), reading: tokio::sync::Mutex::new(()) })
    }

    /// The keys that may have signed a token with this header.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<JwtKey>, AuthenticateError> {
        if self.is_due(REFRESH_AFTER) {
            self.read_again(REFRESH_AFTER).await?;
        }
        let found = self.known(id, algorithm);
        if !found.is_empty() || !self.is_due(REFRESH_AT_MOST) {
            return Ok(found);
        }
        self.read_again(REFRESH_AT_MOST).await?;
        Ok(self.known(id, algorithm))
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<JwtKey> {
        let keys = self.held.read().keys.clone();
        // A token that names no key is tried with all; a key without a name is tried for all.
        let named = |key: &&JwtKey| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        keys.iter().filter(|key| key.algorithm == algorithm).filter(named).cloned().collect()
    }

    fn is_due(&self, after: Duration) -> bool {
        if matches!(self.source, Source::Fixed) {
            return false;
        }
        let held = self.held.read();
        let now = self.clock.now();
        let tried_lately = held.tried_at.is_some_and(|at| now.since(at) < REFRESH_AT_MOST);
        let read_lately = held.read_at.is_some_and(|at| now.since(at) < after);
        // Before they were ever read, each try counts, or a start beside a slow issuer would refuse for ten seconds.
        held.read_at.is_none() || !(tried_lately || read_lately)
    }

    async fn read_again(&self, after: Duration) -> Result<(), AuthenticateError> {
        let _reading = self.reading.lock().await;
        if !self.is_due(after) {
            return Ok(());
        }
        let now = self.clock.now();
        self.held.write().tried_at = Some(now);
        let outcome = self.read().await;
        let mut held = self.held.write();
        match outcome {
            Ok(keys) => {
                held.keys = keys.into();
                held.read_at = Some(now);
                Ok(())
            }
            Err(error) if held.read_at.is_some_and(|at| now.since(at) < STALE_MAX) => {
                tracing::warn!(err = %error, "the keys of tokens cannot be read again, the last ones hold");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self) -> Result<Vec<JwtKey>, AuthenticateError> {
        let set = match &self.source {
            Source::Fixed => return Ok(self.held.read().keys.to_vec()),
            Source::File(path) => read_file(path).await?,
            #[cfg(feature = "http")]
            Source::Url(client, uri) => {
                let mut request = hyper::Request::new(Default::default());
                *request.uri_mut() = uri.clone();
                let (status, body) = client.send(request, SET_LEN_MAX).await?;
                if status != hyper::StatusCode::OK {
                    return Err(AuthenticateError::Answer("the keys were not given with status 200"));
                }
                body.to_vec()
            }
        };
        let shared_secrets = matches!(self.source, Source::File(_));
        parse_set(&set, shared_secrets).ok_or(AuthenticateError::Answer("the keys are no JWK set"))
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, AuthenticateError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut set = Vec::new();
        std::fs::File::open(path)?.take(SET_LEN_MAX as u64 + 1).read_to_end(&mut set)?;
        Ok::<_, std::io::Error>(set)
    });
    let set = read.await.map_err(AuthenticateError::unreachable)?;
    let set = set.map_err(AuthenticateError::unreachable)?;
    if set.len() > SET_LEN_MAX { Err(AuthenticateError::Answer("the keys are too long")) } else { Ok(set) }
}

/// The signing keys of a set. Keys that cannot be used here are left out, as RFC 7517 section 5 asks; secrets that are shared with the
/// issuer are taken from a file only.
fn parse_set(set: &[u8], shared_secrets: bool) -> Option<Vec<JwtKey>> {
    let set: Value = serde_json::from_slice(set).ok()?;
    let keys = set.get("keys")?.as_array()?;
    let keys = keys.iter().take(KEYS_MAX).filter_map(|key| parse_key(key, shared_secrets));
    Some(keys.collect())
}

fn parse_key(key: &Value, shared_secrets: bool) -> Option<JwtKey> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let named = jwk.common.key_algorithm;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match named {
            None | Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::RS384) => Algorithm::RS384,
            Some(KeyAlgorithm::RS512) => Algorithm::RS512,
            Some(KeyAlgorithm::PS256) => Algorithm::PS256,
            Some(KeyAlgorithm::PS384) => Algorithm::PS384,
            Some(KeyAlgorithm::PS512) => Algorithm::PS512,
            Some(_) => return None,
        },
        AlgorithmParameters::EllipticCurve(parameters) => match (&parameters.curve, named) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Algorithm::ES256,
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(parameters) => match (&parameters.curve, named) {
            (EllipticCurve::Ed25519, None | Some(KeyAlgorithm::EdDSA)) => Algorithm::EdDSA,
            _ => return None,
        },
        AlgorithmParameters::OctetKey(_) if shared_secrets => match named {
            Some(KeyAlgorithm::HS256) => Algorithm::HS256,
            Some(KeyAlgorithm::HS384) => Algorithm::HS384,
            Some(KeyAlgorithm::HS512) => Algorithm::HS512,
            _ => return None,
        },
        // The library's list may grow; what is not above is not ours.
        _ => return None,
    };
    Some(JwtKey { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}
