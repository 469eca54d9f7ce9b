//! argv decides which of its lives this process lives; nothing else happens here.

use std::io::Write;
use std::process::ExitCode;

use blackhole_node::cli::{self, Life, Options, load};
use blackhole_node::config;
use blackhole_node::node::{self, BootError, Configured, Loader, Settings};
use blackhole_node::observe::clock::Clock;
use blackhole_node::service;

fn main() -> ExitCode {
    abort_on_panic();
    let clock = Clock::start();
    match cli::parse() {
        Life::Run(options) => run(&options, clock),
        Life::Service(builtin) => service::main(builtin),
        Life::AfterStop(options) => after_stop(&options),
        Life::Verb(verb, options) => cli::execute(&verb, &options, load::ask).into(),
    }
}

/// A panic in any thread ends the process, in every profile (`panic = "abort"` in one would have
/// every crate built twice): nobody goes on with half a state, and whoever supervises is told.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn run(options: &Options, clock: Clock) -> ExitCode {
    let again = options.clone();
    let read = move || configured(load::from_options(&again));
    let again = options.clone();
    let read_text = move |text: &str| configured(load::from_text(&again, text));
    match node::main(Settings { loader: Loader::new(read, read_text), clock }) {
        Ok(code) => code,
        Err(error @ BootError::Configuration(_)) => fail(&error, cli::ExitCode::Configuration),
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

fn configured(read: Result<load::FromOptions, load::LoadError>) -> Result<Configured, String> {
    let load::FromOptions { loaded, origin } = read.map_err(|error| error.to_string())?;
    let text = config::show_written(&loaded);
    let remarks = loaded.remarks.iter().map(ToString::to_string).collect();
    Ok(Configured { config: loaded.config, text, origin, remarks })
}

fn fail(error: &dyn std::error::Error, code: cli::ExitCode) -> ExitCode {
    // Where standard error is closed, the exit code is all that can be told.
    let _unheard = writeln!(std::io::stderr(), "{error}");
    code.into()
}
