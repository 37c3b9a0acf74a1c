//! DISCONNECT from a client (section 3.14).

use broker::Broker;
use wire::mqtt::{Disconnect, ReasonCode};

use crate::connection::{Close, Connection};

impl<B: Broker> Connection<B> {
    /// Normally the will is forgotten [MQTT-3.14.4-3]. A session may be given another expiry, but a session that ends with its
    /// connection cannot be made to last (section 3.14.2.2.2).
    pub(crate) fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Close> {
        if let Some(wanted) = disconnect.properties.session_expiry_interval() {
            if self.expiry == 0 && wanted != 0 {
                return Err(Close::because(
                    ReasonCode::ProtocolError,
                    "a session that ends with its connection cannot be made to last",
                ));
            }
            self.expiry = wanted.min(self.shared.config.session_expiry_max.unwrap_or(u32::MAX));
        }
        Err(Close::by_client(disconnect.reason != ReasonCode::Success))
    }
}
