//! The exchange. Messages are hostile bytes; each is bounded, and no step can be taken twice or left out.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rt::Rng;
use subtle::ConstantTimeEq;

use super::keys::{Mechanism, StoredKeys};

/// Bound: bytes of a client's message.
const MESSAGE_LEN_MAX: usize = 4096;
/// Bound: bytes of a client's nonce.
const NONCE_LEN_MAX: usize = 256;
/// Random bytes in our part of the nonce.
const NONCE_LEN: usize = 24;

/// One exchange.
pub struct ScramServer {
    mechanism: Mechanism,
    /// Our part of the nonce.
    nonce: String,
    state: State,
}

enum State {
    First,
    Keys(First),
    Final(Challenge),
    Over,
}

/// What the first message said.
struct First {
    user: String,
    header: String,
    bare: String,
    client_nonce: String,
}

/// What the client has to prove.
struct Challenge {
    first: First,
    server_first: String,
    keys: StoredKeys,
    /// Whether there is such a user at all.
    known: bool,
}

/// Proof that the client of an exchange is this user; only [`ScramServer::client_final`] makes it.
#[derive(Debug, Clone)]
pub struct Verified {
    user: Arc<str>,
}

impl Verified {
    /// The user.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }
}

/// Why an exchange ends. The client is told no more than that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is not one of the standard's, or comes at the wrong time.
    #[error("the {0} of the exchange is malformed (RFC 5802, section 7)")]
    Malformed(&'static str),
    /// The client wants to bind to the channel, to act for somebody else, or something newer than the standard.
    #[error("the exchange asks for {0}, which is not offered")]
    Unsupported(&'static str),
    /// The proof is wrong, or the user unknown.
    #[error("the proof is wrong")]
    Refused,
}

impl ScramServer {
    /// A new exchange with a new nonce.
    pub fn new(mechanism: Mechanism, rng: &dyn Rng) -> ScramServer {
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| rng.next_u64().to_be_bytes()).flatten().take(NONCE_LEN).collect();
        ScramServer::with_nonce(mechanism, STANDARD.encode(bytes))
    }

    pub(super) fn with_nonce(mechanism: Mechanism, nonce: String) -> ScramServer {
        ScramServer { mechanism, nonce, state: State::First }
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the client's first message. Answers the user whose keys [`ScramServer::server_first`] wants.
    ///
    /// # Errors
    /// [`ScramError::Malformed`] or [`ScramError::Unsupported`]; the exchange is over.
    pub fn client_first(&mut self, message: &[u8]) -> Result<&str, ScramError> {
        let State::First = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("order"));
        };
        self.state = State::Keys(parse_first(message)?);
        match &self.state {
            State::Keys(first) => Ok(&first.user),
            State::First | State::Final(_) | State::Over => Err(ScramError::Malformed("order")),
        }
    }

    /// Makes the server's first message. `known` says whether `keys` are a user's, or those of nobody
    /// ([`Access::scram_keys`](crate::Access::scram_keys) tells): then the exchange goes on as if, and fails at its end.
    ///
    /// # Errors
    /// If it is not the time for it.
    pub fn server_first(&mut self, keys: StoredKeys, known: bool) -> Result<String, ScramError> {
        let State::Keys(first) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("order"));
        };
        let nonce = [&first.client_nonce, self.nonce.as_str()].concat();
        let message = format!("r={nonce},s={},i={}", keys.salt_text(), keys.iterations);
        self.state = State::Final(Challenge { first, server_first: message.clone(), keys, known });
        Ok(message)
    }

    /// Takes the client's final message. Answers the server's, and the proof of identity.
    ///
    /// # Errors
    /// [`ScramError::Refused`] for a wrong proof, [`ScramError::Malformed`] also for another nonce than the one that was
    /// agreed on (its absence was CVE-2024-56128 elsewhere) and for another header than the first message had.
    pub fn client_final(&mut self, message: &[u8]) -> Result<(String, Verified), ScramError> {
        let State::Final(challenge) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(ScramError::Malformed("order"));
        };
        let text = text_of(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed("proof"))?;
        let mut fields = without_proof.split(',');
        let header = fields.next().and_then(|field| field.strip_prefix("c="));
        if header.and_then(|header| STANDARD.decode(header).ok())
            != Some(challenge.first.header.clone().into())
        {
            return Err(ScramError::Malformed("channel binding"));
        }
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if !nonce.is_some_and(|nonce| self.is_agreed(nonce, &challenge.first.client_nonce)) {
            return Err(ScramError::Malformed("nonce"));
        }
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed("proof"))?;
        self.check_proof(&challenge, without_proof, &proof)
    }

    /// Whether a nonce is the client's part with ours behind it.
    ///
    /// librdkafka before 2.6.1, which Debian 12 has, puts its own part in front once more. That is let pass, and nothing else: ours is
    /// in it, and the proof signs our first message in any case.
    fn is_agreed(&self, nonce: &str, client_nonce: &str) -> bool {
        let rest = nonce.strip_prefix(client_nonce);
        let twice = rest.and_then(|rest| rest.strip_prefix(client_nonce));
        [rest, twice].contains(&Some(&self.nonce))
    }

    fn check_proof(
        &self,
        challenge: &Challenge,
        without_proof: &str,
        proof: &[u8],
    ) -> Result<(String, Verified), ScramError> {
        let Challenge { first, server_first, keys, known } = challenge;
        let signed = [&first.bare, server_first, without_proof].join(",");
        let signature = self.mechanism.hmac(&keys.stored_key, signed.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(proof, own)| proof ^ own).collect();
        let right = self.mechanism.hash(&client_key).ct_eq(&keys.stored_key);
        if proof.len() != signature.len() || !bool::from(right) || !known {
            return Err(ScramError::Refused);
        }
        let signature = self.mechanism.hmac(&keys.server_key, signed.as_bytes());
        let verified = Verified { user: first.user.as_str().into() };
        Ok((format!("v={}", STANDARD.encode(signature)), verified))
    }
}

