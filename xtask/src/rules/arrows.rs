//! Which crate may import which, in the house and from the registry.

use toml::{Table, Value};

use super::Violation;
use crate::tree::{File, Tree};

/// A room of the house.
struct Room {
    name: &'static str,
    /// Rooms of a floor import only from floors below it; development rooms stand beside the house on floor 0.
    floor: u8,
    may_import: Imports,
}

enum Imports {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

const fn room(floor: u8, name: &'static str, may_import: &'static [&'static str]) -> Room {
    Room { name, floor, may_import: Imports::Only(may_import) }
}

/// The table of ARCHITECTURE.md. A new arrow is a design change: an ADR first, then both tables.
const HOUSE: &[Room] = &[
    Room { name: "server", floor: 8, may_import: Imports::AllBut(&["cli", "testkit", "sim"]) },
    room(7, "mq9", &["nats", "broker", "model", "rt"]),
    room(6, "mqtt", &["broker", "wire", "net", "model", "rt"]),
    room(6, "kafka", &["broker", "wire", "net", "model", "rt"]),
    room(6, "amqp", &["broker", "wire", "net", "model", "rt"]),
    room(6, "nats", &["broker", "wire", "net", "model", "rt"]),
    room(6, "admin", &["broker", "auth", "meta", "api", "net", "model", "rt"]),
    room(6, "connectors", &["rules", "broker", "model", "rt"]),
    room(5, "broker", &["storage", "meta", "auth", "cluster", "model", "rt"]),
    room(4, "cluster", &["meta", "consensus", "storage", "net", "model", "rt"]),
    room(4, "auth", &["meta", "model", "rt"]),
    room(3, "meta", &["consensus", "storage", "model", "rt"]),
    room(3, "consensus", &["storage", "net", "model", "rt"]),
    room(3, "cli", &["api", "wire", "model", "rt"]),
    room(2, "storage", &["model", "rt"]),
    room(2, "net", &["model", "rt"]),
    room(2, "rules", &["model"]),
    room(2, "api", &["model"]),
    room(1, "wire", &[]),
    room(1, "rt", &[]),
    room(1, "model", &[]),
    room(0, "testkit", &["broker", "auth", "meta", "cluster", "storage", "net", "wire", "model", "rt"]),
    Room { name: "sim", floor: 0, may_import: Imports::AllBut(&["cli"]) },
    room(0, "e2e", &["testkit", "wire", "model"]),
    room(0, "xtask", &[]),
];

/// Crates that only tests may use, whoever they belong to.
const DEVELOPMENT: &[&str] = &["testkit", "sim"];

/// Fronts never see each other, not even in tests.
const FRONTS: &[&str] = &["mqtt", "kafka", "amqp", "nats", "mq9", "admin"];

/// Registry crates that belong to one room, because a side effect or a format belongs there.
const OWNED: &[(&str, &[&str])] = &[
    ("rocksdb", &["storage"]),
    ("librocksdb-sys", &[]),
    ("object_store", &["storage"]),
    ("openraft", &["consensus"]),
    ("kafka-wire", &["wire"]),
    ("axum", &["admin"]),
    ("quinn", &["net"]),
    // The end-to-end tests have clients of their own.
    ("rustls", &["auth", "net", "e2e"]),
    ("mimalloc", &["server", "cli", "storage"]),
    ("dashmap", &[]),
];

const FIX_ARROW: &str =
    "turn the arrow round with a trait of the lower crate, or write an ADR and change the table";
const FIX_OWNER: &str = "use the crate that owns it, or write an ADR and change the table of owners in xtask";
const FIX_ROOM: &str = "add it to the table of ARCHITECTURE.md and to HOUSE in xtask/src/rules/arrows.rs";

/// Checks the manifest of every crate.
pub(crate) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    for file in &tree.files {
        let levels: Vec<&str> = file.levels().collect();
        if matches!(levels[..], ["crates" | "tests", _, "Cargo.toml"] | ["xtask", "Cargo.toml"]) {
            check_manifest(file, violations);
        }
    }
}

fn check_manifest(file: &File, violations: &mut Vec<Violation>) {
    let mut report = |name: &str, what: String, fix: &'static str| {
        let line = file.line_where(|line| is_entry(line, name));
        violations.push(Violation { path: file.path.clone(), line, rule: "arrows", what, fix });
    };
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return report("", format!("does not parse: {error}"), "mend the TOML"),
    };
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let folder = file.levels().rev().nth(1).unwrap_or("");
    let Some(name) = name.filter(|name| *name == folder) else {
        return report("name", format!("package and folder `{folder}` differ in name"), "give both one name");
    };
    let Some(room) = HOUSE.iter().find(|room| room.name == name) else {
        return report("name", format!("`{name}` is no room of the house"), FIX_ROOM);
    };
    for (dependency, development) in dependencies(&manifest) {
        if let Some((_, owners)) = OWNED.iter().find(|(owned, _)| *owned == dependency)
            && !owners.contains(&name)
        {
            report(&dependency, format!("`{name}` may not use `{dependency}`"), FIX_OWNER);
        } else if let Some(target) = HOUSE.iter().find(|room| room.name == dependency)
            && !may_import(room, target, development)
        {
            report(&dependency, format!("`{name}` may not import `{dependency}`"), FIX_ARROW);
        }
    }
}

