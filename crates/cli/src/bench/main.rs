//! `robust-bench`: puts load on a broker from outside and says what the broker did with it, what that cost the
//! broker, and whether this program itself was in the way. It knows protocols, not brokers: any MQTT broker can be
//! measured, and nothing of RobustMQ but the codec is linked.

mod arguments;
mod clock;
mod connect;
mod crowd;
mod failure;
mod filters;
mod frames;
mod handshake;
mod idle;
mod intake;
mod load;
mod outlet;
mod poll;
mod process;
mod replay;
mod report;
mod sink;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Mqtt};
use failure::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Mqtt(command) = &arguments.command;
    match command {
        Mqtt::Load(load) => load::run(load).map(|outcome| report::tell(&outcome, arguments.json)),
        Mqtt::Connect(connect) => connect::run(connect).map(|outcome| report::tell(&outcome, arguments.json)),
        Mqtt::Idle(idle) => idle::run(idle).map(|outcome| report::tell(&outcome, arguments.json)),
        Mqtt::Filters(filters) => filters::run(filters).map(|outcome| report::tell(&outcome, arguments.json)),
        Mqtt::Replay(replay) => replay::run(replay).map(|outcome| report::tell(&outcome, arguments.json)),
        Mqtt::Sink(sink) => sink::run(sink),
    }
}
