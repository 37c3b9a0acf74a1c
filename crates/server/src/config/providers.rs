//! `[auth.jwt]`, `[auth.http]` and the others: who may stand in `auth.chain` beside our own table. Secrets are in files of their
//! own, so that settings can be shown.

use std::path::PathBuf;

use super::section::{Faults, section};
use super::values::{TimeSpan, choice};

section! {
    /// Tokens as passwords, if `auth.chain` names `jwt`. They must have an end (`exp`), at which the connection ends. The keys come
    /// from one of `key_file`, `jwks_file` and `jwks_url`.
    pub struct Jwt ["auth.jwt"] {
        /// The algorithm of the key in `key_file`.
        pub algorithm: JwtAlgorithm,
        /// A public key in PEM, or for HS256, HS384 and HS512 a secret at least as long as the hash, to its last byte.
        pub key_file: Option<PathBuf>,
        /// A JWK set; read again every five minutes.
        pub jwks_file: Option<PathBuf>,
        /// Where a JWK set is; read again every five minutes, and for a key that is not known.
        pub jwks_url: String,
        /// The claim that is the user.
        pub user_claim: String,
        /// The claim that must be the client's id. Empty: none.
        pub client_id_claim: String,
        /// The claim that lists the user's groups. Empty: none.
        pub groups_claim: String,
        /// Tokens must be for one of these (`aud`). None: a token that names an audience is refused.
        pub audiences: Vec<String>,
        /// Tokens must be from one of these (`iss`). None: from whoever holds the key.
        pub issuers: Vec<String>,
        /// How far the issuer's clock may be off, for the beginning of a token.
        pub leeway: TimeSpan,
    }
}

