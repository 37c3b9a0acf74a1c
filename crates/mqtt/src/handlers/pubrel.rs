//! PUBREL from a client (section 3.6): the packet identifier of a QoS 2 publication is given back.

use broker::Broker;
use net::Turn;
use wire::mqtt::{Ack, AckKind, Properties, ReasonCode, Version, encode_ack};

use crate::connection::{Close, Connection};
use crate::incoming::Received;
use crate::metrics::PacketType;

impl<B: Broker> Connection<B> {
    /// PUBCOMP follows when the identifier's row is gone; the rows of one turn are deleted together.
    pub(crate) fn handle_pubrel(&mut self, ack: &Ack<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        rt::failpoint("mqtt.pubrel.came");
        let id = ack.packet_id;
        let is_persistent = self.is_persistent();
        let received = self.incoming.as_ref().and_then(|incoming| incoming.received.get(&id.get()).copied());
        match received {
            Some(Received::Stored(group)) if is_persistent || group.is_some() => {
                let incoming = self.incoming();
                incoming.received.insert(id.get(), Received::Releasing);
                incoming.releasing.next.push((id, group));
            }
            Some(Received::Stored(_)) => {
                self.incoming().received.remove(&id.get());
                encode_ack(AckKind::Pubcomp, id, turn.output.buffer());
                self.shared.metrics.note_sent(PacketType::Pubcomp);
            }
            // PUBCOMP is on its way.
            Some(Received::Releasing) => {}
            // Not to be released before its PUBREC, or unknown: no fault, no more to do [MQTT-4.3.3-11].
            Some(Received::Undecided(_)) | None => self.complete_unknown(ack, turn),
        }
        Ok(())
    }

    fn complete_unknown(&self, ack: &Ack<'_>, turn: &mut Turn<'_>) {
        let reason = match self.peer.version {
            Version::V5 => ReasonCode::PacketIdentifierNotFound,
            Version::V31 | Version::V311 => ReasonCode::Success,
        };
        let pubcomp = Ack { packet_id: ack.packet_id, reason, properties: Properties::EMPTY };
        // Five bytes fit every client.
        let _ = pubcomp.encode(AckKind::Pubcomp, turn.output.buffer(), &self.peer);
        self.shared.metrics.note_sent(PacketType::Pubcomp);
    }
}
