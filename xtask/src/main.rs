//! The project's own chores, `cargo xtask VERB`. Needs few libraries, so that it is built in a
//! moment. Knows nothing of the node but how it is tested and measured.
#![allow(clippy::disallowed_methods, reason = "the node's rule on children is not for its tools")]

mod bench;
mod mutants;
mod previous;
mod setup;
mod supervise;
mod test;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use mutants::Which;

const HELP: &str = "\
usage: cargo xtask VERB

  test [FILTER]   set up this machine, then check format and lints and run all tests, or only
                  those whose name contains FILTER; the last line is `N passed, N failed`
  bench [NAME]    run one benchmark, or all of them but this:
  bench supervise [OPTION...]
                  race what is shipped against runit and s6; --help tells the options
  vm build        make the machines that tests boot, and the node that they put on them
  vm shell [MACHINE]
                  a root shell in one of them: bookworm or trixie
  mutants [PART]  whether the tests of the core catch each fault that is planted in it, or those
                  whose name contains PART
  mutants --some  150 of them, others each time
  mutants --again those that survived the last time
  previous        build the version before this one, once, and print the path of its binary";

/// The exit code of a command line that makes no sense, as in clap and the shells.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "-h" | "--help"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        ["test"] => test::run(None),
        ["test", filter] if !filter.starts_with('-') => test::run(Some(filter)),
        ["bench"] => bench::run_all(),
        ["bench", "supervise", options @ ..] => supervise::run(options),
        ["vm", rest @ ..] => vm::run(rest),
        ["mutants"] => mutants::run(Which::All),
        ["mutants", "--some"] => mutants::run(Which::Some),
        ["mutants", "--again"] => mutants::run(Which::Again),
        ["mutants", part] if !part.starts_with('-') => mutants::run(Which::Of(part)),
        ["previous"] => previous::run(),
        ["race-floor", rest @ ..] => supervise::floor(rest),
        ["bench", name] => bench::run_one(name),
        other => {
            eprintln!("cargo xtask {}: there is no such thing\n\n{HELP}", other.join(" "));
            ExitCode::from(USAGE)
        }
    }
}

/// The cargo that runs this, at the root of the workspace.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(root());
    cargo
}

/// That of the workspace, where cargo tells it; else where we are.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    xtask.map_or_else(|| ".".into(), |xtask| xtask.join(".."))
}

/// Cargo's target folder.
fn target() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = manifest.parent().unwrap_or(manifest);
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}

/// Whether the command ran and succeeded; why it did not run is told.
fn succeeds(mut command: Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("xtask: cannot run {}: {error}", command.get_program().display());
            false
        }
    }
}
