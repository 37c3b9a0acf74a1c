//! `AutoSubscription`: a subscription that clients have without asking, as it is stored.

use bytes::BytesMut;
use model::{Resource, ResourceError};
use serde::{Deserialize, Serialize};
use wire::mqtt::{Qos, RetainHandling, SubscribeOptions};

use super::{FILTER_LEN_MAX, check_key, read, write};
use crate::auto::{AutoSubscribe, AutoSubscribeError};
use crate::state::qos_of;

/// An [`AutoSubscribe`] of a tenant. Its key is `tenant/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoSubscription {
    /// Whose clients have it.
    pub tenant: String,
    /// What it is called, 1 to 255 bytes without control characters. Of two with the same filter, the options of the one whose name
    /// comes last in byte order hold.
    pub name: String,
    /// What to subscribe to, with placeholders of the client.
    pub filter: String,
    /// The highest quality of service.
    #[serde(default)]
    pub qos: u8,
    /// Whether the client is spared its own messages.
    #[serde(default)]
    pub no_local: bool,
    /// Whether messages keep the flag with which they were published.
    #[serde(default)]
    pub retain_as_published: bool,
    /// When retained messages are sent.
    #[serde(default)]
    pub retain: SendRetained,
}

/// When a client gets the retained messages of a subscription that it has without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendRetained {
    /// Whenever it connects.
    #[default]
    Always,
    /// When its session gets the subscription.
    New,
    /// Never.
    Never,
}

impl AutoSubscription {
    /// Bound: subscriptions of a tenant. Each client is given all of them when it connects.
    pub const COUNT_MAX: usize = 64;

    /// The subscription in it, ready to be filled in.
    ///
    /// # Errors
    /// [`ResourceError::Invalid`] with the field that is none.
    pub(crate) fn subscription(&self) -> Result<AutoSubscribe, ResourceError> {
        let invalid = |field, rule| ResourceError::Invalid { kind: AutoSubscription::KIND, field, rule };
        let qos = qos_of(self.qos).ok_or_else(|| invalid("qos", "must be 0, 1 or 2"))?;
        AutoSubscribe::new(&self.filter, self.options(qos)).map_err(|error| match error {
            AutoSubscribeError::Filter | AutoSubscribeError::Option(_) => {
                invalid("filter", "must be a filter of MQTT, of at most 1024 bytes, and not exclusive")
            }
            AutoSubscribeError::Template(_) => {
                invalid("filter", "has placeholders ${clientid}, ${username} and ${host}, and no others")
            }
        })
    }

    fn options(&self, qos: Qos) -> SubscribeOptions {
        SubscribeOptions {
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: match self.retain {
                SendRetained::Always => RetainHandling::Send,
                SendRetained::New => RetainHandling::SendIfNew,
                SendRetained::Never => RetainHandling::DoNotSend,
            },
            ..SubscribeOptions::new(qos)
        }
    }
}

impl Resource for AutoSubscription {
    const KIND: &'static str = "auto_subscription";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    fn encode_body(&self, body: &mut BytesMut) {
        write(self, body);
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<AutoSubscription, ResourceError> {
        read(AutoSubscription::KIND, body)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        check_key(AutoSubscription::KIND, &self.tenant, &self.name)?;
        if self.filter.len() > FILTER_LEN_MAX {
            let rule = "must have at most 1024 bytes";
            return Err(ResourceError::Invalid { kind: AutoSubscription::KIND, field: "filter", rule });
        }
        self.subscription().map(|_| ())
    }
}
