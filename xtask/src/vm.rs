//! `cargo xtask vm`: what machines need here, and then `vm-tests`' own program.

use std::process::ExitCode;

use crate::{cargo, setup, succeeds};

pub fn run(arguments: &[&str]) -> ExitCode {
    if let Err(reason) = setup::install(&setup::OF_MACHINES) {
        eprintln!("xtask: {reason}");
        return ExitCode::FAILURE;
    }
    let mut vm = vec!["run", "--quiet", "--package", "vm-tests", "--bin", "vm", "--"];
    vm.extend(arguments);
    if succeeds(cargo(&vm)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
