//! `LdapProvider`: users of a directory. The entry is searched for with a service account; the password is right if the
//! directory lets the client bind as that entry.
//!
//! The tests start `slapd` (Debian: `slapd`) on a socket in a temporary folder: `cargo test -p auth --features ldap`.

use std::time::Duration;

use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions, ldap_escape,
};
use rt::{OnFailure, OnShutdown, TaskKind, Tasks};
use tokio::sync::Semaphore;

use super::stored::{Question, password_of};
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::principal::Identity;

/// Bound: connections. Each login has one of its own, because binding changes whose it is.
const AT_ONCE_MAX: usize = 16;
/// Bound: groups of a user.
const GROUPS_MAX: usize = 256;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The directory's code for a wrong password (RFC 4511, 4.1.9).
const INVALID_CREDENTIALS: u32 = 49;

const CONNECTION: TaskKind =
    TaskKind { name: "ldap", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Log };

/// Where users are.
#[derive(Clone, Debug)]
pub struct LdapSettings {
    /// `ldaps://host`, `ldap://host` or `ldapi://%2Fpath`. Without TLS, passwords cross the network as they are.
    pub url: String,
    /// Whether a connection to `ldap://` begins with StartTLS.
    pub starttls: bool,
    /// The service account that may search.
    pub bind_dn: String,
    /// Its password.
    pub bind_password: Secret,
    /// Below which entry users are.
    pub base: String,
    /// Which entry is the client's: `(&(objectClass=person)(uid=${username}))`. Values are escaped as RFC 4515 wants.
    pub filter: String,
    /// The attribute that is the user's name. Directories compare without regard to case; this says how it is really spelled.
    pub user_attribute: String,
    /// The attribute whose values are the user's groups, such as `memberOf`; if there is one.
    pub group_attribute: Option<String>,
}

/// The settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LdapSettingsError {
    /// A filter with the same answer for everybody, or that names something unknown.
    #[error("the filter does not name the client, or names something unknown")]
    Filter,
    /// An empty password binds as nobody, which always succeeds.
    #[error("the service account has no password")]
    NoPassword,
}

/// Judges passwords by binding to a directory.
pub struct LdapProvider {
    settings: LdapSettings,
    filter: Question,
    tasks: Tasks,
    turns: Semaphore,
}

impl LdapProvider {
    /// A provider over this directory. It connects when the first client comes.
    ///
    /// # Errors
    /// If the settings are of no use.
    pub fn new(settings: LdapSettings, tasks: Tasks) -> Result<LdapProvider, LdapSettingsError> {
        if settings.bind_password.expose().is_empty() {
            return Err(LdapSettingsError::NoPassword);
        }
        let filter = Question::parse(&settings.filter).ok_or(LdapSettingsError::Filter)?;
        Ok(LdapProvider { settings, filter, tasks, turns: Semaphore::new(AT_ONCE_MAX) })
    }

    async fn judge(&self, credentials: &Credentials) -> Result<Outcome, AuthenticateError> {
        let Some(password) = password_of(credentials) else { return Ok(Outcome::NotMine) };
        let password = str::from_utf8(password.expose()).unwrap_or_default();
        if password.is_empty() {
            // Spec: RFC 4513 5.1.2: a bind with a name and no password succeeds, as nobody. It proves nothing.
            return Ok(Outcome::Deny);
        }
        let _turn = self.turns.acquire().await.map_err(|_| AuthenticateError::Busy)?;
        let mut ldap = self.connect().await?;
        let service = str::from_utf8(self.settings.bind_password.expose()).unwrap_or_default();
        let bound = ldap.simple_bind(&self.settings.bind_dn, service).await;
        bound.and_then(ldap3::LdapResult::success).map_err(AuthenticateError::unreachable)?;
        let Some(entry) = self.search(&mut ldap, credentials).await? else { return Ok(Outcome::NotMine) };
        let bound = ldap.simple_bind(&entry.dn, password).await;
        let outcome = match bound.and_then(ldap3::LdapResult::success) {
            Ok(_) => Ok(Outcome::Allow(self.identity(&entry)?)),
            Err(LdapError::LdapResult { result }) if result.rc == INVALID_CREDENTIALS => Ok(Outcome::Deny),
            Err(error) => Err(AuthenticateError::unreachable(error)),
        };
        // The answer stands, whether the directory hears the farewell or not.
        let _ = ldap.unbind().await;
        outcome
    }

    async fn connect(&self) -> Result<Ldap, AuthenticateError> {
        let settings =
            LdapConnSettings::new().set_conn_timeout(CONNECT_TIMEOUT).set_starttls(self.settings.starttls);
        let connected = LdapConnAsync::with_settings(settings, &self.settings.url).await;
        let (connection, ldap) = connected.map_err(AuthenticateError::unreachable)?;
        // It ends when `ldap` is dropped.
        self.tasks.spawn(CONNECTION, "authentication", async move {
            let _ = connection.drive().await;
        });
        Ok(ldap)
    }