/// `gs2-header client-first-message-bare`, as in `n,,n=user,r=nonce`.
fn parse_first(message: &[u8]) -> Result<First, ScramError> {
    let text = text_of(message)?;
    let mut parts = text.splitn(3, ',');
    let (flag, authzid, bare) = match (parts.next(), parts.next(), parts.next()) {
        (Some(flag), Some(authzid), Some(bare)) => (flag, authzid, bare),
        _ => return Err(ScramError::Malformed("header")),
    };
    match flag {
        // The client cannot bind, or thinks that we cannot; the latter is true.
        "n" | "y" => {}
        _ if flag.starts_with("p=") => return Err(ScramError::Unsupported("channel binding")),
        _ => return Err(ScramError::Malformed("header")),
    }
    let mut fields = bare.split(',');
    let user = match fields.next() {
        Some(field) if field.starts_with("m=") => return Err(ScramError::Unsupported("an extension")),
        Some(field) => field.strip_prefix("n=").and_then(decode_name),
        None => None,
    };
    let user = user.ok_or(ScramError::Malformed("user"))?;
    match authzid {
        "" => {}
        _ if authzid.strip_prefix("a=").and_then(decode_name).as_ref() == Some(&user) => {}
        _ if authzid.starts_with("a=") => return Err(ScramError::Unsupported("another identity")),
        _ => return Err(ScramError::Malformed("header")),
    }
    let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
    let legal = |nonce: &&str| {
        (1..=NONCE_LEN_MAX).contains(&nonce.len()) && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
    };
    let client_nonce = nonce.filter(legal).ok_or(ScramError::Malformed("nonce"))?.to_owned();
    let header = text[..text.len() - bare.len()].to_owned();
    Ok(First { user, header, bare: bare.to_owned(), client_nonce })
}

fn text_of(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_LEN_MAX {
        return Err(ScramError::Malformed("length"));
    }
    str::from_utf8(message).map_err(|_| ScramError::Malformed("text"))
}

/// `=2C` is a comma and `=3D` an equals sign; no other `=` is allowed.
fn decode_name(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut decoded = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        decoded.push(sign);
        decoded.push_str(rest);
    }
    (!decoded.is_empty() && !decoded.chars().any(char::is_control)).then_some(decoded)
}
