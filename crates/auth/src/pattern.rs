//! Patterns of canonical names with placeholders: matching, covering, overlapping.
//!
//! Invariant: what a placeholder stands for is only ever compared, never read as a pattern.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::principal::Principal;
use crate::rule::Effect;

/// Bound: bytes of a pattern.
pub(crate) const PATTERN_LEN_MAX: usize = 1024;

/// Something of the connection that a pattern may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Username,
    ClientId,
    CertCommonName,
}

/// Which names a rule is about: levels joined by `/`, `+` for one level, a last `#` for all the rest (and none), and
/// `${username}`, `${clientid}`, `${cert_common_name}` anywhere in a level.
///
/// A placeholder's value is compared literally and within one level. An *allow* rule never holds for a connection whose
/// value is missing, or has a `/` in it: it would reach into other levels. A *deny* rule holds for what the text with its
/// values literally spells, so that no choice of a client id escapes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    levels: Vec<Level>,
    /// Whether some level has to be filled in before it can be compared.
    filled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    One,
    Many,
    Filled(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or more than 1,024 bytes, or U+0000 in it.
    #[error("a pattern has 1 to {PATTERN_LEN_MAX} bytes without U+0000")]
    Length,
    /// A wildcard beside other characters, or a `#` that is not last.
    #[error("`+` is a whole level, and `#` the whole last one")]
    Wildcard,
    /// `${` with no end, or a name that is none.
    #[error("only ${{username}}, ${{clientid}} and ${{cert_common_name}} are known")]
    Placeholder,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() || text.len() > PATTERN_LEN_MAX || text.contains('\0') {
            return Err(PatternError::Length);
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            if levels.last() == Some(&Level::Many) {
                return Err(PatternError::Wildcard);
            }
            levels.push(parse_level(level)?);
        }
        let filled = levels.iter().any(|level| matches!(level, Level::Filled(_)));
        Ok(Pattern { text: text.to_owned(), levels, filled })
    }
}

fn parse_level(level: &str) -> Result<Level, PatternError> {
    match level {
        "+" => return Ok(Level::One),
        "#" => return Ok(Level::Many),
        _ if level.contains(['+', '#']) => return Err(PatternError::Wildcard),
        _ if !level.contains("${") => return Ok(Level::Literal(level.to_owned())),
        _ => {}
    }
    let mut pieces = Vec::new();
    let mut rest = level;
    while let Some((before, after)) = rest.split_once("${") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (name, after) = after.split_once('}').ok_or(PatternError::Placeholder)?;
        pieces.push(Piece::Value(match name {
            "username" => Placeholder::Username,
            "clientid" => Placeholder::ClientId,
            "cert_common_name" => Placeholder::CertCommonName,
            _ => return Err(PatternError::Placeholder),
        }));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(Level::Filled(pieces))
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern as it concerns one principal, `None` if it does not.
    pub(crate) fn resolve<'a>(&'a self, principal: &Principal, effect: Effect) -> Option<Resolved<'a>> {
        if !self.filled {
            return Some(Resolved { levels: Cow::Borrowed(&self.levels), effect });
        }
        let mut levels = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let Level::Filled(pieces) = level else {
                levels.push(level.clone());
                continue;
            };
            let mut text = String::new();
            for piece in pieces {
                match piece {
                    Piece::Text(piece) => text.push_str(piece),
                    Piece::Value(placeholder) => text.push_str(principal.value(*placeholder)?),
                }
            }
            match effect {
                Effect::Allow if text.contains('/') => return None,
                Effect::Allow => levels.push(Level::Literal(text)),
                Effect::Deny => levels.extend(text.split('/').map(|part| Level::Literal(part.to_owned()))),
            }
        }
        Some(Resolved { levels: Cow::Owned(levels), effect })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A pattern without placeholders. No level is [`Level::Filled`].
pub(crate) struct Resolved<'a> {
    levels: Cow<'a, [Level]>,
    effect: Effect,
}

impl Resolved<'_> {
    /// Whether the pattern matches a name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if self.hides(name) {
            return false;
        }
        let mut parts = name.split('/');
        for level in self.levels.iter() {
            match level {
                Level::Many => return true,
                Level::One if parts.next().is_some() => {}
                Level::Literal(text) if parts.next() == Some(text) => {}
                Level::One | Level::Literal(_) | Level::Filled(_) => return false,
            }
        }
        parts.next().is_none()
    }

    /// Whether the pattern matches every name that a filter matches; no if in doubt.
    pub(crate) fn covers(&self, filter: &str) -> bool {
        if self.hides(filter) {
            return false;
        }
        let mut parts = filter.split('/');
        for level in self.levels.iter() {
            let part = match level {
                Level::Many => return true,
                _ => parts.next(),
            };
            match (level, part) {
                (Level::One, Some(part)) if part != "#" => {}
                (Level::Literal(text), Some(part)) if part == text && !is_wildcard(part) => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// Whether some name matches both the pattern and a filter; yes if in doubt.
    pub(crate) fn overlaps(&self, filter: &str) -> bool {
        let mut parts = filter.split('/');
        let mut levels = self.levels.iter();
        loop {
            match (levels.next(), parts.next()) {
                (Some(Level::Many), _) | (_, Some("#")) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Level::Literal(text)), Some(part)) if part != "+" && part != text => return false,
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Whether a name is out of reach because a leading wildcard of an allow rule does not stand for `$...`.
    fn hides(&self, name: &str) -> bool {
        self.effect == Effect::Allow
            && name.starts_with('$')
            && matches!(self.levels.first(), Some(Level::One | Level::Many))
    }
}

fn is_wildcard(part: &str) -> bool {
    part == "+" || part == "#"
}
