//! The node's log book: opened from the configuration, registered for every service, served to
//! the `logs` verb.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::Status;

use crate::config::{LogFormat, NodeConfig};
use crate::control::server::{LogSource, LogStream};
use crate::linux::process;
use crate::rpc::pb::node::{LogRecord, LogsRequest};
use crate::telemetry::sink::QUEUE_MAX;
use crate::telemetry::{
    AtEnd, Clock, Colour, Limits, LogBook, Query, Scope, Settings, SinkError, Style, SystemClock,
    console,
};
use crate::units::ServiceName;

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot use standard output: {0}")]
    Stdout(#[from] io::Error),
    #[error("{0}")]
    Sink(#[from] SinkError),
}

/// A book on standard output, with a shelf for every service that may run.
pub(super) fn open(config: &NodeConfig) -> Result<LogBook, LogError> {
    let stdout = io::stdout();
    let coloured = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = match config.monitoring.log_format {
        LogFormat::Json => Style::Json,
        LogFormat::Pretty if coloured => Style::Pretty(Colour::Always),
        LogFormat::Pretty => Style::Pretty(Colour::Never),
    };
    let settings = Settings {
        node_id: config.node.name.clone(),
        pid: process::own_pid(),
        node_level: config.monitoring.log_level,
    };
    let sink = console::start(stdout.as_fd().try_clone_to_owned()?, style, QUEUE_MAX)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let book = LogBook::new(settings, Some(sink), clock);
    register(&book, config);
    Ok(book)
}

/// Makes room for every service, as much as the configuration says.
pub(super) fn register(book: &LogBook, config: &NodeConfig) {
    for (name, service) in &config.services {
        let lines = config.monitoring.kept_lines();
        book.register(name, Limits::new(lines, service.log_rate, service.log_burst));
    }
}

/// What the `logs` verb reads.
#[derive(Debug, Clone)]
pub(super) struct LogSources {
    pub(super) book: LogBook,
    /// Services that can be asked for.
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
        let reader = self.book.read(Query { scope, tail: request.tail, since }, at_end);
        Ok(Box::pin(reader.map(|record| Ok(LogRecord::from(record)))))
    }
}
