//! Subscriptions that clients have without asking.

use std::fmt;
use std::str::FromStr;

use wire::mqtt::{Qos, RetainHandling, SubscribeOptions, TopicFilter};

use crate::subscription::EXCLUSIVE;
use crate::template::{Template, TemplateError};

/// A subscription that clients are given when they connect. A client that its filter cannot be filled in for (it has no user
/// name, say) does without; one that has it already keeps it, with these options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSubscribe {
    /// What to subscribe to.
    pub filter: Template,
    /// How.
    pub options: SubscribeOptions,
}

/// Why a text is no such subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AutoSubscribeError {
    /// The filter is none, or one that only one client may have.
    Filter,
    /// The filter names something that there is not.
    Template(TemplateError),
    /// A word behind the filter that is no option.
    Option(String),
}

impl AutoSubscribe {
    /// `filter` may have placeholders of the client.
    pub fn new(filter: &str, options: SubscribeOptions) -> Result<Self, AutoSubscribeError> {
        let template = Template::parse(filter).map_err(AutoSubscribeError::Template)?;
        if filter.starts_with(EXCLUSIVE) || TopicFilter::parse(filter).is_err() {
            return Err(AutoSubscribeError::Filter);
        }
        Ok(Self { filter: template, options })
    }
}

/// As settings write it: the filter, then `qos=0` (or 1, 2), `no-local`, `retain-as-published`, and `retain=always` (or `new`,
/// `never`) as far as they are wanted.
impl FromStr for AutoSubscribe {
    type Err = AutoSubscribeError;

    fn from_str(line: &str) -> Result<Self, AutoSubscribeError> {
        let mut words = line.split_whitespace();
        let filter = words.next().unwrap_or_default();
        let mut options = SubscribeOptions::new(Qos::AtMostOnce);
        for word in words {
            match word {
                "qos=0" => options.qos = Qos::AtMostOnce,
                "qos=1" => options.qos = Qos::AtLeastOnce,
                "qos=2" => options.qos = Qos::ExactlyOnce,
                "no-local" => options.no_local = true,
                "retain-as-published" => options.retain_as_published = true,
                "retain=always" => options.retain_handling = RetainHandling::Send,
                "retain=new" => options.retain_handling = RetainHandling::SendIfNew,
                "retain=never" => options.retain_handling = RetainHandling::DoNotSend,
                other => return Err(AutoSubscribeError::Option(other.to_owned())),
            }
        }
        Self::new(filter, options)
    }
}

impl fmt::Display for AutoSubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter => f.write_str("it needs a valid filter, which is not exclusive"),
            Self::Template(error) => error.fmt(f),
            Self::Option(word) => write!(f, "{word} is no option of a subscription"),
        }
    }
}

impl std::error::Error for AutoSubscribeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_filter_and_options() {
        let auto: AutoSubscribe = "to/${clientid} qos=1 no-local retain=new".parse().unwrap();
        assert_eq!(auto.filter, Template::parse("to/${clientid}").unwrap());
        let options = SubscribeOptions {
            no_local: true,
            retain_handling: RetainHandling::SendIfNew,
            ..SubscribeOptions::new(Qos::AtLeastOnce)
        };
        assert_eq!(auto.options, options);
        assert_eq!("a".parse::<AutoSubscribe>().unwrap().options, SubscribeOptions::new(Qos::AtMostOnce));
        for line in ["", "a#", "$exclusive/a", "a qos=3", "a ${x}", "${x}"] {
            assert!(line.parse::<AutoSubscribe>().is_err(), "{line}");
        }
    }
}
