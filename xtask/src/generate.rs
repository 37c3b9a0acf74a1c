//! `cargo xtask gen`: asks the tests that guard generated files to write them instead of comparing them.

use std::path::Path;
use std::process::{Command, ExitCode};

/// The tests that own a generated file: package and name. Each fails when its file is stale, and writes it when
/// [`WRITE`] is set.
const OWNERS: &[(&str, &str)] = &[("server", "reference_page_is_current")];

/// The environment variable that turns a comparison into a write.
const WRITE: &str = "ROBUSTMQ_WRITE_GENERATED";

/// Refreshes every generated file.
pub(crate) fn run(root: &Path) -> ExitCode {
    for (package, test) in OWNERS {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--quiet", "--package", package, "--lib", test])
            .env(WRITE, "1")
            .current_dir(root)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            crate::say(&format!("gen: `cargo test -p {package} {test}` failed"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
