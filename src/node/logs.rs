//! The log store of the node: opened by the configuration, with every service registered, and read
//! by the `logs` verb.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::Status;

use crate::config::{LogFormat, LogTarget, NodeConfig};
use crate::control::server::{LogSource, LogStream};
use crate::linux::journal::{self, JournalSocket};
use crate::linux::process;
use crate::rpc::pb::node::{LogRecord, LogsRequest};
use crate::telemetry::sink::QUEUE_MAX;
use crate::telemetry::{
    AtEnd, Clock, Colour, Limits, LogStore, Query, Scope, Settings, Sink, SinkError, Style,
    SystemClock, console, journal as journal_sink,
};
use crate::units::ServiceName;

/// Why the log store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot use standard output: {0}")]
    Stdout(#[from] io::Error),
    #[error("{0}")]
    Sink(#[from] SinkError),
}

/// The log store, and why it does not write to journald where it should.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log_store: LogStore,
    pub(super) without_journal: Option<String>,
}

/// What started the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starter {
    /// The service manager, which sends the node's output to the journal, if the host has one.
    ServiceManager,
    Somebody,
}

impl Starter {
    fn find() -> Self {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let gathers = std::env::var_os("NOTIFY_SOCKET").is_some()
            || journal::is_journal_stream(io::stdout(), &stream)
            || journal::is_journal_stream(io::stderr(), &stream);
        if gathers { Self::ServiceManager } else { Self::Somebody }
    }
}

/// A log store with every configured service, on journald or on standard output. Never on both:
/// under a service manager standard output is the journal too.
pub(super) fn open(config: &NodeConfig) -> Result<Opened, LogError> {
    let path = Path::new(journal::SOCKET);
    let found = find_journal(config.monitoring.log_target, Starter::find(), path);
    let without_journal = found.as_ref().err().cloned();
    let sink = match found.ok().flatten() {
        Some(socket) => journal_sink::start(path.to_owned(), socket, QUEUE_MAX)?,
        None => on_stdout(config.monitoring.log_format)?,
    };
    let settings = Settings {
        node_id: config.node.name.clone(),
        pid: process::own_pid(),
        node_level: config.monitoring.log_level,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let log_store = LogStore::new(settings, Some(sink), clock);
    register(&log_store, config);
    Ok(Opened { log_store, without_journal })
}

/// `None`: journald is not wanted. An error: it cannot be reached, in words.
fn find_journal(
    target: LogTarget,
    starter: Starter,
    path: &Path,
) -> Result<Option<JournalSocket>, String> {
    if target == LogTarget::Console {
        return Ok(None);
    }
    let socket = JournalSocket::connect(path).map_err(|error| error.to_string())?;
    let wanted = target == LogTarget::Journald || starter == Starter::ServiceManager;
    Ok(wanted.then_some(socket))
}

fn on_stdout(format: LogFormat) -> Result<Sink, LogError> {
    let stdout = io::stdout();
    let coloured = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Pretty if coloured => Style::Pretty(Colour::Always),
        LogFormat::Pretty => Style::Pretty(Colour::Never),
    };
    Ok(console::start(stdout.as_fd().try_clone_to_owned()?, style, QUEUE_MAX)?)
}

/// Registers every service with its configured bounds.
pub(super) fn register(log_store: &LogStore, config: &NodeConfig) {
    for (name, service) in &config.services {
        let lines = config.monitoring.kept_lines();
        log_store.register(name, Limits::new(lines, service.log_rate, service.log_burst));
    }
}

/// The log store as the `logs` verb reads it.
#[derive(Debug, Clone)]
pub(super) struct LogSources {
    pub(super) log_store: LogStore,
    /// The services whose logs can be asked for.
    pub(super) services: watch::Receiver<Arc<[ServiceName]>>,
}

impl LogSource for LogSources {
    fn records(&self, request: LogsRequest) -> Result<LogStream, Status> {
        let services = Arc::clone(&self.services.borrow());
        let unknown = || {
            let known: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
            let known = known.join(", ");
            Status::not_found(format!("there is no service {:?}; there are: {known}", request.name))
        };
        let scope: Scope = request.name.parse().map_err(|_| unknown())?;
        let known = match &scope {
            Scope::All | Scope::Node => true,
            Scope::Service(service) => services.contains(service),
            Scope::Instance(instance) => services.contains(&instance.service),
        };
        if !known {
            return Err(unknown());
        }
        let since = u64::try_from(request.since_unix_us).ok().filter(|us| *us > 0);
        let since = since.map(|us| UNIX_EPOCH + Duration::from_micros(us));
        let at_end = if request.follow { AtEnd::Follow } else { AtEnd::Stop };
        let reader = self.log_store.read(Query { scope, tail: request.tail, since }, at_end);
        Ok(Box::pin(reader.map(|record| Ok(LogRecord::from(record)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_journal_is_taken_where_it_is_there_and_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _journal = UnixDatagram::bind(&path).unwrap();
        for (target, starter, taken) in [
            (LogTarget::Auto, Starter::ServiceManager, true),
            (LogTarget::Auto, Starter::Somebody, false),
            (LogTarget::Journald, Starter::Somebody, true),
            (LogTarget::Console, Starter::ServiceManager, false),
        ] {
            let found = find_journal(target, starter, &path).unwrap();
            assert_eq!(found.is_some(), taken, "{target:?} {starter:?}");
        }
    }

    #[test]
    fn a_journal_that_is_not_there_is_missed_unless_the_console_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none");
        for target in [LogTarget::Auto, LogTarget::Journald] {
            let missing = find_journal(target, Starter::ServiceManager, &path).unwrap_err();
            let expected = format!("connect to {}: No such file or directory", path.display());
            assert_eq!(missing, expected);
        }
        assert!(find_journal(LogTarget::Console, Starter::Somebody, &path).unwrap().is_none());
    }
}
