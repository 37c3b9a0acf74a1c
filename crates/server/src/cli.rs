//! The command line of `broker-server`: reads it, loads the settings, and starts or prints.
//!
//! Exit codes: 0 done, 1 the broker could not go on, 2 the command line or the settings are wrong. Data goes to standard
//! output, everything else to standard error.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Flags, Loaded, Sources};

#[cfg(test)]
mod tests;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done: 0.
    Done,
    /// The broker could not start or go on: 1.
    Failed,
    /// The command line or the settings are wrong: 2.
    Misused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Misused => 2,
        })
    }
}

/// What a process was called with.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Program name and arguments.
    pub arguments: Vec<OsString>,
    /// All environment variables.
    pub environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Invocation {
        Invocation { arguments: std::env::args_os().collect(), environment: std::env::vars_os().collect() }
    }
}

/// Where a run writes to.
pub struct Streams<'a> {
    /// For data.
    pub output: &'a mut dyn Write,
    /// For everything else.
    pub errors: &'a mut dyn Write,
}

/// Runs what the command line asks for. `start` is called for `broker-server start`, with valid settings, and returns
/// when the broker has stopped; its error is written as one line with its causes.
pub fn run<E: std::error::Error>(
    invocation: Invocation,
    streams: Streams<'_>,
    start: impl FnOnce(Loaded) -> Result<(), E>,
) -> Exit {
    let Streams { output, errors } = streams;
    let command = match CommandLine::try_parse_from(&invocation.arguments) {
        Ok(line) => line.command,
        Err(error) => return answer(&error, output, errors),
    };
    let settings = match &command {
        Command::Start(settings)
        | Command::Config(ConfigCommand::Print(settings))
        | Command::Config(ConfigCommand::Check(settings)) => settings,
    };
    let loaded = match config::load(&settings.sources(invocation.environment)) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in &problems {
                tell(errors, problem);
            }
            return Exit::Misused;
        }
    };
    match command {
        Command::Start(_) => match start(loaded) {
            Ok(()) => Exit::Done,
            Err(error) => {
                tell(errors, format_args!("broker-server: {}", Chain(&error)));
                Exit::Failed
            }
        },
        Command::Config(ConfigCommand::Print(_)) => {
            written(output.write_all(config::print(&loaded).as_bytes()))
        }
        Command::Config(ConfigCommand::Check(_)) => written(writeln!(output, "the configuration is valid")),
    }
}

/// A message broker: MQTT and Kafka clients share one log.
#[derive(Debug, Parser)]
#[command(name = "broker-server", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker and run it until SIGTERM or SIGINT
    Start(SettingsArguments),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the settings in effect as a commented TOML file
    Print(SettingsArguments),
    /// Report everything that is wrong with the settings
    Check(SettingsArguments),
}

#[derive(Debug, Args)]
struct SettingsArguments {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep everything in this directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let every listener take a free port; listeners.json in the data directory tells which
    #[arg(long)]
    any_port: bool,
}

impl SettingsArguments {
    fn sources(&self, environment: Vec<(OsString, OsString)>) -> Sources {
        let flags = Flags { data_dir: self.data_dir.clone(), any_port: self.any_port };
        Sources { file: self.config.clone(), environment, flags }
    }
}

/// Writes what clap has to say: help and version are data, the rest is a mistake.
fn answer(error: &clap::Error, output: &mut dyn Write, errors: &mut dyn Write) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => written(write!(output, "{}", error.render())),
        _ => {
            tell(errors, error.render().to_string().trim_end());
            Exit::Misused
        }
    }
}

/// A reader that went away early, as in `| head`, has what it wanted.
fn written(result: io::Result<()>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(_) => Exit::Failed,
    }
}

/// Writes a line for a person; where that fails there is nobody left to tell.
fn tell(errors: &mut dyn Write, line: impl fmt::Display) {
    drop(writeln!(errors, "{line}"));
}

/// An error with its causes on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