    async fn search(
        &self,
        ldap: &mut Ldap,
        credentials: &Credentials,
    ) -> Result<Option<SearchEntry>, AuthenticateError> {
        let filter = self.filter.filled(credentials, |value| ldap_escape(value).into_owned());
        let attributes = [Some(&self.settings.user_attribute), self.settings.group_attribute.as_ref()];
        let attributes: Vec<&str> = attributes.into_iter().flatten().map(String::as_str).collect();
        // One too many is an error of the directory, not a choice of ours.
        ldap.with_search_options(SearchOptions::new().sizelimit(1));
        let found = ldap.search(&self.settings.base, Scope::Subtree, &filter, attributes).await;
        let found = found.and_then(ldap3::SearchResult::success).map_err(AuthenticateError::unreachable)?;
        Ok(found.0.into_iter().next().map(SearchEntry::construct))
    }

    fn identity(&self, entry: &SearchEntry) -> Result<Identity, AuthenticateError> {
        let values = |attribute: &str| {
            let found = entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
            found.map(|(_, values)| values.as_slice()).unwrap_or_default()
        };
        let user = values(&self.settings.user_attribute).first();
        let user = user.ok_or(AuthenticateError::Answer("the entry has no name"))?;
        let groups = self.settings.group_attribute.as_deref().map(values).unwrap_or_default();
        if groups.len() > GROUPS_MAX {
            return Err(AuthenticateError::Answer("the entry has too many groups"));
        }
        let groups = groups.iter().map(|group| group.as_str().into()).collect();
        Ok(Identity { user: Some(user.as_str().into()), groups, ..Identity::default() })
    }
}

impl Authenticator for LdapProvider {
    fn name(&self) -> &str {
        "ldap"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(self.judge(credentials))
    }
}

#[cfg(test)]
mod tests {
    use rt::Shutdown;

    use super::*;
    use crate::providers::servers::{Server, asked, credentials};

    fn settings(url: &str) -> LdapSettings {
        LdapSettings {
            url: url.to_owned(),
            starttls: false,
            bind_dn: "cn=admin,dc=test".to_owned(),
            bind_password: Secret::new("service"),
            base: "dc=test".to_owned(),
            filter: "(uid=${username})".to_owned(),
            user_attribute: "uid".to_owned(),
            group_attribute: Some("ou".to_owned()),
        }
    }

    fn provider(settings: LdapSettings) -> LdapProvider {
        LdapProvider::new(settings, Tasks::new(Shutdown::new())).unwrap()
    }

    async fn bound(url: &str) -> Option<Ldap> {
        let (connection, mut ldap) = LdapConnAsync::new(url).await.ok()?;
        tokio::spawn(connection.drive());
        ldap.simple_bind("cn=admin,dc=test", "service").await.ok()?.success().ok()?;
        Some(ldap)
    }

    #[tokio::test]
    async fn users_of_a_real_server() {
        let server = Server::slapd();
        let url = format!("ldapi://{}", server.socket().display().to_string().replace('/', "%2F"));
        let mut ldap = server.until_ready(|| bound(&url)).await;
        let entry = |attributes: &[(&'static str, &'static str)]| {
            attributes.iter().map(|&(name, value)| (name, [value].into())).collect::<Vec<_>>()
        };
        let person = [("objectClass", "inetOrgPerson"), ("cn", "x"), ("sn", "x"), ("userPassword", "secret")];
        let root = entry(&[
            ("objectClass", "dcObject"),
            ("objectClass", "organization"),
            ("o", "t"),
            ("dc", "test"),
        ]);
        let root: Vec<(&str, std::collections::HashSet<&str>)> =
            vec![("objectClass", ["dcObject", "organization"].into()), root[2].clone(), root[3].clone()];
        ldap.add("dc=test", root).await.unwrap().success().unwrap();
        for (dn, uid, group) in
            [("cn=1,dc=test", "alice", "ops"), ("cn=2,dc=test", "twice", "a"), ("cn=3,dc=test", "twice", "b")]
        {
            let attributes = [entry(&person), entry(&[("uid", uid), ("ou", group)])].concat();
            ldap.add(dn, attributes).await.unwrap().success().unwrap();
        }
        let provider = provider(settings(&url));
        for name in ["alice", "ALICE"] {
            let Ok(Outcome::Allow(identity)) = provider.authenticate(&credentials(name, "secret")).await
            else {
                panic!("{name} is refused");
            };
            assert_eq!((identity.user.as_deref(), &*identity.groups), (Some("alice"), &["ops".into()][..]));
        }
        assert_eq!(asked(&provider, "alice", "Secret").await, "deny");
        assert_eq!(asked(&provider, "alice", "").await, "deny", "a bind without a password proves nothing");
        for nobody in ["bob", "*", "a*", "alice)(cn=*", "\\61lice"] {
            assert_eq!(asked(&provider, nobody, "secret").await, "not mine", "{nobody}");
        }
        assert_eq!(asked(&provider, "twice", "secret").await, "error");
        let wrong = LdapSettings { bind_password: Secret::new("wrong"), ..settings(&url) };
        assert_eq!(asked(&super::tests::provider(wrong), "alice", "secret").await, "error");
        drop(server);
        assert_eq!(asked(&provider, "alice", "secret").await, "error");
    }

    #[test]
    fn settings_of_no_use_are_refused() {
        let tasks = Tasks::new(Shutdown::new());
        let same = LdapSettings { filter: "(uid=alice)".to_owned(), ..settings("ldap://h") };
        assert_eq!(LdapProvider::new(same, tasks.clone()).err(), Some(LdapSettingsError::Filter));
        let open = LdapSettings { bind_password: Secret::new(""), ..settings("ldap://h") };
        assert_eq!(LdapProvider::new(open, tasks).err(), Some(LdapSettingsError::NoPassword));
    }
}
