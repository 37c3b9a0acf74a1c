//! The pages that a newcomer needs are there, their relative links lead somewhere, and decisions have one number each.

use super::Violation;
use crate::tree::{File, Tree};

/// Pages that must exist.
const PAGES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "LICENSE",
    "CHANGELOG.md",
    "docs/glossary.md",
    "docs/adr/0000-template.md",
];

/// Crates that map a protocol onto the model, each with its page in docs/protocols.
const PROTOCOLS: &[&str] = &["mqtt", "kafka", "amqp", "nats", "mq9"];

/// Checks pages, links and numbers.
pub(crate) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    let protocols = PROTOCOLS.iter().filter(|name| tree.has(&format!("crates/{name}/Cargo.toml")));
    let pages = PAGES.iter().map(|page| (*page).to_owned());
    for page in pages.chain(protocols.map(|name| format!("docs/protocols/{name}.md"))) {
        if tree.file(&page).is_none_or(|file| file.text.trim().is_empty()) {
            let what = "the page is missing".to_owned();
            violations.push(Violation { path: page, line: 1, rule: "pages", what, fix: "write it" });
        }
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        check_links(tree, file, violations);
    }
    check_decision_numbers(tree, violations);
}

fn check_links(tree: &Tree, file: &File, violations: &mut Vec<Violation>) {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut in_code = false;
    for (index, line) in file.text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        let targets =
            line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|_| !in_code) {
            let path = target.split('#').next().unwrap_or("");
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !tree.has(format!("{folder}/{path}").trim_start_matches('/')) {
                violations.push(Violation {
                    path: file.path.clone(),
                    line: index + 1,
                    rule: "links",
                    what: format!("`{target}` leads nowhere"),
                    fix: "mend the link or write the page",
                });
            }
        }
    }
}

fn check_decision_numbers(tree: &Tree, violations: &mut Vec<Violation>) {
    let mut before: Option<&str> = None;
    // The files are sorted by path.
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix("docs/adr/").filter(|name| name.ends_with(".md")) else {
            continue;
        };
        let number = name.split('-').next().unwrap_or(name);
        if before == Some(number) {
            violations.push(Violation {
                path: file.path.clone(),
                line: 1,
                rule: "pages",
                what: format!("another decision has the number {number}"),
                fix: "take the next free number",
            });
        }
        before = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_breaks, assert_keeps};

    #[test]
    fn an_empty_page_is_a_missing_page() {
        for page in super::PAGES {
            assert_breaks(page, "\n", "pages", 1);
        }
    }

    #[test]
    fn a_protocol_needs_its_page() {
        let planted = ("crates/nats/Cargo.toml", "[package]\nname = \"nats\"\n");
        let broken = super::super::fixture::broken_by(&[planted]);
        assert_eq!(broken, [("pages", "docs/protocols/nats.md:1".to_owned())]);
    }

    #[test]
    fn a_dead_link_is_refused() {
        assert_breaks("docs/a.md", "ok [b](glossary.md#x)\n[c](../missing.md)\n", "links", 2);
        assert_keeps("docs/a.md", "[a](https://example.org/x) [b](#here)\n```\na[0](x)\n```\n");
    }

    #[test]
    fn two_decisions_with_one_number_are_refused() {
        assert_breaks("docs/adr/0000-zebra.md", "# Z\n", "pages", 1);
    }
}
