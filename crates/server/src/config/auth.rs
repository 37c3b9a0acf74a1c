//! `[auth]`: who comes in, for every protocol.

use std::path::PathBuf;

use model::{Resource as _, ResourceError, TenantId};

use super::section::{Faults, section};
use super::values::{TimeSpan, choice};

section! {
    /// Access control, for every protocol. Users, permissions and bans are no settings: they are stored in the cluster.
    pub struct Auth ["auth"] {
        /// Whether clients that present nothing come in through listeners that are bound to loopback. Through others they
        /// never do. As long as there is neither a user nor a permission nor a provider, they may do everything.
        pub anonymous_on_loopback: bool,
        /// What a client that has proved who it is may do where no permission says anything.
        pub unmatched: Unmatched,
        /// Who judges what clients present, in this order: `users` (our own), `certificate` (of a listener that takes users from
        /// certificates), `jwt`, `http`, and if the broker was built with them `redis`, `postgres`, `mysql` and `ldap`; each with a
        /// section of its own below. The first who knows the user decides; if one fails, the client is refused.
        pub chain: Vec<String>,
        /// How long one provider may take.
        pub provider_timeout: TimeSpan,
    }
}

section! {
    /// A superuser that a start creates while there is no user at all, for brokers that nobody can ask over loopback. Once a user
    /// exists, whoever it is, these settings do nothing.
    pub struct FirstUser ["auth.first_user"] {
        /// Its name. Empty: none is created.
        pub name: String,
        /// A file with its password, 1 to 1024 bytes; white space at its end is not part of it. It is read only to create the user, and may be
        /// removed then.
        pub password_file: Option<PathBuf>,
    }
}

section! {
    /// A user whom a start makes a superuser with a known password, whatever it was before: for operators who have lost theirs. Take
    /// these settings away afterwards.
    pub struct RecoverUser ["auth.recover_user"] {
        /// Its name; it is created if there is none of it. Empty: nobody is recovered.
        pub name: String,
        /// A file with its new password, 1 to 1024 bytes; white space at its end is not part of it. Each start reads it, as long as it is named.
        pub password_file: Option<PathBuf>,
    }
}

choice! {
    /// What happens where no permission says anything.
    pub enum Unmatched: "\"deny\" or \"allow\"" {
        /// Nothing is allowed.
        Deny = "deny",
        /// Everything is allowed.
        Allow = "allow",
    }
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            anonymous_on_loopback: true,
            unmatched: Unmatched::Deny,
            chain: vec!["users".to_owned(), "certificate".to_owned()],
            provider_timeout: TimeSpan::seconds(5),
        }
    }
}

#[allow(clippy::derivable_impls, reason = "defaults of settings stand where they can be read")]
impl Default for FirstUser {
    fn default() -> FirstUser {
        FirstUser { name: String::new(), password_file: None }
    }
}

#[allow(clippy::derivable_impls, reason = "defaults of settings stand where they can be read")]
impl Default for RecoverUser {
    fn default() -> RecoverUser {
        RecoverUser { name: String::new(), password_file: None }
    }
}

impl FirstUser {
    pub(crate) fn check(&self, faults: &mut Faults) {
        check_user("auth.first_user", &self.name, self.password_file.is_some(), faults);
    }
}

impl RecoverUser {
    pub(crate) fn check(&self, faults: &mut Faults) {
        check_user("auth.recover_user", &self.name, self.password_file.is_some(), faults);
    }
}

/// A user of the settings has a legal name and a password, or is none.
fn check_user(section: &'static str, name: &str, has_password: bool, faults: &mut Faults) {
    match (name.is_empty(), has_password) {
        (true, false) => {}
        (true, true) => faults.add(section, "name", "must be given with password_file".to_owned()),
        (false, false) => faults.add(section, "password_file", "must be given with name".to_owned()),
        (false, true) => {
            let user = ::auth::User::new(TenantId::default(), name);
            if let Err(ResourceError::Invalid { rule, .. }) = user.validate() {
                faults.add(section, "name", rule.to_owned());
            }
        }
    }
}

/// Who may stand in `auth.chain`.
const LINKS: [(&str, bool); 8] = [
    ("users", true),
    ("certificate", true),
    ("jwt", true),
    ("http", true),
    ("redis", cfg!(feature = "redis")),
    ("postgres", cfg!(feature = "postgres")),
    ("mysql", cfg!(feature = "mysql")),
    ("ldap", cfg!(feature = "ldap")),
];

impl Auth {
    pub(crate) fn check(&self, faults: &mut Faults) {
        for (at, name) in self.chain.iter().enumerate() {
            let link = LINKS.iter().find(|(link, _)| link == name);
            let Some((_, is_built)) = link else {
                let known = LINKS.map(|(link, _)| link).join(", ");
                faults.add("auth", "chain", format!("names {name:?}, which is none of {known}"));
                continue;
            };
            if !is_built {
                faults.add("auth", "chain", format!("names {name:?}, which this broker was built without"));
            } else if self.chain[..at].contains(name) {
                faults.add("auth", "chain", format!("names {name:?} twice"));
            }
        }
        if self.provider_timeout < TimeSpan::millis(1) {
            faults.add("auth", "provider_timeout", "must be at least 1ms".to_owned());
        }
    }
}
