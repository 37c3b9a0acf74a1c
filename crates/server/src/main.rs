//! `broker-server`: hands the command line to the `server` crate.

use std::process::ExitCode;

use server::{Invocation, Streams};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let streams = Streams { output: &mut std::io::stdout(), errors: &mut std::io::stderr() };
    server::run(Invocation::of_process(), streams, server::start).into()
}
