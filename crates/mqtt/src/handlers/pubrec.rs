//! PUBREC from a client (section 3.5): it has a QoS 2 delivery.

use broker::Broker;
use net::Turn;
use wire::mqtt::{Ack, AckKind, Properties, ReasonCode, Version};

use crate::connection::{Close, Connection};
use crate::metrics::PacketType;
use crate::saver::Waiting;
use crate::window::Step;

impl<B: Broker> Connection<B> {
    pub(crate) fn handle_pubrec(&mut self, ack: &Ack<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        rt::failpoint("mqtt.pubrec.came");
        let id = ack.packet_id;
        let exchange = self.outgoing.as_ref().and_then(|outgoing| outgoing.exchange(id));
        match exchange {
            Some((false, _)) => {
                return Err(Close::because(ReasonCode::ProtocolError, "PUBREC answers a PUBLISH with QoS 1"));
            }
            // The client gave the exchange up [MQTT-4.4.0-2, 4.9.0-2].
            Some((true, Step::Queued | Step::Sent)) if ack.reason.is_failure() => {
                self.with_outgoing(turn, |outgoing, link| outgoing.settle(id, link));
            }
            Some((true, Step::Queued | Step::Sent)) => {
                let is_persistent = self.is_persistent();
                self.with_outgoing(turn, |outgoing, link| {
                    outgoing.receive(id);
                    if is_persistent {
                        link.saver.wait(Waiting::Release(id));
                    } else {
                        outgoing.release(id, link);
                    }
                });
            }
            // PUBREL comes when that is durable.
            Some((true, Step::Received)) => {}
            Some((true, Step::Released)) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.release(id, link));
            }
            None => self.release_unknown(ack, turn),
        }
        Ok(())
    }

    /// Lets the client end an exchange that we know nothing of [MQTT-4.3.3-5].
    fn release_unknown(&self, ack: &Ack<'_>, turn: &mut Turn<'_>) {
        if ack.reason.is_failure() {
            return;
        }
        let reason = match self.peer.version {
            Version::V5 => ReasonCode::PacketIdentifierNotFound,
            Version::V31 | Version::V311 => ReasonCode::Success,
        };
        let pubrel = Ack { packet_id: ack.packet_id, reason, properties: Properties::EMPTY };
        // Five bytes fit every client.
        let _ = pubrel.encode(AckKind::Pubrel, turn.output.buffer(), &self.peer);
        self.shared.metrics.note_sent(PacketType::Pubrel);
    }
}
