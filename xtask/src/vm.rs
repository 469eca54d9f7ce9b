//! `cargo xtask vm`: what machines need here, and then `vm-tests`' own program.

use std::process::ExitCode;

use crate::{cargo, setup, succeeds};

pub fn run(arguments: &[&str]) -> ExitCode {
    if let Err(reason) = setup::install(&setup::OF_MACHINES) {
        eprintln!("xtask: {reason}");
        return ExitCode::FAILURE;
    }
    if program(arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes all that tests in machines need and that is not there yet.
pub fn build() -> bool {
    program(&["build"])
}

fn program(arguments: &[&str]) -> bool {
    let run = ["run", "--quiet", "--package", "vm-tests", "--bin", "vm", "--"];
    succeeds(cargo(&[&run, arguments].concat()))
}
