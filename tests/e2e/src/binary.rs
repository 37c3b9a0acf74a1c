//! Finds the `broker-server` that belongs to the running test, and builds it when it is missing or out of date.
//!
//! `./test` builds everything first, so there nothing is left to do. `cargo test -p e2e` alone builds no binary of
//! another package: then it is built here, by the same cargo and for the same profile.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The path of a binary to test instead of the one beside the tests.
const OVERRIDE: &str = "ROBUSTMQ_BROKER_SERVER";

/// Which binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Build {
    /// As users get it.
    #[default]
    Plain,
    /// With places at which it can be told to die.
    Failpoints,
}

impl Build {
    fn name(self) -> &'static str {
        match self {
            Build::Plain => "broker-server",
            Build::Failpoints => "broker-server-failpoints",
        }
    }
}

/// The binary, looked for once per test process.
pub(crate) fn broker_server(which: Build) -> &'static Path {
    static PLAIN: OnceLock<PathBuf> = OnceLock::new();
    static FAILPOINTS: OnceLock<PathBuf> = OnceLock::new();
    match which {
        Build::Plain => PLAIN.get_or_init(|| match std::env::var_os(OVERRIDE) {
            Some(path) => PathBuf::from(path),
            None => provided(which),
        }),
        Build::Failpoints => FAILPOINTS.get_or_init(|| provided(which)),
    }
}

fn provided(which: Build) -> PathBuf {
    let binary = beside_the_tests(which.name());
    if !is_current(&binary) {
        build(binary.parent().expect("it lies in a folder"), which);
    }
    binary
}

/// A binary of this workspace, of the profile of the running test.
pub(crate) fn beside_the_tests(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    // .../target/<profile>/deps/<test>
    test.ancestors().nth(2).expect("tests lie two levels below the target directory").join(name)
}

/// Whether no source is newer than the binary. Cargo lists the sources in Make's syntax beside it.
fn is_current(binary: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let (Some(built), Ok(list)) = (changed(binary), fs::read_to_string(binary.with_extension("d"))) else {
        return false;
    };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().all(|source| is_older(changed(Path::new(source)), built))
}

fn is_older(source: Option<SystemTime>, built: SystemTime) -> bool {
    source.is_some_and(|source| source <= built)
}

/// Cargo's own lock lets one of several test processes build and the others wait.
fn build(folder: &Path, which: Build) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "server", "--bin", which.name()]);
    if which == Build::Failpoints {
        command.args(["--features", "failpoints"]);
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/e2e has a root"));
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "{} does not build", which.name());
}
