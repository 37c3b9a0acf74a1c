//! House rules and generated files: `cargo xtask tidy` and `cargo xtask gen`.
//!
//! Knows the shape of the repository and nothing of what the broker does. It depends on no crate of the house, so that
//! it runs in seconds also while they do not compile.

mod generate;
mod rules;
mod scan;
mod tree;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy   check the house rules
       cargo xtask gen    write docs/reference anew from the sources";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies inside the repository");
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy(root),
        ["gen"] => generate::run(root),
        _ => {
            say(USAGE);
            ExitCode::from(2)
        }
    }
}

fn tidy(root: &Path) -> ExitCode {
    let tree = match tree::Tree::load(root) {
        Ok(tree) => tree,
        Err(error) => {
            say(&format!("cannot read {}: {error}", root.display()));
            return ExitCode::from(2);
        }
    };
    let violations = rules::check(&tree);
    for violation in &violations {
        say(&violation.to_string());
    }
    if violations.is_empty() {
        say(&format!("tidy: {} files keep the house rules", tree.files.len()));
        ExitCode::SUCCESS
    } else {
        say(&format!("tidy: {} violations", violations.len()));
        ExitCode::FAILURE
    }
}

/// Writes a line for a person. A closed pipe is no reason to fail a check.
fn say(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
