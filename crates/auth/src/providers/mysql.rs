//! `MysqlProvider`: users in a table of MySQL or MariaDB.
//!
//! The connection is not encrypted: use a socket of this machine, or a network that you trust. An address that asks for TLS
//! (`require_ssl=true`) fails, and so refuses.
//!
//! The tests start `mariadbd` (Debian: `mariadb-server`) on a socket in a temporary folder:
//! `cargo test -p auth --features mysql`.

use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, Row, Value};
use tokio::sync::Semaphore;

use super::stored::{Question, Stored, judge, password_of};
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::passwords::Passwords;

/// Bound: connections, and questions under way.
const AT_ONCE_MAX: usize = 16;

/// Where users are.
#[derive(Clone, Debug)]
pub struct MysqlSettings {
    /// `mysql://user:password@host:port/database`, also with `?socket=/path`. It may hold a password, so it is not printed.
    pub url: Secret,
    /// A query whose first column is the password's hash, and whose second one, if there is one, is whether it is a superuser; at
    /// most one row. `${username}`, `${clientid}`, `${cert_common_name}` and `${tenant}` become parameters. Compare with `BINARY`, or
    /// `ALICE` logs in as a user of her own with the password of `alice`:
    /// `SELECT password_hash, is_superuser FROM users WHERE BINARY name = ${username}`.
    pub query: String,
}

/// The settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MysqlError {
    /// Not such an address.
    #[error("the address of the MySQL server is not a mysql:// URL")]
    Url,
    /// A query with the same answer for everybody, that names something unknown, or that has a `?` of its own.
    #[error("the query does not name the client, names something unknown, or has a `?`")]
    Query,
}

/// Judges passwords by the hashes in MySQL.
pub struct MysqlProvider {
    pool: Pool,
    query: String,
    question: Question,
    passwords: Passwords,
    turns: Semaphore,
}

impl MysqlProvider {
    /// A provider over this server. It connects when the first client comes. To be made within a runtime.
    ///
    /// # Errors
    /// If the settings are of no use.
    pub fn new(settings: &MysqlSettings, passwords: Passwords) -> Result<MysqlProvider, MysqlError> {
        let url = str::from_utf8(settings.url.expose()).map_err(|_| MysqlError::Url)?;
        let opts = Opts::from_url(url).map_err(|_| MysqlError::Url)?;
        let legal = !settings.query.contains('?');
        let question = Question::parse(&settings.query).filter(|_| legal).ok_or(MysqlError::Query)?;
        let constraints = PoolConstraints::new(0, AT_ONCE_MAX).unwrap_or_default();
        let pool_opts = PoolOpts::default().with_constraints(constraints);
        Ok(MysqlProvider {
            pool: Pool::new(OptsBuilder::from_opts(opts).pool_opts(pool_opts)),
            query: question.with_places(|_| "?".to_owned()),
            question,
            passwords,
            turns: Semaphore::new(AT_ONCE_MAX),
        })
    }

    async fn fetch(&self, credentials: &Credentials) -> Result<Option<Stored>, AuthenticateError> {
        let values = self.question.values(credentials).into_iter().map(Value::from).collect();
        let _turn = self.turns.acquire().await.map_err(|_| AuthenticateError::Busy)?;
        let mut connection = self.pool.get_conn().await.map_err(AuthenticateError::unreachable)?;
        let rows = connection.exec_iter(&self.query, Params::Positional(values)).await;
        let mut rows = rows.map_err(AuthenticateError::unreachable)?;
        let first: Option<Row> = rows.next().await.map_err(AuthenticateError::unreachable)?;
        let second: Option<Row> = match first {
            Some(_) => rows.next().await.map_err(AuthenticateError::unreachable)?,
            None => None,
        };
        rows.drop_result().await.map_err(AuthenticateError::unreachable)?;
        match (first, second) {
            (None, _) => Ok(None),
            (Some(row), None) => read(&row).map(Some),
            (Some(_), Some(_)) => Err(AuthenticateError::Answer("the query has more than one row")),
        }
    }
}

fn read(row: &Row) -> Result<Stored, AuthenticateError> {
    const TYPES: AuthenticateError =
        AuthenticateError::Answer("the query does not answer a text and, if at all, a boolean");
    let hash = row.get_opt::<String, _>(0).and_then(Result::ok).ok_or(TYPES)?;
    let superuser = match row.len() {
        1 => Some(false),
        _ => row.get_opt::<Option<bool>, _>(1).and_then(Result::ok).map(Option::unwrap_or_default),
    };
    Ok(Stored { hash, superuser: superuser.ok_or(TYPES)? })
}

impl Authenticator for MysqlProvider {
    fn name(&self) -> &str {
        "mysql"
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
    use super::*;
    use crate::providers::servers::{Server, asked, passwords};

    const QUERY: &str = "SELECT hash, super FROM users WHERE BINARY name = ${username}";

    fn provider(url: &str, query: &str) -> Result<MysqlProvider, MysqlError> {
        let settings = MysqlSettings { url: Secret::new(url.to_owned()), query: query.to_owned() };
        MysqlProvider::new(&settings, passwords())
    }

    #[tokio::test]
    async fn users_of_a_real_server() {
        let server = Server::mariadb();
        let url = format!("mysql://root@localhost/test?socket={}", server.socket().display());
        let any = url.replace("/test", "/");
        let mut connection =
            server.until_ready(|| async { mysql_async::Conn::from_url(&any).await.ok() }).await;
        let hash = passwords().hash(b"secret".to_vec()).await.unwrap().to_text();
        for made in [
            "CREATE DATABASE IF NOT EXISTS test".to_owned(),
            "CREATE TABLE test.users (name varchar(64), hash text, super boolean)".to_owned(),
            format!("INSERT INTO test.users VALUES ('alice', '{hash}', 1), ('o''hara', '{hash}', NULL)"),
            format!("INSERT INTO test.users VALUES ('twice', '{hash}', 0), ('twice', '{hash}', 0)"),
            "INSERT INTO test.users VALUES ('broken', 'secret', 0)".to_owned(),
        ] {
            connection.query_drop(made).await.unwrap();
        }
        let provider = provider(&url, QUERY).unwrap();
        assert_eq!(asked(&provider, "alice", "secret").await, "allow superuser");
        assert_eq!(asked(&provider, "alice", "Secret").await, "deny");
        assert_eq!(asked(&provider, "o'hara", "secret").await, "allow");
        for nobody in ["ALICE", "alice ", "bob", "' OR '1'='1", "alice'--", "${username}", "\\'", "?"] {
            assert_eq!(asked(&provider, nobody, "secret").await, "not mine", "{nobody}");
        }
        assert_eq!(asked(&provider, "broken", "secret").await, "error");
        assert_eq!(asked(&provider, "twice", "secret").await, "error");
        drop(server);
        assert_eq!(asked(&provider, "alice", "secret").await, "error");
    }

    #[tokio::test]
    async fn settings_of_no_use_are_refused() {
        let url = "mysql://localhost/test";
        assert_eq!(provider(url, "SELECT 1").err(), Some(MysqlError::Query));
        assert_eq!(provider(url, "SELECT ? FROM u WHERE n = ${username}").err(), Some(MysqlError::Query));
        assert_eq!(provider("http://localhost", QUERY).err(), Some(MysqlError::Url));
    }
}
