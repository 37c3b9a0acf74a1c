//! Tokens of every kind of key, and the ways in which they are wrong.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rt::ManualClock;
use serde_json::{Value, json};

use super::*;
use crate::credentials::Listener;

const NOW: i64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../fixtures/jwt/", $name, ".pem"))
    };
}

fn signing_keys() -> Vec<(TokenAlgorithm, EncodingKey, &'static [u8])> {
    use TokenAlgorithm::{
        EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512,
    };
    let rsa = || EncodingKey::from_rsa_pem(fixture!("rsa")).unwrap();
    let mut keys: Vec<(TokenAlgorithm, EncodingKey, &'static [u8])> = vec![
        (Es256, EncodingKey::from_ec_pem(fixture!("p256")).unwrap(), fixture!("p256.pub")),
        (Es384, EncodingKey::from_ec_pem(fixture!("p384")).unwrap(), fixture!("p384.pub")),
        (EdDsa, EncodingKey::from_ed_pem(fixture!("ed25519")).unwrap(), fixture!("ed25519.pub")),
    ];
    keys.extend([Hs256, Hs384, Hs512].map(|alg| (alg, EncodingKey::from_secret(SECRET), SECRET)));
    for algorithm in [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512] {
        keys.push((algorithm, rsa(), fixture!("rsa.pub")));
    }
    keys
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW * 1_000))
}

fn provider(settings: JwtSettings, keys: Vec<JwtKey>) -> JwtProvider {
    JwtProvider::new(settings, KeySource::Fixed(keys), clock()).unwrap()
}

fn hs256(settings: JwtSettings) -> JwtProvider {
    provider(settings, vec![JwtKey::new(None, TokenAlgorithm::Hs256, SECRET).unwrap()])
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW + 60})
}

fn token(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

fn signed(claims: &Value) -> String {
    token(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET))
}

fn credentials(password: &str) -> Credentials {
    Credentials {
        tenant: TenantId::default(),
        listener: Listener::bound("l", "0.0.0.0".parse().unwrap()),
        protocol: "mqtt",
        client_id: "c1".into(),
        user: None,
        password: Some(Secret::new(password.as_bytes().to_vec())),
        peer: "10.0.0.1".parse().unwrap(),
        certificate: None,
    }
}

async fn user_of(provider: &JwtProvider, token: &str) -> Result<String, &'static str> {
    match provider.authenticate(&credentials(token)).await {
        Ok(Outcome::Allow(identity)) => Ok(identity.user.unwrap().to_string()),
        Ok(Outcome::Deny) => Err("deny"),
        Ok(Outcome::NotMine) => Err("not mine"),
        Err(_) => Err("error"),
    }
}

#[tokio::test]
async fn every_algorithm_and_only_the_keys_own() {
    let keys = signing_keys();
    for (algorithm, signer, public) in &keys {
        let key = JwtKey::new(None, *algorithm, public).unwrap();
        let provider = provider(JwtSettings::default(), vec![key]);
        for (other, other_signer, _) in &keys {
            let token = token(&Header::new(other.algorithm()), &claims(), other_signer);
            let expected = if other == algorithm { Ok("alice".to_owned()) } else { Err("not mine") };
            assert_eq!(user_of(&provider, &token).await, expected, "{algorithm:?} {other:?}");
        }
        let mut broken = token(&Header::new(algorithm.algorithm()), &claims(), signer);
        let at = broken.rfind('.').unwrap() + 5;
        let flipped = if broken.as_bytes()[at] == b'A' { "B" } else { "A" };
        broken.replace_range(at..=at, flipped);
        assert_eq!(user_of(&provider, &broken).await, Err("deny"), "{algorithm:?}");
    }
}

/// The public key of RS256 as the secret of HS256, and no signature at all.
#[tokio::test]
async fn the_token_does_not_choose_the_algorithm() {
    let public = fixture!("rsa.pub");
    let key = JwtKey::new(None, TokenAlgorithm::Rs256, public).unwrap();
    let provider = provider(JwtSettings::default(), vec![key]);
    let confused = token(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(public));
    assert_eq!(user_of(&provider, &confused).await, Err("not mine"));
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(json!({"alg": "none"})), part(claims()));
    assert_eq!(user_of(&provider, &none).await, Err("not mine"));
    for password in ["", "secret", "a.b.c", "eyJ.eyJ.x", "ey..", "eyJhbGciOiJIUzI1NiJ9.é.x"] {
        assert_eq!(user_of(&provider, password).await, Err("not mine"), "{password}");
    }
}

