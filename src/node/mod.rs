//! The orchestrator's life: come up, drive the circle `wait -> step -> perform`, go down. Drives
//! every other room; nothing imports it.

mod aftermath;
mod attach;
mod boot;
mod delegation;
mod desk;
mod estate;
mod history;
mod host;
mod limits;
mod logs;
mod marks;
mod reload;
mod remarks;
mod security;
mod status;
mod supervise;
mod verbs;

use std::process::ExitCode;

pub use aftermath::{AfterStopError, after_stop};
pub use boot::{BootError, Configured, Loader, Settings};

/// Runs the node until it is told to end. Errors come before anything was started.
pub fn main(settings: Settings) -> Result<ExitCode, BootError> {
    let estate = estate::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BootError::Runtime)?;
    runtime.block_on(async {
        let booted = boot::boot(settings, estate).await?;
        supervise::until_stopped(booted).await;
        Ok(ExitCode::SUCCESS)
    })
}
