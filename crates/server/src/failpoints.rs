//! `broker-server` as the end-to-end tests have it die at named places (`rt::failpoint`). Asked for `failpoints` it prints their
//! names, a line each; otherwise it is the same.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use server::{Invocation, Streams};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("failpoints") {
        rt::FAILPOINTS.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let streams = Streams { output: &mut std::io::stdout(), errors: &mut std::io::stderr() };
    server::run(Invocation::of_process(), streams, server::start).into()
}
