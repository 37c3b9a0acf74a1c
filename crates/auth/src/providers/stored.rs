//! What the providers of databases have in common: a question with the client's values as values, and a fetched hash.

#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
use crate::authenticator::{AuthenticateError, Outcome};
use crate::credentials::{Credentials, Secret};
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
use crate::passwords::Passwords;
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
use crate::principal::Identity;

/// Bound: bytes of a question in the settings.
const QUESTION_LEN_MAX: usize = 8 << 10;

/// What a database says of a user.
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) hash: String,
    pub(super) superuser: bool,
}

/// Something of the client that a question may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Username,
    ClientId,
    CertCommonName,
    Tenant,
}

/// A question with places for values: `${username}`, `${clientid}`, `${cert_common_name}`, `${tenant}`.
#[derive(Debug)]
pub(super) struct Question {
    texts: Vec<String>,
    values: Vec<Value>,
}

impl Question {
    pub(super) fn parse(question: &str) -> Option<Question> {
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        let mut rest = Some(question).filter(|question| question.len() <= QUESTION_LEN_MAX)?;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}')?;
            values.push(match name {
                "username" => Value::Username,
                "clientid" => Value::ClientId,
                "cert_common_name" => Value::CertCommonName,
                "tenant" => Value::Tenant,
                _ => return None,
            });
            texts.push(before.to_owned());
            rest = after;
        }
        texts.push(rest.to_owned());
        // A question that says nothing of the client has the same answer for everybody.
        let named = values.iter().any(|value| *value != Value::Tenant);
        named.then_some(Question { texts, values })
    }

    /// The question with `place(1)`, `place(2)`, ... where the values belong.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn with_places(&self, place: impl Fn(usize) -> String) -> String {
        self.join(|at| place(at + 1))
    }

    /// The question with the values in their places, `escape`d.
    #[cfg(any(feature = "redis", feature = "ldap"))]
    pub(super) fn filled(&self, credentials: &Credentials, escape: impl Fn(&str) -> String) -> String {
        let values = self.values(credentials);
        self.join(|at| values.get(at).map(|value| escape(value)).unwrap_or_default())
    }

    /// The values, in the order of their places.
    pub(super) fn values<'a>(&self, credentials: &'a Credentials) -> Vec<&'a str> {
        let value = |value: &Value| match value {
            Value::Username => credentials.user().map_or("", |user| user),
            Value::ClientId => &*credentials.client_id,
            Value::CertCommonName => credentials.certificate.as_deref().unwrap_or_default(),
            Value::Tenant => credentials.tenant.as_str(),
        };
        self.values.iter().map(value).collect()
    }

    fn join(&self, value: impl Fn(usize) -> String) -> String {
        let mut joined = String::new();
        for (at, text) in self.texts.iter().enumerate() {
            joined.push_str(text);
            if at < self.values.len() {
                joined.push_str(&value(at));
            }
        }
        joined
    }
}

/// The claim's password, if it is one that a database can judge.
pub(super) fn password_of(credentials: &Credentials) -> Option<&Secret> {
    credentials.user()?;
    credentials.password.as_ref()
}

/// Compares the password with what the database has. An unknown user takes as long.
#[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
pub(super) async fn judge(
    passwords: &Passwords,
    stored: Option<Stored>,
    password: &Secret,
) -> Result<Outcome, AuthenticateError> {
    let not_a_hash = AuthenticateError::Answer("the stored password is no hash of a known kind");
    let hash = stored.as_ref().map(|stored| stored.hash.parse()).transpose().map_err(|_| not_a_hash)?;
    let right = passwords.verify(hash, password.expose().to_vec()).await;
    let right = right.map_err(|_| AuthenticateError::Busy)?;
    Ok(match stored {
        Some(Stored { superuser, .. }) if right => {
            Outcome::Allow(Identity { superuser, ..Identity::default() })
        }
        Some(_) => Outcome::Deny,
        None => Outcome::NotMine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{loopback, nothing};

    #[test]
    fn values_stay_values() {
        let question = Question::parse("a ${username} b ${clientid}${tenant}").unwrap();
        let mut credentials = nothing(loopback());
        credentials.user = Some("${clientid}' OR 1=1 --".into());
        assert_eq!(question.values(&credentials), ["${clientid}' OR 1=1 --", "c1", "default"]);
        let joined = question.join(|at| format!("<{at}>"));
        assert_eq!(joined, "a <0> b <1><2>");
        for broken in ["", "SELECT 1", "${tenant}", "${user}", "a ${username"] {
            assert!(Question::parse(broken).is_none(), "{broken}");
        }
    }
}