choice! {
    /// How tokens are signed.
    pub enum JwtAlgorithm: "\"HS256\", \"HS384\", \"HS512\", \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\" or \"EdDSA\"" {
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// HMAC with SHA-384.
        Hs384 = "HS384",
        /// HMAC with SHA-512.
        Hs512 = "HS512",
        /// RSA, PKCS #1 v1.5, with SHA-256.
        Rs256 = "RS256",
        /// RSA, PKCS #1 v1.5, with SHA-384.
        Rs384 = "RS384",
        /// RSA, PKCS #1 v1.5, with SHA-512.
        Rs512 = "RS512",
        /// RSA, PSS, with SHA-256.
        Ps256 = "PS256",
        /// RSA, PSS, with SHA-384.
        Ps384 = "PS384",
        /// RSA, PSS, with SHA-512.
        Ps512 = "PS512",
        /// ECDSA over P-256.
        Es256 = "ES256",
        /// ECDSA over P-384.
        Es384 = "ES384",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}

section! {
    /// A service of your own that judges users and passwords, if `auth.chain` names `http`.
    pub struct HttpProvider ["auth.http"] {
        /// Its address, `http` or `https`. Without TLS, passwords cross the network as they are.
        pub url: String,
        /// A file with the value of the header `authorization` of each request.
        pub authorization_file: Option<PathBuf>,
    }
}

section! {
    /// Password hashes in Redis, if `auth.chain` names `redis` and the broker was built with it.
    pub struct Redis ["auth.redis"] {
        /// A file with the server's address, `redis://[user:password@]host[:port][/database]`.
        pub url_file: Option<PathBuf>,
        /// The key of a user's hash; `${username}`, `${clientid}`, `${cert_common_name}` and `${tenant}` are filled in.
        pub key: String,
        /// The field with the password's hash.
        pub hash_field: String,
        /// The field that is `1` or `true` for a superuser.
        pub superuser_field: String,
    }
}

section! {
    /// Password hashes in PostgreSQL, if `auth.chain` names `postgres` and the broker was built with it.
    pub struct Postgres ["auth.postgres"] {
        /// A file with the server's address, `postgresql://user:password@host/database`.
        pub url_file: Option<PathBuf>,
        /// A query whose first column is the password's hash, and whose second, if there is one, is whether it is a superuser.
        /// `${username}`, `${clientid}`, `${cert_common_name}` and `${tenant}` become parameters.
        pub query: String,
    }
}

section! {
    /// Password hashes in MySQL, if `auth.chain` names `mysql` and the broker was built with it.
    pub struct Mysql ["auth.mysql"] {
        /// A file with the server's address, `mysql://user:password@host:port/database`.
        pub url_file: Option<PathBuf>,
        /// As for PostgreSQL; compare with `BINARY`.
        pub query: String,
    }
}

section! {
    /// A directory, if `auth.chain` names `ldap` and the broker was built with it.
    pub struct Ldap ["auth.ldap"] {
        /// `ldaps://host`, `ldap://host` or `ldapi://%2Fpath`.
        pub url: String,
        /// Whether a connection to `ldap://` begins with StartTLS.
        pub starttls: bool,
        /// The account that may search.
        pub bind_dn: String,
        /// A file with its password.
        pub bind_password_file: Option<PathBuf>,
        /// Below which entry users are.
        pub base: String,
        /// Which entry is the client's, such as `(&(objectClass=person)(uid=${username}))`.
        pub filter: String,
        /// The attribute that is the user's name.
        pub user_attribute: String,
        /// The attribute whose values are the user's groups. Empty: none.
        pub group_attribute: String,
    }
}

impl Default for Jwt {
    fn default() -> Jwt {
        Jwt {
            algorithm: JwtAlgorithm::Rs256,
            key_file: None,
            jwks_file: None,
            jwks_url: String::new(),
            user_claim: "sub".to_owned(),
            client_id_claim: String::new(),
            groups_claim: String::new(),
            audiences: Vec::new(),
            issuers: Vec::new(),
            leeway: TimeSpan::seconds(30),
        }
    }
}

#[allow(clippy::derivable_impls, reason = "defaults of settings stand where they can be read")]
impl Default for HttpProvider {
    fn default() -> HttpProvider {
        HttpProvider { url: String::new(), authorization_file: None }
    }
}

impl Default for Redis {
    fn default() -> Redis {
        Redis {
            url_file: None,
            key: "mqtt:${username}".to_owned(),
            hash_field: "password_hash".to_owned(),
            superuser_field: "is_superuser".to_owned(),
        }
    }
}

/// What most tables of users look like.
const QUERY: &str = "SELECT password_hash, is_superuser FROM users WHERE name = ${username}";

impl Default for Postgres {
    fn default() -> Postgres {
        Postgres { url_file: None, query: QUERY.to_owned() }
    }
}

impl Default for Mysql {
    fn default() -> Mysql {
        Mysql { url_file: None, query: QUERY.replace("name =", "BINARY name =") }
    }
}

impl Default for Ldap {
    fn default() -> Ldap {
        Ldap {
            url: String::new(),
            starttls: false,
            bind_dn: String::new(),
            bind_password_file: None,
            base: String::new(),
            filter: "(uid=${username})".to_owned(),
            user_attribute: "uid".to_owned(),
            group_attribute: String::new(),
        }
    }
}

/// The sections of all providers, as the chain names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Providers {
    /// `jwt`
    pub jwt: Jwt,
    /// `http`
    pub http: HttpProvider,
    /// `redis`
    pub redis: Redis,
    /// `postgres`
    pub postgres: Postgres,
    /// `mysql`
    pub mysql: Mysql,
    /// `ldap`
    pub ldap: Ldap,
}

impl Providers {
    /// Checks what the chain names; the others need not be complete.
    pub(crate) fn check(&self, chain: &[String], faults: &mut Faults) {
        let is_asked = |name: &str| chain.iter().any(|link| link == name);
        let mut need = |section, key, is_there: bool| {
            if !is_there {
                faults.add(section, key, "must be given, as auth.chain names it".to_owned());
            }
        };
        if is_asked("http") {
            need("auth.http", "url", !self.http.url.is_empty());
        }
        if is_asked("redis") {
            need("auth.redis", "url_file", self.redis.url_file.is_some());
        }
        if is_asked("postgres") {
            need("auth.postgres", "url_file", self.postgres.url_file.is_some());
        }
        if is_asked("mysql") {
            need("auth.mysql", "url_file", self.mysql.url_file.is_some());
        }
        if is_asked("ldap") {
            need("auth.ldap", "url", !self.ldap.url.is_empty());
            need("auth.ldap", "bind_password_file", self.ldap.bind_password_file.is_some());
        }
        let jwt = &self.jwt;
        let sources = [jwt.key_file.is_some(), jwt.jwks_file.is_some(), !jwt.jwks_url.is_empty()];
        if is_asked("jwt") && sources.into_iter().filter(|given| *given).count() != 1 {
            let rule = "exactly one of key_file, jwks_file and jwks_url must be given".to_owned();
            faults.add("auth.jwt", "key_file", rule);
        }
    }
}
