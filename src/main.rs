//! argv decides which of its lives this process lives; nothing else happens here.

use std::io::Write;
use std::process::ExitCode;

use blackhole_node::cli::{self, Life, Options, load};
use blackhole_node::node::{self, BootError, Configured, Loader, Settings};
use blackhole_node::observe::clock::Clock;
use blackhole_node::service;

fn main() -> ExitCode {
    let clock = Clock::start();
    match cli::parse() {
        Life::Run(options) => run(&options, clock),
        Life::Service(builtin) => service::main(builtin.entry().name),
        Life::AfterStop(options) => after_stop(&options),
        Life::Verb(verb, options) => cli::execute(&verb, &options, load::ask).into(),
    }
}

fn run(options: &Options, clock: Clock) -> ExitCode {
    let configured = match load_all(options) {
        Ok(configured) => configured,
        Err(error) => return fail(&error, cli::ExitCode::Configuration),
    };
    let again = options.clone();
    let read = move || load_all(&again).map_err(|error| error.to_string());
    let loader = Loader::new(read);
    match node::main(Settings { configured, loader, clock }) {
        Ok(code) => code,
        Err(error @ BootError::AlreadyRunning { .. }) => {
            fail(&error, cli::ExitCode::AlreadyRunning)
        }
        Err(error @ BootError::NoLimits { .. }) => fail(&error, cli::ExitCode::Configuration),
        Err(error) => fail(&error, cli::ExitCode::Failed),
    }
}

fn after_stop(options: &Options) -> ExitCode {
    match node::after_stop(options.runtime_dir.as_deref()) {
        Ok(done) => {
            // The service manager's log; where there is none, nobody wanted to know.
            let _unheard = writeln!(std::io::stderr(), "{done}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, cli::ExitCode::Failed),
    }
}

fn load_all(options: &Options) -> Result<Configured, load::LoadError> {
    let load::FromOptions { loaded, origin } = load::from_options(options)?;
    let remarks = loaded.remarks.iter().map(ToString::to_string).collect();
    Ok(Configured { config: loaded.config, origin, remarks })
}

fn fail(error: &dyn std::error::Error, code: cli::ExitCode) -> ExitCode {
    // Where standard error is closed, the exit code is all that can be told.
    let _unheard = writeln!(std::io::stderr(), "{error}");
    code.into()
}
