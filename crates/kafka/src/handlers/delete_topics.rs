//! DeleteTopics (key 20), versions 1 to 6.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::convert;
use crate::error::Refusal;

pub(super) const API: Offered = offered(ApiKey::DeleteTopics, 1, 6);

/// First version that may name a topic by its id.
const STATES_SINCE: i16 = 6;

/// Spec: T22. Topics fail on their own.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(|name| {
        let mut state = DeleteTopicState::default();
        state.name = Some(name);
        state
    });
    let states: Vec<DeleteTopicState> =
        if version >= STATES_SINCE { request.topics } else { named.collect() };
    let mut response = DeleteTopicsResponse::default();
    for state in states {
        let mut told = DeletableTopicResult::default();
        told.name = state.name.clone();
        told.topic_id = state.topic_id;
        if let Err(refusal) = delete(context, &state, &mut told).await {
            told.error_code = refusal.code.to_wire();
            told.error_message = Some(refusal.message.into());
        }
        response.responses.push(told);
    }
    response
}

async fn delete<B: Broker>(
    context: &Context<B>,
    state: &DeleteTopicState,
    told: &mut DeletableTopicResult,
) -> Result<(), Refusal> {
    let topic = match (&state.name, state.topic_id.is_zero()) {
        (Some(name), true) => context.topic(Action::Delete, name).await,
        (None, false) => context.search_topic_by_id(convert::topic_id(state.topic_id)).await,
        (Some(_), false) | (None, true) => {
            return Err(Refusal::new(ErrorCode::InvalidRequest, "a topic is named either by name or by id"));
        }
    };
    let topic = topic.map_err(|code| Refusal::new(code, code.name()))?;
    context.may(Action::Delete, &topic.name).map_err(|code| Refusal::new(code, code.name()))?;
    told.topic_id = convert::uuid(topic.id);
    told.name = told.name.take().or_else(|| topic.name.to_kafka().ok().map(Into::into));
    let deleted = context.broker().delete_topic(&context.front.tenant, &topic.name).await;
    deleted.map_err(|error| Refusal::from(&error))
}
