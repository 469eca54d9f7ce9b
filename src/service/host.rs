//! From the launch to the end of a service: what all of them do the same way.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tonic::service::Routes;

use super::durable_file::FileError;
use super::gateway::GatewayError;
use super::launch::{self, Launch, LaunchError};
use super::ledger::LedgerError;
use super::storage::Limits;
use super::{gateway, identity, ledger, storage};
use crate::catalog::Builtin;
use crate::linux::connection_broker::ConnectionBroker;
use crate::rpc::pb::node::launch_sheet::Settings;
use crate::rpc::{Ending, Health, Peers, ServeError, Sockets, serve, with_reflection};
use crate::telemetry::json_subscriber;

/// Why a service could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("cannot begin to log: {0}")]
    Log(#[from] tracing_subscriber::util::TryInitError),
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
    #[error("the reflection service cannot be made: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("a part of the service ended although nobody told it to")]
    PartEnded,
}

/// What a service does beside answering gRPC. It ends when the end is told, or when its callers are
/// gone.
type Work = JoinSet<Result<(), ServiceError>>;

/// By what the end was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM or SIGINT: the node's or an operator's wish.
    Signalled,
    /// SIGXCPU: the process has used up its processor time.
    CpuTimeUsedUp,
}

/// See [`super::main`].
pub fn live(name: &str) -> Result<StopCause, ServiceError> {
    let builtin = launch::builtin(name)?;
    let launch = launch::take(builtin)?;
    json_subscriber::install(launch.log_level)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| system("make the runtime", source))?;
    runtime.block_on(serve_until_told(builtin, launch))
}

async fn serve_until_told(builtin: Builtin, mut launch: Launch) -> Result<StopCause, ServiceError> {
    let signals = Signals::listen()?;
    let (tell, ending) = Ending::new();
    let mut work = Work::new();
    let routes = open(builtin, &mut launch, &ending, &mut work).await?;
    let names = Some(builtin.entry().grpc_service).filter(|name| !name.is_empty());
    let health = Health::serving(names.as_slice());
    let routes = with_reflection(routes.add_service(health.service()), names.as_slice())?;
    let ports = launch.port.into_iter().collect();
    let sockets = Sockets { listeners: launch.grpc, ports, connected: Vec::new() };
    tracing::info!(instance = %launch.instance, run = launch.sheet.run, "serving");
    let by = Cell::new(StopCause::Signalled);
    let told = async { by.set(tell_when_signalled(signals, health, &tell).await) };
    {
        let serving = serve(sockets, routes, Peers::Anyone, launch.drain, told);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                served = &mut serving => break served?,
                Some(ended) = work.join_next() => {
                    part(ended)?;
                    if !ending.has_begun() {
                        return Err(ServiceError::PartEnded);
                    }
                }
            }
        }
    }
    while let Some(ended) = work.join_next().await {
        part(ended)?;
    }
    tracing::info!("ended");
    Ok(by.get())
}

fn part(ended: Result<Result<(), ServiceError>, JoinError>) -> Result<(), ServiceError> {
    // A panic ends the process, so what is left of a JoinError is that the task was aborted.
    ended.map_err(|_| ServiceError::PartEnded)?
}

/// Opens what the service keeps, and begins its work beside gRPC.
async fn open(
    builtin: Builtin,
    launch: &mut Launch,
    ending: &Ending,
    work: &mut Work,
) -> Result<Routes, ServiceError> {
    match builtin {
        Builtin::Identity => Ok(identity::routes(&launch.data_dir, launch.instance.index)?),
        Builtin::Storage => {
            let limits = storage_limits(launch)?;
            Ok(storage::routes(&launch.data_dir, launch.instance.index, limits)?)
        }
        Builtin::Ledger => {
            let ledger::Opened { server, writer } = ledger::open(launch).await?;
            work.spawn(async move {
                let tally = writer.await.map_err(|_| ServiceError::PartEnded)?;
                tracing::debug!(?tally, "the ledger is written");
                Ok(())
            });
            Ok(Routes::new(server))
        }
        Builtin::Gateway => {
            let (http, status) = gateway_sockets(launch)?;
            let (drain, mut ending) = (launch.drain, ending.clone());
            work.spawn(async move {
                Ok(gateway::serve(http, status, drain, async { ending.begun().await }).await?)
            });
            Ok(Routes::default())
        }
    }
}

fn storage_limits(launch: &Launch) -> Result<Limits, LaunchError> {
    let Some(Settings::Storage(settings)) = launch.sheet.settings else {
        return Err(no_settings(launch));
    };
    if settings.max_block_bytes == 0 {
        return Err(Launch::refuse("max_block_bytes", 0, "at least 1"));
    }
    if launch.instance.index >= storage::INSTANCES {
        let allowed = format!("instances 0 to {}", storage::INSTANCES - 1);
        return Err(Launch::refuse("instance", &launch.instance, &allowed));
    }
    Ok(Limits { max_block: settings.max_block_bytes, quota: settings.quota_bytes })
}

fn gateway_sockets(
    launch: &mut Launch,
) -> Result<(Vec<TcpListener>, ConnectionBroker), LaunchError> {
    let http = std::mem::take(&mut launch.http);
    if http.is_empty() {
        return Err(LaunchError::Missing("http"));
    }
    let status = launch.status.take().ok_or(LaunchError::Missing("status"))?;
    if let Some(Settings::Gateway(settings)) = &launch.sheet.settings {
        tracing::info!(api = settings.api, "answering HTTP");
    }
    Ok((http, status.into()))
}

fn no_settings(launch: &Launch) -> LaunchError {
    let allowed = format!("those of {} are needed", launch.instance.service);
    Launch::refuse("settings", format!("{:?}", launch.sheet.settings), &allowed)
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

/// Health first, so that nobody is sent here any more; then the end.
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
