//! `[auth]`: who comes in, for every protocol.

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
        /// certificates). The first who knows the user decides; if one fails, the client is refused.
        pub chain: Vec<String>,
        /// How long one provider may take.
        pub provider_timeout: TimeSpan,
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

/// Who may stand in `auth.chain`.
const LINKS: [&str; 2] = ["users", "certificate"];

impl Auth {
    pub(crate) fn check(&self, faults: &mut Faults) {
        for (at, name) in self.chain.iter().enumerate() {
            if !LINKS.contains(&name.as_str()) {
                faults.add("auth", "chain", format!("names {name:?}, which is none of {}", LINKS.join(", ")));
            } else if self.chain[..at].contains(name) {
                faults.add("auth", "chain", format!("names {name:?} twice"));
            }
        }
        if self.provider_timeout < TimeSpan::millis(1) {
            faults.add("auth", "provider_timeout", "must be at least 1ms".to_owned());
        }
    }
}
