//! `/access/explain`: whether somebody may do something, and which rule decides that.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use auth::{Action, Decision, Identity, Object, Principal, Request, User};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::body::{Asked, answer};
use super::problem::Problem;
use super::stored;

/// A question. Without a user it is about an anonymous client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    user: Option<String>,
    #[serde(default)]
    client_id: String,
    certificate: Option<String>,
    action: String,
    #[serde(default)]
    object: Object,
    /// The canonical name, or for `subscribe` the filter.
    name: String,
    /// Left out: 0, where the action has one.
    qos: Option<u8>,
    /// Left out: not to be retained, where the action knows that.
    retain: Option<bool>,
}

impl Question {
    /// What is left out is what it is for an MQTT client that asks for nothing special; other actions have no such thing, and a permission
    /// with a condition on it is judged as it is for them.
    fn request(&self, action: Action) -> Request<'_> {
        let (has_qos, has_retain) = match action {
            Action::Publish => (true, true),
            Action::Subscribe | Action::Receive => (true, false),
            Action::Consume
            | Action::Create
            | Action::Delete
            | Action::Alter
            | Action::Describe
            | Action::Administer => (false, false),
        };
        Request {
            action,
            object: self.object,
            name: &self.name,
            qos: self.qos.or(has_qos.then_some(0)),
            retain: self.retain.or(has_retain.then_some(false)),
        }
    }
}

pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Asked(question): Asked<Question>,
) -> Result<Response, Problem> {
    let action = action(&question.action).ok_or_else(|| {
        let rule =
            "must be publish, subscribe, receive, consume, create, delete, alter, describe or administer";
        Problem::field("action", rule)
    })?;
    let mut identity = Identity::default();
    if let Some(name) = &question.user {
        let user = stored::find::<User>(&api, name).await?.resource;
        identity.superuser = user.superuser;
        identity.groups = user.groups.iter().map(|group| group.as_str().into()).collect();
    }
    let principal = Principal {
        tenant: api.tenant.clone(),
        user: question.user.as_deref().map(Into::into),
        client_id: question.client_id.as_str().into(),
        certificate: question.certificate.as_deref().map(Into::into),
        peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        identity,
    };
    let request = question.request(action);
    let (decision, because) = api.access.explain(&principal, &request);
    let decision = match decision {
        Decision::Allow => "allow",
        Decision::AllowChecked => "allow_checked",
        Decision::Deny => "deny",
    };
    let asked = json!({ "qos": request.qos, "retain": request.retain });
    Ok(answer(StatusCode::OK, None, &json!({ "decision": decision, "because": because, "asked": asked })))
}

fn action(word: &str) -> Option<Action> {
    Some(match word {
        "publish" => Action::Publish,
        "subscribe" => Action::Subscribe,
        "receive" => Action::Receive,
        "consume" => Action::Consume,
        "create" => Action::Create,
        "delete" => Action::Delete,
        "alter" => Action::Alter,
        "describe" => Action::Describe,
        "administer" => Action::Administer,
        _ => return None,
    })
}
