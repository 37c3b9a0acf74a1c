//! How a front spells filters: separator, wildcards and the rules around them. A front owns the constant for its
//! protocol; this file only says what can differ.

/// The spelling and meaning of filters in one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The byte between levels, ASCII. Where it is not `/`, a `/` inside a level stands for this byte in the
    /// canonical spelling (the two swap).
    pub separator: u8,
    /// The whole level that stands for exactly one level, ASCII.
    pub one: u8,
    /// The whole level that stands for many levels, ASCII.
    pub many: u8,
    /// How many levels `many` stands for.
    pub many_takes: ManyTakes,
    /// Where `many` may stand.
    pub many_place: ManyPlace,
    /// What a wildcard byte within a longer level means.
    pub embedded: Embedded,
    /// Whether a level, or the whole filter, may be empty in the middle of others (`a//b`).
    pub empty_levels: bool,
    /// Whether a filter without a single byte is permitted; it matches the empty subject alone.
    pub empty_filter: bool,
    /// Whether a filter whose first level is a wildcard leaves out subjects that start with `$`.
    pub hides_dollar: bool,
}

impl Dialect {
    /// The canonical spelling, which is MQTT's: levels between `/`, `+` for one, `#` at the end for none or more, both hiding
    /// what starts with `$` [MQTT-4.7.1-1, 4.7.1-2, 4.7.2-1].
    pub const CANONICAL: Dialect = Dialect {
        separator: b'/',
        one: b'+',
        many: b'#',
        many_takes: ManyTakes::ZeroOrMore,
        many_place: ManyPlace::End,
        embedded: Embedded::Refused,
        empty_levels: true,
        empty_filter: false,
        hides_dollar: true,
    };
}

/// How many levels the many-level wildcard stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManyTakes {
    /// None or more: `a/#` matches `a`.
    ZeroOrMore,
    /// At least one: `a.>` does not match `a`.
    OneOrMore,
}

/// Where the many-level wildcard may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManyPlace {
    /// Only as the last level.
    End,
    /// At any level, any number of times.
    Anywhere,
}

/// What a wildcard byte means that is not alone in its level (`a+`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedded {
    /// The filter is refused.
    Refused,
    /// The byte is an ordinary one.
    Literal,
}
