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

impl FirstUser {
    pub(crate) fn check(&self, faults: &mut Faults) {
        match (self.name.is_empty(), &self.password_file) {
            (true, None) => {}
            (true, Some(_)) => faults.add(FIRST_USER, "name", "must be given with password_file".to_owned()),
            (false, None) => faults.add(FIRST_USER, "password_file", "must be given with name".to_owned()),
            (false, Some(_)) => {
                let user = ::auth::User::new(TenantId::default(), self.name.as_str());
                if let Err(ResourceError::Invalid { rule, .. }) = user.validate() {
                    faults.add(FIRST_USER, "name", rule.to_owned());
                }
            }
        }
    }
}

const FIRST_USER: &str = "auth.first_user";

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
