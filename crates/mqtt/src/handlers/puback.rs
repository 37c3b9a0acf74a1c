//! PUBACK from a client (section 3.4): a QoS 1 delivery is done. Hot path.

use broker::Broker;
use net::Turn;
use wire::mqtt::{Ack, ReasonCode};

use crate::connection::{Close, Connection};

impl<B: Broker> Connection<B> {
    /// One for a QoS 2 delivery is a Protocol Error; an unknown identifier settles nothing [MQTT-2.2.1-5].
    #[inline]
    pub(crate) fn handle_puback(&mut self, ack: &Ack<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        let exchange = self.outgoing.as_ref().and_then(|outgoing| outgoing.exchange(ack.packet_id));
        match exchange {
            Some((true, _)) => {
                Err(Close::because(ReasonCode::ProtocolError, "PUBACK answers a PUBLISH with QoS 2"))
            }
            Some((false, _)) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.settle(ack.packet_id, link));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
