//! The example of RFC 7677, a client that does it right, and many that do not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rt::{SeededRng, SystemRng};

use super::*;

const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn keys() -> StoredKeys {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    StoredKeys::derive_with(Mechanism::Sha256, b"pencil", salt, 4096)
}

fn challenged() -> ScramServer {
    let mut server = ScramServer::with_nonce(Mechanism::Sha256, NONCE.to_owned());
    assert_eq!(server.client_first(FIRST), Ok("user"));
    assert_eq!(server.server_first(keys(), true).as_deref(), Ok(SERVER_FIRST));
    server
}

#[test]
fn the_example_of_rfc_7677() {
    let (message, verified) = challenged().client_final(FINAL.as_bytes()).unwrap();
    assert_eq!(message, SERVER_FINAL);
    assert_eq!(&**verified.user(), "user");
}

/// What a client does, from RFC 5802 section 3, kept apart from the server's code but for the primitives.
fn prove(mechanism: Mechanism, password: &[u8], bare: &str, server_first: &str) -> String {
    prove_with(mechanism, password, (bare, server_first), "")
}

/// The same with something in front of the nonce.
fn prove_with(
    mechanism: Mechanism,
    password: &[u8],
    (bare, server_first): (&str, &str),
    before: &str,
) -> String {
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).unwrap());
    let mut salted = vec![0; mechanism.len()];
    let iterations = field("i=").parse().unwrap();
    match mechanism {
        Mechanism::Sha256 => pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, &salt, iterations, &mut salted),
        Mechanism::Sha512 => pbkdf2::pbkdf2_hmac::<sha2::Sha512>(password, &salt, iterations, &mut salted),
    }
    let client_key = mechanism.hmac(&salted, b"Client Key");
    let without_proof = format!("c=biws,r={before}{nonce}");
    let signed = format!("{bare},{server_first},{without_proof}");
    let signature = mechanism.hmac(&mechanism.hash(&client_key), signed.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

#[test]
fn both_mechanisms_prove_the_right_password_only() {
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
        let keys = StoredKeys::derive(mechanism, "pässword".as_bytes(), &SystemRng);
        assert!(keys.is_of(mechanism.len()));
        for (password, right) in [("pässword", true), ("password", false), ("", false)] {
            let mut server = ScramServer::new(mechanism, &SystemRng);
            let bare = "n=a=2Cb=3Dc,r=abc";
            assert_eq!(server.client_first(format!("y,,{bare}").as_bytes()), Ok("a,b=c"));
            let server_first = server.server_first(keys.clone(), true).unwrap();
            let message = prove(mechanism, password.as_bytes(), bare, &server_first)
                // The header was another one.
                .replace("c=biws", "c=eSws");
            // The proof was made over `c=biws`, so that even the right password fails: the header is signed.
            assert_eq!(server.client_final(message.as_bytes()).err(), Some(ScramError::Refused));

            let mut server = ScramServer::new(mechanism, &SystemRng);
            server.client_first(format!("n,,{bare}").as_bytes()).unwrap();
            let server_first = server.server_first(keys.clone(), true).unwrap();
            let message = prove(mechanism, password.as_bytes(), bare, &server_first);
            assert_eq!(server.client_final(message.as_bytes()).is_ok(), right, "{password}");
        }
    }
    assert_eq!(Mechanism::from_name("SCRAM-SHA-256-PLUS"), None);
}

#[test]
fn the_nonce_is_checked() {
    for nonce in ["rOprNGfwEbeRWgbNEkqO", "x", NONCE, "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k"] {
        let message = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let refused = challenged().client_final(message.as_bytes()).err();
        assert_eq!(refused, Some(ScramError::Malformed("nonce")), "{nonce}");
    }
}

