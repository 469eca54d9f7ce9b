//! The built-in services, which run as children of the orchestrator, and what they have in common.
//! Knows no supervision: a service is told what it needs by the launch sheet and by signals.

mod builtin;
mod clock;
mod did;
mod disk_io;
mod durable_file;
mod error;
mod gateway;
mod host;
mod identity;
mod launch;
mod ledger;
mod page;
mod storage;

use std::process::ExitCode;

use crate::catalog::Builtin;
use crate::linux::die_by_signal::die_by_signal;
use crate::units::Signal;
use host::StopCause;

pub use durable_file::FileError;
pub use error::ServiceError;
pub use launch::LaunchError;

/// Runs a built-in service: takes what the node passed, serves until SIGTERM or SIGINT, drains and
/// ends. Exit code 0: it was told to end; 1: it could not start or has failed, and the last line on
/// stderr says why. After SIGXCPU, the end of its processor time, it drains likewise and then dies
/// by that signal, so that the node knows the reason.
pub fn main(builtin: Builtin) -> ExitCode {
    match live(builtin) {
        Ok(StopCause::Signalled) => ExitCode::SUCCESS,
        Ok(StopCause::CpuTimeUsedUp) => match die_by_signal(Signal::XCPU) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!("{error}");
            } else {
                // For a person who ran it by hand: there is no log yet.
                eprintln!("blackhole-node: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn live(builtin: Builtin) -> Result<StopCause, ServiceError> {
    match builtin {
        Builtin::Identity => host::live::<identity::Identity>(builtin),
        Builtin::Storage => host::live::<storage::Storage>(builtin),
        Builtin::Ledger => host::live::<ledger::LedgerService>(builtin),
        Builtin::Gateway => host::live::<gateway::Gateway>(builtin),
    }
}
