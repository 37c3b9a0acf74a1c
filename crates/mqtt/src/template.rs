//! Text with places for what is known of a client: `${clientid}`, `${username}`, `${host}`.

use std::net::IpAddr;

/// Text with placeholders, checked once and filled in for each client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// `${` without `}`.
    Unclosed,
    /// A placeholder that there is not.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    ClientId,
    UserName,
    Host,
}

/// Who a template is filled in for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) client: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) host: IpAddr,
}

impl Template {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else { return Err(TemplateError::Unclosed) };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(match name {
                "clientid" => Piece::ClientId,
                "username" => Piece::UserName,
                "host" => Piece::Host,
                other => return Err(TemplateError::Unknown(other.to_owned())),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self(pieces))
    }

    /// The text for one client. None if the client has no user name where one is wanted, or if its name would change what
    /// the text means as a topic or a filter: a client must not choose its own wildcards.
    pub(crate) fn fill(&self, who: &Who<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::ClientId => text.push_str(harmless(who.client)?),
                Piece::UserName => text.push_str(harmless(who.user?)?),
                Piece::Host => text.push_str(&who.host.to_string()),
            }
        }
        Some(text)
    }
}

fn harmless(name: &str) -> Option<&str> {
    (!name.is_empty() && !name.contains(['+', '#', '\0'])).then_some(name)
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unclosed => f.write_str("a placeholder is not closed by }"),
            Self::Unknown(name) => {
                write!(f, "${{{name}}} is no placeholder; there are ${{clientid}}, ${{username}}, ${{host}}")
            }
        }
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn who<'a>(client: &'a str, user: Option<&'a str>) -> Who<'a> {
        Who { client, user, host: "::1".parse().unwrap() }
    }

    #[test]
    fn what_is_known_of_a_client_is_filled_in() {
        let fill = |text: &str, who: &Who<'_>| Template::parse(text).unwrap().fill(who);
        let ann = who("c1", Some("ann"));
        assert_eq!(fill("cmd/${clientid}/${username}/x", &ann).as_deref(), Some("cmd/c1/ann/x"));
        assert_eq!(fill("${host}", &ann).as_deref(), Some("::1"));
        assert_eq!(fill("a/$b/{c}", &ann).as_deref(), Some("a/$b/{c}"));
        assert_eq!(fill("", &ann).as_deref(), Some(""));
        assert_eq!(fill("cmd/${username}", &who("c1", None)), None);
    }

    #[test]
    fn a_client_does_not_choose_its_own_wildcards() {
        let template = Template::parse("cmd/${clientid}").unwrap();
        for client in ["#", "a/+/b", "", "\0"] {
            assert_eq!(template.fill(&who(client, None)), None, "{client:?}");
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        assert_eq!(Template::parse("${clientid"), Err(TemplateError::Unclosed));
        assert_eq!(Template::parse("a${x}"), Err(TemplateError::Unknown("x".to_owned())));
    }
}
