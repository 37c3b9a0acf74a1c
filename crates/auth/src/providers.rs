//! Authenticators that ask somebody else: one file each, each behind the feature of its name.

#[cfg(any(feature = "jwt", feature = "http"))]
mod claims;
#[cfg(feature = "http")]
mod client;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "jwt")]
mod jwt;

#[cfg(feature = "http")]
pub use http::{HttpError, HttpProvider, HttpSettings};
#[cfg(feature = "jwt")]
pub use jwt::{JwtKey, JwtProvider, JwtSettings, KeyError, KeySource, TokenAlgorithm};
#[cfg(feature = "http")]
#[cfg(test)]
mod testing;
