//! A client of SCRAM-SHA-256, from RFC 5802, section 3.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub(crate) struct Client {
    bare: String,
    password: String,
}

impl Client {
    pub(crate) fn new(user: &str, password: &str) -> Client {
        Client { bare: format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL"), password: password.to_owned() }
    }

    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The final message for the broker's first.
    pub(crate) fn answer(&self, challenge: &[u8]) -> Vec<u8> {
        let (salted, signed) = self.sign(challenge);
        let key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(&key), signed.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        let without = signed.rsplit_once(",c=").unwrap().1;
        format!("c={without},p={}", STANDARD.encode(proof)).into_bytes()
    }

    /// Whether the broker knows the password, too.
    pub(crate) fn is_broker(&self, challenge: &[u8], verdict: &[u8]) -> bool {
        let (salted, signed) = self.sign(challenge);
        let signature = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        verdict == format!("v={}", STANDARD.encode(signature)).as_bytes()
    }

    fn sign(&self, challenge: &[u8]) -> (Vec<u8>, String) {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
        let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).unwrap());
        let mut salted = vec![0; 32];
        let rounds = field("i=").parse().unwrap();
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, rounds, &mut salted);
        (salted, format!("{},{challenge},c=biws,r={nonce}", self.bare))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
