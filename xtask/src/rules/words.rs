//! Words that no text of ours may hold, whatever its language: work that is left for later, and paths of one machine.

use super::Violation;
use crate::tree::{File, Tree};

/// Marks of work that was left for later. In two parts each, so that this file does not hold them.
const LATER: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Beginnings of absolute paths that exist on one machine only.
const PLACES: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Texts of others, which we keep as they are.
const FOREIGN: &[&str] = &["LICENSE", "Cargo.lock"];

/// Checks every text file.
pub(crate) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    for file in tree.files.iter().filter(|file| !FOREIGN.contains(&file.path.as_str())) {
        for (index, line) in file.text.lines().enumerate() {
            check_line(file, index + 1, line, violations);
        }
    }
}

fn check_line(file: &File, number: usize, line: &str, violations: &mut Vec<Violation>) {
    let mut report = |rule, word: &str, fix| {
        violations.push(Violation {
            path: file.path.clone(),
            line: number,
            rule,
            what: format!("`{word}`"),
            fix,
        });
    };
    if let Some(word) = LATER.iter().find(|word| holds(line, word, |before| before.is_alphanumeric())) {
        report("left-for-later", word, "do it now, or open an issue");
    }
    // A path inside a path is not absolute.
    if let Some(word) =
        PLACES.iter().find(|word| holds(line, word, |b| b.is_alphanumeric() || "}._-~/".contains(b)))
    {
        report("machine-path", word, "say it relative to the repository, or by an environment variable");
    }
}

/// Whether `word` is in `line` with no `part_of_word` right before it.
fn holds(line: &str, word: &str, part_of_word: impl Fn(char) -> bool) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].chars().next_back().is_some_and(&part_of_word))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_breaks, assert_keeps};
    use super::*;

    #[test]
    fn work_left_for_later_is_refused_in_every_language() {
        for word in LATER {
            assert_breaks("docs/a.md", &format!("one\ntwo {word} three\n"), "left-for-later", 2);
            assert_breaks("crates/model/src/a.rs", &format!("//! A.\n// {word}: b\n"), "left-for-later", 2);
            assert_breaks("scripts/a.sh", &format!("# {word}\n"), "left-for-later", 1);
        }
    }

    #[test]
    fn paths_of_one_machine_are_refused() {
        for place in PLACES {
            assert_breaks("scripts/a.py", &format!("a = \"{place}x\"\n"), "machine-path", 1);
            assert_keeps("scripts/a.py", &format!("a = \"$ROOT}}{place}x some{place}\"\n"));
        }
    }
}
