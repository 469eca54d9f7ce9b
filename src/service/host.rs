//! The life of a built-in service from its launch to its end, which is the same for all. Knows no
//! particular one.

use std::cell::Cell;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::builtin::{Beside, BuiltinService};
use super::error::ServiceError;
use super::launch::{self, Launch};
use crate::catalog::Builtin;
use crate::rpc::{Ending, Health, Peers, Sockets, serve, with_reflection};
use crate::telemetry::json_subscriber;

/// What told the service to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM or SIGINT, from the node or an operator.
    Signalled,
    /// SIGXCPU: the process has used up its processor time.
    CpuTimeUsedUp,
}

/// See [`super::main`].
pub(super) fn live<S: BuiltinService>(builtin: Builtin) -> Result<StopCause, ServiceError> {
    let launch = launch::take(builtin)?;
    json_subscriber::install(launch.log_level)?;
    let settings = S::settings(&launch)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| system("make the runtime", source))?;
    runtime.block_on(serve_until_told::<S>(builtin, launch, settings))
}

async fn serve_until_told<S: BuiltinService>(
    builtin: Builtin,
    mut launch: Launch,
    settings: S::Settings,
) -> Result<StopCause, ServiceError> {
    let signals = Signals::listen()?;
    let (tell, ending) = Ending::new();
    let mut beside = Beside::new(ending);
    let routes = S::open(&mut launch, settings, &mut beside).await?;
    let names = Some(builtin.entry().grpc_service).filter(|name| !name.is_empty());
    let health = Health::serving(names.as_slice());
    let routes = with_reflection(routes.add_service(health.service()), names.as_slice())?;
    let ports = launch.port.into_iter().collect();
    let sockets = Sockets { listeners: launch.grpc, ports, connected: Vec::new() };
    tracing::info!(instance = %launch.instance, run = launch.run, "serving");
    let by = Cell::new(StopCause::Signalled);
    let told = async { by.set(tell_when_signalled(signals, health, &tell).await) };
    tokio::select! {
        served = serve(sockets, routes, Peers::Anyone, launch.drain, told) => served?,
        error = beside.failed() => return Err(error),
    }
    beside.ended().await?;
    tracing::info!("ended");
    Ok(by.get())
}

fn system(doing: &'static str, source: io::Error) -> ServiceError {
    ServiceError::System { doing, source }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    time_used_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServiceError> {
        let listen = |kind| signal(kind).map_err(|source| system("listen to signals", source));
        let (terminate, interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let time_used_up = listen(SignalKind::from_raw(crate::units::Signal::XCPU.0))?;
        Ok(Self { terminate, interrupt, time_used_up })
    }
}

/// Health goes first, so that no more callers are sent here; then the service drains.
async fn tell_when_signalled(
    mut signals: Signals,
    health: Health,
    tell: &watch::Sender<bool>,
) -> StopCause {
    let (name, told) = tokio::select! {
        _ = signals.terminate.recv() => ("SIGTERM", StopCause::Signalled),
        _ = signals.interrupt.recv() => ("SIGINT", StopCause::Signalled),
        _ = signals.time_used_up.recv() => ("SIGXCPU", StopCause::CpuTimeUsedUp),
    };
    tracing::info!(signal = name, "draining");
    health.begin_drain();
    tell.send_replace(true);
    told
}

#[cfg(test)]
mod tests;