/// librdkafka before 2.6.1 could not log in: it sends its own part of the nonce twice.
#[test]
fn the_clients_part_of_the_nonce_may_come_twice() {
    for (before, password, outcome) in [
        ("abc", "pencil", Ok(())),
        ("abc", "Pencil", Err(ScramError::Refused)),
        ("abcabc", "pencil", Err(ScramError::Malformed("nonce"))),
        ("abcx", "pencil", Err(ScramError::Malformed("nonce"))),
        ("x", "pencil", Err(ScramError::Malformed("nonce"))),
    ] {
        let mut server = ScramServer::new(Mechanism::Sha256, &SystemRng);
        let bare = "n=user,r=abc";
        server.client_first(format!("n,,{bare}").as_bytes()).unwrap();
        let server_first = server.server_first(keys(), true).unwrap();
        let parts = (bare, server_first.as_str());
        let message = prove_with(Mechanism::Sha256, password.as_bytes(), parts, before);
        assert_eq!(server.client_final(message.as_bytes()).map(|_| ()), outcome, "{before} {password}");
    }
}

#[test]
fn nobody_is_asked_like_somebody_and_never_let_in() {
    let keys = StoredKeys::of_nobody(Mechanism::Sha256, b"secret", "user");
    assert_eq!(keys, StoredKeys::of_nobody(Mechanism::Sha256, b"secret", "user"));
    assert_ne!(keys.salt, StoredKeys::of_nobody(Mechanism::Sha256, b"secret", "users").salt);
    assert_eq!(keys.iterations, StoredKeys::derive(Mechanism::Sha256, b"x", &SystemRng).iterations);
    let mut server = ScramServer::with_nonce(Mechanism::Sha256, NONCE.to_owned());
    server.client_first(FIRST).unwrap();
    // Even keys that the client can prove are no use for a user who does not exist.
    server.server_first(super::tests::keys(), false).unwrap();
    assert_eq!(server.client_final(FINAL.as_bytes()).err(), Some(ScramError::Refused));
}

#[test]
fn malformed_messages_end_the_exchange() {
    for (message, error) in [
        ("", ScramError::Malformed("header")),
        ("n,,", ScramError::Malformed("user")),
        ("n,,n=,r=a", ScramError::Malformed("user")),
        ("n,,n=a=b,r=a", ScramError::Malformed("user")),
        ("n,,n=a", ScramError::Malformed("nonce")),
        ("n,,n=a,r=", ScramError::Malformed("nonce")),
        ("n,,n=a,r=a b", ScramError::Malformed("nonce")),
        ("n,,m=x,n=a,r=a", ScramError::Unsupported("an extension")),
        ("x,,n=a,r=a", ScramError::Malformed("header")),
        ("n,b,n=a,r=a", ScramError::Malformed("header")),
        ("n,a=root,n=a,r=a", ScramError::Unsupported("another identity")),
        ("p=tls-exporter,,n=a,r=a", ScramError::Unsupported("channel binding")),
    ] {
        let mut server = ScramServer::new(Mechanism::Sha256, &SystemRng);
        assert_eq!(server.client_first(message.as_bytes()), Err(error), "{message}");
        assert_eq!(server.client_first(FIRST), Err(ScramError::Malformed("order")));
    }
    let long = format!("n,,n={},r=a", "u".repeat(5000));
    let mut server = ScramServer::new(Mechanism::Sha256, &SystemRng);
    assert_eq!(server.client_first(long.as_bytes()), Err(ScramError::Malformed("length")));
}

#[test]
fn no_step_can_be_left_out() {
    let mut server = ScramServer::new(Mechanism::Sha256, &SystemRng);
    assert_eq!(server.client_final(FINAL.as_bytes()).err(), Some(ScramError::Malformed("order")));
    let mut server = ScramServer::new(Mechanism::Sha256, &SystemRng);
    assert_eq!(server.server_first(keys(), true), Err(ScramError::Malformed("order")));
    let mut server = challenged();
    assert!(server.client_final(FINAL.as_bytes()).is_ok());
    assert_eq!(server.client_final(FINAL.as_bytes()).err(), Some(ScramError::Malformed("order")));
}

proptest! {
    #[test]
    fn no_bytes_are_a_proof(first in any::<Vec<u8>>(), last in any::<Vec<u8>>(), seed in any::<u64>()) {
        let mut server = ScramServer::new(Mechanism::Sha256, &SeededRng::new(seed));
        let _ = server.client_first(&first);
        prop_assert!(challenged().client_final(&last).is_err());
    }
}
