//! A small repository in a temporary folder, clean but for what a test plants in it.

use std::fs;
use std::path::Path;

use crate::tree::Tree;

/// Files that satisfy every rule.
const CLEAN: &[(&str, &str)] = &[
    ("README.md", "# It\n\nSee [the map](ARCHITECTURE.md).\n"),
    ("ARCHITECTURE.md", "# Map\n"),
    ("LICENSE", "Apache\n"),
    ("CHANGELOG.md", "# Changes\n"),
    ("docs/glossary.md", "# Words\n"),
    ("docs/adr/0000-template.md", "# Template\n"),
    ("docs/protocols/mqtt.md", "# MQTT\n"),
    ("docs/protocols/kafka.md", "# Kafka\n"),
    ("crates/model/Cargo.toml", "[package]\nname = \"model\"\n"),
    ("crates/model/src/lib.rs", "//! Model.\n\n/// Adds.\npub fn add(a: u8, b: u8) -> u8 {\n    a + b\n}\n"),
    (
        "crates/storage/Cargo.toml",
        "[package]\nname = \"storage\"\n[dependencies]\nmodel.workspace = true\nrocksdb = \"1\"\n",
    ),
    ("crates/storage/src/lib.rs", "//! Storage.\n"),
];

/// The rules that the clean repository breaks once the `planted` files are in it, with `path:line`.
pub(crate) fn broken_by(planted: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in CLEAN.iter().chain(planted) {
        write(folder.path(), path, text);
    }
    let tree = Tree::load(folder.path()).expect("reads");
    super::check(&tree).into_iter().map(|v| (v.rule, format!("{}:{}", v.path, v.line))).collect()
}

/// Asserts that planting `text` at `path` breaks exactly `rule`, at `line`.
#[track_caller]
pub(crate) fn assert_breaks(path: &str, text: &str, rule: &'static str, line: usize) {
    assert_eq!(broken_by(&[(path, text)]), [(rule, format!("{path}:{line}"))]);
}

/// Asserts that planting `text` at `path` breaks nothing.
#[track_caller]
pub(crate) fn assert_keeps(path: &str, text: &str) {
    assert_eq!(broken_by(&[(path, text)]), []);
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("inside the root")).expect("a folder");
    fs::write(path, text).expect("a file");
}

#[test]
fn the_clean_repository_is_clean() {
    assert_eq!(broken_by(&[]), []);
}
