//! A parsed filter: levels that are literal or wildcards, in canonical spelling, with the rules of its dialect
//! already turned into level kinds. Matching one filter with one subject lives here; many filters are the trie's.

use super::dialect::{Dialect, Embedded, ManyPlace, ManyTakes};

/// Bound: bytes of a filter, the longest string that the protocols can carry.
pub const FILTER_BYTES_MAX: usize = 65_535;

/// Bound: levels of a filter. It limits the depth of the trie, and is more than any real name tree uses.
pub const FILTER_LEVELS_MAX: usize = 128;

/// One level of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level<'a> {
    /// These bytes and no others; may be empty.
    Literal(&'a str),
    /// Exactly one level, which may be empty.
    One,
    /// Zero or more levels.
    Many,
}

/// A valid filter over subjects in canonical spelling (levels joined by `/`).
///
/// The many-level wildcard that needs at least one level is held as [`Level::One`] followed by [`Level::Many`],
/// which means the same; so every dialect meets in two kinds of wildcard. Two filters are equal if they match the
/// same way level by level, whatever dialect they were written in.
///
/// The empty subject has no levels: only the empty filter and filters made of [`Level::Many`] alone match it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Canonical spelling, wildcards as `+` and `#`.
    text: Box<str>,
    /// Where each level lies in `text`.
    levels: Box<[Span]>,
    /// Invariant: true only if the first level is a wildcard, so that equal meanings compare equal.
    hides_dollar: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Span {
    Literal { start: u32, end: u32 },
    One,
    Many,
}

/// Why a filter is refused. Levels count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no byte in it and the dialect wants one.
    #[error("a filter must not be empty")]
    Empty,
    /// More than [`FILTER_BYTES_MAX`] bytes.
    #[error("a filter of {bytes} bytes is too long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`FILTER_LEVELS_MAX`] levels.
    #[error("a filter has too many levels")]
    TooManyLevels,
    /// An empty level where the dialect permits none.
    #[error("level {level} of the filter is empty")]
    EmptyLevel {
        /// Which one.
        level: usize,
    },
    /// A wildcard that is not alone in its level.
    #[error("level {level} of the filter holds a wildcard beside other bytes")]
    WildcardInLevel {
        /// Which one.
        level: usize,
    },
    /// The many-level wildcard before the end.
    #[error("level {level} of the filter is the many-level wildcard and is not the last")]
    ManyNotLast {
        /// Which one.
        level: usize,
    },
}

impl Filter {
    /// Parses `text` as spelled in `dialect`. Escapes of a name's spelling are not undone here: a front whose
    /// names use them decodes each level and calls [`Filter::from_levels`].
    pub fn parse(text: &str, dialect: &Dialect) -> Result<Filter, FilterError> {
        if text.is_empty() && !dialect.empty_filter {
            return Err(FilterError::Empty);
        }
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong { bytes: text.len() });
        }
        let mut build = Build::new(text.len());
        let count = if text.is_empty() { 0 } else { text.split(char::from(dialect.separator)).count() };
        for (at, level) in text.split(char::from(dialect.separator)).take(count).enumerate() {
            match dialect.kind(level, at, at + 1 == count)? {
                Kind::Literal => build.literal(level, dialect.separator)?,
                Kind::One => build.wildcard(Span::One)?,
                Kind::Many(ManyTakes::ZeroOrMore) => build.wildcard(Span::Many)?,
                Kind::Many(ManyTakes::OneOrMore) => {
                    build.wildcard(Span::One)?;
                    build.wildcard(Span::Many)?;
                }
            }
        }
        Ok(build.finish(dialect.hides_dollar))
    }

    /// Builds a filter from levels in canonical spelling; a literal level must not contain `/`, which would end
    /// it (the parts then count as levels of their own).
    pub fn from_levels<'a>(
        levels: impl IntoIterator<Item = Level<'a>>,
        hides_dollar: bool,
    ) -> Result<Filter, FilterError> {
        let mut build = Build::new(0);
        for level in levels {
            match level {
                Level::Literal(text) => {
                    text.split('/').try_for_each(|part| build.literal(part, b'/'))?;
                }
                Level::One => build.wildcard(Span::One)?,
                Level::Many => build.wildcard(Span::Many)?,
            }
            if build.text.len() > FILTER_BYTES_MAX {
                return Err(FilterError::TooLong { bytes: build.text.len() });
            }
        }
        Ok(build.finish(hides_dollar))
    }

    /// The canonical spelling, wildcards as `+` and `#`. For showing and for exact filters; two different filters
    /// may share it, where a dialect permits a literal `+` or `#`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The levels in order.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = Level<'_>> + ExactSizeIterator {
        self.levels.iter().map(|span| self.level(*span))
    }

    /// Whether it has no wildcard, so that it matches exactly the subject [`Filter::as_str`].
    pub fn is_exact(&self) -> bool {
        self.levels.iter().all(|span| matches!(span, Span::Literal { .. }))
    }

    /// Whether subjects that start with `$` are left out. False if the first level is literal.
    pub fn hides_dollar(&self) -> bool {
        self.hides_dollar
    }

    /// The leading literal levels, joined by `/`. Every subject that matches is this text, or starts with it
    /// and a `/`; any subject may match if the first level is a wildcard, and then it is empty.
    pub fn literal_prefix(&self) -> &str {
        let end = self.levels.iter().map_while(|span| match span {
            Span::Literal { end, .. } => Some(*end as usize),
            Span::One | Span::Many => None,
        });
        &self.text[..end.last().unwrap_or(0)]
    }

    /// Whether `subject`, in canonical spelling, matches. Allocates nothing; takes at most
    /// levels of the filter times levels of the subject steps.
    pub fn matches(&self, subject: &str) -> bool {
        if self.hides_dollar && subject.starts_with('$') {
            return false;
        }
        let mut rest = Levels::of(subject);
        let mut at = 0;
        // Where to resume when the levels after the last `#` do not fit: one subject level further on.
        let mut resume: Option<(usize, Levels<'_>)> = None;
        loop {
            let fits = match self.levels.get(at) {
                Some(Span::Many) => {
                    resume = Some((at + 1, rest));
                    true
                }
                Some(span) => rest.next().is_some_and(|level| self.takes(*span, level)),
                None if rest.is_done() => return true,
                None => false,
            };
            if fits {
                at += 1;
                continue;
            }
            // An earlier `#` never has to take more: the last one can take whatever is left over.
            let Some((after, mut from)) = resume else { return false };
            if from.next().is_none() {
                return false;
            }
            (at, rest) = (after, from);
            resume = Some((after, from));
        }
    }

    fn takes(&self, span: Span, level: &str) -> bool {
        match self.level(span) {
            Level::Literal(text) => text == level,
            Level::One => true,
            Level::Many => false,
        }
    }

    fn level(&self, span: Span) -> Level<'_> {
        match span {
            Span::Literal { start, end } => Level::Literal(&self.text[start as usize..end as usize]),
            Span::One => Level::One,
            Span::Many => Level::Many,
        }
    }
}

