//! The map from statements of the MQTT standard to tests is true: every statement has its row, every test that a row names exists,
//! and every clause of a row is in the name of one of its tests or in one of its transcripts.

use std::collections::BTreeSet;

use super::Violation;
use crate::tree::{File, Tree};

/// The map.
const PAGE: &str = "docs/reference/mqtt-statements.md";
/// Statements are numbered from 1 to this.
const LAST: usize = 102;

/// Checks the map against the sources.
pub(crate) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    let Some(page) = tree.file(PAGE) else { return };
    let functions = functions(tree);
    let mut missing: BTreeSet<usize> = (1..=LAST).collect();
    for (index, line) in page.text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", number, _, clauses, shown, ""] = cells[..] else { continue };
        let row = Row { tree, line: index + 1, shown };
        match number.parse() {
            Ok(number) => {
                missing.remove(&number);
                row.check_names(&functions, violations);
                row.check_clauses(clauses, violations);
            }
            // Beyond the standard.
            Err(_) if number == "-" => row.check_names(&functions, violations),
            Err(_) => {}
        }
    }
    if !missing.is_empty() {
        let what = format!("no row for the statements {missing:?}");
        violations.push(violation(1, what, "say which test shows them"));
    }
}

/// Names of all functions.
fn functions(tree: &Tree) -> BTreeSet<&str> {
    let sources = tree.files.iter().filter(|file| file.is_rust());
    let words = sources.flat_map(|file: &File| file.text.split("fn ").skip(1));
    words.filter_map(|rest| rest.split(|next: char| !next.is_alphanumeric() && next != '_').next()).collect()
}

fn violation(line: usize, what: String, fix: &'static str) -> Violation {
    Violation { path: PAGE.to_owned(), line, rule: "statements", what, fix }
}

struct Row<'a> {
    tree: &'a Tree,
    line: usize,
    shown: &'a str,
}

impl<'a> Row<'a> {
    /// Tests that it names: what stands between backticks, without modules in front.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.shown.split('`').skip(1).step_by(2).map(|name| name.rsplit("::").next().unwrap_or(name))
    }

    /// Texts of the transcripts that it links to.
    fn transcripts(&self) -> impl Iterator<Item = &'a str> {
        let targets = self.shown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter_map(|target| self.tree.file(target.trim_start_matches("../"))).map(|file| &*file.text)
    }

    fn check_names(&self, functions: &BTreeSet<&str>, violations: &mut Vec<Violation>) {
        for name in self.names().filter(|name| !functions.contains(name)) {
            violations.push(violation(
                self.line,
                format!("no test is called `{name}`"),
                "name one that exists",
            ));
        }
        if self.names().next().is_none() && self.transcripts().next().is_none() {
            violations.push(violation(
                self.line,
                "nothing shows it".to_owned(),
                "write a test, or a transcript",
            ));
        }
    }

    fn check_clauses(&self, clauses: &str, violations: &mut Vec<Violation>) {
        // What has no `-` is a section.
        for clause in clauses.split(',').map(str::trim).filter(|clause| clause.contains('-')) {
            let name = format!("mqtt_{}_", clause.replace(['.', '-'], "_"));
            let mark = format!("[MQTT-{clause}]");
            let is_carried = self.names().any(|known| known.starts_with(&name))
                || self.transcripts().any(|text| text.contains(&mark));
            if !is_carried {
                let what = format!("no test of this row is named `{name}..`, and no transcript has {mark}");
                violations.push(violation(self.line, what, "name the test after the clause"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::broken_by;
    use super::*;

    const TRANSCRIPT: (&str, &str) = ("crates/mqtt-a.txt", "# [MQTT-1.2.3-4] [MQTT-1.2.3-5]\n");
    const SOURCE: (&str, &str) =
        ("crates/model/src/a.rs", "//! A.\n\n#[test]\nfn mqtt_1_2_3_4_a() {}\n\n#[test]\nfn b() {}\n");

    /// The lines that a page breaks the rule in, whose statement 7 is shown so.
    fn lines(clauses: &str, shown: &str) -> Vec<String> {
        let row = |number| match number {
            7 => format!("| 7 | seven | {clauses} | {shown} |\n"),
            _ => format!("| {number} | x |  | `b` |\n"),
        };
        let page: String = (1..=LAST).map(row).collect();
        let broken = broken_by(&[TRANSCRIPT, SOURCE, (PAGE, &page)]);
        assert!(broken.iter().all(|(rule, _)| *rule == "statements"), "{broken:?}");
        broken.into_iter().map(|(_, place)| place.replace(PAGE, "")).collect()
    }

    #[test]
    fn a_row_names_tests_and_transcripts_that_exist() {
        assert!(lines("1.2.3-4", "`model::mqtt_1_2_3_4_a`, `b`").is_empty());
        assert!(lines("1.2.3-4, 1.2.3-5", "[transcript](../../crates/mqtt-a.txt)").is_empty());
        assert!(lines("1.2.3", "`b`").is_empty(), "a section");
        assert_eq!(lines("", "`c`"), [":7"]);
        assert_eq!(lines("", "see there"), [":7"]);
    }

    #[test]
    fn a_clause_is_carried_by_a_name_or_by_a_transcript() {
        assert_eq!(lines("1.2.3-4", "`b`"), [":7"]);
        assert_eq!(lines("1.2.3-44", "`mqtt_1_2_3_4_a`"), [":7"]);
        assert_eq!(lines("1.2.3-4, 1.2.3-6", "[transcript](../../crates/mqtt-a.txt)"), [":7"]);
    }

    #[test]
    fn no_statement_is_missing() {
        let broken = broken_by(&[(PAGE, "# Map\n")]);
        assert_eq!(broken, [("statements", format!("{PAGE}:1"))]);
    }
}
