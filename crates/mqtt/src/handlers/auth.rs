//! AUTH (section 3.15) and enhanced authentication (section 4.12): a client proves who it is by SCRAM, before it is accepted or
//! anew.
//!
//! ```text
//!   CONNECT (method, client-first)   -->
//!                                    <--  AUTH continue (server-first)
//!   AUTH continue (client-final)     -->
//!                                    <--  CONNACK (server-final), or AUTH success when it was accepted before
//! ```

use std::sync::Arc;

use broker::Broker;
use broker::access::{Access, Credentials, Mechanism, ScramError, ScramServer, Verified};
use model::TenantId;
use net::Turn;
use tracing::debug;
use wire::mqtt::{Auth, Connect, Peer, PropertiesBuf, Property, ReasonCode};

use crate::connection::{Close, Connection};
use crate::handlers::connect::Opening;
use crate::metrics::{Metrics, PacketType};
use crate::rights::{Rights, refusal_reason};
use crate::session::Shared;

/// One exchange of proofs.
pub(crate) struct ProofExchange {
    scram: ScramServer,
    has_begun: bool,
    /// What the client is told next.
    reply: String,
}

impl ProofExchange {
    fn new(access: &Access, mechanism: Mechanism) -> Self {
        Self { scram: access.scram(mechanism), has_begun: false, reply: String::new() }
    }

    /// Takes what the client says, if it says anything. Answers the proof once it is complete.
    fn take(
        &mut self,
        data: Option<&[u8]>,
        access: &Access,
        tenant: &TenantId,
    ) -> Result<Option<Verified>, ReasonCode> {
        let Some(data) = data else {
            // The client lets us begin; SCRAM begins with the client.
            return if self.has_begun { Err(ReasonCode::ProtocolError) } else { Ok(None) };
        };
        let mechanism = self.scram.mechanism();
        if !std::mem::replace(&mut self.has_begun, true) {
            let user = self.scram.client_first(data).map_err(scram_reason)?;
            let (keys, known) = access.scram_keys(tenant, user, mechanism);
            self.reply = self.scram.server_first(keys, known).map_err(scram_reason)?;
            return Ok(None);
        }
        let (reply, verified) = self.scram.client_final(data).map_err(scram_reason)?;
        self.reply = reply;
        Ok(Some(verified))
    }

    fn encode(&self, reason: ReasonCode, peer: &Peer, metrics: &Metrics, turn: &mut Turn<'_>) {
        let properties = self.properties();
        let auth = Auth { reason, properties: properties.view() };
        if auth.encode(turn.output.buffer(), peer).is_err() {
            // A client that takes no AUTH cannot prove anything.
            turn.close();
        } else {
            metrics.note_sent(PacketType::Auth);
        }
    }

    fn properties(&self) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        // Both are short.
        let _ = properties.push(Property::AuthenticationMethod(self.scram.mechanism().name()));
        if !self.reply.is_empty() {
            let _ = properties.push(Property::AuthenticationData(self.reply.as_bytes()));
        }
        properties
    }
}

fn scram_reason(error: ScramError) -> ReasonCode {
    debug!(err = %error, "a proof of identity failed");
    match error {
        ScramError::Malformed(_) => ReasonCode::ProtocolError,
        ScramError::Unsupported(_) | ScramError::Refused => ReasonCode::NotAuthorized,
    }
}

/// A connection that proves who it is before it is accepted.
pub(crate) struct Proving {
    opening: Box<Opening>,
    exchange: ProofExchange,
}

/// How a CONNECT goes on.
pub(crate) enum Step {
    /// The client has to say more.
    Ask(Box<Proving>),
    /// Nothing is left to be said.
    Claim(Box<Opening>),
}

impl Proving {
    /// Begins the exchange if the client names a method; one that is not known is refused [MQTT-4.12.0-1].
    pub(crate) fn begin<B: Broker>(
        opening: Opening,
        packet: &Connect<'_>,
        shared: &Shared<B>,
    ) -> Result<Step, ReasonCode> {
        let opening = Box::new(opening);
        let Some(method) = packet.properties.authentication_method() else { return Ok(Step::Claim(opening)) };
        let mechanism = Mechanism::from_name(method).ok_or(ReasonCode::BadAuthenticationMethod)?;
        let access = shared.broker.access();
        let mut exchange = ProofExchange::new(access, mechanism);
        exchange.take(packet.properties.authentication_data(), access, &shared.tenant)?;
        Ok(Step::Ask(Box::new(Proving { opening, exchange })))
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.opening.peer()
    }

