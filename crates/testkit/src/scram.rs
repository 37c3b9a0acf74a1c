//! The client's side of SCRAM, from RFC 5802, section 3: written apart from what it is used against.

use auth::scram::Mechanism;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

/// A client that proves to know a password.
pub struct ScramClient {
    mechanism: Mechanism,
    bare: String,
    password: String,
}

impl ScramClient {
    /// One exchange. The name must not have signs that need escaping.
    pub fn new(mechanism: Mechanism, user: &str, password: &str) -> ScramClient {
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        ScramClient { mechanism, bare, password: password.to_owned() }
    }

    /// Its first message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The final message for the broker's first.
    pub fn answer(&self, challenge: &[u8]) -> Vec<u8> {
        let (salted, signed) = self.sign(challenge);
        let key = self.hmac(&salted, b"Client Key");
        let stored = match self.mechanism {
            Mechanism::Sha256 => Sha256::digest(&key).to_vec(),
            Mechanism::Sha512 => Sha512::digest(&key).to_vec(),
        };
        let signature = self.hmac(&stored, signed.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        let (_, without_proof) = signed.rsplit_once(",c=").expect("what is signed names the header");
        format!("c={without_proof},p={}", STANDARD.encode(proof)).into_bytes()
    }

    /// Whether the broker knows the password, too.
    pub fn is_broker(&self, challenge: &[u8], verdict: &[u8]) -> bool {
        let (salted, signed) = self.sign(challenge);
        let signature = self.hmac(&self.hmac(&salted, b"Server Key"), signed.as_bytes());
        verdict == format!("v={}", STANDARD.encode(signature)).as_bytes()
    }

    /// The salted password, and what both sides sign.
    fn sign(&self, challenge: &[u8]) -> (Vec<u8>, String) {
        let challenge = std::str::from_utf8(challenge).expect("a challenge is text");
        let fields = || challenge.split(',');
        let field = |name: &str| fields().find_map(|field| field.strip_prefix(name)).expect("it is there");
        let salt = STANDARD.decode(field("s=")).expect("a salt is base64");
        let rounds = field("i=").parse().expect("a number");
        let password = self.password.as_bytes();
        let salted = match self.mechanism {
            Mechanism::Sha256 => {
                let mut salted = vec![0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, rounds, &mut salted);
                salted
            }
            Mechanism::Sha512 => {
                let mut salted = vec![0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &salt, rounds, &mut salted);
                salted
            }
        };
        (salted, format!("{},{challenge},c=biws,r={}", self.bare, field("r=")))
    }

    fn hmac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self.mechanism {
            Mechanism::Sha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys have any length");
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Mechanism::Sha512 => {
                let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("keys have any length");
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }
}
