//! What can be wrong with settings, where it was said, and how a person is told.

use std::fmt;
use std::path::PathBuf;

/// Where the value of a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody gave one.
    Default,
    /// A line of the file, counted from 1.
    Line(PathBuf, usize),
    /// A file as a whole.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::File(path) => path.display().fmt(f),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was said.
    pub(crate) origin: Origin,
    /// What is wrong with it.
    pub(crate) kind: ProblemKind,
}

/// The ways in which settings can be wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// The file cannot be read.
    Unreadable { reason: String },
    /// The file is not TOML.
    Syntax { reason: String },
    /// No setting or section has this name.
    Unknown { name: String, suggestion: Option<String> },
    /// A value outside of any section.
    Misplaced { name: String },
    /// A value of another type.
    Type { name: String, expected: &'static str, found: String },
    /// A value that breaks a rule.
    Rule { name: String, rule: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match &self.kind {
            ProblemKind::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
            ProblemKind::Syntax { reason } => write!(f, "not valid TOML: {reason}"),
            ProblemKind::Unknown { name, suggestion: None } => write!(f, "{name}: no such setting"),
            ProblemKind::Unknown { name, suggestion: Some(suggestion) } => {
                write!(f, "{name}: no such setting; did you mean {suggestion}?")
            }
            ProblemKind::Misplaced { name } => write!(f, "{name}: settings belong to a section"),
            ProblemKind::Type { name, expected, found } => {
                write!(f, "{name}: expected {expected}, found {found}")
            }
            ProblemKind::Rule { name, rule } => write!(f, "{name}: {rule}"),
        }
    }
}

impl std::error::Error for Problem {}