#[tokio::test]
async fn claims_that_do_not_hold_refuse() {
    let settings = JwtSettings {
        audiences: vec!["broker".to_owned()],
        issuers: vec!["https://id.example".to_owned()],
        client_id_claim: Some("device".to_owned()),
        ..JwtSettings::default()
    };
    let provider = hs256(settings);
    let right = json!({
        "sub": "alice", "exp": NOW + 60, "nbf": NOW + 20, "aud": ["x", "broker"], "iss": "https://id.example",
        "device": "c1", "acl": {"pub": ["a"]},
    });
    assert_eq!(user_of(&provider, &signed(&right)).await, Ok("alice".to_owned()));
    for (claim, value) in [
        ("exp", json!(NOW)),
        ("exp", json!(NOW - 1)),
        ("exp", json!("tomorrow")),
        ("exp", Value::Null),
        ("nbf", json!(NOW + 31)),
        ("nbf", json!("now")),
        ("aud", json!("other")),
        ("aud", Value::Null),
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("device", json!("c2")),
        ("device", Value::Null),
        ("acl", json!({"fly": ["a"]})),
    ] {
        let mut wrong = right.clone();
        if value.is_null() {
            wrong.as_object_mut().unwrap().remove(claim);
        } else {
            wrong[claim] = value.clone();
        }
        assert_eq!(user_of(&provider, &signed(&wrong)).await, Err("deny"), "{claim} {value}");
    }
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let critical = token(&header, &right, &EncodingKey::from_secret(SECRET));
    assert_eq!(user_of(&provider, &critical).await, Err("deny"));
    // Without a setting for audiences, a token for somebody is not for us.
    assert_eq!(user_of(&hs256(JwtSettings::default()), &signed(&right)).await, Err("deny"));
}

#[tokio::test]
async fn what_a_token_gives() {
    let settings = JwtSettings {
        user_claim: "name".to_owned(),
        groups_claim: Some("roles".to_owned()),
        ..JwtSettings::default()
    };
    let claims = json!({
        "sub": "1", "name": "alice", "exp": NOW as f64 + 60.5, "roles": ["ops"], "is_superuser": true,
        "acl": [{"permission": "allow", "action": "all", "topic": "a/#"}],
    });
    let provider = hs256(settings);
    let Ok(Outcome::Allow(identity)) = provider.authenticate(&credentials(&signed(&claims))).await else {
        panic!("the token is refused");
    };
    assert_eq!(identity.user.as_deref(), Some("alice"));
    assert_eq!(identity.expires_at_ms, Some(NOW * 1_000 + 60_500));
    assert_eq!((identity.rules.len(), &*identity.groups), (1, &["ops".into()][..]));
    assert!(!identity.superuser, "a token makes nobody a superuser");

    let elsewhere = hs256(JwtSettings { tenant: TenantId::new("other").ok(), ..JwtSettings::default() });
    assert_eq!(user_of(&elsewhere, &signed(&super::tests::claims())).await, Err("not mine"));
}

#[test]
fn keys_that_are_none_are_refused() {
    assert!(JwtKey::new(None, TokenAlgorithm::Hs256, &SECRET[..31]).is_err());
    assert!(JwtKey::new(None, TokenAlgorithm::Hs512, &SECRET[..63]).is_err());
    assert!(JwtKey::new(None, TokenAlgorithm::Rs256, SECRET).is_err());
    assert!(JwtKey::new(None, TokenAlgorithm::EdDsa, b"-----BEGIN PUBLIC KEY-----").is_err());
    let none = JwtProvider::new(JwtSettings::default(), KeySource::Fixed(vec![]), clock());
    assert!(matches!(none.err(), Some(KeyError::None)));
}

