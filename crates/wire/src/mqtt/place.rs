//! Where a property or a reason code stands: the packet, and for some also who sent it.

pub(super) const CONNECT: u32 = Place::Connect.bit();
pub(super) const WILL: u32 = Place::Will.bit();
pub(super) const CONNACK: u32 = Place::Connack.bit();
pub(super) const PUBLISH_CLIENT: u32 = Place::PublishFromClient.bit();
pub(super) const PUBLISH_SERVER: u32 = Place::PublishFromServer.bit();
pub(super) const PUBACK: u32 = Place::Puback.bit();
pub(super) const PUBREC: u32 = Place::Pubrec.bit();
pub(super) const PUBREL: u32 = Place::Pubrel.bit();
pub(super) const PUBCOMP: u32 = Place::Pubcomp.bit();
pub(super) const SUBSCRIBE: u32 = Place::Subscribe.bit();
pub(super) const SUBACK: u32 = Place::Suback.bit();
pub(super) const UNSUBACK: u32 = Place::Unsuback.bit();
pub(super) const DISCONNECT_CLIENT: u32 = Place::DisconnectFromClient.bit();
pub(super) const DISCONNECT_SERVER: u32 = Place::DisconnectFromServer.bit();
pub(super) const AUTH: u32 = Place::Auth.bit();

/// One place; the tables keep sets of them as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    Connect,
    Will,
    Connack,
    PublishFromClient,
    PublishFromServer,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    DisconnectFromClient,
    DisconnectFromServer,
    Auth,
}

impl Place {
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }
}
