//! `Access`: the node's one handle for all questions of access control.

use std::sync::Arc;
use std::time::Duration;

use meta::MetaStore;
use model::{ErrorKind, TenantId};
use rt::{Clock, Rng};
use tokio::sync::watch;

use crate::authenticator::Outcome;
use crate::authorizer::{Authorizer, Decision, Request};
use crate::bans::Suspect;
use crate::chain::{Chain, Link, identity_of};
use crate::credentials::Credentials;
use crate::follow::{Follower, OpenError};
use crate::grant::{Grant, stored_identity};
use crate::password::PasswordHash;
use crate::passwords::Passwords;
use crate::principal::{Identity, Principal};
use crate::resources::User;
use crate::scram::{Mechanism, ScramServer, StoredKeys, Verified};
use crate::tables::{Tables, TenantView};

/// Bound: bytes of a password or token. Longer ones are wrong.
const PASSWORD_LEN_MAX: usize = 64 << 10;

/// How access control behaves where users and permissions do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether a client without any proof may come in through a listener that is itself bound to loopback. No other
    /// listener ever lets it in.
    pub anonymous_on_loopback: bool,
    /// What an authenticated client may do if no rule matches: nothing, or (`true`) everything.
    pub allow_unmatched: bool,
    /// How long one provider may take. Over it, the client is refused.
    pub provider_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            anonymous_on_loopback: true,
            allow_unmatched: false,
            provider_timeout: Duration::from_secs(5),
        }
    }
}

/// What access control needs of the process it runs in.
#[derive(Clone)]
pub struct Host {
    /// For bans and tokens that end.
    pub clock: Arc<dyn Clock>,
    /// For salts and nonces.
    pub rng: Arc<dyn Rng>,
    /// Where passwords are compared.
    pub passwords: Passwords,
}

/// Who may come in, and what they may do. One per node, held by every front; clones are the same.
///
/// # Coming in
///
/// [`Access::admit`] is asked once per connection, with what the client presented:
///
/// 1. Whoever the block list names is refused.
/// 2. A client that presents nothing is *anonymous*. It comes in through a listener that is itself bound to loopback, and
///    through no other. That its own address is local is of no meaning.
/// 3. Otherwise the chain is asked ([`Authenticator`](crate::Authenticator)). A provider that fails means a refusal.
/// 4. If nobody knows the claim, it is refused; except that on a loopback listener, as long as the tenant has neither users nor
///    permissions and there is no provider but our own table, it comes in as an anonymous client, with none of what it claimed. (AMQP
///    clients always present `guest`.)
///
/// So a listener that is bound wider refuses everybody until a user exists, or a provider knows one.
///
/// # What they may do
///
/// The [`Grant`] answers, by the rules of [`Authorizer`]. If no rule matches, nothing is allowed; but as long as the tenant has neither
/// users nor permissions and there is no provider, whoever was let in (an anonymous client on loopback, or one with a certificate) may
/// do everything. From the first user or permission on, it may do what rules for everyone, for it, or for anonymous clients allow.
///
/// # Changes
///
/// Users, permissions and bans are resources; whoever changes them writes them to the Meta Service. The node's tables follow
/// ([`Follower`]); each change grows the [revision](Access::revision), at which every grant forgets what it has decided, and looks anew whether
/// its client may still be there. [`Access::changes`] wakes whoever has to act on that.
#[derive(Clone)]
pub struct Access {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) tables: Arc<Tables>,
    chain: Chain,
    host: Host,
    policy: Policy,
    /// Makes the SCRAM keys of users who do not exist. Of this process only.
    nobody: [u8; 32],
}

