//! argv decides which of its three lives this process lives; nothing else happens here.

use std::io::Write;
use std::process::ExitCode;

use blackhole_node::cli::{self, Life, Options, load};
use blackhole_node::node::{self, BootError, Settings};
use blackhole_node::observe::clock::Clock;
use blackhole_node::service;

fn main() -> ExitCode {
    let clock = Clock::start();
    match cli::parse() {
        Life::Run(options) => run(&options, clock),
        Life::Service(builtin) => service::main(builtin.entry().name),
        Life::Verb(verb, options) => cli::execute(&verb, &options, load::ask).into(),
    }
}

fn run(options: &Options, clock: Clock) -> ExitCode {
    let load::FromOptions { loaded, origin } = match load::from_options(options) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error, cli::ExitCode::Configuration),
    };
    let remarks = loaded.remarks.iter().map(ToString::to_string).collect();
    match node::main(Settings { config: loaded.config, origin, remarks, clock }) {
        Ok(code) => code,
        Err(error @ BootError::AlreadyRunning { .. }) => {
            fail(&error, cli::ExitCode::AlreadyRunning)
        }
        Err(error) => fail(&error, cli::ExitCode::Failed),
    }
}

fn fail(error: &dyn std::error::Error, code: cli::ExitCode) -> ExitCode {
    // Where standard error is closed, the exit code is all that can be told.
    let _unheard = writeln!(std::io::stderr(), "{error}");
    code.into()
}
