//! `PostgresProvider`: users in a table of PostgreSQL.
//!
//! The connection is not encrypted: use a socket of this machine, or a network that you trust. An address that asks for TLS
//! (`sslmode=require`) fails, and so refuses.
//!
//! The tests start `postgres` (Debian: `postgresql`) on a socket in a temporary folder, as the user `postgres` if they are
//! run by root: `cargo test -p auth --features postgres`.

use std::sync::Arc;

use rt::{OnFailure, OnShutdown, TaskKind, Tasks};
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::stored::{Question, Stored, judge, password_of};
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::passwords::Passwords;

/// Bound: questions under way. They share one connection.
const AT_ONCE_MAX: usize = 64;

const CONNECTION: TaskKind =
    TaskKind { name: "postgres", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Log };

/// Where users are.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgresql://user:password@host/database`, or `host=... user=...`. It may hold a password, so it is not printed.
    pub url: Secret,
    /// A query whose first column is the password's hash, and whose second one, if there is one, is whether it is a superuser; at
    /// most one row. `${username}`, `${clientid}`, `${cert_common_name}` and `${tenant}` become parameters of type `text`:
    /// `SELECT password_hash, is_superuser FROM users WHERE name = ${username}`.
    pub query: String,
}

/// The settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// Not such an address.
    #[error("the address of the PostgreSQL server cannot be read")]
    Url,
    /// A query with the same answer for everybody, or that names something unknown.
    #[error("the query does not name the client, or names something unknown")]
    Query,
}

/// Judges passwords by the hashes in PostgreSQL.
pub struct PostgresProvider {
    config: Config,
    query: String,
    question: Question,
    passwords: Passwords,
    tasks: Tasks,
    client: Mutex<Option<Arc<Client>>>,
    turns: Semaphore,
}

impl PostgresProvider {
    /// A provider over this server. It connects when the first client comes.
    ///
    /// # Errors
    /// If the settings are of no use.
    pub fn new(
        settings: &PostgresSettings,
        passwords: Passwords,
        tasks: Tasks,
    ) -> Result<PostgresProvider, PostgresError> {
        let url = str::from_utf8(settings.url.expose()).map_err(|_| PostgresError::Url)?;
        let question = Question::parse(&settings.query).ok_or(PostgresError::Query)?;
        Ok(PostgresProvider {
            config: url.parse().map_err(|_| PostgresError::Url)?,
            query: question.with_places(|at| format!("${at}")),
            question,
            passwords,
            tasks,
            client: Mutex::new(None),
            turns: Semaphore::new(AT_ONCE_MAX),
        })
    }

    async fn fetch(&self, credentials: &Credentials) -> Result<Option<Stored>, AuthenticateError> {
        let values = self.question.values(credentials);
        if values.iter().any(|value| value.contains('\0')) {
            // No text of PostgreSQL holds it.
            return Ok(None);
        }
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let _turn = self.turns.acquire().await.map_err(|_| AuthenticateError::Busy)?;
        let client = self.connect().await?;
        let rows = client.query_typed(&self.query, &parameters).await;
        let rows = rows.map_err(AuthenticateError::unreachable)?;
        match &rows[..] {
            [] => Ok(None),
            [row] => read(row).map(Some),
            _ => Err(AuthenticateError::Answer("the query has more than one row")),
        }
    }

    async fn connect(&self) -> Result<Arc<Client>, AuthenticateError> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let connected = self.config.connect(NoTls).await;
        let (client, connection) = connected.map_err(AuthenticateError::unreachable)?;
        // It ends with the client, or with the server; the next login finds it closed.
        self.tasks.spawn(CONNECTION, "authentication", async move {
            let _ = connection.await;
        });
        let client = Arc::new(client);
        *held = Some(client.clone());
        Ok(client)
    }
}

fn read(row: &Row) -> Result<Stored, AuthenticateError> {
    const TYPES: AuthenticateError =
        AuthenticateError::Answer("the query does not answer a text and, if at all, a boolean");
    let hash: String = row.try_get(0).map_err(|_| TYPES)?;
    let superuser = match row.len() {
        1 => false,
        _ => row.try_get::<_, Option<bool>>(1).map_err(|_| TYPES)?.unwrap_or(false),
    };
    Ok(Stored { hash, superuser })
}

impl Authenticator for PostgresProvider {
    fn name(&self) -> &str {
        "postgres"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(async move {
            let Some(password) = password_of(credentials) else { return Ok(Outcome::NotMine) };
            let stored = self.fetch(credentials).await?;
            judge(&self.passwords, stored, password).await
        })
    }
}

#[cfg(test)]
mod tests {
    use rt::Shutdown;

    use super::*;
    use crate::providers::servers::{Server, asked, passwords};

    const QUERY: &str = "SELECT hash, super FROM users WHERE name = ${username}";

    fn provider(url: &str, query: &str) -> Result<PostgresProvider, PostgresError> {
        let settings = PostgresSettings { url: Secret::new(url.to_owned()), query: query.to_owned() };
        PostgresProvider::new(&settings, passwords(), Tasks::new(Shutdown::new()))
    }

    #[tokio::test]
    async fn users_of_a_real_server() {
        let server = Server::postgres();
        let url = format!("host={} user=postgres dbname=postgres", server.folder().display());
        let hash = passwords().hash(b"secret".to_vec()).await.unwrap().to_text();
        let (client, connection) =
            server.until_ready(|| async { tokio_postgres::connect(&url, NoTls).await.ok() }).await;
        tokio::spawn(connection);
        let made = format!(
            "CREATE TABLE users (name text, hash text, super boolean);
             INSERT INTO users VALUES ('alice', '{hash}', true), ('o''hara', '{hash}', NULL),
                 ('broken', 'secret', false), ('twice', '{hash}', false), ('twice', '{hash}', false);"
        );
        client.batch_execute(&made).await.unwrap();

        let provider = provider(&url, QUERY).unwrap();
        assert_eq!(asked(&provider, "alice", "secret").await, "allow superuser");
        assert_eq!(asked(&provider, "alice", "Secret").await, "deny");
        assert_eq!(asked(&provider, "o'hara", "secret").await, "allow");
        for nobody in ["bob", "' OR '1'='1", "alice'--", "alice\0", "${username}"] {
            assert_eq!(asked(&provider, nobody, "secret").await, "not mine", "{nobody}");
        }
        assert_eq!(asked(&provider, "broken", "secret").await, "error");
        assert_eq!(asked(&provider, "twice", "secret").await, "error");
        let wrong = super::tests::provider(&url, "SELECT 1 WHERE 'a' = ${username}").unwrap();
        assert_eq!(asked(&wrong, "a", "secret").await, "error");
        drop(server);
        assert_eq!(asked(&provider, "alice", "secret").await, "error");
    }

    #[test]
    fn settings_of_no_use_are_refused() {
        assert_eq!(provider("postgresql://h/d", "SELECT 1").err(), Some(PostgresError::Query));
        assert_eq!(provider("what is this", QUERY).err(), Some(PostgresError::Url));
    }
}