/// Why a connection is not let in, or has to end. Whether a user exists is in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The block list names it.
    #[error("the block list names the client, its user or its address")]
    Banned,
    /// What it presented is wrong, or of nobody.
    #[error("user, password, token or certificate is not accepted")]
    BadCredentials,
    /// It presented nothing, and anonymous clients may not come in here.
    #[error(
        "anonymous clients come in only where the listener is bound to loopback and anonymous_on_loopback is set"
    )]
    AnonymousNotAllowed,
    /// As before or as `BadCredentials`, and there is nobody yet who could come in: the operator has to make a user.
    #[error(
        "this tenant has no user yet, and without one nobody comes in through this listener: create a user first"
    )]
    NoUsers,
    /// The proof has ended, as a token does.
    #[error("what was proved is no longer valid")]
    Expired,
    /// It cannot be known right now.
    #[error("access control cannot decide right now")]
    Unavailable,
}

impl Refusal {
    /// What a front maps.
    pub fn kind(self) -> ErrorKind {
        match self {
            Refusal::Banned
            | Refusal::BadCredentials
            | Refusal::AnonymousNotAllowed
            | Refusal::NoUsers
            | Refusal::Expired => ErrorKind::Denied,
            Refusal::Unavailable => ErrorKind::Unavailable,
        }
    }
}