    pub(crate) fn client(&self) -> Arc<str> {
        Arc::clone(self.opening.client())
    }

    pub(crate) fn ask(&self, metrics: &Metrics, turn: &mut Turn<'_>) {
        self.exchange.encode(ReasonCode::ContinueAuthentication, self.peer(), metrics, turn);
    }

    /// Takes an AUTH packet of the exchange.
    pub(crate) fn take<B: Broker>(
        mut self: Box<Self>,
        auth: &Auth<'_>,
        shared: &Shared<B>,
    ) -> Result<Step, ReasonCode> {
        if auth.reason != ReasonCode::ContinueAuthentication || !self.exchange.is_of(auth) {
            return Err(ReasonCode::ProtocolError);
        }
        let data = auth.properties.authentication_data();
        match self.exchange.take(data, shared.broker.access(), &shared.tenant)? {
            None => Ok(Step::Ask(self)),
            Some(verified) => {
                let Proving { mut opening, exchange } = *self;
                opening.prove(verified, exchange)?;
                Ok(Step::Claim(opening))
            }
        }
    }
}

impl ProofExchange {
    /// Whether an AUTH names the method of this exchange [MQTT-4.12.0-5].
    fn is_of(&self, auth: &Auth<'_>) -> bool {
        auth.properties.authentication_method() == Some(self.scram.mechanism().name())
    }

    /// What CONNACK says of it.
    pub(crate) fn say(&self, properties: &mut PropertiesBuf) {
        let (method, data) = (self.scram.mechanism().name(), self.reply.as_bytes());
        // Both are short.
        let _ = properties.push(Property::AuthenticationMethod(method));
        let _ = properties.push(Property::AuthenticationData(data));
    }
}

impl<B: Broker> Connection<B> {
    /// Authenticates again, while everything else goes on (section 4.12.1).
    pub(crate) fn handle_auth(&mut self, auth: &Auth<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        let Some(exchange) = &mut self.exchange else {
            return Err(Close::because(ReasonCode::ProtocolError, "AUTH of a client that named no method"));
        };
        if !exchange.is_of(auth) {
            // [MQTT-4.12.1-1]
            return Err(Close::because(ReasonCode::ProtocolError, "another method than that of CONNECT"));
        }
        let shared = &self.shared;
        let access = shared.broker.access();
        match auth.reason {
            ReasonCode::ReAuthenticate => **exchange = ProofExchange::new(access, exchange.scram.mechanism()),
            ReasonCode::ContinueAuthentication => {}
            _ => return Err(Close::because(ReasonCode::ProtocolError, "this AUTH is a server's")),
        }
        let taken = exchange.take(auth.properties.authentication_data(), access, &shared.tenant);
        let Some(verified) = taken.map_err(Close::fault)? else {
            exchange.encode(ReasonCode::ContinueAuthentication, &self.peer, &shared.metrics, turn);
            return Ok(());
        };
        let rights = &self.rights;
        if rights.user().as_ref() != Some(verified.user()) {
            return Err(Close::because(ReasonCode::NotAuthorized, "another user than before"));
        }
        let credentials = rights.credentials(&shared.config.listener);
        match access.admit_verified(&credentials, &verified) {
            Ok(grant) => {
                exchange.encode(ReasonCode::Success, &self.peer, &shared.metrics, turn);
                *self.rights = Rights::new(grant, turn.now, shared.broker.wall_ms());
                Ok(())
            }
            Err(refusal) => {
                let told = refusal_reason(refusal);
                debug!(client = %self.client, ?told, "a client may not stay");
                Err(Close::fault(ReasonCode::NotAuthorized))
            }
        }
    }
}

/// Whether a name that the client gave itself is the one that it has proved.
pub(crate) fn is_proved(credentials: &Credentials, verified: &Verified) -> bool {
    credentials.user.as_ref().is_none_or(|user: &Arc<str>| user == verified.user())
}
