//! What a connection may do: its grant, asked with canonical names, and told in Kafka's codes. Spec: S81.

use broker::access::{Action, Credentials, Decision, Grant, Object, Request};
use broker::{Broker, Topic, subject_of};
use bytes::Bytes;
use model::batch::Records;
use model::{MAX_DECODED_BATCH_BYTES, TopicName};
use net::Peer;
use tracing::info;
use wire::kafka::ErrorCode;

use crate::config::Config;
use crate::context::Context;
use crate::error::Refusal;

/// The grant of a client that presents nothing, which is all that Kafka clients can do here. `None`: the listener lets none in.
pub(crate) fn admit<B: Broker>(broker: &B, config: &Config, peer: &Peer) -> Option<Grant> {
    let mut credentials = Credentials::anonymous(config.listener.clone(), "");
    credentials.protocol = "kafka";
    credentials.peer = peer.address.ip().unwrap_or(credentials.peer);
    let admitted = broker.access().admit_anonymous(&credentials);
    admitted.inspect_err(|refusal| info!(conn = %peer, why = %refusal, "a Kafka client was refused")).ok()
}

impl<B: Broker> Context<B> {
    /// Whether the client may stay.
    pub(crate) fn is_let_in(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.standing().is_ok())
    }

    fn decide(&self, request: &Request<'_>) -> Decision {
        self.grant.as_ref().map_or(Decision::Deny, |grant| grant.decide(request))
    }

    /// Whether something may be done with a topic.
    pub(crate) fn may(&self, action: Action, topic: &TopicName) -> Result<(), ErrorCode> {
        match self.decide(&Request::new(action, topic.as_str())).is_allowed() {
            true => Ok(()),
            false => Err(ErrorCode::TopicAuthorizationFailed),
        }
    }

    /// Whether the whole log of a topic may be read. What a topic captures is read with it, so all of that must be
    /// allowed: records cannot be left out of a batch.
    pub(crate) fn may_read(&self, topic: &Topic) -> Result<(), ErrorCode> {
        self.may(Action::Consume, &topic.name)?;
        let captures = topic.config.captures.iter();
        let is_whole =
            captures.map(|capture| self.decide(&Request::new(Action::Subscribe, capture.as_str())));
        match is_whole.into_iter().all(|decision| decision == Decision::Allow) {
            true => Ok(()),
            false => Err(ErrorCode::TopicAuthorizationFailed),
        }
    }

    /// Whether a batch may be appended. To a topic that captures, each record is a publication to its own subject.
    pub(crate) fn may_append(&self, topic: &Topic, batch: &Bytes) -> Result<(), Refusal> {
        let denied = || Refusal::new(ErrorCode::TopicAuthorizationFailed, "not allowed");
        self.may(Action::Publish, &topic.name).map_err(|_| denied())?;
        if topic.config.captures.is_empty() {
            return Ok(());
        }
        let records =
            Records::decode(batch, MAX_DECODED_BATCH_BYTES).map_err(|error| Refusal::from(&error))?;
        for record in records.iter() {
            let subject = subject_of(topic, &record);
            if !self.decide(&Request::new(Action::Publish, subject)).is_allowed() {
                return Err(denied());
            }
        }
        Ok(())
    }

    /// Whether something may be done with a group of consumers.
    pub(crate) fn may_with_group(&self, action: Action, group: &str) -> Result<(), ErrorCode> {
        match self.decide(&Request::new(action, group).on(Object::Group)).is_allowed() {
            true => Ok(()),
            false => Err(ErrorCode::GroupAuthorizationFailed),
        }
    }
}