fn may_import(room: &Room, target: &Room, development: bool) -> bool {
    let named = match room.may_import {
        Imports::Only(names) => names.contains(&target.name),
        Imports::AllBut(names) => !names.contains(&target.name),
    };
    let between_fronts = FRONTS.contains(&room.name) && FRONTS.contains(&target.name);
    named
        || development
            && !between_fronts
            && (DEVELOPMENT.contains(&target.name) || target.floor > 0 && target.floor < room.floor)
}

/// All dependencies of a manifest with whether only tests see them, those per target included.
fn dependencies(manifest: &Table) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table).chain([manifest]);
    for table in tables {
        for (section, development) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let entries = table.get(section).and_then(Value::as_table);
            for (key, entry) in entries.into_iter().flatten() {
                let package = entry.get("package").and_then(Value::as_str).unwrap_or(key);
                found.push((package.to_owned(), development));
            }
        }
    }
    found
}

/// Whether a line of a manifest begins the entry `name`.
fn is_entry(line: &str, name: &str) -> bool {
    let after = line.trim_start().strip_prefix(name);
    after.is_some_and(|after| !name.is_empty() && after.starts_with([' ', '.', '=']))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_breaks, assert_keeps, broken_by};

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{rest}\n")
    }

    #[test]
    fn an_arrow_up_is_refused() {
        let text = manifest("storage", "[dependencies]\nmodel.workspace = true\nmeta.workspace = true");
        assert_breaks("crates/storage/Cargo.toml", &text, "arrows", 5);
    }

    #[test]
    fn an_arrow_down_that_the_table_lacks_is_refused() {
        let text =
            manifest("mqtt", "[dependencies]\nbroker.workspace = true\nstorage = { path = \"../storage\" }");
        assert_breaks("crates/mqtt/Cargo.toml", &text, "arrows", 5);
    }

    #[test]
    fn a_front_may_not_import_a_front_even_in_tests() {
        let text = manifest("kafka", "[dev-dependencies]\nmqtt.workspace = true\ntestkit.workspace = true");
        assert_breaks("crates/kafka/Cargo.toml", &text, "arrows", 4);
    }

    #[test]
    fn tests_may_import_downward_and_the_development_crates() {
        let text = manifest("kafka", "[dev-dependencies]\nstorage.workspace = true\nsim.workspace = true");
        assert_keeps("crates/kafka/Cargo.toml", &text);
        let text = manifest("kafka", "[dependencies]\ntestkit.workspace = true");
        assert_breaks("crates/kafka/Cargo.toml", &text, "arrows", 4);
    }

    #[test]
    fn renamed_and_target_dependencies_do_not_escape() {
        let text = manifest("wire", "[dependencies]\nm = { package = \"model\", path = \"../model\" }");
        assert_breaks("crates/wire/Cargo.toml", &text, "arrows", 1);
        let text = manifest("wire", "[target.'cfg(unix)'.dependencies]\nmodel.workspace = true");
        assert_breaks("crates/wire/Cargo.toml", &text, "arrows", 4);
    }

    #[test]
    fn registry_crates_stay_with_their_owner() {
        for (name, dependency) in
            [("broker", "rocksdb"), ("meta", "openraft"), ("kafka", "kafka-wire"), ("net", "dashmap")]
        {
            let text = manifest(name, &format!("[dependencies]\n{dependency} = \"1\""));
            let path = format!("crates/{name}/Cargo.toml");
            assert_eq!(broken_by(&[(&path, &text)]), [("arrows", format!("{path}:4"))]);
        }
    }

    #[test]
    fn an_unknown_or_misnamed_crate_is_refused() {
        assert_breaks("crates/plumbing/Cargo.toml", &manifest("plumbing", ""), "arrows", 2);
        assert_breaks("crates/net/Cargo.toml", &manifest("network", ""), "arrows", 2);
    }
}
