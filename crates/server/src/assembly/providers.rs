//! The providers of access control as settings say them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::providers::{
    HttpProvider, HttpSettings, JwtKey, JwtProvider, JwtSettings, KeySource, TokenAlgorithm,
};
use auth::{Authenticator, Passwords, Secret};
use rt::{Clock, Tasks};
use thiserror::Error;

use crate::config::{Config, JwtAlgorithm};

/// Why a provider cannot be used.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file of its settings cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the settings say is of no use.
    #[error("the settings of auth.{name} are of no use")]
    Settings {
        /// Which provider.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What providers need of the process.
#[allow(dead_code, reason = "who needs which is chosen by features")]
pub(super) struct Needs {
    pub(super) clock: Arc<dyn Clock>,
    /// Where hashes of databases are compared.
    pub(super) passwords: Passwords,
    /// Where their connections run.
    pub(super) tasks: Tasks,
}

/// The provider that the chain calls `name`; `None` for a name that is no provider's.
pub(super) fn provider(
    name: &str,
    config: &Config,
    needs: &Needs,
) -> Result<Option<Arc<dyn Authenticator>>, ProviderError> {
    let wrong = |source| ProviderError::Settings { name: name.to_owned(), source };
    Ok(Some(match name {
        "jwt" => jwt(config, needs)?,
        "http" => {
            let settings = &config.providers.http;
            let header = settings.authorization_file.as_deref().map(secret).transpose()?;
            let headers = header.map(|value| ("authorization".to_owned(), value)).into_iter().collect();
            let provider = HttpProvider::new(&HttpSettings { url: settings.url.clone(), headers });
            Arc::new(provider.map_err(|error| wrong(error.into()))?)
        }
        _ => return databases(name, config, needs),
    }))
}

fn jwt(config: &Config, needs: &Needs) -> Result<Arc<dyn Authenticator>, ProviderError> {
    let settings = &config.providers.jwt;
    let wrong = |source: auth::providers::KeyError| ProviderError::Settings {
        name: "jwt".to_owned(),
        source: source.into(),
    };
    let keys = match (&settings.key_file, &settings.jwks_file) {
        (Some(file), _) => {
            let key = JwtKey::new(None, algorithm(settings.algorithm), &read(file)?);
            KeySource::Fixed(vec![key.map_err(wrong)?])
        }
        (None, Some(file)) => KeySource::File(file.clone()),
        (None, None) => KeySource::Url(settings.jwks_url.clone()),
    };
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let settings = JwtSettings {
        tenant: None,
        audiences: settings.audiences.clone(),
        issuers: settings.issuers.clone(),
        user_claim: settings.user_claim.clone(),
        client_id_claim: given(&settings.client_id_claim),
        groups_claim: given(&settings.groups_claim),
        leeway: settings.leeway.duration(),
    };
    Ok(Arc::new(JwtProvider::new(settings, keys, Arc::clone(&needs.clock)).map_err(wrong)?))
}

fn algorithm(algorithm: JwtAlgorithm) -> TokenAlgorithm {
    match algorithm {
        JwtAlgorithm::Hs256 => TokenAlgorithm::Hs256,
        JwtAlgorithm::Hs384 => TokenAlgorithm::Hs384,
        JwtAlgorithm::Hs512 => TokenAlgorithm::Hs512,
        JwtAlgorithm::Rs256 => TokenAlgorithm::Rs256,
        JwtAlgorithm::Rs384 => TokenAlgorithm::Rs384,
        JwtAlgorithm::Rs512 => TokenAlgorithm::Rs512,
        JwtAlgorithm::Ps256 => TokenAlgorithm::Ps256,
        JwtAlgorithm::Ps384 => TokenAlgorithm::Ps384,
        JwtAlgorithm::Ps512 => TokenAlgorithm::Ps512,
        JwtAlgorithm::Es256 => TokenAlgorithm::Es256,
        JwtAlgorithm::Es384 => TokenAlgorithm::Es384,
        JwtAlgorithm::EdDsa => TokenAlgorithm::EdDsa,
    }
}

/// Providers with a driver of their own.
#[allow(unused_variables, reason = "which of them are built is chosen by features")]
fn databases(
    name: &str,
    config: &Config,
    needs: &Needs,
) -> Result<Option<Arc<dyn Authenticator>>, ProviderError> {
    let wrong = |source| ProviderError::Settings { name: name.to_owned(), source };
    let address = |file: &Option<PathBuf>| secret(file.as_deref().unwrap_or(Path::new("")));
    let given = &config.providers;
    Ok(match name {
        #[cfg(feature = "redis")]
        "redis" => {
            let settings = auth::providers::RedisSettings {
                url: address(&given.redis.url_file)?,
                key: given.redis.key.clone(),
                hash_field: given.redis.hash_field.clone(),
                superuser_field: given.redis.superuser_field.clone(),
            };
            let made = auth::providers::RedisProvider::new(&settings, needs.passwords.clone());
            Some(Arc::new(made.map_err(|error| wrong(Box::from(error)))?))
        }
        #[cfg(feature = "postgres")]
        "postgres" => {
            let url = address(&given.postgres.url_file)?;
            let settings = auth::providers::PostgresSettings { url, query: given.postgres.query.clone() };
            let (passwords, tasks) = (needs.passwords.clone(), needs.tasks.clone());
            let made = auth::providers::PostgresProvider::new(&settings, passwords, tasks);
            Some(Arc::new(made.map_err(|error| wrong(Box::from(error)))?))
        }
        #[cfg(feature = "mysql")]
        "mysql" => {
            let url = address(&given.mysql.url_file)?;
            let settings = auth::providers::MysqlSettings { url, query: given.mysql.query.clone() };
            let made = auth::providers::MysqlProvider::new(&settings, needs.passwords.clone());
            Some(Arc::new(made.map_err(|error| wrong(Box::from(error)))?))
        }
        #[cfg(feature = "ldap")]
        "ldap" => {
            let settings = auth::providers::LdapSettings {
                url: given.ldap.url.clone(),
                starttls: given.ldap.starttls,
                bind_dn: given.ldap.bind_dn.clone(),
                bind_password: address(&given.ldap.bind_password_file)?,
                base: given.ldap.base.clone(),
                filter: given.ldap.filter.clone(),
                user_attribute: given.ldap.user_attribute.clone(),
                group_attribute: Some(given.ldap.group_attribute.clone()).filter(|name| !name.is_empty()),
            };
            let made = auth::providers::LdapProvider::new(settings, needs.tasks.clone());
            Some(Arc::new(made.map_err(|error| wrong(Box::from(error)))?))
        }
        _ => None,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ProviderError> {
    std::fs::read(path).map_err(|source| ProviderError::File { path: path.to_owned(), source })
}

/// [`secret_in`] a file of a provider.
fn secret(path: &Path) -> Result<Secret, ProviderError> {
    secret_in(path).map_err(|source| ProviderError::File { path: path.to_owned(), source })
}

/// A text in a file, without the end of its last line.
pub(super) fn secret_in(path: &Path) -> io::Result<Secret> {
    Ok(Secret::new(std::fs::read(path)?.trim_ascii_end().to_vec()))
}
