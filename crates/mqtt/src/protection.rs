//! [`Protection`]: what keeps the clients of a listener from asking too much of the node, and how somebody hears that there
//! is no room.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::TenantId;
use net::{Arrival, Level, Pressure};
use wire::mqtt::{ReasonCode, Version};

use crate::config::Versions;
use crate::pace::ListenerPace;

/// How long a publisher is not read after a turn, while the node is short of something.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
/// How long somebody for whom there is no room may take to say CONNECT and hear so.
const UNWELCOME_TIMEOUT: Duration = Duration::from_secs(2);

/// What the fronts of one listener share, on all cores. By default, nothing is limited.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    /// Rates of all connections together.
    pub pace: Option<Arc<ListenerPace>>,
    /// What the node has to bear.
    pub pressure: Option<Arc<Pressure>>,
    /// Who counts connects.
    pub connects: Option<Connects>,
}

/// Is told the client id of each CONNECT that has one, whatever becomes of it.
#[derive(Clone)]
pub struct Connects(Arc<Note>);

/// Hears a tenant and a client id.
type Note = dyn Fn(&TenantId, &str) + Send + Sync;

impl Connects {
    /// `note` is called on serving cores, on their `LocalSet`s: it must not block.
    pub fn new(note: impl Fn(&TenantId, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(note))
    }

    pub(crate) fn note(&self, tenant: &TenantId, client: &str) {
        (self.0)(tenant, client);
    }
}

impl fmt::Debug for Connects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connects")
    }
}

impl Protection {
    /// Until when a publisher that was just read is not read again, if it is to be slowed.
    #[inline]
    pub(crate) fn pause_of_publisher(&self, now: Instant) -> Option<Instant> {
        let pressure = self.pressure.as_ref()?;
        (pressure.level(now) == Level::SlowPublishers).then(|| now + SLOW_PAUSE)
    }
}

/// Why a connection is taken only to be told that there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwelcome {
    /// As many connections are open as may be.
    Full,
    /// The node has more to bear than it can.
    Overloaded,
}

/// A connection that has not said CONNECT yet.
pub(crate) struct Newcomer {
    /// Its place among those who arrive, until it has said so.
    pub(crate) arrival: Option<Arrival>,
    pub(crate) unwelcome: Option<Unwelcome>,
}

impl Newcomer {
    /// When its CONNECT has to be complete.
    pub(crate) fn connect_timeout(&self, usual: Duration) -> Duration {
        match self.unwelcome {
            Some(_) => usual.min(UNWELCOME_TIMEOUT),
            None => usual,
        }
    }

    /// Why a CONNECT of this version is refused whatever else it says.
    pub(crate) fn refusal(&self, version: Version, served: Versions) -> Option<ReasonCode> {
        if !served.serve(version) {
            return Some(ReasonCode::UnsupportedProtocolVersion);
        }
        self.unwelcome.map(|unwelcome| match unwelcome {
            Unwelcome::Full => ReasonCode::QuotaExceeded,
            Unwelcome::Overloaded => ReasonCode::ServerBusy,
        })
    }
}
