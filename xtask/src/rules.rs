//! The rules of `cargo xtask tidy`, one file each. Every rule reports all that it finds.

mod arrows;
mod code;
mod prose;
mod statements;
mod words;

#[cfg(test)]
mod fixture;

use std::fmt;

use crate::tree::Tree;

/// A place that breaks a rule, and what to do about it.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
    fix: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { path, line, rule, what, fix } = self;
        write!(f, "{path}:{line}: [{rule}] {what}\n    fix: {fix}")
    }
}

/// Checks all rules and returns the violations by path and line.
pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    arrows::check(tree, &mut violations);
    code::check(tree, &mut violations);
    words::check(tree, &mut violations);
    prose::check(tree, &mut violations);
    statements::check(tree, &mut violations);
    violations.sort_by(|a, b| (&a.path, a.line, a.rule).cmp(&(&b.path, b.line, b.rule)));
    violations
}
