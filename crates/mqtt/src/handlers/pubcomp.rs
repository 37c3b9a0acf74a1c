//! PUBCOMP from a client (section 3.7): a QoS 2 delivery is done.

use broker::Broker;
use net::Turn;
use wire::mqtt::{Ack, ReasonCode};

use crate::connection::{Close, Connection};
use crate::window::Step;

impl<B: Broker> Connection<B> {
    /// Before PUBREL it settles nothing; for a QoS 1 delivery it is a Protocol Error [MQTT-2.2.1-5].
    pub(crate) fn handle_pubcomp(&mut self, ack: &Ack<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        rt::failpoint("mqtt.pubcomp.came");
        let exchange = self.outgoing.as_ref().and_then(|outgoing| outgoing.exchange(ack.packet_id));
        match exchange {
            Some((false, _)) => {
                Err(Close::because(ReasonCode::ProtocolError, "PUBCOMP answers a PUBLISH with QoS 1"))
            }
            Some((true, Step::Released)) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.settle(ack.packet_id, link));
                Ok(())
            }
            Some((true, Step::Queued | Step::Sent | Step::Received)) | None => Ok(()),
        }
    }
}
