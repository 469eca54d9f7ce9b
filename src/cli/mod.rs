//! The command line: what this process is to be (orchestrator, built-in service, client), and the
//! operator's verbs.
//! Knows the control socket's client, not the node behind it.

mod act;
mod args;
mod config;
mod console;
mod dirs;
mod error;
mod exit;
mod install;
pub mod load;
mod logs;
mod pages;
mod replan;
mod since;
mod status;
mod upgrade;
mod why;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

pub use args::{
    ActArgs, ConfigVerb, InstallArgs, LogsArgs, Options, PlaceArgs, ReplanArgs, ScaleArgs,
    Settings, StatusArgs, StopArgs, UpgradeArgs, Verb, WhyArgs,
};
pub use config::{Answer, Ask, Question, What};
pub use console::{Console, Kind, Paint};
pub use dirs::{Environment, NoHome, User};
pub use error::Error;
pub use exit::ExitCode;

use args::{AnyVerb, CommandLine};
use console::printable;

use crate::catalog::Builtin;
use crate::control::Wait;
use crate::control::client::{Action, Client};

/// How often `status --watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What the binary is started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// The orchestrator.
    Run(Options),
    /// A built-in service, as a child of the orchestrator.
    Service(Builtin),
    /// An operator's verb.
    Verb(Verb, Options),
    /// `ExecStopPost=` of the unit: the orchestrator has ended.
    AfterStop(Options),
}

/// Reads the process's arguments. A wrong command line ends the process with 2, `--help` and
/// `--version` end it with 0; both have written their text then.
pub fn parse() -> Life {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads arguments, of which the first is the program's name.
pub fn parse_from<A>(arguments: impl IntoIterator<Item = A>) -> Result<Life, clap::Error>
where
    A: Into<OsString> + Clone,
{
    let CommandLine { mut options, verb } = CommandLine::try_parse_from(arguments)?;
    match verb {
        None => Ok(Life::Run(options)),
        Some(AnyVerb::Run(settings)) => {
            options.sets.extend(settings.sets);
            Ok(Life::Run(options))
        }
        Some(AnyVerb::Verb(Verb::Config(verb))) => Ok(Life::Verb(Verb::Config(verb), options)),
        Some(AnyVerb::Service { .. } | AnyVerb::AfterStop | AnyVerb::Verb(_))
            if !options.sets.is_empty() =>
        {
            let text = "--set is for run, config check and config show; \
                        to change a running node, change its configuration and reload it";
            Err(CommandLine::command().error(ErrorKind::ArgumentConflict, text))
        }
        Some(AnyVerb::Service { name }) => Ok(Life::Service(name)),
        Some(AnyVerb::AfterStop) => Ok(Life::AfterStop(options)),
        Some(AnyVerb::Verb(verb)) => Ok(Life::Verb(verb, options)),
    }
}

/// Runs an operator's verb, on this process's standard output and error.
pub fn execute(verb: &Verb, options: &Options, config: Ask) -> ExitCode {
    let kind = Kind::of_stdout();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let mut console = Console { out: &mut out, err: &mut err, paint: Paint::on(kind), kind };
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(run(verb, options, config, &mut console, ctrl_c())));
    done.unwrap_or_else(|error| tell(&error, &mut console))
}

/// One line on standard error, or one for each mistake of a configuration; none where only the
/// reader of the output went away.
fn tell(error: &Error, console: &mut Console<'_>) -> ExitCode {
    if !error.is_closed_pipe() {
        for line in error.to_string().lines() {
            // Where standard error is closed too, the exit code is all that can be told.
            let _unheard = writeln!(console.err, "{}", printable(line));
        }
    }
    error.exit_code()
}

/// Does what `verb` says. `end` ends those that would go on for ever.
pub async fn run(
    verb: &Verb,
    options: &Options,
    config: Ask,
    console: &mut Console<'_>,
    end: impl Future<Output = ()>,
) -> Result<ExitCode, Error> {
    match verb {
        Verb::Status(args) if args.watch => {
            status::watch(&mut connect(options).await?, args, console, WATCH_EVERY, end).await
        }
        Verb::Status(args) => status::once(&mut connect(options).await?, args, console).await,
        Verb::Start(args) => act(Action::Start, args, options, console).await,
        Verb::Restart(args) => act(Action::Restart, args, options, console).await,
        Verb::Stop(args) => stop(args, options, console).await,
        Verb::Reload(args) => replan::reload(&mut connect(options).await?, args, console).await,
        Verb::Upgrade(args) => upgrade::upgrade(connect(options).await?, args, console).await,
        Verb::Scale(args) => replan::scale(&mut connect(options).await?, args, console).await,
        Verb::SetLimits(args) => {
            replan::set_limits(&mut connect(options).await?, args, console).await
        }
        Verb::Why(args) => why::show(&mut connect(options).await?, args, console).await,
        Verb::Logs(args) => logs::show(&mut connect(options).await?, args, console, end).await,
        Verb::Config(verb) => config::run(verb, options, config, console),
        Verb::Install(args) => install::install(args, console),
        Verb::Uninstall(args) => install::uninstall(args, console),
        Verb::Version { json: true } => done(pages::version(pages::Format::Json, console)),
        Verb::Version { json: false } => done(pages::version(pages::Format::Text, console)),
        Verb::Completions { shell } => done(pages::completions(*shell, console)),
        Verb::Man { output: None } => done(pages::main_page(console)),
        Verb::Man { output: Some(dir) } => done(pages::all_pages(dir, console)),
    }
}

fn done(result: Result<(), Error>) -> Result<ExitCode, Error> {
    result.map(|()| ExitCode::Ok)
}

async fn act(
    action: Action,
    args: &ActArgs,
    options: &Options,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let mut node = connect(options).await?;
    act::on_services(&mut node, action, &args.names, Wait::unless(args.no_block), console).await
}

async fn stop(
    args: &StopArgs,
    options: &Options,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let mut node = connect(options).await?;
    let wait = Wait::unless(args.no_block);
    if args.names.is_empty() {
        return act::stop_node(&mut node, wait, console).await;
    }
    act::on_services(&mut node, Action::Stop, &args.names, wait, console).await
}

async fn connect(options: &Options) -> Result<Client, Error> {
    Ok(Client::connect(&runtime_dir(options, &Environment::of_this_process())?).await?)
}

/// The folder of the control socket: what was given, or the rule of `dirs`.
pub fn runtime_dir(options: &Options, around: &Environment) -> Result<PathBuf, NoHome> {
    match &options.runtime_dir {
        Some(given) => Ok(given.clone()),
        None => around.runtime_dir(options.data_dir.as_deref()),
    }
}

async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without our own handler the kernel's default ends the process.
        std::future::pending::<()>().await;
    }
}