impl Access {
    /// Reads what is stored. The chain is asked in this order. The [`Follower`] has to be run for as long as the node lives.
    ///
    /// # Errors
    /// If the Meta Service does not answer, or holds something that this release does not understand: the node must not serve.
    pub async fn open(
        store: Arc<dyn MetaStore>,
        chain: Vec<Link>,
        policy: Policy,
        host: Host,
    ) -> Result<(Access, Follower), OpenError> {
        let tables = Arc::new(Tables::default());
        let follower = Follower::open(store, tables.clone()).await?;
        let chain = Chain::new(chain, &tables, &host.passwords, policy.provider_timeout);
        let mut nobody = [0; 32];
        nobody.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&host.rng.next_u64().to_ne_bytes()));
        let shared = Shared { tables, chain, host, policy, nobody };
        Ok((Access { shared: Arc::new(shared) }, follower))
    }

    /// A node's own table and nobody else, with the usual policy: what a broker has whose operator has said nothing.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub async fn of_own_table(
        store: Arc<dyn MetaStore>,
        host: Host,
    ) -> Result<(Access, Follower), OpenError> {
        Access::open(store, vec![Link::Users, Link::Certificate], Policy::default(), host).await
    }

    /// Whether nobody can come in through a listener that is not bound to loopback: the tenant has no user, and there is no
    /// provider but our own table.
    pub fn lets_nobody_in(&self, tenant: &TenantId) -> bool {
        !self.shared.chain.asks_others && !self.shared.tables.has_users(tenant.as_str())
    }

    /// Decides whether a connection may come in. Cancel-safe.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, credentials: &Credentials) -> Result<Grant, Refusal> {
        self.shared.check_whole(&credentials.tenant)?;
        self.shared.check_bans(&principal(credentials, Identity::default()))?;
        Grant::new(self.shared.clone(), self.prove(credentials).await?)
    }

    /// Who it is that wants to administer, for one request. The same for operators as [`Access::admit`], but for bans: only those of
    /// users count, after the proof, and none counts for a superuser, who has to be able to take each of them back.
    /// [`Authorizer::decide`] says whether it may.
    ///
    /// # Errors
    /// Why it is nobody.
    pub async fn admit_operator(&self, credentials: &Credentials) -> Result<Principal, Refusal> {
        self.shared.check_whole(&credentials.tenant)?;
        let mut principal = self.prove(credentials).await?;
        if principal.identity.expires_at_ms.is_some_and(|expires_at| expires_at <= self.shared.now_ms()) {
            return Err(Refusal::Expired);
        }
        // Comparing passwords takes a while: what has changed meanwhile counts.
        if let Some(identity) = stored_identity(&self.shared, &principal)? {
            principal.identity = identity;
        }
        match &principal.user {
            Some(user) if !principal.identity.superuser && self.shared.bans_user(&principal.tenant, user) => {
                Err(Refusal::Banned)
            }
            _ => Ok(principal),
        }
    }

    /// The same for a client that presents nothing, without waiting. Its user, password and certificate are not looked at.
    ///
    /// # Errors
    /// Why not.
    pub fn admit_anonymous(&self, credentials: &Credentials) -> Result<Grant, Refusal> {
        Grant::new(self.shared.clone(), self.prove_nothing(credentials)?)
    }

    /// Lets a connection in whose client has proved by SCRAM to be a user. `credentials` says the rest; its user and
    /// password are not looked at.
    ///
    /// # Errors
    /// If the user has been locked out or banned meanwhile.
    pub fn admit_verified(&self, credentials: &Credentials, verified: &Verified) -> Result<Grant, Refusal> {
        let user = self.shared.tables.user(credentials.tenant.as_str(), verified.user());
        match user {
            Some(user) if !user.disabled => {
                Grant::new(self.shared.clone(), proven(credentials, identity_of(&user))?)
            }
            _ => Err(Refusal::BadCredentials),
        }
    }

    /// The SCRAM keys of a user, and whether there is such a user: if not, they are nobody's, always the same for one name, so
    /// that the exchange goes on and tells nothing.
    pub fn scram_keys(&self, tenant: &TenantId, user: &str, mechanism: Mechanism) -> (StoredKeys, bool) {
        let stored = self.shared.tables.user(tenant.as_str(), user).filter(|user| !user.disabled);
        let keys = stored.and_then(|user| match mechanism {
            Mechanism::Sha256 => user.scram_sha_256.clone(),
            Mechanism::Sha512 => user.scram_sha_512.clone(),
        });
        match keys {
            Some(keys) => (keys, true),
            None => (StoredKeys::of_nobody(mechanism, &self.shared.nobody, user), false),
        }
    }

    /// A new SCRAM exchange, with a new nonce.
    pub fn scram(&self, mechanism: Mechanism) -> ScramServer {
        ScramServer::new(mechanism, &*self.shared.host.rng)
    }

    /// Hashes a password for a [`User`](crate::User), off this thread.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] if too many comparisons wait.
    pub async fn hash_password(&self, password: &[u8]) -> Result<PasswordHash, Refusal> {
        self.shared.host.passwords.hash(password.to_vec()).await.map_err(|_| Refusal::Unavailable)
    }

    /// The user with a new password, by which it logs in plainly and by SCRAM. Derived off this thread; nothing is stored.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] if too many comparisons wait.
    pub async fn set_password(&self, user: User, password: &[u8]) -> Result<User, Refusal> {
        self.shared.host.passwords.give(user, password).await.map_err(|_| Refusal::Unavailable)
    }

    /// The rule that decides a question, as its permission's id, and the decision. For operators.
    pub fn explain(&self, principal: &Principal, request: &Request<'_>) -> (Decision, String) {
        let view = self.shared.tables.view(principal.tenant.as_str());
        if !view.whole {
            return (Decision::Deny, "stored rules are not understood".to_owned());
        }
        let unmatched = self.shared.unmatched(principal, &view);
        let verdict = view.rules.decide(principal, request, unmatched);
        (verdict.decision, verdict.because.to_owned())
    }

    /// Grows with each change of users, permissions and bans. Of this node only.
    pub fn revision(&self) -> u64 {
        self.shared.tables.revision()
    }

    /// Tells each new revision.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.tables.changes()
    }

    /// Returns when everything up to a revision of the Meta Service counts here: after a put, from then on its effect holds on
    /// this node. Cancel-safe. Without a running [`Follower`] it does not return.
    pub async fn caught_up(&self, revision: u64) {
        let mut reached = self.shared.tables.reached();
        let _ = reached.wait_for(|&reached| reached >= revision).await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Who has presented this, whether or not somebody has banned it.
    async fn prove(&self, credentials: &Credentials) -> Result<Principal, Refusal> {
        let shared = &self.shared;
        if credentials.is_anonymous() {
            return self.prove_nothing(credentials);
        }
        if credentials.password.as_ref().is_some_and(|password| password.expose().len() > PASSWORD_LEN_MAX) {
            return Err(Refusal::BadCredentials);
        }
        // Before it waits for the chain: a user who is created meanwhile opens nothing.
        let is_open = shared.is_open(&shared.tables.view(credentials.tenant.as_str()));
        match shared.chain.authenticate(credentials).await {
            Ok(Outcome::Allow(identity)) => proven(credentials, identity),
            Ok(Outcome::Deny) => Err(Refusal::BadCredentials),
            // A certificate that nobody reads claims nothing.
            Ok(Outcome::NotMine)
                if shared.takes_anonymous(credentials) && (is_open || credentials.claims_nobody()) =>
            {
                Ok(anonymous(credentials))
            }
            Ok(Outcome::NotMine) => Err(self.refusal(&credentials.tenant, false)),
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    fn prove_nothing(&self, credentials: &Credentials) -> Result<Principal, Refusal> {
        match self.shared.takes_anonymous(credentials) {
            true => Ok(anonymous(credentials)),
            false => Err(self.refusal(&credentials.tenant, true)),
        }
    }

    fn refusal(&self, tenant: &TenantId, anonymous: bool) -> Refusal {
        if self.lets_nobody_in(tenant) {
            Refusal::NoUsers
        } else if anonymous {
            Refusal::AnonymousNotAllowed
        } else {
            Refusal::BadCredentials
        }
    }
}

impl Authorizer for Access {
    fn decide(&self, principal: &Principal, request: &Request<'_>) -> Decision {
        let view = self.shared.tables.view(principal.tenant.as_str());
        if !view.whole {
            return Decision::Deny;
        }
        view.rules.decide(principal, request, self.shared.unmatched(principal, &view)).decision
    }

    fn revision(&self) -> u64 {
        self.shared.tables.revision()
    }
}

impl Shared {
    pub(crate) fn now_ms(&self) -> i64 {
        self.host.clock.wall_ms()
    }

    /// What no rule decides.
    pub(crate) fn unmatched(&self, principal: &Principal, view: &TenantView) -> Decision {
        let allowed = match principal.user {
            Some(_) => self.policy.allow_unmatched || self.is_open(view),
            None => self.is_open(view),
        };
        if allowed { Decision::Allow } else { Decision::Deny }
    }

    pub(crate) fn check_bans(&self, principal: &Principal) -> Result<(), Refusal> {
        let suspect = Suspect {
            tenant: principal.tenant.as_str(),
            client_id: &principal.client_id,
            user: principal.user.as_deref(),
            peer: principal.peer,
        };
        if self.tables.keeps_out(suspect, self.now_ms()) { Err(Refusal::Banned) } else { Ok(()) }
    }

    fn bans_user(&self, tenant: &TenantId, user: &str) -> bool {
        self.tables.keeps_user_out(tenant.as_str(), user, self.now_ms())
    }

    fn check_whole(&self, tenant: &TenantId) -> Result<(), Refusal> {
        if self.tables.view(tenant.as_str()).whole { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    fn takes_anonymous(&self, credentials: &Credentials) -> bool {
        credentials.listener.loopback && self.policy.anonymous_on_loopback
    }

    /// Whether nobody has set up anything for the tenant.
    pub(crate) fn is_open(&self, view: &TenantView) -> bool {
        view.untouched && !self.chain.asks_others
    }
}

/// A client that has proved nothing, whatever it claims.
fn anonymous(credentials: &Credentials) -> Principal {
    Principal { user: None, ..principal(credentials, Identity::default()) }
}

/// A client that has proved something: a proof of nobody in particular proves nothing.
fn proven(credentials: &Credentials, identity: Identity) -> Result<Principal, Refusal> {
    let principal = principal(credentials, identity);
    if principal.user.is_none() { Err(Refusal::BadCredentials) } else { Ok(principal) }
}

/// The principal of a claim that has become an identity.
fn principal(credentials: &Credentials, identity: Identity) -> Principal {
    Principal {
        tenant: credentials.tenant.clone(),
        user: identity.user.clone().or_else(|| credentials.user().cloned()).filter(|user| !user.is_empty()),
        client_id: credentials.client_id.clone(),
        certificate: credentials.certificate.clone(),
        peer: credentials.peer,
        identity,
    }
}
