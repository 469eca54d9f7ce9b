//! The orchestrator: start, the loop `wait -> step -> perform`, shutdown. Drives every other room;
//! nothing imports it.

mod adoption;
mod boot;
mod control_service;
mod delegation;
mod error;
mod exec_stop_post;
mod history;
mod host;
mod in_force;
mod life;
mod loader;
mod logs;
mod manager_status;
mod observers;
mod reload;
mod reload_queue;
mod remarks;
mod requests;
mod resume;
mod runtime_flags;
mod security;
mod status;
mod status_watchers;
mod supervise;
mod supervisor;
mod upgrade;
mod upgrade_request;
mod verbs;

use std::io::Write;
use std::process::ExitCode;

use crate::act::{ABLE, REHEARSAL};
use crate::linux::process;

pub use error::BootError;
pub use exec_stop_post::{AfterStopError, after_stop};
pub use loader::{Configured, Loader, Settings};

/// Runs the node until it is told to end. An error comes before any service was started.
pub fn main(settings: Settings) -> Result<ExitCode, BootError> {
    let adoption = adoption::take()?;
    if std::env::var_os(REHEARSAL).is_some() {
        return rehearse(adoption, &settings.loader);
    }
    // Without a service manager the limit is usually below what is mapped; the node then runs
    // unlocked.
    let _as_others = process::stay_in_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BootError::Runtime)?;
    runtime.block_on(async {
        let booted = boot::boot(settings, adoption).await?;
        life::live(booted).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The rehearsal of an upgrade: whether this program understands the orchestrator's state, the
/// configuration in force and the file.
fn rehearse(mut adoption: adoption::Adoption, loader: &Loader) -> Result<ExitCode, BootError> {
    adoption.must_go_on()?;
    adoption.configuration(loader)?;
    loader.load().map_err(BootError::Configuration)?;
    let able = format!("{ABLE}{}", env!("CARGO_PKG_VERSION"));
    writeln!(std::io::stdout(), "{able}").map_err(BootError::Runtime)?;
    Ok(ExitCode::SUCCESS)
}
