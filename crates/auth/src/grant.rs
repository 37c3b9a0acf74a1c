//! `Grant`: what one connection may do, with a memory of what it has asked.

use std::cell::{Ref, RefCell};
use std::sync::Arc;

use crate::access::{Refusal, Shared};
use crate::authorizer::{Action, Decision, Object, Request};
use crate::chain::identity_of;
use crate::principal::{Identity, Principal};
use crate::tables::TenantView;

/// Bound: decisions that a connection remembers.
const REMEMBERED_MAX: usize = 32;
/// Bound: bytes of a name that is remembered. Longer ones are decided each time.
const NAME_LEN_MAX: usize = 256;

/// A connection that was let in. It belongs to one thread, like the connection; it answers from memory.
pub struct Grant {
    shared: Arc<Shared>,
    seen: RefCell<Seen>,
}

/// What holds at one revision.
struct Seen {
    revision: u64,
    principal: Arc<Principal>,
    tenant: TenantView,
    standing: Result<(), Refusal>,
    /// Nobody has set up anything: everything is allowed.
    open: bool,
    remembered: Vec<Remembered>,
    /// Which place of `remembered` is given up next.
    next: usize,
}

struct Remembered {
    action: Action,
    object: Object,
    qos: Option<u8>,
    retain: Option<bool>,
    name: Box<str>,
    decision: Decision,
}

impl Remembered {
    fn is(&self, request: &Request<'_>) -> bool {
        self.action == request.action
            && self.object == request.object
            && self.qos == request.qos
            && self.retain == request.retain
            && *self.name == *request.name
    }
}

impl Grant {
    pub(crate) fn new(shared: Arc<Shared>, principal: Principal) -> Result<Grant, Refusal> {
        let seen = Seen::of(&shared, Arc::new(principal));
        let grant = Grant { shared, seen: RefCell::new(seen) };
        grant.standing().map(|()| grant)
    }

    /// Who it is.
    pub fn principal(&self) -> Arc<Principal> {
        self.current().principal.clone()
    }

    /// Whether an action on a topic or subject (of [`Action::Subscribe`]: a filter) is allowed, if only in part.
    pub fn may(&self, action: Action, name: &str) -> bool {
        self.decide(&Request::new(action, name)).is_allowed()
    }

    /// Decides; see [`Authorizer`](crate::Authorizer). Nothing is allowed to whom [`Grant::standing`] refuses.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let seen = self.current();
        if seen.open && !request.is_of_the_broker() {
            return Decision::Allow;
        }
        if seen.standing.is_err() {
            return Decision::Deny;
        }
        if let Some(remembered) = seen.remembered.iter().find(|remembered| remembered.is(request)) {
            return remembered.decision;
        }
        let unmatched = self.shared.unmatched(&seen.principal, &seen.tenant);
        let decision = seen.tenant.rules.decide(&seen.principal, request, unmatched).decision;
        drop(seen);
        self.seen.borrow_mut().remember(request, decision);
        decision
    }

    /// Whether the connection may go on: its proof has not ended, its user is still there and not locked out, nobody has banned
    /// it. To be asked when [`Access::changes`](crate::Access::changes) tells something, and at [`Grant::expires_at`].
    ///
    /// # Errors
    /// Why it has to end.
    pub fn standing(&self) -> Result<(), Refusal> {
        let expired = self.expires_at().is_some_and(|expires_at| expires_at <= self.shared.now_ms());
        if expired { Err(Refusal::Expired) } else { self.current().standing }
    }

    /// When the proof ends, in milliseconds since 1970. The front ends the connection then.
    pub fn expires_at(&self) -> Option<i64> {
        self.seen.borrow().principal.identity.expires_at_ms
    }

    /// Changes whenever decisions may have changed. A front that keeps decisions (a subscription that was allowed) asks again
    /// when it has.
    pub fn revision(&self) -> u64 {
        self.shared.tables.revision()
    }

    /// What holds now. Costs one atomic load unless something has changed.
    fn current(&self) -> Ref<'_, Seen> {
        if self.seen.borrow().revision != self.shared.tables.revision() {
            let principal = self.seen.borrow().principal.clone();
            let seen = Seen::of(&self.shared, principal);
            *self.seen.borrow_mut() = seen;
        }
        self.seen.borrow()
    }
}

/// What a user of our own table is by now; `None`: it is not one of ours.
///
/// # Errors
/// It is gone, or locked out.
pub(crate) fn stored_identity(shared: &Shared, principal: &Principal) -> Result<Option<Identity>, Refusal> {
    let Some(name) = principal.user.as_ref().filter(|_| principal.identity.stored) else { return Ok(None) };
    match shared.tables.user(principal.tenant.as_str(), name) {
        Some(user) if !user.disabled => Ok(Some(identity_of(&user))),
        _ => Err(Refusal::BadCredentials),
    }
}

impl Seen {
    fn of(shared: &Shared, mut principal: Arc<Principal>) -> Seen {
        // Before anything is read: what changes meanwhile is read again.
        let revision = shared.tables.revision();
        let tenant = shared.tables.view(principal.tenant.as_str());
        let mut standing = if tenant.whole { Ok(()) } else { Err(Refusal::Unavailable) };
        match stored_identity(shared, &principal) {
            Ok(None) => {}
            Ok(Some(identity)) => {
                principal = Arc::new(Principal { identity, ..(*principal).clone() });
            }
            // What cannot be read is no proof that the user is gone.
            Err(refusal) => standing = standing.and(Err(refusal)),
        }
        let standing = standing.and_then(|()| shared.check_bans(&principal));
        let open = standing.is_ok() && shared.is_open(&tenant);
        Seen { revision, principal, tenant, standing, open, remembered: Vec::new(), next: 0 }
    }

    fn remember(&mut self, request: &Request<'_>, decision: Decision) {
        let Request { action, object, name, qos, retain } = *request;
        if name.len() > NAME_LEN_MAX {
            return;
        }
        let remembered = Remembered { action, object, qos, retain, name: name.into(), decision };
        match self.remembered.get_mut(self.next) {
            Some(place) => *place = remembered,
            None => self.remembered.push(remembered),
        }
        self.next = (self.next + 1) % REMEMBERED_MAX;
    }
}
