//! Authenticators that ask somebody else: one file each, each behind the feature of its name.

#[cfg(any(feature = "jwt", feature = "http"))]
mod claims;
#[cfg(feature = "http")]
mod client;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql", feature = "ldap"))]
#[cfg(test)]
mod servers;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql", feature = "ldap"))]
mod stored;
#[cfg(feature = "http")]
#[cfg(test)]
mod testing;

#[cfg(feature = "http")]
pub use http::{HttpError, HttpProvider, HttpSettings};
#[cfg(feature = "jwt")]
pub use jwt::{JwtKey, JwtProvider, JwtSettings, KeyError, KeySource, TokenAlgorithm};
#[cfg(feature = "ldap")]
pub use ldap::{LdapProvider, LdapSettings, LdapSettingsError};
#[cfg(feature = "mysql")]
pub use mysql::{MysqlError, MysqlProvider, MysqlSettings};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresError, PostgresProvider, PostgresSettings};
#[cfg(feature = "redis")]
pub use redis::{RedisError, RedisProvider, RedisSettings};