/// A JWK set of the public keys, with their names.
fn set(names: &[(&str, TokenAlgorithm)]) -> String {
    let keys: Vec<Value> = names
        .iter()
        .map(|(name, algorithm)| {
            let keys = signing_keys();
            let (_, signer, _) = keys.iter().find(|(known, ..)| known == algorithm).unwrap();
            let mut jwk = Jwk::from_encoding_key(signer, algorithm.algorithm()).unwrap();
            jwk.common.key_id = Some((*name).to_owned());
            serde_json::to_value(&jwk).unwrap()
        })
        .collect();
    json!({"keys": keys}).to_string()
}

fn named(name: &str, algorithm: TokenAlgorithm) -> String {
    let keys = signing_keys();
    let (_, signer, _) = keys.iter().find(|(known, ..)| *known == algorithm).unwrap();
    let mut header = Header::new(algorithm.algorithm());
    header.kid = Some(name.to_owned());
    token(&header, &claims(), signer)
}

#[tokio::test]
async fn keys_of_a_file_are_read_again() {
    use TokenAlgorithm::{EdDsa, Es256, Es384, Hs256, Rs256};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let clock = clock();
    let source = KeySource::File(path.clone());
    let provider = JwtProvider::new(JwtSettings::default(), source, clock.clone()).unwrap();
    assert_eq!(user_of(&provider, &named("a", Es256)).await, Err("error"), "no file is no answer");

    let mut unusable: Value = serde_json::from_str(&set(&[("a", Es256), ("h", Hs256)])).unwrap();
    unusable["keys"].as_array_mut().unwrap().push(json!({"kty": "new", "x": 1}));
    std::fs::write(&path, unusable.to_string()).unwrap();
    assert_eq!(user_of(&provider, &named("a", Es256)).await, Ok("alice".to_owned()));
    assert_eq!(user_of(&provider, &named("h", Hs256)).await, Ok("alice".to_owned()));
    assert_eq!(user_of(&provider, &named("a", Es384)).await, Err("not mine"));
    assert_eq!(user_of(&provider, &named("b", Es256)).await, Err("not mine"));

    std::fs::write(&path, set(&[("e", EdDsa), ("r", Rs256)])).unwrap();
    assert_eq!(user_of(&provider, &named("r", Rs256)).await, Err("not mine"), "it was read just now");
    clock.advance(Duration::from_secs(10));
    assert_eq!(user_of(&provider, &named("r", Rs256)).await, Ok("alice".to_owned()));
    assert_eq!(user_of(&provider, &named("e", EdDsa)).await, Ok("alice".to_owned()));
    assert_eq!(user_of(&provider, &named("a", Es256)).await, Err("not mine"));
}

#[cfg(feature = "http")]
#[tokio::test]
async fn keys_of_an_address_outlive_its_failure_for_an_hour() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use TokenAlgorithm::{Es256, Hs256};

    use crate::providers::testing::Service;

    let (failing, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (fails, counts) = (failing.clone(), asked.clone());
    let service = Service::start(Arc::new(move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        if fails.load(Ordering::SeqCst) {
            ("500 Oops", String::new())
        } else {
            ("200 OK", set(&[("a", Es256), ("h", Hs256)]))
        }
    }))
    .await;
    let clock = clock();
    let source = KeySource::Url(service.url.clone());
    let provider = JwtProvider::new(JwtSettings::default(), source, clock.clone()).unwrap();
    let mut claims = claims();
    claims["exp"] = json!(NOW + 100_000);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("a".to_owned());
    let token = token(&header, &claims, &EncodingKey::from_ec_pem(fixture!("p256")).unwrap());

    assert_eq!(user_of(&provider, &token).await, Err("error"));
    failing.store(false, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(user_of(&provider, &token).await, Ok("alice".to_owned()));
        assert_eq!(
            user_of(&provider, &named("h", Hs256)).await,
            Err("not mine"),
            "no secrets from an address"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "unknown keys do not make us ask each time");
    failing.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(3_599));
    assert_eq!(user_of(&provider, &token).await, Ok("alice".to_owned()));
    clock.advance(Duration::from_secs(11));
    assert_eq!(user_of(&provider, &token).await, Err("error"));
}
