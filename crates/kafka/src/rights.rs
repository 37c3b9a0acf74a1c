//! What a connection may do: its grant, asked with canonical names, and told in Kafka's codes. Spec: S81.

use broker::access::{Action, Decision, Object, Request};
use broker::{Broker, Topic, subject_of};
use bytes::Bytes;
use model::batch::Records;
use model::{MAX_DECODED_BATCH_BYTES, TopicName};
use wire::kafka::ErrorCode;

use crate::context::Context;
use crate::error::Refusal;

impl<B: Broker> Context<B> {
    /// Whether something may be done with a topic.
    pub(crate) fn may(&self, action: Action, topic: &TopicName) -> Result<(), ErrorCode> {
        match self.login.decide(&Request::new(action, topic.as_str())).is_allowed() {
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
            captures.map(|capture| self.login.decide(&Request::new(Action::Subscribe, capture.as_str())));
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
            if !self.login.decide(&Request::new(Action::Publish, subject)).is_allowed() {
                return Err(denied());
            }
        }
        Ok(())
    }

    /// Whether something may be done with a group of consumers.
    pub(crate) fn may_with_group(&self, action: Action, group: &str) -> Result<(), ErrorCode> {
        match self.login.decide(&Request::new(action, group).on(Object::Group)).is_allowed() {
            true => Ok(()),
            false => Err(ErrorCode::GroupAuthorizationFailed),
        }
    }
}
