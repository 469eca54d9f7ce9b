//! What runs in a child: the built-in services, and the life that they share. Knows nothing of how
//! the node decides; it is told by the launch sheet and by signals.

mod clock;
pub mod did;
mod disk_io;
mod durable_file;
pub mod gateway;
mod host;
pub mod identity;
mod launch;
pub mod ledger;
mod page;
pub mod storage;

use std::process::ExitCode;

use crate::linux::die_by_signal::die_by_signal;
use crate::units::Signal;
use host::StopCause;

pub use durable_file::FileError;
pub use host::ServiceError;
pub use launch::LaunchError;

/// The life of the built-in service `name`: takes what the node passed, serves until SIGTERM or
/// SIGINT, drains and ends. Exit code 0: it was told to end; 1: it could not begin or go on, and
/// the last line on stderr says why. After SIGXCPU, the end of its processor time, it drains alike
/// and ends by that signal, so that the node can tell.
pub fn main(name: &str) -> ExitCode {
    match host::live(name) {
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
                // For the person who ran it by hand: there is no log yet.
                eprintln!("blackhole-node: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
