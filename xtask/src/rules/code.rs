//! Walls and bans in Rust source: sizes, module names, first lines, macros, sleeps.

use super::Violation;
use crate::scan::{self, Finding};
use crate::tree::{File, Tree};

/// Bound: beyond this a file holds two things.
const FILE_LINES_MAX: usize = 800;
/// Bound: a function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Bound: a sixth parameter means two functions, or a struct that has a name.
const PARAMETERS_MAX: usize = 5;

/// Names that say nothing about what is inside.
const MODULES_BANNED: &[&str] =
    &["base", "common", "core", "helper", "helpers", "manager", "misc", "tool", "tools", "util", "utils"];

/// What a file begins with before somebody has written its first line.
const PLACEHOLDER: &str = concat!("//! Place", "holder");

/// Checks every Rust file.
pub(crate) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        check_file(file, violations);
        let test = file.levels().any(|level| level == "tests") && !file.path.starts_with("tests/e2e/src/")
            || file.path.ends_with("/tests.rs")
            || file.path.ends_with("_tests.rs");
        match scan::scan(&file.text, test) {
            Ok(findings) => violations
                .extend(findings.into_iter().filter_map(|(line, finding)| judge(file, line, finding))),
            Err(line) => {
                violations.push(violation(file, line, "syntax", "does not lex".to_owned(), "mend the source"))
            }
        }
    }
}

fn check_file(file: &File, violations: &mut Vec<Violation>) {
    if !file.text.starts_with("//!") || file.text.starts_with(PLACEHOLDER) {
        let what = "the file does not begin with `//!` and what it is for".to_owned();
        violations.push(violation(
            file,
            1,
            "first-line",
            what,
            "say what it is for and what it leaves to others",
        ));
    }
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines; the wall is {FILE_LINES_MAX}");
        violations.push(violation(file, lines, "file-size", what, "split it by what changes together"));
    }
    // `mod.rs` and `lib.rs` are named by their folder.
    let stems = file.levels().map(|level| level.strip_suffix(".rs").unwrap_or(level));
    if let Some(name) = stems.into_iter().find(|stem| MODULES_BANNED.contains(stem)) {
        violations.push(violation(file, 1, "module-name", format!("`{name}` says nothing"), FIX_NAME));
    }
}

const FIX_NAME: &str = "name it after the one thing that it holds";

fn judge(file: &File, line: usize, finding: Finding) -> Option<Violation> {
    let (rule, what, fix) = match finding {
        Finding::Function { name, lines, .. } if lines > FUNCTION_LINES_MAX => (
            "function-size",
            format!("`{name}` has {lines} lines; the wall is {FUNCTION_LINES_MAX}"),
            "branch here and move the straight parts into functions with names",
        ),
        // What a foreign trait asks for cannot be helped.
        Finding::Function { name, parameters, of_trait_impl: false, .. } if parameters > PARAMETERS_MAX => (
            "parameters",
            format!("`{name}` has {parameters} parameters; the wall is {PARAMETERS_MAX}"),
            "it does two things, or some of them are one thing that wants a name",
        ),
        Finding::Function { .. } => return None,
        Finding::Module { name } if MODULES_BANNED.contains(&name.as_str()) => {
            ("module-name", format!("`{name}` says nothing"), FIX_NAME)
        }
        Finding::Module { .. } => return None,
        Finding::Macro { name } => {
            ("unfinished", format!("`{name}!`"), "finish it, or leave the feature out")
        }
        Finding::Ignored => ("ignored-test", "an ignored test".to_owned(), "mend it or delete it"),
        Finding::Dashmap => (
            "dashmap",
            "dashmap: a guard held across another call deadlocks".to_owned(),
            "let one task or one lock own the state",
        ),
        Finding::SleepInTest => (
            "sleep-in-test",
            "a test sleeps".to_owned(),
            "move a virtual clock, or wait for the event with a deadline",
        ),
    };
    Some(violation(file, line, rule, what, fix))
}

fn violation(file: &File, line: usize, rule: &'static str, what: String, fix: &'static str) -> Violation {
    Violation { path: file.path.clone(), line, rule, what, fix }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_breaks, assert_keeps, broken_by};

    const PATH: &str = "crates/model/src/planted.rs";

    fn file(rest: &str) -> String {
        format!("//! Planted.\n{rest}")
    }

    #[test]
    fn a_file_without_a_first_line_is_refused() {
        assert_breaks(PATH, "const A: u8 = 1;\n", "first-line", 1);
        assert_breaks(PATH, concat!("//! Place", "holder first line.\n"), "first-line", 1);
    }

    #[test]
    fn a_long_file_is_refused() {
        assert_keeps(PATH, &file(&"const A: u8 = 1;\n".repeat(799)));
        assert_breaks(PATH, &file(&"const A: u8 = 1;\n".repeat(800)), "file-size", 801);
    }

    #[test]
    fn a_long_function_is_refused() {
        let function = |lines: usize| file(&format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2)));
        assert_keeps(PATH, &function(70));
        assert_breaks(PATH, &function(71), "function-size", 2);
    }

    #[test]
    fn a_sixth_parameter_is_refused_but_in_an_implementation_of_a_trait() {
        assert_keeps(PATH, &file("fn f(a: A, b: B, c: C, d: D, e: E) {}\n"));
        assert_breaks(PATH, &file("fn f(a: A, b: B, c: C, d: D, e: E, f: F) {}\n"), "parameters", 2);
        assert_keeps(PATH, &file("impl T for U { fn f(&self, a: A, b: B, c: C, d: D, e: E) {} }\n"));
    }

    #[test]
    fn banned_module_names_are_refused() {
        assert_breaks("crates/model/src/utils.rs", &file(""), "module-name", 1);
        assert_breaks("crates/model/src/helpers/mod.rs", &file(""), "module-name", 1);
        assert_breaks(PATH, &file("mod common {}\n"), "module-name", 2);
        let crate_named_core = ("crates/core/src/lib.rs", "//! Core.\n");
        assert_eq!(broken_by(&[crate_named_core]), [("module-name", "crates/core/src/lib.rs:1".to_owned())]);
    }

    #[test]
    fn unfinished_code_is_refused() {
        for name in crate::scan::MACROS {
            assert_breaks(PATH, &file(&format!("fn f() {{\n    {name}!()\n}}\n")), "unfinished", 3);
        }
    }

    #[test]
    fn ignored_tests_are_refused() {
        let attribute = "#[ignore = \"slow\"]";
        assert_breaks(PATH, &file(&format!("#[test]\n{attribute}\nfn f() {{}}\n")), "ignored-test", 3);
    }

    #[test]
    fn dashmap_is_refused() {
        assert_breaks(PATH, &file("use dashmap::Map;\n"), "dashmap", 2);
    }

    #[test]
    fn sleeping_tests_are_refused() {
        let text = file("fn f() {\n    std::thread::sleep(SECOND);\n}\n");
        assert_keeps(PATH, &text);
        assert_breaks("crates/model/tests/planted.rs", &text, "sleep-in-test", 3);
        assert_breaks("crates/model/src/tests.rs", &text, "sleep-in-test", 3);
        assert_keeps("tests/e2e/src/wait.rs", &text);
    }

    #[test]
    fn all_violations_are_reported_together() {
        let text = "mod util {}\nfn f() {\n    todo!()\n}\n";
        let rules: Vec<&str> = broken_by(&[(PATH, text)]).into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(rules, ["first-line", "module-name", "unfinished"]);
    }
}
