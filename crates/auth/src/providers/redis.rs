//! `RedisProvider`: users as hashes in Redis or Valkey, such as `HSET user:alice password_hash $argon2id$... is_superuser 1`.
//!
//! The tests start `redis-server` (Debian: `redis-server`) on a socket in a temporary folder:
//! `cargo test -p auth --features redis`.

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, IntoConnectionInfo};
use tokio::sync::{Mutex, Semaphore};

use super::stored::{Question, Stored, judge, password_of};
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::passwords::Passwords;

/// Bound: commands under way. They share one connection.
const AT_ONCE_MAX: usize = 64;

/// Where users are.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://[user:password@]host[:port][/database]`, or `redis+unix:///path`. It may hold a password, so it is not printed.
    pub url: Secret,
    /// The key of a user's hash, with `${username}`, `${clientid}`, `${cert_common_name}` or `${tenant}` for what the client says.
    pub key: String,
    /// The field with the password's hash, in a spelling of [`PasswordHash`](crate::PasswordHash).
    pub hash_field: String,
    /// The field that is `1` or `true` for a superuser.
    pub superuser_field: String,
}

/// The settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// Not such an address.
    #[error("the address of the Redis server is not a redis:// or redis+unix:// URL")]
    Url,
    /// A key that is the same for everybody, or that names something unknown.
    #[error("the key does not name the client, or names something unknown")]
    Key,
}

/// Judges passwords by the hashes in Redis.
pub struct RedisProvider {
    client: redis::Client,
    key: Question,
    fields: [String; 2],
    passwords: Passwords,
    connection: Mutex<Option<MultiplexedConnection>>,
    turns: Semaphore,
}

impl RedisProvider {
    /// A provider over this server. It connects when the first client comes.
    ///
    /// # Errors
    /// If the settings are of no use.
    pub fn new(settings: &RedisSettings, passwords: Passwords) -> Result<RedisProvider, RedisError> {
        let url = str::from_utf8(settings.url.expose()).map_err(|_| RedisError::Url)?;
        let info = url.into_connection_info().map_err(|_| RedisError::Url)?;
        Ok(RedisProvider {
            client: redis::Client::open(info).map_err(|_| RedisError::Url)?,
            key: Question::parse(&settings.key).ok_or(RedisError::Key)?,
            fields: [settings.hash_field.clone(), settings.superuser_field.clone()],
            passwords,
            connection: Mutex::new(None),
            turns: Semaphore::new(AT_ONCE_MAX),
        })
    }

    async fn fetch(&self, credentials: &Credentials) -> Result<Option<Stored>, AuthenticateError> {
        let key = self.key.filled(credentials, str::to_owned);
        let _turn = self.turns.acquire().await.map_err(|_| AuthenticateError::Busy)?;
        // A connection that was idle may be dead without our knowing: once, a new one is tried.
        let (mut connection, is_new) = self.connect().await?;
        let mut answer: redis::RedisResult<Vec<Option<String>>> = connection.hmget(&key, &self.fields).await;
        if answer.is_err() {
            *self.connection.lock().await = None;
            if !is_new {
                (connection, _) = self.connect().await?;
                answer = connection.hmget(&key, &self.fields).await;
            }
        }
        let mut fields = answer.map_err(AuthenticateError::unreachable)?.into_iter();
        let (hash, superuser) = (fields.next().flatten(), fields.next().flatten());
        let superuser = matches!(superuser.as_deref(), Some("1" | "true"));
        Ok(hash.map(|hash| Stored { hash, superuser }))
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, bool), AuthenticateError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok((connection.clone(), false));
        }
        let connected = self.client.get_multiplexed_async_connection().await;
        let connection = connected.map_err(AuthenticateError::unreachable)?;
        *held = Some(connection.clone());
        Ok((connection, true))
    }
}

impl Authenticator for RedisProvider {
    fn name(&self) -> &str {
        "redis"
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

    fn provider(url: &str) -> RedisProvider {
        let settings = RedisSettings {
            url: Secret::new(url.to_owned()),
            key: "user:${username}".to_owned(),
            hash_field: "password_hash".to_owned(),
            superuser_field: "is_superuser".to_owned(),
        };
        RedisProvider::new(&settings, passwords()).unwrap()
    }

    #[tokio::test]
    async fn users_of_a_real_server() {
        let server = Server::redis();
        let url = format!("redis+unix://{}", server.socket().display());
        let mut connection = server
            .until_ready(|| async {
                redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.ok()
            })
            .await;
        let hash = passwords().hash(b"secret".to_vec()).await.unwrap().to_text();
        let fields = [("password_hash", hash.as_str()), ("is_superuser", "1")];
        let _: () = connection.hset_multiple("user:alice", &fields).await.unwrap();
        let _: () = connection.hset("user:broken", "password_hash", "secret").await.unwrap();
        let _: () = connection.set("user:wrong", "a string").await.unwrap();

        let provider = provider(&url);
        assert_eq!(asked(&provider, "alice", "secret").await, "allow superuser");
        assert_eq!(asked(&provider, "alice", "Secret").await, "deny");
        assert_eq!(asked(&provider, "bob", "secret").await, "not mine");
        assert_eq!(asked(&provider, "broken", "secret").await, "error");
        assert_eq!(asked(&provider, "wrong", "secret").await, "error");
        let server = server.restarted();
        server.until_ready(|| async { tokio::net::UnixStream::connect(server.socket()).await.ok() }).await;
        assert_eq!(asked(&provider, "bob", "secret").await, "not mine", "the dead connection is replaced");
        drop(server);
        assert_eq!(asked(&provider, "alice", "secret").await, "error");
    }
}
