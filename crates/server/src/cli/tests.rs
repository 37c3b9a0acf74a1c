//! The command line as a caller sees it: streams and exit codes.

use std::fmt;

use super::{Exit, Invocation, Streams, run};
use crate::config::Loaded;

#[derive(Debug)]
struct Broken(Option<Box<Broken>>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "cannot open the journal" } else { "disk on fire" })
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

struct Ran {
    exit: Exit,
    output: String,
    errors: String,
    started: Option<Loaded>,
}

fn ran(line: &str, variables: &[(&str, &str)], outcome: Result<(), Broken>) -> Ran {
    let invocation = Invocation {
        arguments: std::iter::once("broker-server").chain(line.split_whitespace()).map(Into::into).collect(),
        environment: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    let (mut output, mut errors, mut started) = (Vec::new(), Vec::new(), None);
    let streams = Streams { output: &mut output, errors: &mut errors };
    let exit = run(invocation, streams, |loaded| {
        started = Some(loaded);
        outcome
    });
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { exit, output: text(output), errors: text(errors), started }
}

#[test]
fn start_runs_with_the_flags_and_exits_0() {
    let ran = ran("start --data-dir some/where --any-port", &[("ROBUSTMQ__NODE__CORES", "3")], Ok(()));
    let config = ran.started.expect("started").config;
    assert_eq!(config.node.data_dir, std::path::Path::new("some/where"));
    assert_eq!(config.node.cores, 3);
    assert_eq!(config.kafka.bind.port(), 0);
    assert_eq!((ran.exit, ran.output, ran.errors), (Exit::Done, String::new(), String::new()));
}

#[test]
fn a_broker_that_fails_exits_1_and_says_why() {
    let ran = ran("start", &[], Err(Broken(Some(Box::new(Broken(None))))));
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(ran.errors, "broker-server: cannot open the journal: disk on fire\n");
}

#[test]
fn wrong_settings_exit_2_before_anything_starts() {
    let variables = [("ROBUSTMQ__NODE__CORES", "x"), ("ROBUSTMQ__MQTT__BIND", "y")];
    for line in ["start", "config check", "config print"] {
        let ran = ran(line, &variables, Ok(()));
        assert_eq!(
            (ran.exit, ran.output.as_str(), ran.errors.lines().count()),
            (Exit::Misused, "", 2),
            "{line}"
        );
        assert!(ran.started.is_none());
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    for line in ["", "strat", "start --any-prot", "config", "start extra"] {
        let ran = ran(line, &[], Ok(()));
        assert_eq!((ran.exit, ran.output.as_str()), (Exit::Misused, ""), "{line}");
        assert!(!ran.errors.is_empty(), "{line}");
    }
}

#[test]
fn version_and_help_are_data() {
    let version = ran("--version", &[], Ok(()));
    assert_eq!(
        (version.exit, version.output),
        (Exit::Done, concat!("broker-server ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
    );
    let help = ran("start --help", &[], Ok(()));
    assert_eq!(help.exit, Exit::Done);
    assert!(help.output.contains("--data-dir <DIR>"), "{}", help.output);
}

#[test]
fn print_shows_the_settings_in_effect_and_check_says_that_they_are_valid() {
    let printed = ran("config print --data-dir here", &[("ROBUSTMQ__LOG__FORMAT", "json")], Ok(()));
    assert_eq!(printed.exit, Exit::Done);
    assert!(printed.output.contains("# Set by --data-dir.\ndata_dir = \"here\"\n"), "{}", printed.output);
    assert!(printed.output.contains("\nformat = \"json\"\n"), "{}", printed.output);
    let checked = ran("config check", &[], Ok(()));
    assert_eq!((checked.exit, checked.output.as_str()), (Exit::Done, "the configuration is valid\n"));
}