/// The levels of a subject: the empty subject has none, any other one more than it has `/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels<'a> {
    rest: Option<&'a str>,
}

impl<'a> Levels<'a> {
    pub(super) fn of(subject: &'a str) -> Levels<'a> {
        Levels { rest: (!subject.is_empty()).then_some(subject) }
    }

    fn is_done(self) -> bool {
        self.rest.is_none()
    }
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        Some(level)
    }
}

enum Kind {
    Literal,
    One,
    Many(ManyTakes),
}

impl Dialect {
    fn kind(&self, level: &str, at: usize, is_last: bool) -> Result<Kind, FilterError> {
        match level.as_bytes() {
            [] if !self.empty_levels => Err(FilterError::EmptyLevel { level: at }),
            [byte] if *byte == self.one => Ok(Kind::One),
            [byte] if *byte == self.many => match self.many_place {
                ManyPlace::End if !is_last => Err(FilterError::ManyNotLast { level: at }),
                ManyPlace::End | ManyPlace::Anywhere => Ok(Kind::Many(self.many_takes)),
            },
            bytes => match self.embedded {
                Embedded::Refused if bytes.contains(&self.one) || bytes.contains(&self.many) => {
                    Err(FilterError::WildcardInLevel { level: at })
                }
                Embedded::Refused | Embedded::Literal => Ok(Kind::Literal),
            },
        }
    }
}

struct Build {
    text: String,
    levels: Vec<Span>,
}

impl Build {
    fn new(bytes: usize) -> Build {
        Build { text: String::with_capacity(bytes), levels: Vec::new() }
    }

    fn separate(&mut self) -> Result<(), FilterError> {
        if self.levels.len() == FILTER_LEVELS_MAX {
            return Err(FilterError::TooManyLevels);
        }
        if !self.levels.is_empty() {
            self.text.push('/');
        }
        Ok(())
    }

    fn literal(&mut self, level: &str, separator: u8) -> Result<(), FilterError> {
        self.separate()?;
        let start = self.text.len() as u32;
        // The separator itself cannot occur in a level, so a swap only has one direction here.
        self.text.extend(level.chars().map(|c| if c == '/' { char::from(separator) } else { c }));
        self.levels.push(Span::Literal { start, end: self.text.len() as u32 });
        Ok(())
    }

    fn wildcard(&mut self, span: Span) -> Result<(), FilterError> {
        self.separate()?;
        self.text.push(if matches!(span, Span::One) { '+' } else { '#' });
        self.levels.push(span);
        Ok(())
    }

    fn finish(mut self, hides_dollar: bool) -> Filter {
        if self.text.is_empty() {
            // One empty level alone is spelled like none, and means the same.
            self.levels.clear();
        }
        let leads_wild = matches!(self.levels.first(), Some(Span::One | Span::Many));
        Filter {
            text: self.text.into_boxed_str(),
            levels: self.levels.into_boxed_slice(),
            hides_dollar: hides_dollar && leads_wild,
        }
    }
}
